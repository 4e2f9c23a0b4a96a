"""Outputs that transformers has no public class for."""

from dataclasses import dataclass

from torch import Tensor
from transformers.utils import ModelOutput


@dataclass
class PreTrainingOutput(ModelOutput):
    """Of a model that learns from masked tokens and from sentence pairs at once.

    Args:
        loss: the sum of both losses.
        prediction_logits: (B, T, vocab_size).
        seq_relationship_logits: (B, 2), whether the second sentence follows the first (class 0) or not.
        hidden_states: one (B, T, D) a layer, and the embeddings.
        attentions: one (B, H, T, T) a layer.
    """

    loss: Tensor | None = None
    prediction_logits: Tensor | None = None
    seq_relationship_logits: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None
