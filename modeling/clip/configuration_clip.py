"""Configuration of the model of images and texts in one space."""

import math
from typing import Any, ClassVar, Literal

from huggingface_hub.dataclasses import strict
from transformers import PreTrainedConfig

from ..base_config import ZooConfig
from ..parts import PART, part_config

# CLIP's text tower, which is GPT-2 with another activation
TEXT = {
    **{"model_type": "zoo_llm", "vocab_size": 49408, "hidden_size": 512, "intermediate_size": 2048},
    **{"num_hidden_layers": 12, "num_attention_heads": 8, "max_position_embeddings": 77, "positions": "learned"},
    **{"norm": "layer_norm", "norm_eps": 1e-5, "hidden_act": "quick_gelu", "is_gated_mlp": False},
    **{"attention_bias": True, "mlp_bias": True, "use_cache": False},
    **{"bos_token_id": 49406, "eos_token_id": 49407, "pad_token_id": 49407},
}
IMAGE = {
    **{"model_type": "zoo_vit", "patch_size": 32, "hidden_act": "quick_gelu", "norm_eps": 1e-5, "patch_bias": False},
    **{"norm_embeddings": True, "final_norm": "pooled", "pooling": "cls"},
}


@strict
class ZooClipConfig(ZooConfig):
    """Two towers, of any architecture of the zoo or of transformers, and how their vectors are compared.

    Args:
        vision_config: config of the image tower, or a dictionary with its `model_type`; that of CLIP ViT-B/32 without.
        text_config: of the text tower; that of CLIP ViT-B/32 without.
        text_pooling: what stands for a text: the hidden state at its end token ("eot"), at its highest id
            ("highest_id", which old folders of CLIP mean by eos_token_id=2), the first or last real token, the mean,
            or what the tower itself returns ("pooler").
        projection_dim: size of the common space; 0 for no projections, where both towers have one size.
        loss_type: "clip" compares each with all, "siglip" asks of each pair whether it is one.
        logit_scale_init_value: logarithm of the factor on cosines, log(1 / 0.07) for CLIP and log 10 for SigLIP.
        logit_bias_init_value: what "siglip" adds to scores.
    """

    model_type = "zoo_clip"
    sub_configs: ClassVar[dict[str, Any]] = {"vision_config": PART, "text_config": PART}
    may_be_zero = ("projection_dim",)

    vision_config: dict | PreTrainedConfig | None = None
    text_config: dict | PreTrainedConfig | None = None
    text_pooling: Literal["eot", "highest_id", "cls", "last", "mean", "pooler"] = "eot"
    projection_dim: int = 512
    loss_type: Literal["clip", "siglip"] = "clip"
    logit_scale_init_value: float | None = None
    logit_bias_init_value: float = -10.0
    initializer_range: float = 0.02

    def __post_init__(self, **kwargs: Any) -> None:
        self.vision_config = part_config(self.vision_config or IMAGE, "vision_config")
        self.text_config = part_config(self.text_config or TEXT, "text_config")
        if self.logit_scale_init_value is None:
            self.logit_scale_init_value = 2.6592 if self.loss_type == "clip" else math.log(10)
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
        """How the parts fit together."""
        sizes = self.vision_config.hidden_size, self.text_config.hidden_size
        if sizes[0] != sizes[1] and not self.projection_dim:
            raise ValueError(f"hidden sizes {sizes[0]} and {sizes[1]} of the two towers differ: set projection_dim")
        if self.text_pooling == "eot" and not isinstance(self.text_config.eos_token_id, int):
            raise ValueError(
                f"text_pooling='eot' reads the end token, but text_config has "
                f"eos_token_id={self.text_config.eos_token_id!r}: set it, or text_pooling='last'"
            )
