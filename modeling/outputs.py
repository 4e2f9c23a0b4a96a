"""Outputs that transformers has no public class for."""

from dataclasses import dataclass

from torch import Tensor
from transformers.modeling_outputs import BaseModelOutputWithPast, MoeCausalLMOutputWithPast, MoeModelOutputWithPast
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


@dataclass
class RoutedModelOutput(MoeModelOutputWithPast):
    """Of a trunk with routed experts.

    Args:
        aux_loss, z_loss: of the routers, the mean over layers, without coefficient; in training, or where
            `output_router_logits` is asked for.
    """

    aux_loss: Tensor | None = None
    z_loss: Tensor | None = None


@dataclass
class RoutedCausalLMOutput(MoeCausalLMOutputWithPast):
    """Of a language model with routed experts.

    Args:
        loss: of the task, in training with the router's losses times their coefficients.
        aux_loss, z_loss: the router's, as in `RoutedModelOutput`.
        router_logits: one (B T, E) a routed layer, where asked for.
    """

    z_loss: Tensor | None = None


@dataclass
class LatentModelOutput(BaseModelOutputWithPast):
    """Of a trunk whose heads have latent spaces.

    Args:
        latent_loss: what the latents add to the loss in training, weighted: divergence from N(0, 1) where they are
            drawn, likeness of heads, misalignment of modalities.
    """

    latent_loss: Tensor | None = None
