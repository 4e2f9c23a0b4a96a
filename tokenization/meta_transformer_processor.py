"""What feeds `zoo_meta_transformer`: each modality goes to the processor that there is for it, or into an array.

Texts, pictures, sounds and tables have processors already; numpy does the rest.

Shapes: B rows, T steps, C channels.
"""

import difflib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image
from transformers import (
    ASTFeatureExtractor,
    AutoTokenizer,
    BatchFeature,
    PreTrainedConfig,
    PreTrainedTokenizerBase,
    ProcessorMixin,
)
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

from .tabular_processor import ZooTabularProcessor

_SAMPLING_RATE = 16_000


class ZooMetaTransformerProcessor(ProcessorMixin):
    """Called with one modality by name, or with several of the same rows: `processor(audio=sounds)`.

    Args:
        image_processor: of pictures, of every kind and of frames.
        feature_extractor: of sounds.
        tokenizer: of texts; None where there are none.
        modalities: name -> sizes, as in the model's config.
        columns: settings of a `ZooTabularProcessor` that was fitted; see `fit_table`.
    """

    _auto_class = "AutoProcessor"  # this file is saved beside the settings

    def __init__(
        self,
        image_processor: Any = None,
        feature_extractor: Any = None,
        tokenizer: PreTrainedTokenizerBase | None = None,
        modalities: dict[str, dict[str, Any]] | None = None,
        columns: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        self.modalities = modalities or {}
        self.columns = columns
        self._tokenizer = tokenizer
        super().__init__(image_processor, feature_extractor, **kwargs)

    # transformers wants every processor that the constructor names; the tokenizer may be missing and is kept here

    @classmethod
    def get_attributes(cls) -> list[str]:
        """The parts that are always there."""
        return ["image_processor", "feature_extractor"]

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase | None:
        """Of texts."""
        return self._tokenizer

    def save_pretrained(self, save_directory: str, push_to_hub: bool = False, **kwargs: Any) -> list[str]:
        """Write all parts and settings."""
        files = [] if self.tokenizer is None else list(self.tokenizer.save_pretrained(save_directory))
        return files + list(super().save_pretrained(save_directory, push_to_hub, **kwargs))

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, **kwargs: Any) -> "ZooMetaTransformerProcessor":
        """Read all parts and settings."""
        processor = super().from_pretrained(pretrained_model_name_or_path, **kwargs)
        if "text" in processor.modalities:
            processor._tokenizer = AutoTokenizer.from_pretrained(pretrained_model_name_or_path, **kwargs)
        return processor

    @classmethod
    def from_model_config(
        cls, config: PreTrainedConfig, tokenizer: PreTrainedTokenizerBase | None = None
    ) -> "ZooMetaTransformerProcessor":
        """For a model; with a tokenizer of at most `config.vocab_size` ids if it reads texts."""
        audio = config.modalities.get("audio", {})
        sounds = ASTFeatureExtractor(
            num_mel_bins=audio.get("num_mel_bins", 128), max_length=audio.get("max_frames", 1024)
        )
        return cls(ViTImageProcessorPil(), sounds, tokenizer, config.modalities)

    @property
    def model_input_names(self) -> list[str]:
        """What the model takes."""
        known = {
            "text": ["input_ids", "attention_mask"],
            "image": ["pixel_values"],
            "infrared": ["infrared_values"],
            "x_ray": ["x_ray_values"],
            "video": ["pixel_values_videos"],
            "hyperspectral": ["band_values"],
            "points": ["points"],
            "audio": ["audio_values"],
            "table": ["numeric_values", "category_ids"],
            "graph": ["node_values", "edge_index", "edge_values", "node_mask"],
            "time_series": ["series_values"],
            "imu": ["imu_values"],
        }
        return [field for name in self.modalities for field in known[name]]

    def fit_table(self, rows: Any, target: str | None = None) -> dict[str, Any]:
        """Look at the rows of a table to train on; see `ZooTabularProcessor.fit`.

        Returns:
            The sizes of the modality "table" that a model for it needs.
        """
        fitted = ZooTabularProcessor.fit(rows, target)
        self.columns = {
            "numeric_columns": fitted.numeric_columns,
            "categorical_columns": fitted.categorical_columns,
            "target": fitted.target,
        }
        fields = fitted.config_fields()
        sizes = {name: fields[name] for name in ("num_numeric_columns", "category_sizes")}
        self.modalities = {**self.modalities, "table": sizes}
        return sizes

    def __call__(self, **data: Any) -> BatchFeature:
        """Tensors by the names of the model's arguments.

        Args:
            data: modality -> one row or a list of them: `text`, a string; `image`, `infrared`, `x_ray`, pictures of
                PIL or arrays; `video`, lists of pictures; `hyperspectral`, arrays (bands, side, side); `points`
                (points, C), which are moved and scaled into the unit ball; `audio`, arrays at 16,000 samples a second;
                `table`, rows as `ZooTabularProcessor` takes them; `graph`, dictionaries of `nodes` (nodes, numbers),
                `edges` (edges, 2) and perhaps `edge_values`; `time_series` and `imu`, arrays (T, C).

        Raises:
            ValueError: a modality that nobody knows or that the model has not, or data of another shape than its.
        """
        if not data:
            raise ValueError(f"nothing to read: give at least one of {', '.join(self.modalities)}")
        batch: dict[str, Any] = {}
        for name, rows in data.items():
            if name not in self.modalities:
                near = difflib.get_close_matches(name, list(self.modalities), n=1, cutoff=0.0)
                hint = f" Did you mean {near[0]!r}?" if near else ""
                raise ValueError(f"unknown modality {name!r}.{hint} There are {', '.join(self.modalities)}.")
            batch.update(self._routes()[name](rows, self.modalities[name]))
        return BatchFeature(batch, tensor_type="pt")

    def _routes(self) -> dict[str, Callable[[Any, dict[str, Any]], Mapping[str, Any]]]:
        return {
            "text": self._texts,
            "image": lambda rows, sizes: {"pixel_values": self._pictures(_rows(rows), sizes)},
            "infrared": lambda rows, sizes: {"infrared_values": self._pictures(_rows(rows), sizes)},
            "x_ray": lambda rows, sizes: {"x_ray_values": self._pictures(_rows(rows), sizes)},
            "video": self._videos,
            "hyperspectral": self._bands,
            "points": self._points,
            "audio": self._sounds,
            "table": self._table,
            "graph": self._graphs,
            "time_series": lambda rows, sizes: {"series_values": _steps("time_series", rows, sizes)},
            "imu": lambda rows, sizes: {"imu_values": _steps("imu", rows, sizes)},
        }

    def _texts(self, rows: str | Sequence[str], sizes: dict[str, Any]) -> Mapping[str, Any]:
        if self.tokenizer is None:
            raise ValueError("the processor has no tokenizer for texts")
        texts = [rows] if isinstance(rows, str) else list(rows)
        encoded = self.tokenizer(
            texts, padding=True, truncation=True, max_length=sizes["max_length"], return_tensors="np"
        )
        return {name: encoded[name] for name in ("input_ids", "attention_mask")}

    def _pictures(self, rows: Sequence[Any], sizes: dict[str, Any]) -> np.ndarray:
        """(B, C, side, side); of one channel if the model has one."""
        side = {"height": sizes["image_size"], "width": sizes["image_size"]}
        kind = "L" if sizes["num_channels"] == 1 else "RGB"
        pictures = [_picture(row).convert(kind).convert("RGB") for row in rows]
        pixels = self.image_processor(pictures, size=side, return_tensors="np")["pixel_values"]
        return pixels[:, : sizes["num_channels"]]

    def _videos(self, rows: Sequence[Any], sizes: dict[str, Any]) -> Mapping[str, Any]:
        videos = [rows] if _is_picture(rows[0]) else rows
        frames = []
        for video in videos:  # frames that are evenly far apart, some of them twice in a video that is short
            places = np.linspace(0, len(video) - 1, sizes["num_frames"]).round().astype(int)
            frames.append(self._pictures([video[i] for i in places], sizes))
        return {"pixel_values_videos": np.stack(frames)}

    def _bands(self, rows: Any, sizes: dict[str, Any]) -> Mapping[str, Any]:
        bands = np.asarray(rows, dtype=np.float32)
        bands = bands[None] if bands.ndim == 3 else bands
        wanted = (sizes["num_bands"], sizes["patch_size"], sizes["patch_size"])
        if bands.shape[1:] != wanted:
            raise ValueError(f"hyperspectral pictures must be {wanted}, got {bands.shape[1:]}")
        return {"band_values": bands}

    def _points(self, rows: Any, sizes: dict[str, Any]) -> Mapping[str, Any]:
        clouds = [np.asarray(cloud, dtype=np.float32) for cloud in ([rows] if np.ndim(rows[0]) == 1 else rows)]
        return {
            "points": np.stack([_unit_ball(cloud, sizes["num_points"], sizes["num_channels"]) for cloud in clouds])
        }

    def _sounds(self, rows: Any, sizes: dict[str, Any]) -> Mapping[str, Any]:
        sounds = [rows] if np.ndim(rows[0]) == 0 else rows
        sounds = [np.asarray(sound, dtype=np.float32) for sound in sounds]
        features = self.feature_extractor(sounds, sampling_rate=_SAMPLING_RATE, return_tensors="np")
        return {"audio_values": features["input_values"]}

    def _table(self, rows: Any, sizes: dict[str, Any]) -> Mapping[str, Any]:
        if self.columns is None:
            raise ValueError("the processor knows no columns: call fit_table with the rows to train on")
        return ZooTabularProcessor(**self.columns)(rows, return_tensors="np")

    def _graphs(self, rows: Any, sizes: dict[str, Any]) -> Mapping[str, Any]:
        graphs = [rows] if isinstance(rows, Mapping) else list(rows)
        counts = [(len(graph["nodes"]), len(graph["edges"])) for graph in graphs]
        most_nodes, most_edges = (max(count) for count in zip(*counts, strict=True))
        nodes = np.zeros((len(graphs), most_nodes, sizes["node_size"]), dtype=np.float32)
        edges = np.full((len(graphs), most_edges, 2), -1, dtype=np.int64)
        values = np.zeros((len(graphs), most_edges, sizes["edge_size"]), dtype=np.float32)
        for row, (graph, (num_nodes, num_edges)) in enumerate(zip(graphs, counts, strict=True)):
            described = np.asarray(graph["nodes"], dtype=np.float32)
            if described.shape != (num_nodes, sizes["node_size"]):
                raise ValueError(f"nodes of graph {row} must be (nodes, {sizes['node_size']}), got {described.shape}")
            nodes[row, :num_nodes] = described
            if num_edges:
                joined = np.asarray(graph["edges"], dtype=np.int64)
                if joined.min() < 0 or joined.max() >= num_nodes:
                    raise ValueError(f"edges of graph {row} name nodes that are not among its {num_nodes}")
                edges[row, :num_edges] = joined
                if sizes["edge_size"]:
                    values[row, :num_edges] = np.asarray(graph["edge_values"], dtype=np.float32)
        mask = np.arange(most_nodes) < np.array([count for count, _ in counts])[:, None]
        batch = {"node_values": nodes, "edge_index": edges, "node_mask": mask.astype(np.int64)}
        return {**batch, "edge_values": values} if sizes["edge_size"] else batch


