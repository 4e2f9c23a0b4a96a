"""Configuration of the residual network without norms."""

from typing import Any

from huggingface_hub.dataclasses import strict

from ..base_config import ZooConfig


@strict
class ZooNfnetConfig(ZooConfig):
    """Sizes of an NFNet; the defaults are those of F0.

    Args:
        image_size: side of the images that a preset is for; any other works.
        depths: blocks of each stage; a stage halves the image, but for the first.
        widths: channels of each stage.
        stem_widths: channels of the four convolutions before the first stage, which make the image four times smaller.
        hidden_size: channels of the last convolution, which are those of the tower's output.
        bottleneck_ratio: channels inside a block, as a share of its width; a multiple of group_size is taken.
        group_size: channels that a 3 x 3 convolution mixes.
        squeeze_ratio: hidden channels of squeeze-and-excite, as a share of the width.
        residual_scale: alpha, what a branch is multiplied by.
        path_dropout: share of branches that are left out in training, of the last block; less before it.
        classifier_dropout: before the score of a classifier.
    """

    model_type = "zoo_nfnet"

    image_size: int = 192
    num_channels: int = 3
    depths: list[int] | None = None
    widths: list[int] | None = None
    stem_widths: list[int] | None = None
    hidden_size: int = 3072
    bottleneck_ratio: float = 0.5
    group_size: int = 128
    squeeze_ratio: float = 0.5
    residual_scale: float = 0.2
    path_dropout: float = 0.25
    classifier_dropout: float = 0.2
    initializer_range: float = 0.02

    def __post_init__(self, **kwargs: Any) -> None:
        self.depths = [1, 2, 6, 3] if self.depths is None else self.depths
        self.widths = [256, 512, 1536, 1536] if self.widths is None else self.widths
        self.stem_widths = [16, 32, 64, 128] if self.stem_widths is None else self.stem_widths
        super().__post_init__(**kwargs)

    @property
    def num_hidden_layers(self) -> int:
        """Blocks of all stages."""
        return sum(self.depths)

    def validate_architecture(self) -> None:
        """How the sizes fit together."""
        if len(self.depths) != len(self.widths):
            raise ValueError(f"depths and widths are of the same stages, got {self.depths} and {self.widths}")
        if len(self.stem_widths) != 4:
            raise ValueError(f"stem_widths must be of four convolutions, got {self.stem_widths}")
        if min(*self.depths, *self.widths, *self.stem_widths) < 1:
            raise ValueError(
                f"depths, widths and stem_widths must be at least 1, got {self.depths}, {self.widths} and "
                f"{self.stem_widths}"
            )
        if least := next((w for w in self.widths if w * self.bottleneck_ratio < self.group_size), None):
            raise ValueError(
                f"bottleneck_ratio={self.bottleneck_ratio} of the width {least} is less than one group of "
                f"group_size={self.group_size}"
            )
