"""What BERT and the encoders after it share: the block, and the trunk with its three embeddings.

Devlin et al. 2018, https://arxiv.org/abs/1810.04805. Descendants bring an attention of their own:

    e = LayerNorm(Tok[id] + Pos[i] + Seg[type])
    h = LayerNorm(x + A(x));  y = LayerNorm(h + W_2 gelu(W_1 h))

Shapes: B batch, T tokens, D hidden size.
"""

from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig
from transformers.modeling_layers import GradientCheckpointingLayer

from .encoder import EncoderTrunk
from .layers.attention import Attention
from .layers.dropout import Dropout
from .layers.mlp import MLP
from .layers.pooler import FirstTokenPooler
from .layers.positions import LearnedPositions


def make_attention(
    config: PreTrainedConfig, layer_idx: int, kind: type[Attention] = Attention, **options: Any
) -> Attention:
    """Attention to both sides of a config's sizes; by default of every token to all, through whatever backend is set.

    Args:
        kind: its class.
        options: what that class takes beside sizes.
    """
    head_dim = config.hidden_size // config.num_attention_heads
    sizes = config.hidden_size, config.num_attention_heads, config.num_attention_heads, head_dim
    rest = {"bias": True, "dropout": config.attention_dropout, "is_causal": False}
    return kind(config, layer_idx, *sizes, **rest, **options)


class BertBlock(GradientCheckpointingLayer):
    """Attention to both sides, then a feed-forward network, each with its norm and residual.

    Args:
        config: sizes, layout of norms and dropout.
        self_attn: called as `self_attn(x, mask, ...)`, returns y (B, T, D) first.
    """

    def __init__(self, config: PreTrainedConfig, self_attn: nn.Module) -> None:
        super().__init__()
        self.is_post_norm = config.block_layout == "post"
        self.self_attn = self_attn
        self.mixer_norm = nn.LayerNorm(config.hidden_size, eps=config.norm_eps)
        self.mlp = MLP(config.hidden_size, config.intermediate_size, config.hidden_act, bias=True)
        self.mlp_norm = nn.LayerNorm(config.hidden_size, eps=config.norm_eps)
        self.dropout = Dropout(config.hidden_dropout)

    def forward(self, x: Tensor, mask: Any, **kwargs: Any) -> Tensor:
        """x (B, T, D), mask as the attention wants it -> (B, T, D)."""
        if self.is_post_norm:
            x = self.mixer_norm(x + self.dropout(self.self_attn(x, mask, **kwargs)[0]))
            return self.mlp_norm(x + self.dropout(self.mlp(x)))
        x = x + self.dropout(self.self_attn(self.mixer_norm(x), mask, **kwargs)[0])
        return x + self.dropout(self.mlp(self.mlp_norm(x)))


class BertTrunk(EncoderTrunk):
    """Mixin for `class ZooXModel(BertTrunk, ZooXPreTrainedModel)`, which names its `block_class`."""

    block_class: type[BertBlock]

    def __init__(self, config: PreTrainedConfig, add_pooling_layer: bool = True) -> None:
        norm = nn.LayerNorm(config.hidden_size, eps=config.norm_eps) if config.block_layout == "pre" else None
        pooler = FirstTokenPooler(config.hidden_size) if add_pooling_layer else None
        super().__init__(config, self.block_class, norm, pooler)
        self.embed_positions = LearnedPositions(config.max_position_embeddings, config.hidden_size)
        self.embed_types = nn.Embedding(config.type_vocab_size, config.hidden_size)
        self.embed_norm = nn.LayerNorm(config.hidden_size, eps=config.norm_eps)
        self.dropout = Dropout(config.hidden_dropout)
        self.post_init()

    def place(self, x: Tensor, position_ids: Tensor, token_type_ids: Tensor | None) -> Tensor:
        """LayerNorm(x + Pos[i] + Seg[type]), x (B, T, D)."""
        if token_type_ids is None:
            token_type_ids = torch.zeros_like(position_ids)
        x = x + self.embed_positions(position_ids + self.config.position_offset) + self.embed_types(token_type_ids)
        return self.dropout(self.embed_norm(x))
