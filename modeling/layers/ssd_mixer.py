"""The mixer of Mamba-2: a gated, short-convolved state space with one decay a head.

Dao and Gu 2024, "Transformers are SSMs", https://arxiv.org/abs/2405.21060, section 7:

    [z | x B C | dt] = u W_in            x B C = silu(conv(x B C))          dt = softplus(dt + b)
    y = ssd(x, dt, -exp(A_log), B, C, D)                                    out = RMSNorm(y ∘ silu(z)) W_out

Shapes: B batch, T tokens, D hidden size, E inner size = H P, H heads, P head size, G groups, N state size, K kernel.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import initialization as init

from .norm import GatedRMSNorm
from .short_convolution import ShortConvolution
from .ssd import ssd


class SSDMixer(nn.Module):
    """Mamba-2's mixer, with the parameters of transformers' `Mamba2Mixer`; silu is its only activation.

    Args:
        hidden_size: D.
        num_heads: H.
        head_dim: P.
        state_size: N, numbers remembered per channel.
        num_groups: G, how many B and C the heads share.
        conv_kernel: K, tokens that the convolution sees.
        norm_eps: of the gated norm.
        bias: whether in_proj and out_proj have one.
        conv_bias: whether the convolution has one.
        dt_limit: smallest and largest step.
    """

    def __init__(
        self,
        hidden_size: int,
        num_heads: int,
        head_dim: int = 64,
        state_size: int = 128,
        num_groups: int = 1,
        conv_kernel: int = 4,
        *,
        norm_eps: float = 1e-5,
        bias: bool = False,
        conv_bias: bool = True,
        dt_limit: tuple[float, float] = (0.0, math.inf),
    ) -> None:
        super().__init__()
        inner_size = num_heads * head_dim
        self.head_dim, self.num_groups, self.dt_limit = head_dim, num_groups, dt_limit
        self.group_sizes = [inner_size, num_groups * state_size, num_groups * state_size]
        self.in_sizes = [inner_size, sum(self.group_sizes), num_heads]
        self.in_proj = nn.Linear(hidden_size, sum(self.in_sizes), bias=bias)
        self.conv1d = ShortConvolution(self.in_sizes[1], conv_kernel, bias=conv_bias)
        self.dt_bias = nn.Parameter(torch.empty(num_heads))
        self.A_log = nn.Parameter(torch.empty(num_heads))
        self.D = nn.Parameter(torch.empty(num_heads))
        self.norm = GatedRMSNorm(inner_size, norm_eps, num_groups)
        self.out_proj = nn.Linear(inner_size, hidden_size, bias=bias)
        self.initialise()

    @torch.no_grad()
    def initialise(self, dt_min: float = 1e-3, dt_max: float = 0.1, dt_floor: float = 1e-4) -> None:
        """The authors' initialisation: A uniform in -[1, 16], steps log-uniform between dt_min and dt_max.

        Written with the functions of transformers, which leave loaded weights alone.
        """
        uniform = torch.rand_like(self.A_log, dtype=torch.float32)
        init.copy_(self.A_log, (1 + 15 * uniform).log())
        init.ones_(self.D)
        uniform = torch.rand_like(self.dt_bias, dtype=torch.float32)
        dt = torch.exp(math.log(dt_min) + uniform * math.log(dt_max / dt_min)).clamp_min(dt_floor)
        init.copy_(self.dt_bias, dt + torch.log(-torch.expm1(-dt)))  # the inverse of softplus
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
            state: the last inputs of the convolution (B, E + 2 G N, K - 1) and the state of the heads (B, H, P, N).
            position_ids: (B, T), only if a row holds several documents: 0 on a real token starts a new one.
        """
        conv_state, ssm_state = (None, None) if state is None else state
        z, xBC, dt = self.in_proj(x).split(self.in_sizes, dim=-1)
        xBC, conv_state = self.conv1d(xBC, mask, conv_state, position_ids)
        u, B, C = F.silu(xBC).split(self.group_sizes, dim=-1)
        u = u.unflatten(-1, (-1, self.head_dim))  # (B, T, H, P)
        B, C = (y.unflatten(-1, (self.num_groups, -1)) for y in (B, C))  # (B, T, G, N)
        dtype = torch.promote_types(x.dtype, torch.float32)
        dt = F.softplus(dt.to(dtype) + self.dt_bias.to(dtype))
        if self.dt_limit != (0.0, math.inf):
            dt = dt.clamp(*self.dt_limit)
        if mask is not None:
            dt = dt * mask[..., None].to(dtype)  # a step of 0 neither decays the state nor writes to it
        starts = None
        if position_ids is not None:
            starts = position_ids == 0 if mask is None else (position_ids == 0) & mask.bool()
        A = -torch.exp(self.A_log.to(dtype))
        y, ssm_state = ssd(u, dt, A, B, C, self.D, ssm_state, starts)
        return self.out_proj(self.norm(y.flatten(2), z)), (conv_state, ssm_state)
