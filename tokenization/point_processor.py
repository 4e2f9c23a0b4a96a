"""What turns clouds of points into what `zoo_point_bert` reads: as many points each, centred, in the unit ball.

Shapes: N points of a cloud, C numbers a point, the first three of which are where it is.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from transformers import BatchFeature, PreTrainedConfig, ProcessorMixin


class ZooPointProcessor(ProcessorMixin):
    """Clouds of any size to one size.

    Args:
        num_points: of a cloud; of more some are drawn, always the same ones, and of fewer some are there twice.
        num_channels: numbers a point.
        do_center: whether the mean of the places becomes the origin.
        do_scale: whether the farthest point comes to lie at distance 1.
    """

    attributes: list[str] = []
    _auto_class = "AutoProcessor"  # this file is saved beside the settings
    model_input_names = ["points"]

    def __init__(
        self,
        num_points: int = 8192,
        num_channels: int = 3,
        do_center: bool = True,
        do_scale: bool = True,
        **kwargs: Any,
    ) -> None:
        self.num_points = num_points
        self.num_channels = num_channels
        self.do_center = do_center
        self.do_scale = do_scale
        super().__init__(**kwargs)

    @classmethod
    def from_model_config(cls, config: PreTrainedConfig) -> "ZooPointProcessor":
        """For a model's number of points and channels."""
        return cls(config.num_points, config.num_channels)

    def __call__(self, points: Any, return_tensors: str | None = "pt", **kwargs: Any) -> BatchFeature:
        """`points` (B, num_points, C).

        Args:
            points: one cloud (N, C) or several, as arrays, tensors or lists, each of its own N.
            return_tensors: "pt", or "np" for arrays.

        Raises:
            ValueError: a cloud is empty, has another number of channels, or holds something that is no finite number.
        """
        clouds = points if _is_batch(points) else [points]
        return BatchFeature(
            {"points": np.stack([self._prepare(np.asarray(cloud, np.float32)) for cloud in clouds])},
            tensor_type=return_tensors,
        )

    def _prepare(self, cloud: np.ndarray) -> np.ndarray:
        if cloud.ndim != 2 or not len(cloud) or cloud.shape[1] != self.num_channels:
            raise ValueError(f"a cloud must be (points, num_channels={self.num_channels}), got {cloud.shape}")
        if not np.isfinite(cloud).all():
            raise ValueError("a cloud holds a number that is not finite")
        random = np.random.default_rng(0)
        if len(cloud) > self.num_points:
            cloud = cloud[random.permutation(len(cloud))[: self.num_points]]
        elif len(cloud) < self.num_points:
            again = random.integers(len(cloud), size=self.num_points - len(cloud))
            cloud = np.concatenate((cloud, cloud[again]))
        cloud = cloud.copy()
        if self.do_center:
            cloud[:, :3] -= cloud[:, :3].mean(0)
        if self.do_scale:
            cloud[:, :3] /= max(np.linalg.norm(cloud[:, :3], axis=1).max(), 1e-6)
        return cloud


def _is_batch(points: Any) -> bool:
    """Whether there are several clouds, and not one."""
    if hasattr(points, "ndim"):
        return points.ndim == 3
    first = points[0]
    return getattr(first, "ndim", 1) == 2 or isinstance(first, Sequence) and not isinstance(first[0], (int, float))
