"""Configuration of BEATs."""

from typing import Literal

from huggingface_hub.dataclasses import strict
from transformers.activations import ACT2FN

from ..base_config import ZooConfig


@strict
class ZooBeatsConfig(ZooConfig):
    """Patches and sizes; the defaults are those of BEATs.

    Args:
        num_mel_bins: of a spectrum.
        patch_size: frames, and bins, of a patch.
        patch_embedding_size: of a patch before it is projected to hidden_size.
        position_kernel_size: patches that the convolution of positions spans.
        position_groups: of channels that it keeps apart.
        num_buckets: of distances, in both directions.
        max_distance: from which on all share a bucket.
        gate_input: what opens the bias of distances: the projected "query" (BEATs), or the "hidden" state (WavLM).
        codebook_size: how many acoustic labels there are.
        codebook_dim: size of the vector of each.
        num_estimator_layers: blocks by which a tokenizer tells its teacher's states from labels.
        mask_rate: share of the patches that pre-training hides.
        classifier_dropout: before the score of a classifier.
    """

    model_type = "zoo_beats"

    num_mel_bins: int = 128
    patch_size: int = 16
    patch_embedding_size: int = 512
    hidden_size: int = 768
    intermediate_size: int = 3072
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    hidden_act: str = "gelu"
    norm_eps: float = 1e-5
    position_kernel_size: int = 128
    position_groups: int = 16
    num_buckets: int = 320
    max_distance: int = 800
    gate_input: Literal["query", "hidden"] = "query"
    codebook_size: int = 1024
    codebook_dim: int = 256
    num_estimator_layers: int = 3
    mask_rate: float = 0.75
    hidden_dropout: float = 0.1
    attention_dropout: float = 0.1
    classifier_dropout: float = 0.0
    initializer_range: float = 0.02

    def validate_architecture(self) -> None:
        """How patches and sizes fit together."""
        self.require_multiple("hidden_size", of="num_attention_heads")
        self.require_multiple("hidden_size", of="position_groups")
        self.require_multiple("num_mel_bins", of="patch_size")
        if self.num_buckets % 4 or self.max_distance <= self.num_buckets // 4:
            raise ValueError(
                f"num_buckets must be a multiple of 4 and max_distance above a quarter of it, got {self.num_buckets} "
                f"and {self.max_distance}"
            )
        if not 0.0 < self.mask_rate < 1.0:
            raise ValueError(f"mask_rate must be above 0 and below 1, got {self.mask_rate}")
        if self.hidden_act not in ACT2FN:
            raise ValueError(f"hidden_act {self.hidden_act!r} is not an activation that transformers knows")
