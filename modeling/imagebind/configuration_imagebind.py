"""Configuration of ImageBind."""

from typing import Any, ClassVar, Literal

from huggingface_hub.dataclasses import strict
from transformers import PreTrainedConfig

from ..base_config import ZooConfig
from ..parts import PART, part_config
from ..vit.configuration_vit import ZooVitConfig


def tower(layers: int, hidden: int, heads: int, **other: Any) -> dict[str, Any]:
    """Sizes of a tower whose feed-forward network is four times as wide."""
    sizes = {"num_hidden_layers": layers, "hidden_size": hidden, "num_attention_heads": heads}
    return {**sizes, "intermediate_size": 4 * hidden, **other}


SIGNAL = {"bias_kv": True, "norm_patches": True}
MAP = {**SIGNAL, "kind": "map", "num_channels": 1}
PUBLISHED = {
    "vision": tower(32, 1280, 16, kind="tubes", patch_size=14, norm_embeddings=True),
    "audio": tower(12, 768, 12, **MAP, input_shape=[128, 204], patch_stride=10, path_dropout=0.1, logit_scale=20.0),
    "depth": tower(12, 384, 8, **MAP, logit_scale=5.0),
    "thermal": tower(12, 768, 12, **MAP, logit_scale=10.0),
    "imu": tower(
        *(6, 512, 8),
        **{**SIGNAL, "kind": "windows", "num_channels": 6, "input_shape": [2000], "patch_size": 8},
        **{"path_dropout": 0.7, "head_dropout": 0.5, "logit_scale": 5.0},
    ),
}
TEXT = {
    **tower(24, 1024, 16, model_type="zoo_llm", vocab_size=49408, max_position_embeddings=77, positions="learned"),
    **{"norm": "layer_norm", "norm_eps": 1e-6, "hidden_act": "gelu", "is_gated_mlp": False, "use_cache": False},
    **{"attention_bias": True, "mlp_bias": True, "bos_token_id": 49406, "eos_token_id": 49407, "pad_token_id": 49407},
}
FIELDS = {  # modality -> where its tower's config is
    "vision": "vision_config",
    "text": "text_config",
    "audio": "audio_config",
    "depth": "depth_config",
    "thermal": "thermal_config",
    "imu": "imu_config",
}


@strict
class ZooImagebindTowerConfig(ZooVitConfig):
    """Of one tower: a vision transformer with another way to make tokens.

    Args:
        kind: of signal: clips of images in "tubes", a "map" in patches, or series in "windows".
        input_shape: height and width of images and maps, or the length of series.
        patch_stride: of patches of a map that overlap; patch_size without it.
        num_frames: of a clip.
        norm_patches: whether tokens are normalised before their positions are added.
        bias_kv: whether attention has a key and a value more.
        head_dropout: before the projection to the common space.
        logit_scale: what cosines with images are multiplied by.
    """

    model_type = "zoo_imagebind_tower"

    kind: Literal["tubes", "map", "windows"] = "tubes"
    input_shape: list[int] | None = None
    patch_stride: int | None = None
    num_frames: int = 2
    norm_eps: float = 1e-6
    final_norm: Literal["tokens", "pooled", "both", "none"] = "pooled"
    pooling: Literal["cls", "tanh", "mean", "attention"] = "cls"
    norm_patches: bool = False
    bias_kv: bool = False
    head_dropout: float = 0.0
    logit_scale: float = 1.0

    def __post_init__(self, **kwargs: Any) -> None:
        if self.input_shape is None:
            self.input_shape = [self.image_size, self.image_size]
        if self.patch_stride is None:
            self.patch_stride = self.patch_size
        super().__post_init__(**kwargs)

    @property
    def grid(self) -> list[int]:
        """Pieces along each side."""
        return [(side - self.patch_size) // self.patch_stride + 1 for side in self.input_shape]

    def validate_architecture(self) -> None:
        """How the signal and its pieces fit together."""
        super().validate_architecture()
        sides = 1 if self.kind == "windows" else 2
        if len(self.input_shape) != sides or min(self.input_shape) < self.patch_size:
            raise ValueError(
                f"input_shape of kind={self.kind!r} must be {sides} numbers of at least patch_size={self.patch_size}, "
                f"got {self.input_shape}"
            )
        if self.kind != "map" and self.patch_stride != self.patch_size:
            raise ValueError(f"patch_stride={self.patch_stride} is of kind='map'; leave it out for {self.kind!r}")


PARTS = {field: PART if name == "text" else ZooImagebindTowerConfig for name, field in FIELDS.items()}


@strict
class ZooImagebindConfig(ZooConfig):
    """Six towers and the space that they share; the defaults are those of ImageBind-Huge.

    Args:
        vision_config, audio_config, depth_config, thermal_config, imu_config: fields of `ZooImagebindTowerConfig` that
            differ from the published tower's.
        text_config: config of the text tower, or a dictionary with its `model_type`.
        modalities: which towers there are; "vision" among them.
        frozen_modalities: those whose towers do not learn.
        projection_dim: size of the common space.
        text_logit_scale_init_value: logarithm of what cosines of images and texts are multiplied by, which learns.
    """

    model_type = "zoo_imagebind"
    sub_configs: ClassVar[dict[str, Any]] = PARTS

    vision_config: dict | PreTrainedConfig | None = None
    text_config: dict | PreTrainedConfig | None = None
    audio_config: dict | PreTrainedConfig | None = None
    depth_config: dict | PreTrainedConfig | None = None
    thermal_config: dict | PreTrainedConfig | None = None
    imu_config: dict | PreTrainedConfig | None = None
    modalities: list[str] | None = None
    frozen_modalities: list[str] | None = None
    projection_dim: int = 1024
    text_logit_scale_init_value: float = 2.6592
    initializer_range: float = 0.02

    def __post_init__(self, **kwargs: Any) -> None:
        self.modalities = list(FIELDS) if self.modalities is None else self.modalities
        self.frozen_modalities = ["vision", "text"] if self.frozen_modalities is None else self.frozen_modalities
        self.text_config = part_config(self.text_config or TEXT, "text_config")
        for name, published in PUBLISHED.items():
            value = getattr(self, FIELDS[name]) or {}
            if isinstance(value, dict):
                value = ZooImagebindTowerConfig.from_dict({**published, **value})
            setattr(self, FIELDS[name], value)
        super().__post_init__(**kwargs)

    @property
    def hidden_size(self) -> int:
        """Of the text tower."""
        return self.text_config.hidden_size

    @property
    def vocab_size(self) -> int:
        """Of the text tower."""
        return self.text_config.vocab_size

    @vocab_size.setter
    def vocab_size(self, value: int) -> None:
        self.text_config.vocab_size = value

    def validate_architecture(self) -> None:
        """Which modalities there are."""
        for field in ("modalities", "frozen_modalities"):
            for name in getattr(self, field):
                if name not in FIELDS:
                    raise ValueError(f"{field} has {name!r}, which is none of {', '.join(FIELDS)}")
        if "vision" not in self.modalities:
            raise ValueError(f"modalities must have 'vision', which binds the others, got {self.modalities}")
        if "text" in self.modalities and not isinstance(self.text_config.eos_token_id, int):
            raise ValueError(
                f"a text is read at its end token, but text_config has eos_token_id={self.text_config.eos_token_id!r}"
            )
