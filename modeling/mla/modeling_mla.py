"""A decoder with multi-head latent attention, experts, and prediction of several tokens in training.

DeepSeek-AI 2024, https://arxiv.org/abs/2405.04434 (V2) and https://arxiv.org/abs/2412.19437 (V3).

    x <- x + MLA(N1(x));  x <- x + M(N2(x));  N_f at the end      layers/latent_attention.py, layers/routers.py
    h'_i = W [N_h(h_i) ; N_e(Emb(t_{i+1}))],  one more block, N   V3 section 2.2: predicts t_{i+2} with the same head

The experts' class is decorated `@use_experts_implementation`, so transformers can choose what multiplies by them.

Shapes: B batch, T tokens, D hidden size.
"""

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.cache_utils import Cache
from transformers.generation import GenerationMixin
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.utils import ModelOutput
from transformers.utils.output_capturing import OutputRecorder

from ..base_model import embed_tokens
from ..classifiers import QuestionAnsweringHead, SequenceClassificationHead, TokenClassificationHead
from ..layers.latent_attention import LatentAttention, LatentSizes, yarn_scaling
from ..layers.norm import RMSNorm
from ..layers.positions import RotaryPositions
from ..layers.routers import Router
from ..masks import decoder_masks, drop_useless_mask, token_positions
from ..routed import RoutedBlock, RoutedCausalLMHead, RoutedPreTrainedModel, RoutedTrunk, make_feed_forward
from .configuration_mla import ZooMlaConfig


def make_attention(config: ZooMlaConfig, layer_idx: int) -> LatentAttention:
    """Latent attention of the config's sizes."""
    sizes = LatentSizes(
        config.kv_lora_rank, config.q_lora_rank, config.qk_nope_head_dim, config.qk_rope_head_dim, config.v_head_dim
    )
    return LatentAttention(
        config,
        layer_idx,
        config.hidden_size,
        config.num_attention_heads,
        sizes,
        bias=config.attention_bias,
        dropout=config.attention_dropout,
        scaling=yarn_scaling(config.rope_parameters) * (sizes.qk_nope_head_dim + sizes.qk_rope_head_dim) ** -0.5,
        is_causal=config.is_causal,
        is_interleaved=config.rope_interleave,
    )


class MlaBlock(RoutedBlock, GradientCheckpointingLayer):
    """Latent attention, then experts or one feed-forward network, each with its norm and residual."""

    layer_type = "full_attention"

    def __init__(self, config: ZooMlaConfig, layer_idx: int) -> None:
        super().__init__()
        self.layer_idx = layer_idx
        self.mixer_norm = RMSNorm(config.hidden_size, config.norm_eps)
        self.self_attn = make_attention(config, layer_idx)
        self.mlp_norm = RMSNorm(config.hidden_size, config.norm_eps)
        self.mlp = make_feed_forward(config, layer_idx, bias=config.mlp_bias)
        self.dropout = config.residual_dropout

    def forward(
        self,
        x: Tensor,
        mask: Tensor | None,
        past_key_values: Cache | None = None,
        token_mask: Tensor | None = None,
        router_losses: bool = False,
        output_router_logits: bool | None = None,
        **kwargs: Any,
    ) -> Tensor | tuple[Tensor | None, ...]:
        """x (B, T, D), token_mask (B, T) with 1 on real tokens -> (B, T, D), and side outputs (see RoutedBlock)."""
        remember = None
        if past_key_values is not None:
            remember = partial(past_key_values.update, layer_idx=self.layer_idx)
        x = x + self.drop(self.self_attn(self.mixer_norm(x), mask, remember, **kwargs)[0])
        y, routing = self.route(self.mlp_norm(x), token_mask)
        is_asked = router_losses if output_router_logits is None else output_router_logits
        return self.with_side_outputs(x + self.drop(y), routing, token_mask, is_asked)

    def drop(self, y: Tensor) -> Tensor:
        """Dropout of a branch; a call to a module that does nothing would be felt in decoding."""
        return F.dropout(y, self.dropout, self.training) if self.dropout else y


class ZooMlaPreTrainedModel(RoutedPreTrainedModel):
    """Base class: what the attention backends and loaders need to know."""

    config_class = ZooMlaConfig
    config: ZooMlaConfig
    _no_split_modules = ["MlaBlock"]
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True
    _can_compile_fullgraph = True
    # A trunk has no modules of further tokens; those of a published folder bring copies of what they share
    _keys_to_ignore_on_load_unexpected = [r"^mtp\."]
    _can_record_outputs = {
        "hidden_states": MlaBlock,
        "attentions": LatentAttention,
        "router_logits": OutputRecorder(Router, index=0),
    }


class ZooMlaModel(RoutedTrunk, ZooMlaPreTrainedModel):
    """The decoder without a head; an encoder where `config.is_causal` is False."""

    def __init__(self, config: ZooMlaConfig) -> None:
        super().__init__(config, MlaBlock, RMSNorm(config.hidden_size, config.norm_eps))
        self.rotary_emb = RotaryPositions(config)
        self.post_init()

    def attention_arguments(
        self, x: Tensor, position_ids: Tensor, attention_mask: Tensor | None, past_key_values: Cache | None
    ) -> dict[str, Any]:
        """Cosines and sines of rotary positions, and what routers need."""
        shared = super().attention_arguments(x, position_ids, attention_mask, past_key_values)
        return {**shared, "position_embeddings": self.rotary_emb(x, position_ids)}


