"""The time mixing of RWKV-5 and 6: token shift and a matrix memory that decays, at a constant rate or as tokens say.

Peng et al. 2024, "Eagle and Finch: RWKV with Matrix-Valued States and Dynamic Recurrence",
https://arxiv.org/abs/2404.05892, section 4:

    x_m = x_t + mu_m ∘ (x_{t-1} - x_t)                            for m in k, v, r, g
    r, k, v = x_r W_r, x_k W_k, x_v W_v      g = silu(x_g W_g)    w = exp(-exp(w_0))
    out = (LayerNorm_head(wkv(r, w, k, v)) ∘ g) W_o

In RWKV-6 shift and decay depend on the token:

    mu_m <- mu_m + tanh((x_t + mu_x ∘ (x_{t-1} - x_t)) A) B_m     for m in w, k, v, r, g
    w = exp(-exp(w_0 + tanh(x_w W_1) W_2))

The recurrence is in wkv_matrix.py. The authors' RWKV-5 divides y by 8 before a norm with an eps of 1e-5, which is the
norm of y with 64e-5, as in RWKV-6.

Shapes: B batch, T tokens, D hidden size, H heads, N head size, R rank.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import initialization as init

from .bottleneck import Bottleneck
from .norm import HeadLayerNorm
from .token_shift import channel_ratios, depth_ratios, document_starts, ramp, token_shift
from .wkv_matrix import wkv_matrix

NORM_EPS = 64e-5


class Rwkv5Mixer(nn.Module):
    """RWKV-5's time mixing: shift and decay are the same for all tokens.

    Args:
        hidden_size: D.
        head_size: N.
        layer_idx, num_layers: how deep it stands, on which its first weights depend.
    """

    mixed = "kvrg"

    def __init__(self, hidden_size: int, head_size: int = 64, layer_idx: int = 0, num_layers: int = 1) -> None:
        super().__init__()
        self.head_size = head_size
        self.depth = depth_ratios(layer_idx, num_layers)
        self.norm_gain = ((layer_idx + 1) / num_layers) ** 0.7
        self.mix = nn.ParameterDict({name: torch.empty(hidden_size) for name in self.mixed})
        self.r_proj, self.k_proj, self.v_proj, self.gate_proj, self.o_proj = (
            nn.Linear(hidden_size, hidden_size, bias=False) for _ in "rkvgo"
        )
        self.time_decay = nn.Parameter(torch.empty(hidden_size))
        self.time_first = nn.Parameter(torch.empty(hidden_size // head_size, head_size))
        self.head_norm = HeadLayerNorm(hidden_size, head_size, NORM_EPS)
        self.initialise()

    @torch.no_grad()
    def initialise(self) -> None:
        """The authors' first weights: decays spread over the channels, further in deeper layers; no output yet."""
        depth, depth_left = self.depth
        for name, mix in self.mix.items():
            ratios = channel_ratios(mix) ** (depth_left * (0.5 if name in "rg" else 1))
            init.copy_(mix, 1 - ratios - (0.3 * depth if name == "v" else 0))
        init.copy_(self.time_decay, -6 + 5 * ramp(self.time_decay) ** (0.7 + 1.3 * depth))
        steps = ramp(self.time_first)
        zigzag = (torch.arange(len(steps), device=steps.device) + 1) % 3 - 1
        init.copy_(self.time_first, (depth * (1 - steps) + 0.1 * zigzag).view_as(self.time_first))
        init.constant_(self.head_norm.weight, self.norm_gain)
        for projection, gain in ((self.r_proj, 1), (self.k_proj, 0.1), (self.v_proj, 1), (self.gate_proj, 0.1)):
            init.orthogonal_(projection.weight, gain=gain)
        init.zeros_(self.o_proj.weight)

    def shifted(self, x: Tensor, previous: Tensor) -> dict[str, Tensor]:
        """x and the tokens before (B, T, D) -> what each projection reads (B, T, D)."""
        delta = previous - x
        return {name: torch.addcmul(x, delta, mix) for name, mix in self.mix.items()}

    def log_decay(self, shifted: dict[str, Tensor]) -> Tensor:
        """The logarithm of w, (1, 1, D) or (B, T, D), in at least float32."""
        return -torch.exp(self.time_decay.to(torch.promote_types(self.time_decay.dtype, torch.float32)))[None, None]

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
            state: the last token (B, D, 1), and the memory (B, H, N, N).
            position_ids: (B, T), only if a row holds several documents: 0 on a real token starts a new one.
        """
        window, memory = (None, None) if state is None else state
        previous, window = token_shift(x, mask, window, position_ids)
        shifted = self.shifted(x, previous)
        r, k, v = self.r_proj(shifted["r"]), self.k_proj(shifted["k"]), self.v_proj(shifted["v"])
        gate = F.silu(self.gate_proj(shifted["g"]))
        log_w = self.log_decay(shifted)
        if mask is not None:  # such a token neither lets the memory decay nor writes to it
            real = mask[..., None].to(x.dtype)
            k, log_w = k * real, log_w * real
        r, k, v, log_w = (z.unflatten(-1, (-1, self.head_size)) for z in (r, k, v, log_w))
        starts = document_starts(position_ids, mask)
        y, memory = wkv_matrix(r, log_w, k, v, self.time_first, memory, starts)
        return self.o_proj(self.head_norm(y) * gate), (window, memory)


class Rwkv6Mixer(Rwkv5Mixer):
    """RWKV-6's time mixing: shift and decay depend on the token.

    Args:
        hidden_size: D.
        head_size: N.
        shift_rank, decay_rank: hidden units of the networks that make the shifts and the decay.
        layer_idx, num_layers: how deep it stands, on which its first weights depend.
    """

    mixed = "wkvrg"

    def __init__(
        self,
        hidden_size: int,
        head_size: int = 64,
        shift_rank: int = 32,
        decay_rank: int = 64,
        layer_idx: int = 0,
        num_layers: int = 1,
    ) -> None:
        super().__init__(hidden_size, head_size, layer_idx, num_layers)
        self.decay = Bottleneck(hidden_size, decay_rank, hidden_size, "tanh", bias=False)
        self.mix_x = nn.Parameter(torch.empty(hidden_size))
        self.shift_down = nn.Linear(hidden_size, len(self.mixed) * shift_rank, bias=False)
        self.shift_up = nn.Parameter(torch.empty(len(self.mixed), shift_rank, hidden_size))
        self.initialise_networks()

    @torch.no_grad()
    def initialise(self) -> None:
        """The authors' first weights: as in RWKV-5, on which the token has no influence yet."""
        super().initialise()
        if hasattr(self, "shift_up"):  # not yet while the base class is being made
            self.initialise_networks()

    @torch.no_grad()
    def initialise_networks(self) -> None:
        """What makes shift and decay depend on the token."""
        _, depth_left = self.depth
        init.copy_(self.mix_x, 1 - channel_ratios(self.mix_x) ** depth_left)
        for down, up in ((self.decay.down.weight, self.decay.up.weight), (self.shift_down.weight, self.shift_up)):
            init.zeros_(down)
            init.uniform_(up, -0.01, 0.01)

    def shifted(self, x: Tensor, previous: Tensor) -> dict[str, Tensor]:
        """x and the tokens before (B, T, D) -> what each projection reads (B, T, D)."""
        delta = previous - x
        hidden = torch.tanh(self.shift_down(torch.addcmul(x, delta, self.mix_x)))
        parts = hidden.unflatten(-1, (len(self.mixed), -1)).unbind(-2)  # (B, T, R) each
        return {
            name: torch.addcmul(x, delta, self.mix[name] + part @ up)
            for name, part, up in zip(self.mixed, parts, self.shift_up, strict=True)
        }

    def log_decay(self, shifted: dict[str, Tensor]) -> Tensor:
        """The logarithm of w, (B, T, D)."""
        change = self.decay(shifted["w"])
        return -torch.exp(self.time_decay + change.to(torch.promote_types(change.dtype, torch.float32)))
