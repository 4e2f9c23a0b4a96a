"""A convolution over neighbouring tokens whose output joins that of a layer: the local context of DeBERTa v2.

    z = LayerNorm(y + act(conv(x)))         He et al. 2020, https://arxiv.org/abs/2006.03654, its code

Shapes: B batch, T tokens, D hidden size, M documents, L longest document.
"""

from torch import Tensor, nn
from transformers.activations import ACT2FN

from .documents import Documents


class TokenConvolution(nn.Module):
    """All channels over (kernel_size - 1) / 2 tokens on either side, beside a layer from x to y."""

    def __init__(
        self, hidden_size: int, kernel_size: int, groups: int, hidden_act: str, norm_eps: float, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.conv = nn.Conv1d(hidden_size, hidden_size, kernel_size, padding=kernel_size // 2, groups=groups)
        self.act_fn = ACT2FN[hidden_act]
        self.norm = nn.LayerNorm(hidden_size, eps=norm_eps)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, y: Tensor, mask: Tensor | None = None, position_ids: Tensor | None = None) -> Tensor:
        """x and y (B, T, D) -> z (B, T, D).

        Args:
            mask: (B, T) with 1 on real tokens; padding on either side is not seen.
            position_ids: (B, T), only if a row holds several documents: 0 starts a new one.
        """
        if mask is not None:
            x = x * mask[..., None].to(x.dtype)
        if position_ids is None:
            u = self._convolve(x)
        else:
            documents = Documents(mask, position_ids, x.shape[:2])
            u = documents.join(self._convolve(documents.split(x)))  # (M, L, D), zeros after the end
        return self.norm(y + self.act_fn(self.dropout(u)))

    def _convolve(self, x: Tensor) -> Tensor:
        return self.conv(x.transpose(1, 2)).transpose(1, 2)
