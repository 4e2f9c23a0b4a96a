"""The Multihead Latent Transformer: heads have latent spaces of their own, and exchange what is in them.

    x <- x + A(N1(x));  x <- x + F(N2(x));  N_f at the end

A is the attention of layers/latent_spaces.py, F a gated network. Tokens of other modalities may stand before the text:
each has its own way into the residual stream and, in every layer, into the latent spaces, which all share.

Shapes: B batch, T tokens, M tokens of other modalities, S remembered tokens, D hidden size, H heads, r latent size.
"""

import math
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.cache_utils import Cache
from transformers.generation import GenerationMixin
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.processing_utils import Unpack
from transformers.utils import ModelOutput, TransformersKwargs

from ..base_model import ZooPreTrainedModel, embed_tokens
from ..classifiers import QuestionAnsweringHead, SequenceClassificationHead, TokenClassificationHead
from ..decoder import DecoderTrunk
from ..heads import CausalLMHead
from ..layers.latent_spaces import HeadInteraction, LatentProjection, LatentSpaceAttention
from ..layers.mlp import GatedMLP
from ..layers.norm import RMSNorm
from ..layers.positions import RotaryPositions, alibi_bias
from ..losses import alignment_loss, similarity_of_heads
from ..masks import drop_useless_mask, key_positions
from ..outputs import LatentModelOutput
from .configuration_latent import ZooLatentConfig, latent_sizes


def make_attention(config: ZooLatentConfig, layer_idx: int) -> LatentSpaceAttention:
    """The attention of a layer, with a projection for every modality."""
    sizes, D = latent_sizes(config), config.hidden_size
    projections = {
        name: LatentProjection(D, sizes, config.latent_act, config.latent_norm, config.latent_stochastic)
        for name in ("text", *config.modalities)
    }
    interaction = HeadInteraction(sizes, config.interaction_rank) if config.has_interaction else None
    return LatentSpaceAttention(
        config, layer_idx, D, projections, interaction, config.qk_dim, config.v_dim, config.attention_dropout
    )


