"""The mixer of Mamba-1: a gated, short-convolved selective state-space model.

Gu and Dao 2023, "Mamba: Linear-Time Sequence Modeling with Selective State Spaces", https://arxiv.org/abs/2312.00752,
sections 3.2 to 3.6 and figure 3:

    [u | z] = x W_in                u = silu(conv(u))
    [r | B | C] = u W_x             dt = softplus(r W_dt + b_dt)        A = -exp(A_log)
    y = scan(u, dt, A, B, C, D)     out = (y ∘ silu(z)) W_out

Shapes: B batch, T tokens, D hidden size, E inner size, N state size, K convolution kernel, R rank of dt.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import initialization as init

from .selective_scan import selective_scan
from .short_convolution import ShortConvolution


class TimeStep(nn.Linear):
    """A linear layer that adds its bias in at least float32: dt is about exp(bias), which half precision coarsens."""

    def forward(self, x: Tensor) -> Tensor:
        """x (B, T, R) -> (B, T, E)."""
        dtype = torch.promote_types(x.dtype, torch.float32)
        return F.linear(x, self.weight).to(dtype) + self.bias.to(dtype)


class SelectiveSSM(nn.Module):
    """Mamba's mixer, with the parameters of transformers' `MambaMixer`; silu is its only activation.

    Args:
        hidden_size: D.
        state_size: N, numbers remembered per channel.
        conv_kernel: K, tokens that the convolution sees.
        inner_size: E, twice the hidden size if not given.
        time_step_rank: R, a sixteenth of the hidden size, rounded up, if not given.
        bias: whether in_proj and out_proj have one.
        conv_bias: whether the convolution has one.
    """

    def __init__(
        self,
        hidden_size: int,
        state_size: int = 16,
        conv_kernel: int = 4,
        inner_size: int | None = None,
        time_step_rank: int | None = None,
        bias: bool = False,
        conv_bias: bool = True,
    ) -> None:
        super().__init__()
        inner_size = inner_size or 2 * hidden_size
        time_step_rank = time_step_rank or math.ceil(hidden_size / 16)
        self.x_sizes = [time_step_rank, state_size, state_size]
        self.in_proj = nn.Linear(hidden_size, 2 * inner_size, bias=bias)
        self.conv1d = ShortConvolution(inner_size, conv_kernel, bias=conv_bias)
        self.x_proj = nn.Linear(inner_size, sum(self.x_sizes), bias=False)
        self.dt_proj = TimeStep(time_step_rank, inner_size)
        self.A_log = nn.Parameter(torch.empty(inner_size, state_size))
        self.D = nn.Parameter(torch.empty(inner_size))
        self.out_proj = nn.Linear(inner_size, hidden_size, bias=bias)
        self.initialise()

    @torch.no_grad()
    def initialise(self, dt_min: float = 1e-3, dt_max: float = 0.1, dt_floor: float = 1e-4) -> None:
        """The authors' initialisation, except that of in_proj and x_proj, which are like any linear layer of a model.

        The steps dt start log-uniform between dt_min and dt_max, not below dt_floor. Written with the functions of
        transformers, which leave loaded weights alone, so that `_init_weights` of a model can call it.
        """
        N = self.A_log.shape[1]
        init.copy_(self.A_log, torch.arange(1, N + 1, device=self.A_log.device).log().expand_as(self.A_log))
        init.ones_(self.D)
        bound = self.dt_proj.in_features**-0.5
        init.uniform_(self.dt_proj.weight, -bound, bound)
        uniform = torch.rand_like(self.dt_proj.bias, dtype=torch.float32)
        dt = torch.exp(math.log(dt_min) + uniform * math.log(dt_max / dt_min)).clamp_min(dt_floor)
        init.copy_(self.dt_proj.bias, dt + torch.log(-torch.expm1(-dt)))  # the inverse of softplus
        init.kaiming_uniform_(self.conv1d.weight, a=math.sqrt(5))
        if self.conv1d.bias is not None:
            init.zeros_(self.conv1d.bias)
        init.kaiming_uniform_(self.out_proj.weight, a=math.sqrt(5))
        if self.out_proj.bias is not None:
            init.zeros_(self.out_proj.bias)

    def forward(
        self,
        x: Tensor,
        mask: Tensor | None = None,
        state: tuple[Tensor, Tensor] | None = None,
        position_ids: Tensor | None = None,
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """x (B, T, D), mask (B, T) with 1 on real tokens -> y (B, T, D) and the new state.

        Args:
            x: (B, T, D).
            mask: (B, T). Padding touches no state. It comes after the last token of a row, or before the first if
                there is no state.
            state: the last inputs of the convolution (B, E, K - 1) and the state of the scan (B, E, N).
            position_ids: (B, T), only if a row holds several documents: 0 on a real token starts a new one.
        """
        conv_state, ssm_state = (None, None) if state is None else state
        u, z = self.in_proj(x).chunk(2, dim=-1)
        u, conv_state = self.conv1d(u, mask, conv_state, position_ids)
        u = F.silu(u)
        r, B, C = self.x_proj(u).split(self.x_sizes, dim=-1)
        dt = F.softplus(self.dt_proj(r))
        if mask is not None:
            dt = dt * mask[..., None].to(dt.dtype)  # a step of 0 neither decays the state nor writes to it
        starts = None
        if position_ids is not None:
            starts = position_ids == 0 if mask is None else (position_ids == 0) & mask.bool()
        A = -torch.exp(self.A_log.to(dt.dtype))
        y, ssm_state = selective_scan(u, dt, A, B, C, self.D, ssm_state, starts)
        return self.out_proj(y * F.silu(z)), (conv_state, ssm_state)
