"""The time mixing of RWKV-7: token shift and a memory under the generalised delta rule.

Peng et al. 2025, "RWKV-7 Goose with Expressive Dynamic State Evolution", https://arxiv.org/abs/2503.14456, section 4:

    x_m = x_t + mu_m ∘ (x_{t-1} - x_t)                       for m in r, w, k, v, a, g
    r, k, v = x_r W_r, x_k W_k, x_v W_v                      a = sigmoid(a_0 + x_a A_1 A_2)
    w = exp(-e^{-1/2} sigmoid(w_0 + tanh(x_w W_1) W_2))      g = sigmoid(x_g G_1) G_2
    v <- v + (v_first - v) ∘ sigmoid(v_0 + x_v V_1 V_2)      in all layers but the first, whose values are v_first
    kappa = k ∘ k_k, of length 1 in each head                k <- k ∘ (1 + (a - 1) ∘ k_a)
    y = S^T r,  S <- diag(w) S - (kappa ∘ a) (kappa^T S) + k v^T
    out = ((LayerNorm_head(y) + (r ∘ r_k)^T k v) ∘ g) W_o

The recurrence is in delta_rule.py.

Shapes: B batch, T tokens, D hidden size, H heads, N head size.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import initialization as init

from .bottleneck import Bottleneck
from .delta_rule import delta_rule
from .norm import HeadLayerNorm
from .token_shift import channel_ratios, depth_ratios, document_starts, ramp, token_shift

NORM_EPS = 64e-5


class Rwkv7TimeMix(nn.Module):
    """RWKV-7's time mixing, which also gives the values that later layers mix in.

    Args:
        hidden_size: D.
        head_size: N.
        decay_rank, rate_rank, gate_rank: hidden units of the networks that make w, a and g.
        value_rank: hidden units of the network that mixes in the first layer's values; None in the first layer.
        layer_idx, num_layers: how deep it stands, on which its first weights depend.
        rate_limit: what a stays below, 1 in the paper. Up to 2 a token may turn the memory over along kappa, which
            following a permutation needs (Grazzi et al. 2024, https://arxiv.org/abs/2411.12537).
    """

    def __init__(
        self,
        hidden_size: int,
        head_size: int = 64,
        decay_rank: int = 64,
        rate_rank: int = 64,
        gate_rank: int = 128,
        value_rank: int | None = None,
        layer_idx: int = 0,
        num_layers: int = 1,
        rate_limit: float = 1.0,
    ) -> None:
        super().__init__()
        self.rate_limit = rate_limit
        self.head_size = head_size
        self.depth = depth_ratios(layer_idx, num_layers)
        self.norm_gain = ((layer_idx + 1) / num_layers) ** 0.7
        self.mix = nn.ParameterDict({name: torch.empty(hidden_size) for name in "rwkvag"})
        self.r_proj, self.k_proj, self.v_proj, self.o_proj = (
            nn.Linear(hidden_size, hidden_size, bias=False) for _ in "rkvo"
        )
        self.decay = Bottleneck(hidden_size, decay_rank, hidden_size, "tanh")
        self.rate = Bottleneck(hidden_size, rate_rank, hidden_size)
        self.gate = Bottleneck(hidden_size, gate_rank, hidden_size, "sigmoid", bias=False)
        self.value = None if value_rank is None else Bottleneck(hidden_size, value_rank, hidden_size)
        self.k_k, self.k_a = (nn.Parameter(torch.empty(hidden_size)) for _ in "ka")
        self.r_k = nn.Parameter(torch.empty(hidden_size // head_size, head_size))
        self.head_norm = HeadLayerNorm(hidden_size, head_size, NORM_EPS)
        self.initialise()

    @torch.no_grad()
    def initialise(self) -> None:
        """The authors' first weights: decays and rates spread over the channels, and no output yet."""
        depth, depth_left = self.depth
        ratios = channel_ratios(self.k_k)
        for name, power in {"r": 0.2, "g": 0.2, "w": 0.9, "a": 0.9, "k": 0.7, "v": 0.7}.items():
            init.copy_(self.mix[name], 1 - ratios ** (power * depth_left))
        steps, line = ramp(self.k_k), ramp(self.k_k, -0.5, 0.5)
        within = torch.linspace(-1, 1, self.head_size, device=line.device).repeat(len(line) // self.head_size)
        zigzag = within * within.abs()
        init.copy_(self.decay.bias, -5.5 + 6 * steps ** (1 + depth**0.3) + 2.5 * zigzag)
        init.copy_(self.rate.bias, -0.19 + 0.3 * zigzag + 0.4 * line)
        if self.value is not None:
            init.copy_(self.value.bias, 0.73 - 0.4 * line)
        for network in (self.decay, self.rate, self.gate, self.value):
            if network is not None:
                init.zeros_(network.down.weight)
                gain = max(1, network.up.in_features / network.up.out_features) ** 0.5
                init.orthogonal_(network.up.weight, gain=0.1 * gain)
        init.copy_(self.k_k, 0.71 - 0.1 * line)
        init.constant_(self.k_a, 1.02)
        init.constant_(self.r_k, -0.04)
        init.constant_(self.head_norm.weight, self.norm_gain)
        bound = 0.5 * len(line) ** -0.5
        init.uniform_(self.r_proj.weight, -bound, bound)
        init.uniform_(self.k_proj.weight, -0.1 * bound, 0.1 * bound)
        init.uniform_(self.v_proj.weight, -bound, bound)
        init.zeros_(self.o_proj.weight)

    def forward(
        self,
        x: Tensor,
        mask: Tensor | None = None,
        state: tuple[Tensor, Tensor] | None = None,
        position_ids: Tensor | None = None,
        v_first: Tensor | None = None,
    ) -> tuple[Tensor, tuple[Tensor, Tensor], Tensor]:
        """x (B, T, D), mask (B, T) with 1 on real tokens -> y (B, T, D), the new state, the first layer's values.

        Args:
            x: (B, T, D).
            mask: (B, T). Padding touches no state. It comes after the last token of a row, or before the first if
                there is no state.
            state: the last token (B, D, 1), and the memory (B, H, N, N).
            position_ids: (B, T), only if a row holds several documents: 0 on a real token starts a new one.
            v_first: (B, T, D), the values of the first layer; this is the first without them.
        """
        window, memory = (None, None) if state is None else state
        previous, window = token_shift(x, mask, window, position_ids)
        delta = previous - x
        x_r, x_w, x_k, x_v, x_a, x_g = (torch.addcmul(x, delta, self.mix[name]) for name in "rwkvag")
        r, k, v, g = self.r_proj(x_r), self.k_proj(x_k), self.v_proj(x_v), self.gate(x_g)
        log_w = -math.exp(-0.5) * torch.sigmoid(self.decay(x_w))
        a = torch.sigmoid(self.rate(x_a))
        if v_first is None:
            v_first = v
        elif self.value is not None:
            v = torch.lerp(v, v_first, torch.sigmoid(self.value(x_v)).to(v.dtype))
        kappa = F.normalize(self.split_heads(k * self.k_k).to(a.dtype), dim=-1)
        k = k * torch.addcmul(1 - self.k_a, a, self.k_a).to(k.dtype)
        if mask is not None:  # such a token neither lets the memory decay nor writes to it
            real = mask[..., None].to(x.dtype)
            log_w, k, a = log_w * real, k * real, a * real
        r, log_w, k, v, a = (self.split_heads(z) for z in (r, log_w, k, v, a))
        starts = document_starts(position_ids, mask)
        y, memory = delta_rule(r, log_w, k, v, -kappa, kappa * (self.rate_limit * a), memory, starts)
        now = (r * k * self.r_k).sum(-1, keepdim=True)
        y = self.head_norm(y) + (now * v).flatten(-2)
        return self.o_proj((y * g).to(x.dtype)), (window, memory), v_first

    def split_heads(self, x: Tensor) -> Tensor:
        """x (B, T, D) -> (B, T, H, N)."""
        return x.unflatten(-1, (-1, self.head_size))


class Rwkv7Mixer(Rwkv7TimeMix):
    """The same as a token mixer like any other, which gives an output and a state."""

    def forward(self, *args: Tensor, **kwargs: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """As above, without the first layer's values."""
        y, state, _ = super().forward(*args, **kwargs)
        return y, state
