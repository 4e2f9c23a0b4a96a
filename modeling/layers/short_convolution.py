"""Causal depthwise convolution over the last few tokens, which stands before the scan in Mamba and its kin.

Gu and Dao 2023, "Mamba", https://arxiv.org/abs/2312.00752, section 3.4 (as in H3, https://arxiv.org/abs/2212.14052):

    y_t = b + Σ_{k=0}^{K-1} w_{K-1-k} ∘ x_{t-k}     with x_s = 0 before the start

Shapes: B batch, T tokens, E channels, K kernel size.
"""

import math

import torch
from torch import Tensor, nn

from .mamba_kernels import kernel_for


class ShortConvolution(nn.Module):
    """One filter of K taps per channel, with the parameters of `nn.Conv1d(E, E, K, groups=E)`; no activation.

    The sum is taken over K shifted products in the layout (B, T, E) of the layers around it. On a CPU that is up to
    twice as fast as a grouped convolution, and it keeps packed documents apart by masking a tap.
    """

    def __init__(self, channels: int, kernel_size: int = 4, bias: bool = True) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(channels, 1, kernel_size))
        self.bias = nn.Parameter(torch.empty(channels)) if bias else None
        nn.init.kaiming_uniform_(self.weight, a=math.sqrt(5))
        if bias:
            nn.init.zeros_(self.bias)

    def forward(
        self,
        x: Tensor,
        mask: Tensor | None = None,
        state: Tensor | None = None,
        position_ids: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """x (B, T, E) -> y (B, T, E) and the last K - 1 inputs of each row as state (B, E, K - 1).

        Args:
            x: (B, T, E).
            mask: (B, T), 1 on real tokens. Padding comes before the first or after the last token of a row; before
                the first only if there is no state.
            state: (B, E, K - 1) left by earlier tokens.
            position_ids: (B, T), counted from 0 in each document: no tap reaches over the start of its document.
        """
        taps = self.weight.shape[-1]
        if mask is not None:
            x = x * mask[..., None].to(x.dtype)
        past = x.new_zeros(x.shape[0], taps - 1, x.shape[2]) if state is None else state.mT.to(x.dtype)
        inputs = torch.cat([past, x], dim=1)  # (B, K - 1 + T, E)
        kernel = kernel_for(x, "causal_conv1d", "causal_conv1d_fn") if position_ids is None and state is None else None
        if kernel is not None:
            y = kernel(x.mT, self.weight.squeeze(1), self.bias).mT
        else:
            y = self._convolve(inputs, position_ids)
        if mask is None:
            return y, inputs[:, x.shape[1] :].mT.contiguous()  # a copy: a view would keep all inputs alive
        last_real = (mask.cumsum(1) * mask).argmax(1, keepdim=True)
        end = last_real + mask.any(1, keepdim=True)  # (B, 1): tokens up to the last real one, 0 if all are padding
        last = end + torch.arange(taps - 1, device=x.device)
        return y, inputs.gather(1, last[..., None].expand(-1, -1, x.shape[2])).mT

    def _convolve(self, inputs: Tensor, position_ids: Tensor | None) -> Tensor:
        taps = self.weight[:, 0].t().contiguous()  # (K, E), oldest first
        T = inputs.shape[1] - len(taps) + 1
        y = inputs.new_zeros(()) if self.bias is None else self.bias
        for i, tap in enumerate(taps):
            x = inputs[:, i : i + T]
            if position_ids is not None:
                x = x.masked_fill((position_ids < len(taps) - 1 - i)[..., None], 0.0)
            y = torch.addcmul(y, x, tap)
        return y