def _is_picture(value: Any) -> bool:
    """Whether it is of PIL, or an array (height, width) or (height, width, 1 or 3)."""
    if not isinstance(value, np.ndarray):
        return isinstance(value, Image.Image)
    return value.ndim == 2 or value.ndim == 3 and value.shape[2] in (1, 3)


def _rows(rows: Any) -> Sequence[Any]:
    """A list of pictures, of one too."""
    return [rows] if _is_picture(rows) else rows


def _picture(row: Any) -> Image.Image:
    if isinstance(row, Image.Image):
        return row
    array = np.asarray(row, dtype=np.uint8)
    return Image.fromarray(array[..., 0] if array.ndim == 3 and array.shape[2] == 1 else array)


def _unit_ball(cloud: np.ndarray, num_points: int, num_channels: int) -> np.ndarray:
    """So many points, evenly taken from those there are, around 0 and none farther from it than 1."""
    if cloud.ndim != 2 or cloud.shape[1] != num_channels or not len(cloud):
        raise ValueError(f"a cloud must be (points, {num_channels}), got {cloud.shape}")
    cloud = cloud[np.arange(num_points) * len(cloud) // num_points]
    places = cloud[:, :3] - cloud[:, :3].mean(0)
    reach = np.linalg.norm(places, axis=1).max()
    return np.concatenate((places / (reach if reach > 0 else 1.0), cloud[:, 3:]), axis=1)


def _steps(name: str, rows: Any, sizes: dict[str, Any]) -> np.ndarray:
    series = np.asarray(rows, dtype=np.float32)
    series = series[None] if series.ndim == 2 else series
    if series.ndim != 3 or series.shape[2] != sizes["num_channels"]:
        raise ValueError(f"{name} must be (steps, {sizes['num_channels']}), all of one length, got {series.shape[1:]}")
    return series
