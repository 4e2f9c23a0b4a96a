"""Configuration of the vision transformer."""

from typing import Literal

from huggingface_hub.dataclasses import strict
from transformers.activations import ACT2FN

from ..base_config import ZooConfig


@strict
class ZooVitConfig(ZooConfig):
    """Sizes and choices of a vision tower; the defaults are those of ViT-B/16.

    Args:
        norm_position: norms before each branch ("pre"), or after it and inside the residual ("res_post", EVA2-CLIP-E).
        is_parallel: whether attention and MLP read the same norm at once (ViT-22B).
        norm: "layer_norm", or "rms_norm" without centring and bias (ViT-22B).
        qk_norm: whether queries and keys are normalised (ViT-22B).
        qkv_bias: which projections of attention have a bias: "all", "qv" (EVA-CLIP) or "none".
        use_cls: whether a class token comes before the patches.
        patch_bias: whether the map of patches has a bias; CLIP's has none.
        norm_embeddings: whether tokens are normalised before the first block (CLIP).
        final_norm: what the last norm is applied to: all "tokens" (ViT), the "pooled" vector alone (CLIP), "both"
            one after the other (EVA-CLIP in BLIP-2), or there is "none".
        pooling: the vector of an image: the class token ("cls"), that through a layer and tanh ("tanh", ViT), the
            "mean" of the patches, or "attention" from a learned query (SigLIP).
        path_dropout: share of the rows that skip a branch of the last block in training; of earlier ones less, of the
            first none.
        classifier_dropout: before the score of a classifier.
    """

    model_type = "zoo_vit"

    image_size: int = 224
    patch_size: int = 16
    num_channels: int = 3
    hidden_size: int = 768
    intermediate_size: int = 3072
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    hidden_act: str = "gelu"
    norm: Literal["layer_norm", "rms_norm"] = "layer_norm"
    norm_eps: float = 1e-12
    norm_position: Literal["pre", "res_post"] = "pre"
    is_parallel: bool = False
    qkv_bias: Literal["all", "qv", "none"] = "all"
    qk_norm: bool = False
    use_cls: bool = True
    patch_bias: bool = True
    norm_embeddings: bool = False
    final_norm: Literal["tokens", "pooled", "both", "none"] = "tokens"
    pooling: Literal["cls", "tanh", "mean", "attention"] = "tanh"
    hidden_dropout: float = 0.0
    attention_dropout: float = 0.0
    path_dropout: float = 0.0
    classifier_dropout: float = 0.0
    initializer_range: float = 0.02

    def validate_architecture(self) -> None:
        """How the sizes fit together."""
        self.require_multiple("hidden_size", of="num_attention_heads")
        if self.image_size < self.patch_size:
            raise ValueError(f"image_size={self.image_size} is less than one patch of patch_size={self.patch_size}")
        if not 0.0 <= self.path_dropout < 1.0:
            raise ValueError(f"path_dropout must be at least 0 and below 1, got {self.path_dropout}")
        if self.hidden_act not in ACT2FN:
            raise ValueError(f"hidden_act {self.hidden_act!r} is not an activation that transformers knows")
        if self.is_parallel and self.norm_position != "pre":
            raise ValueError("is_parallel needs norm_position='pre': both branches read one norm")
        if not self.use_cls and self.pooling in ("cls", "tanh"):
            raise ValueError(f"pooling={self.pooling!r} reads the class token: set use_cls=True, or pooling='mean'")