class LatentBlock(GradientCheckpointingLayer):
    """Attention in latent spaces, then a feed-forward network, each with its norm and residual."""

    def __init__(self, config: ZooLatentConfig, layer_idx: int) -> None:
        super().__init__()
        self.config, self.layer_idx = config, layer_idx
        self.mixer_norm = RMSNorm(config.hidden_size, config.norm_eps)
        self.self_attn = make_attention(config, layer_idx)
        self.mlp_norm = RMSNorm(config.hidden_size, config.norm_eps)
        self.mlp = GatedMLP(config.hidden_size, config.intermediate_size, config.hidden_act)
        self.self_attn.o_proj.init_scale = 1 / math.sqrt(2 * config.num_hidden_layers)

    def forward(
        self,
        x: Tensor,
        mask: Tensor | None,
        past_key_values: Cache | None = None,
        token_mask: Tensor | None = None,
        modalities: dict[str, slice] | None = None,
        **kwargs: Any,
    ) -> tuple[Tensor, ...]:
        """x (B, T, D) -> (B, T, D), and in training the terms that its latents add to the loss.

        Args:
            token_mask: (B, T) with 1 on real tokens, None where all are.
            modalities: name -> which of the tokens are of it, where there are others than text.
        """
        remember = None if past_key_values is None else partial(self.remember, past_key_values)
        normed, dropout = self.mixer_norm(x), self.config.residual_dropout
        y, _, divergence = self.self_attn(normed, mask, remember, modalities, **kwargs)
        x = x + F.dropout(y, dropout, self.training)
        x = x + F.dropout(self.mlp(self.mlp_norm(x)), dropout, self.training)
        return (x, *self.terms(normed, divergence, token_mask, modalities)) if self.training else x

    def remember(self, cache: Cache, z: Tensor) -> Tensor:
        """Latents (B, H, T, r) into the cache -> all of them (B, H, S, r). There are no values beside them.

        Raises:
            ValueError: the cache holds keys and values.
        """
        values = getattr(cache.layers[self.layer_idx], "values", None) if self.layer_idx < len(cache.layers) else None
        if values is not None and values.shape[-1]:
            raise ValueError("this cache holds keys and values, as of prefix tuning; here it must hold latents")
        return cache.update(z, z[..., :0], self.layer_idx)[0]

    def terms(
        self, x: Tensor, divergence: Tensor | None, mask: Tensor | None, modalities: dict[str, slice] | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Divergence, likeness of heads, and misalignment of modalities, each a number, weighted.

        Modalities are compared at the first layer, where none has seen another yet.
        """
        config, zero = self.config, x.new_zeros((), dtype=torch.float32)
        if divergence is not None:
            real = torch.ones_like(divergence[..., 0]) if mask is None else mask.to(divergence.dtype)
            divergence = (divergence.mean(-1) * real).sum() / real.sum().clamp_min(1)
        likeness = misalignment = None
        if config.diversity_weight:
            likeness = similarity_of_heads(self.self_attn.project(x, modalities)[0], mask)
        if modalities is not None and self.layer_idx == 0 and config.align_weight:
            pooled = [pool(self.self_attn, x, mask, name, tokens) for name, tokens in modalities.items()]
            misalignment = alignment_loss(pooled, config.align_temperature)
        weights = (config.kl_weight, config.diversity_weight, config.align_weight)
        terms = zip(weights, (divergence, likeness, misalignment), strict=True)
        return tuple(zero if term is None else weight * term.float() for weight, term in terms)


def pool(attention: LatentSpaceAttention, x: Tensor, mask: Tensor | None, name: str, tokens: slice) -> Tensor:
    """Mean latents of the real tokens of one modality: x (B, T, D) -> (B, H, r)."""
    z, _ = attention.project(x[:, tokens], {name: slice(None)})
    if mask is None:
        return z.mean(1)
    real = mask[:, tokens, None, None].to(z.dtype)
    return (z * real).sum(1) / real.sum(1).clamp_min(1)


class ZooLatentPreTrainedModel(ZooPreTrainedModel):
    """Base class: what the attention backends and loaders need to know, and what latents add to the loss."""

    config_class = ZooLatentConfig
    config: ZooLatentConfig
    _no_split_modules = ["LatentBlock"]
    _supports_sdpa = True
    _supports_attention_backend = True
    _can_record_outputs = {"hidden_states": LatentBlock, "attentions": LatentSpaceAttention}

    def complete_loss(
        self,
        loss: Tensor | None,
        outputs: ModelOutput,
        labels: Tensor | None,
        num_items_in_batch: Tensor | int | None = None,
        **_: Any,
    ) -> Tensor | None:
        """The loss of the task, and in training the terms of the latents: evaluation compares with models without."""
        if loss is None or outputs.latent_loss is None:
            return loss
        share = 1 if num_items_in_batch is None else (labels != -100).sum() / num_items_in_batch
        return loss + share * outputs.latent_loss.to(loss.device)


class ZooLatentModel(DecoderTrunk, ZooLatentPreTrainedModel):
    """The decoder without a head."""

    def __init__(self, config: ZooLatentConfig) -> None:
        super().__init__(config, LatentBlock, RMSNorm(config.hidden_size, config.norm_eps))
        self.embed_modalities = nn.ModuleDict(
            {name: nn.Linear(width, config.hidden_size) for name, width in config.modalities.items()}
        )
        if config.positions == "rotary":
            self.rotary_emb = RotaryPositions(config)
        self.post_init()

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: Tensor | None = None,
        use_cache: bool | None = None,
        modality_inputs: dict[str, Tensor] | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> LatentModelOutput:
        """Hidden states (B, T, D) of the text, normalised.

        Args:
            modality_inputs: name -> (B, M, width), what stands before the text. A cache remembers it, so that it is
                given with the first tokens alone and not looked at after them.
            kwargs: see the trunk for the rest. Recorded hidden states have all tokens, those of modalities too.

        Raises:
            ValueError: a modality that the config does not have, or of another size; packed rows beside one.
        """
        num_before = getattr(past_key_values, "num_before", 0)
        options = {"past_key_values": past_key_values, "use_cache": use_cache, **kwargs}
        if modality_inputs and not num_before:
            x = embed_tokens(self.embed_tokens, input_ids, inputs_embeds)
            parts = self.embed_before(modality_inputs, x)
            num_before = sum(part.shape[1] for part in parts.values())
            bounds = torch.tensor([0, *(part.shape[1] for part in parts.values())]).cumsum(0).tolist()
            spans = zip(bounds, bounds[1:], strict=False)
            modalities = dict(zip(parts, (slice(*span) for span in spans), strict=True))
            options["modalities"] = {**modalities, "text": slice(num_before, None)}
            input_ids, inputs_embeds = None, torch.cat((*parts.values(), x), dim=1)
            if position_ids is not None:
                if drop_useless_mask(attention_mask) is None and bool((position_ids[:, 1:] == 0).any()):
                    raise ValueError("rows that hold several documents cannot have other modalities before them")
                before = torch.arange(num_before, device=x.device).expand(len(position_ids), -1)
                position_ids = torch.cat((before, position_ids + num_before), dim=1)
            outputs = self.read(input_ids, attention_mask, position_ids, inputs_embeds, num_before, options)
            outputs.last_hidden_state = outputs.last_hidden_state[:, num_before:]
            if outputs.past_key_values is not None:
                outputs.past_key_values.num_before = num_before
            return outputs
        position_ids = None if position_ids is None else position_ids + num_before
        return self.read(input_ids, attention_mask, position_ids, inputs_embeds, num_before, options)

    def read(
        self,
        input_ids: Tensor | None,
        attention_mask: Tensor | None,
        position_ids: Tensor | None,
        inputs_embeds: Tensor | None,
        num_before: int,
        options: dict[str, Any],
    ) -> LatentModelOutput:
        """The trunk's forward with a mask (B, S) that knows what stands before the text."""
        if isinstance(attention_mask, Tensor) and attention_mask.ndim == 2:
            attention_mask = F.pad(attention_mask, (num_before, 0), value=1)
            if drop_useless_mask(attention_mask) is not None:
                position_ids = None  # counted from the mask, as those of what is remembered are
        return super().forward(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            inputs_embeds=inputs_embeds,
            **options,
        )

    def embed_before(self, modality_inputs: dict[str, Tensor], x: Tensor) -> dict[str, Tensor]:
        """Tokens of each modality (B, M, width) -> (B, M, D), in the order of the config."""
        for name, tokens in modality_inputs.items():
            if name not in self.embed_modalities:
                known = ", ".join(self.embed_modalities) or "none"
                raise ValueError(f"modality {name!r} is not one of config.modalities, which has {known}")
            width = self.embed_modalities[name].in_features
            if tokens.ndim != 3 or tokens.shape[-1] != width or len(tokens) != len(x):
                expected = f"({len(x)}, tokens, {width})"
                raise ValueError(f"modality_inputs[{name!r}] must be {expected}, got {tuple(tokens.shape)}")
        ordered = [name for name in self.embed_modalities if name in modality_inputs]
        return {name: self.embed_modalities[name](modality_inputs[name].to(x.dtype)) for name in ordered}

    def pooled_latents(self, name: str, tokens: Tensor, mask: Tensor | None = None) -> Tensor:
        """Where a modality stands in the latent spaces of the first layer, to compare with others -> (B, H, r).

        Args:
            name: of a modality, or "text".
            tokens: (B, M, width), or token ids (B, T) of text.
            mask: (B, M or T) with 1 on real tokens, None where all are.
        """
        x = self.embed_tokens(tokens) if name == "text" else self.embed_modalities[name](tokens)
        block = self.layers[0]
        return pool(block.self_attn, block.mixer_norm(x), mask, name, slice(None))

    def attention_arguments(
        self, x: Tensor, position_ids: Tensor, attention_mask: Tensor | None, past_key_values: Cache | None
    ) -> dict[str, Any]:
        """Positions of queries and of everything remembered; and which tokens are real."""
        shared = {}
        if self.training and isinstance(attention_mask, Tensor):
            shared["token_mask"] = attention_mask[:, -x.shape[1] :]
        if self.config.positions == "none":
            return shared
        num_keys = x.shape[1] if past_key_values is None else past_key_values.get_mask_sizes(x.shape[1], 0)[0]
        keys = position_ids
        if num_keys != x.shape[1] or self.config.positions == "alibi":
            keys = key_positions(x, attention_mask, past_key_values)
        if self.config.positions == "alibi":
            bias = alibi_bias(self.config.num_attention_heads, position_ids, keys).to(x.dtype)
            return {**shared, "position_bias": bias.expand(x.shape[0], -1, -1, -1)}
        shared["position_embeddings"] = self.rotary_emb(x, position_ids)
        shared["key_position_embeddings"] = self.rotary_emb(x, keys)
        return shared

    def output(
        self, x: Tensor, past_key_values: Cache | None, side_outputs: list[tuple[Tensor, ...]]
    ) -> LatentModelOutput:
        """x (B, T, D), the mean over layers of divergence and likeness, and the alignment of the first."""
        outputs = LatentModelOutput(last_hidden_state=x, past_key_values=past_key_values)
        if side_outputs:
            divergences, likenesses, misalignments = (
                torch.stack([term.to(x.device) for term in terms]) for terms in zip(*side_outputs, strict=True)
            )
            outputs.latent_loss = divergences.mean() + likenesses.mean() + misalignments.sum()
        return outputs


class ZooLatentForCausalLM(CausalLMHead, ZooLatentPreTrainedModel, GenerationMixin):
    """The language model."""

    backbone_class = ZooLatentModel

    def prepare_inputs_for_generation(
        self, input_ids: Tensor, modality_inputs: dict[str, Tensor] | None = None, **kwargs: Any
    ) -> dict[str, Any]:
        """The inputs of a step; of a row that became several beams, each has the modalities of the row."""
        inputs = super().prepare_inputs_for_generation(input_ids, **kwargs)
        if modality_inputs:
            beams = {name: len(input_ids) // len(tokens) for name, tokens in modality_inputs.items()}
            repeated = {name: tokens.repeat_interleave(beams[name], 0) for name, tokens in modality_inputs.items()}
            inputs["modality_inputs"] = repeated
        return inputs


class ZooLatentForSequenceClassification(SequenceClassificationHead, ZooLatentPreTrainedModel):
    """A label for the row, read from its last real token."""

    backbone_class = ZooLatentModel
    score_has_bias = False


class ZooLatentForTokenClassification(TokenClassificationHead, ZooLatentPreTrainedModel):
    """A label for every token."""

    backbone_class = ZooLatentModel


class ZooLatentForQuestionAnswering(QuestionAnsweringHead, ZooLatentPreTrainedModel):
    """Start and end of an answer in the row."""

    backbone_class = ZooLatentModel
