"""Attention of one sequence to another, and of the tokens of a text to what was retrieved for its chunks.

Vaswani et al. 2017, https://arxiv.org/abs/1706.03762, section 3.2.3; Borgeaud et al. 2021,
https://arxiv.org/abs/2112.04426, sections 2.4 and B.1 (chunked cross-attention), with rotary positions on both sides:

    y_t = W_o concat_h softmax_s(R(i_t) q_t . R(j_s) k_s / sqrt(K)) v_s
    chunked: s runs over all tokens of all neighbours of the last chunk of the text that is complete at t

Shapes: B batch, T queries, S keys, D hidden size, E size of what is attended to, H heads, K head size, G chunks.
"""

from torch import Tensor, nn

from .attention import exact_attention
from .chunk_groups import ChunkGroups
from .positions import rotate

Rotary = tuple[Tensor, Tensor]  # cos and sin (B or 1, T, K)


class RotaryCrossAttention(nn.Module):
    """Every query sees every key; what the two sequences are is up to the caller, and they may be one."""

    def __init__(
        self, hidden_size: int, memory_size: int, num_heads: int, head_dim: int, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.head_dim = head_dim
        self.dropout = dropout
        self.q_proj = nn.Linear(hidden_size, num_heads * head_dim, bias=False)
        self.k_proj = nn.Linear(memory_size, num_heads * head_dim, bias=False)
        self.v_proj = nn.Linear(memory_size, num_heads * head_dim, bias=False)
        self.o_proj = nn.Linear(num_heads * head_dim, hidden_size, bias=False)

    def forward(
        self, x: Tensor, memory: Tensor, x_rotary: Rotary, memory_rotary: Rotary, mask: Tensor | None = None
    ) -> Tensor:
        """x (B, T, D) and memory (B, S, E) -> y (B, T, D).

        Args:
            x_rotary, memory_rotary: turn queries and keys.
            mask: (B, S), true on keys that are seen, at least one a row; None where all are.
        """
        k, v = self.keys_values(memory, memory_rotary)
        return self.o_proj(self.attend(self.queries(x, x_rotary), k, v, mask).transpose(1, 2).flatten(2))

    def queries(self, x: Tensor, rotary: Rotary) -> Tensor:
        """x (B, T, D) -> q (B, H, T, K), turned."""
        return rotate(self._split_heads(self.q_proj(x)), *rotary)

    def keys_values(self, memory: Tensor, rotary: Rotary) -> tuple[Tensor, Tensor]:
        """memory (B, S, E) -> k, turned, and v (B, H, S, K)."""
        return rotate(self._split_heads(self.k_proj(memory)), *rotary), self._split_heads(self.v_proj(memory))

    def attend(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
        """q (B, H, T, K), k and v (B, H, S, K), mask (B, S) -> (B, H, T, K)."""
        mask = None if mask is None else mask[:, None, None, :]
        return exact_attention(q, k, v, mask, self.dropout if self.training else 0.0)

    def _split_heads(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (-1, self.head_dim)).transpose(1, 2)  # (B, T, H K) -> (B, H, T, K)


class ChunkedCrossAttention(RotaryCrossAttention):
    """Each token sees the neighbours of one chunk, or nothing, and then y is 0."""

    def forward(
        self, x: Tensor, keys: Tensor, values: Tensor, groups: ChunkGroups, rotary: Rotary, mask: Tensor | None
    ) -> Tensor:
        """x (B, T, D), keys and values (G, H, S, K) -> y (B, T, D).

        Args:
            keys, values: of the neighbours of each chunk, as `keys_values` makes them.
            groups: which chunk's neighbours each token sees.
            rotary: turns queries.
            mask: (G, S), true on keys that are seen, at least one a chunk; None where all are.
        """
        q = self.queries(x, rotary)
        if q.shape[2] == 1:  # each row's only token sees the neighbours of the row's last chunk
            keys, values = (groups.of_rows(z) for z in (keys, values))
            mask = None if mask is None else groups.of_rows(mask)
            y = self.attend(q, keys, values, mask).transpose(1, 2)
            y = y.masked_fill((groups.group < 0)[..., None, None], 0)
        else:
            y = groups.join(self.attend(groups.split(q.transpose(1, 2)).transpose(1, 2), keys, values, mask))
        return self.o_proj(y.flatten(2))
