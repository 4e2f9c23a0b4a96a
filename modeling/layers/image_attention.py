"""Attention of vision towers: queries, keys and values may lack biases, queries and keys may be normalised.

A bias of keys adds q·b to all scores of a query, which softmax does not see: EVA leaves it out (Fang et al. 2022,
https://arxiv.org/abs/2211.07636). Norms of queries and keys, one of each for all heads, keep scores small (Dehghani et
al. 2023, https://arxiv.org/abs/2302.05442, section 2.1):

    o_h = softmax(N_q(x W_q)_h N_k(x W_k)_h^T / sqrt(K)) v_h

Shapes: B batch, T tokens, D hidden size, H heads, K head size.
"""

from torch import nn
from transformers import PreTrainedConfig

from .attention import Attention

QKV_BIASES = ("all", "qv", "none")


class ImageAttention(Attention):
    """Attention to both sides; see `Attention`.

    Args:
        config: kept for the backends alone.
        layer_idx: of the block.
        hidden_size: D.
        num_heads: H.
        qkv_bias: which of the three projections have one: "all", "qv" or "none"; the output's always has.
        dropout: of the weights.
        q_norm, k_norm: of a head (..., K); both or neither.
    """

    def __init__(
        self,
        config: PreTrainedConfig,
        layer_idx: int,
        hidden_size: int,
        num_heads: int,
        qkv_bias: str = "all",
        dropout: float = 0.0,
        q_norm: nn.Module | None = None,
        k_norm: nn.Module | None = None,
    ) -> None:
        head_dim = hidden_size // num_heads
        options = {"bias": True, "dropout": dropout, "is_causal": False, "q_norm": q_norm, "k_norm": k_norm}
        super().__init__(config, layer_idx, hidden_size, num_heads, num_heads, head_dim, **options)
        without = {"all": (), "qv": ("k_proj",), "none": ("q_proj", "k_proj", "v_proj")}[qkv_bias]
        for name in without:
            setattr(self, name, nn.Linear(hidden_size, hidden_size, bias=False))