class FurtherToken(nn.Module):
    """One more block that predicts the token after the one that the model before it predicts."""

    def __init__(self, config: ZooMlaConfig, layer_idx: int) -> None:
        super().__init__()
        self.hnorm = RMSNorm(config.hidden_size, config.norm_eps)
        self.enorm = RMSNorm(config.hidden_size, config.norm_eps)
        self.eh_proj = nn.Linear(2 * config.hidden_size, config.hidden_size, bias=False)
        self.block = MlaBlock(config, layer_idx)
        self.norm = RMSNorm(config.hidden_size, config.norm_eps)

    def forward(self, hidden: Tensor, embedded: Tensor, mask: Tensor | None, **kwargs: Any) -> tuple[Tensor, ...]:
        """hidden (B, T, D) of position i, embedded (B, T, D) of the token it would predict -> as a Block's."""
        x = self.eh_proj(torch.cat((self.hnorm(hidden), self.enorm(embedded)), dim=-1))
        outputs = self.block(x, mask, **kwargs)
        x, *side = outputs if isinstance(outputs, tuple) else (outputs,)
        return self.norm(x), *side


class ZooMlaForCausalLM(RoutedCausalLMHead, ZooMlaPreTrainedModel, GenerationMixin):
    """The language model; with `num_nextn_predict_layers`, in training it predicts the tokens after the next too."""

    backbone_class = ZooMlaModel

    def __init__(self, config: ZooMlaConfig) -> None:
        if not config.is_causal:
            raise ValueError(
                "is_causal=False makes an encoder, which would see the token that a language model is to predict: "
                "use it for feature extraction, sequence or token classification, or question answering"
            )
        super().__init__(config)
        depths = range(config.num_nextn_predict_layers)
        self.mtp = nn.ModuleList(FurtherToken(config, config.num_hidden_layers + depth) for depth in depths)
        self.post_init()

    def complete_loss(
        self,
        loss: Tensor | None,
        outputs: ModelOutput,
        labels: Tensor | None,
        num_items_in_batch: Tensor | int | None = None,
        **inputs: Tensor | None,
    ) -> Tensor | None:
        """The loss, in training with the router's and that of further tokens.

        Args:
            labels: (B, T - 1), without the first.
            inputs: what the trunk was given.
        """
        loss = super().complete_loss(loss, outputs, labels, num_items_in_batch)
        if loss is None or not self.training or not self.mtp:
            return loss
        losses = self.further_losses(outputs.last_hidden_state, labels, num_items_in_batch, **inputs)
        return loss + self.config.mtp_loss_coef * torch.stack(losses).mean()

    def further_losses(
        self,
        hidden: Tensor,
        labels: Tensor,
        num_items_in_batch: Tensor | int | None,
        input_ids: Tensor | None,
        inputs_embeds: Tensor | None,
        attention_mask: Tensor | None,
        position_ids: Tensor | None,
    ) -> list[Tensor]:
        """The loss of each depth: at depth d, position i predicts token i + d + 1.

        Args:
            hidden: (B, T, D), the trunk's.
            labels: (B, T - 1), without the first.
        """
        embedded = embed_tokens(self.model.embed_tokens, input_ids, inputs_embeds)
        attention_mask = drop_useless_mask(attention_mask)
        losses = []
        for depth, module in enumerate(self.mtp, start=1):
            hidden, labels = hidden[:, :-1], labels if depth == 1 else labels[:, 1:]
            if hidden.shape[1] < 2:
                break
            mask = None if attention_mask is None else attention_mask[:, : hidden.shape[1]]
            positions = None if position_ids is None else position_ids[:, : hidden.shape[1]]
            if positions is not None and mask is None:  # a packed document may not be asked for the next one's tokens
                labels = labels.masked_fill(position_ids[:, depth:].expand_as(labels) < depth + 1, -100)
            where = token_positions(hidden, mask, 0) if positions is None else positions
            hidden, *side = module(
                hidden,
                embedded[:, depth:],
                decoder_masks(self.config, hidden, mask, None, positions)[MlaBlock.layer_type],
                **self.model.attention_arguments(hidden, where, mask, None),
            )
            if side and side[-1] is not None:
                module.block.mlp.gate.observe(side[-1])
            loss = self.loss_function(
                logits=self.lm_head(hidden),
                labels=labels,
                vocab_size=self.config.vocab_size,
                num_items_in_batch=num_items_in_batch,
            )
            losses.append(loss)
        return losses or [hidden.new_zeros(())]


class ZooMlaForSequenceClassification(SequenceClassificationHead, ZooMlaPreTrainedModel):
    """A label for the row, read from its last real token."""

    backbone_class = ZooMlaModel
    score_has_bias = False


class ZooMlaForTokenClassification(TokenClassificationHead, ZooMlaPreTrainedModel):
    """A label for every token."""

    backbone_class = ZooMlaModel


class ZooMlaForQuestionAnswering(QuestionAnsweringHead, ZooMlaPreTrainedModel):
    """Start and end of an answer in the row."""

    backbone_class = ZooMlaModel
