"""Configuration of one encoder for twelve modalities."""

import difflib
from typing import Any, ClassVar, Literal

from huggingface_hub.dataclasses import strict
from transformers import PreTrainedConfig

from ..base_config import ZooConfig
from ..parts import PART, part_config

# modality -> its sizes, as those of a model of ViT-B/16
_PICTURE = {"image_size": 224, "patch_size": 16}
MODALITIES: dict[str, dict[str, Any]] = {
    "text": {"vocab_size": 49408, "max_length": 77},
    "image": {**_PICTURE, "num_channels": 3},
    "infrared": {**_PICTURE, "num_channels": 1},
    "x_ray": {**_PICTURE, "num_channels": 1},
    "video": {**_PICTURE, "num_channels": 3, "num_frames": 16, "tubelet_size": 2},
    "hyperspectral": {"num_bands": 200, "patch_size": 7, "group_size": 3},
    "points": {"num_channels": 3, "num_points": 1024, "stride": 4, "group_size": 16},
    "audio": {"max_frames": 1024, "num_mel_bins": 128, "patch_size": 16, "stride": 10},
    "table": {"num_numeric_columns": 8, "category_sizes": []},
    "graph": {"node_size": 16, "edge_size": 0, "identifier_size": 64, "identifiers": "random"},
    "time_series": {"num_channels": 7},
    "imu": {"num_channels": 6},
}
_MAY_BE_ZERO = ("num_numeric_columns", "edge_size")
# The encoder of the paper: blocks and nothing else
_ENCODER = {
    **{"model_type": "zoo_vit", "use_cls": False, "pooling": "mean", "final_norm": "none", "norm_eps": 1e-5},
}
_RATES = ("hidden_dropout", "attention_dropout", "path_dropout")


@strict
class ZooMetaTransformerConfig(ZooConfig):
    """Which modalities there are, and the encoder that all share.

    Args:
        modalities: name -> those of its sizes that are others than in `MODALITIES`; all twelve without it. A `table`
            has `num_numeric_columns`, and in `category_sizes` for each column of categories how many it has; of
            `points` every `stride`-th becomes a token of the `group_size` nearest; `num_points` is what the processor
            makes; identifiers of a `graph` are "random" or "laplacian".
        encoder_config: config of the encoder, of zoo_vit, or a dictionary with its `model_type`; blocks of ViT-B
            without it.
        freeze_encoder: whether tokenisers and heads alone learn.
        pooling: what stands for a row: the class token, or the mean of all others.
        classifier_dropout: before the score of a classifier.
    """

    model_type = "zoo_meta_transformer"
    sub_configs: ClassVar[dict[str, Any]] = {"encoder_config": PART}

    modalities: dict[str, dict[str, Any]] | None = None
    encoder_config: dict | PreTrainedConfig | None = None
    freeze_encoder: bool = True
    pooling: Literal["cls", "mean"] = "cls"
    classifier_dropout: float = 0.0
    initializer_range: float = 0.02

    def __post_init__(self, **kwargs: Any) -> None:
        self.encoder_config = part_config(self.encoder_config or _ENCODER, "encoder_config")
        given = {name: {} for name in MODALITIES} if self.modalities is None else self.modalities
        for name, sizes in given.items():
            _require_known("modality", name, MODALITIES)
            for field in sizes:
                _require_known(f"field of modality {name!r}", field, MODALITIES[name])
        # In one order: a config.json is sorted by name, and places in a row must not depend on having been saved
        self.modalities = {name: {**sizes, **given[name]} for name, sizes in MODALITIES.items() if name in given}
        super().__post_init__(**kwargs)

    @property
    def hidden_size(self) -> int:
        """Of the encoder."""
        return self.encoder_config.hidden_size

    @property
    def num_hidden_layers(self) -> int:
        """Of the encoder."""
        return self.encoder_config.num_hidden_layers

    @property
    def num_attention_heads(self) -> int:
        """Of the encoder."""
        return self.encoder_config.num_attention_heads

    @property
    def vocab_size(self) -> int:
        """Of texts."""
        return self._text("vocab_size")

    @vocab_size.setter
    def vocab_size(self, value: int) -> None:
        self.modalities["text"]["vocab_size"] = value

    @property
    def max_position_embeddings(self) -> int:
        """Of texts."""
        return self._text("max_length")

    def _text(self, field: str) -> int:
        if "text" not in self.modalities:
            raise AttributeError(f"there is no {field} where 'text' is not among the modalities")
        return self.modalities["text"][field]

    def validate_architecture(self) -> None:
        """How the sizes fit together."""
        if self.encoder_config.model_type != "zoo_vit":
            raise ValueError(
                f"encoder_config is of {self.encoder_config.model_type!r}: only zoo_vit's blocks take ready tokens"
            )
        if self.encoder_config.pooling == "attention":
            raise ValueError("encoder_config has pooling='attention', but heads pool themselves: set pooling='mean'")
        for rate in _RATES:
            if self.freeze_encoder and getattr(self.encoder_config, rate, 0.0):
                raise ValueError(
                    f"encoder_config has {rate}={getattr(self.encoder_config, rate)}, but a frozen encoder drops "
                    "nothing: set it to 0.0, or freeze_encoder=False"
                )
        if not self.modalities:
            raise ValueError(f"modalities is empty: name at least one of {', '.join(MODALITIES)}")
        for name, sizes in self.modalities.items():
            self._validate_modality(name, sizes)

    def _validate_modality(self, name: str, sizes: dict[str, Any]) -> None:
        def require(is_right: bool, field: str, wanted: str) -> None:
            if not is_right:
                raise ValueError(f"modalities[{name!r}]: {field} must be {wanted}, got {sizes[field]!r}")

        for field, default in MODALITIES[name].items():
            if isinstance(default, int):
                least = 0 if field in _MAY_BE_ZERO else 1
                is_count = isinstance(sizes[field], int) and not isinstance(sizes[field], bool)
                require(is_count and sizes[field] >= least, field, f"a whole number of at least {least}")
        if "image_size" in sizes:
            require(
                sizes["image_size"] >= sizes["patch_size"], "image_size", f"at least patch_size={sizes['patch_size']}"
            )
        if name == "video":
            require(
                sizes["num_frames"] >= sizes["tubelet_size"],
                "num_frames",
                f"at least tubelet_size={sizes['tubelet_size']}",
            )
        elif name == "hyperspectral":
            require(sizes["group_size"] % 2 == 1, "group_size", "odd, so that a band is in the middle of its group")
        elif name == "points":
            require(sizes["num_channels"] >= 3, "num_channels", "at least 3, for a place")
        elif name == "audio":
            for field in ("max_frames", "num_mel_bins"):
                require(sizes[field] >= sizes["patch_size"], field, f"at least patch_size={sizes['patch_size']}")
        elif name == "graph":
            require(sizes["identifiers"] in ("random", "laplacian"), "identifiers", '"random" or "laplacian"')
        elif name == "table":
            counts = sizes["category_sizes"]
            is_list = isinstance(counts, list) and all(isinstance(n, int) and n >= 1 for n in counts)
            require(is_list, "category_sizes", "a list of whole numbers of at least 1")
            require(
                bool(sizes["num_numeric_columns"] or counts), "num_numeric_columns", "at least 1 without categories"
            )


def _require_known(kind: str, name: str, known: dict[str, Any]) -> None:
    if name not in known:
        near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.0)
        raise ValueError(f"unknown {kind} {name!r}. Did you mean {near[0]!r}? There are {', '.join(known)}.")
