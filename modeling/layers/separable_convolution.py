"""The depth-wise separable convolution as a layer: each channel over time, all channels at a time, never both at once.

Chollet 2016, https://arxiv.org/abs/1610.02357, in the order of Conformer's module (Gulati et al. 2020,
https://arxiv.org/abs/2005.08100, section 2.2), with RMSNorm in the place of BatchNorm, which would see other tokens:

    [a | b] = x W_in,   u = a ∘ sigmoid(b),   y = silu(RMSNorm(conv(u))) W_out
    conv(u)_t = Σ_k w_k ∘ u_{t-k}             k = 0 .. K-1, or K taps around t

K E + E D numbers take the place of the K E D of a full convolution.

Shapes: B batch, T tokens, D hidden size, E channels, K kernel size.
"""

from torch import Tensor, nn
from torch.nn import functional as F

from .norm import RMSNorm
from .short_convolution import ShortConvolution


class SeparableConvolution(nn.Module):
    """Mixes K tokens with few weights: in the place of attention, or of a feed-forward network.

    Args:
        hidden_size: D.
        inner_size: E.
        kernel_size: K, tokens that a channel sees.
        is_causal: whether they are the last K; if not, (K - 1) // 2 of them come later.
        norm_eps: of the RMSNorm.
    """

    def __init__(
        self,
        hidden_size: int,
        inner_size: int,
        kernel_size: int = 4,
        is_causal: bool = True,
        norm_eps: float = 1e-6,
        bias: bool = False,
    ) -> None:
        super().__init__()
        self.is_causal = is_causal
        self.in_proj = nn.Linear(hidden_size, 2 * inner_size, bias=bias)
        self.conv1d = ShortConvolution(inner_size, kernel_size)
        self.conv_norm = RMSNorm(inner_size, norm_eps)
        self.out_proj = nn.Linear(inner_size, hidden_size, bias=bias)

    def forward(
        self,
        x: Tensor,
        mask: Tensor | None = None,
        state: tuple[Tensor, None] | None = None,
        position_ids: Tensor | None = None,
    ) -> tuple[Tensor, tuple[Tensor, None] | None]:
        """x (B, T, D), mask (B, T) with 1 on real tokens -> y (B, T, D) and the new state.

        Args:
            x: (B, T, D).
            mask: (B, T). Padding may be anywhere.
            state: the last inputs of the convolution (B, E, K - 1), and no memory; None where both sides are seen.
            position_ids: (B, T), only if a row holds several documents: 0 starts a new one.
        """
        u = F.glu(self.in_proj(x), dim=-1)
        if mask is not None:  # real tokens first: padding between them would part what stands together
            order = mask.argsort(dim=1, descending=True, stable=True)
            mask, u = mask.gather(1, order), u.gather(1, order[..., None].expand_as(u))
            position_ids = None if position_ids is None else position_ids.expand_as(order).gather(1, order)
        if self.is_causal:
            y, window = self.conv1d(u, mask, None if state is None else state[0], position_ids)
            state = window, None
        else:
            y = self._convolve_around(u, mask, position_ids)
        if mask is not None:
            y = y.gather(1, order.argsort(dim=1)[..., None].expand_as(y))
        return self.out_proj(F.silu(self.conv_norm(y))), state

    def _convolve_around(self, u: Tensor, mask: Tensor | None, position_ids: Tensor | None) -> Tensor:
        """The convolution with (K - 1) // 2 taps on later tokens, u (B, T, E) -> (B, T, E)."""
        num_taps, num_tokens = self.conv1d.weight.shape[-1], u.shape[1]
        ahead = (num_taps - 1) // 2
        if mask is not None:
            u = u * mask[..., None].to(u.dtype)
        edges = (num_taps - 1 - ahead, ahead)
        inputs = F.pad(u, (0, 0, *edges))
        y = self.conv1d.bias
        documents = None if position_ids is None else (position_ids == 0).cumsum(1)
        around = None if documents is None else F.pad(documents, edges)
        for i in range(num_taps):
            tap = inputs[:, i : i + num_tokens]
            if documents is not None:
                tap = tap * (around[:, i : i + num_tokens] == documents)[..., None]
            y = y + tap * self.conv1d.weight[:, 0, i]
        return y
