"""The time mixing of RWKV-4: token shift, WKV, and a gate.

Peng et al. 2023, "RWKV: Reinventing RNNs for the Transformer Era", https://arxiv.org/abs/2305.13048, section 3.1:

    r = sigmoid(x_r W_r)    k = x_k W_k    v = x_v W_v    out = (r ∘ wkv(-e^{time_decay}, time_first, k, v)) W_o

where x_m = mu_m ∘ x_t + (1 - mu_m) ∘ x_{t-1}; the average `wkv` is in wkv.py.

Shapes: B batch, T tokens, D hidden size.
"""

import math

import torch
from torch import Tensor, nn
from transformers import initialization as init

from .token_shift import channel_ratios, depth_ratios, document_starts, ramp, token_shift
from .wkv import wkv


class Rwkv4Mixer(nn.Module):
    """RWKV-4's mixer, with the parameters of transformers' `RwkvSelfAttention`.

    Args:
        hidden_size: D.
        layer_idx, num_layers: how deep it stands, on which its first weights depend.
    """

    def __init__(self, hidden_size: int, layer_idx: int = 0, num_layers: int = 1) -> None:
        super().__init__()
        self.depth = depth_ratios(layer_idx, num_layers)
        self.time_decay = nn.Parameter(torch.empty(hidden_size))
        self.time_first = nn.Parameter(torch.empty(hidden_size))
        self.mix_k, self.mix_v, self.mix_r = (nn.Parameter(torch.empty(hidden_size)) for _ in "kvr")
        self.k_proj = nn.Linear(hidden_size, hidden_size, bias=False)
        self.v_proj = nn.Linear(hidden_size, hidden_size, bias=False)
        self.r_proj = nn.Linear(hidden_size, hidden_size, bias=False)
        self.o_proj = nn.Linear(hidden_size, hidden_size, bias=False)
        self.initialise()

    @torch.no_grad()
    def initialise(self) -> None:
        """The authors' first weights: decays spread over the channels, further in deeper layers; no output yet."""
        depth, depth_left = self.depth
        init.copy_(self.time_decay, -5 + 8 * ramp(self.time_decay) ** (0.7 + 1.3 * depth))
        zigzag = (torch.arange(len(self.time_first), device=self.time_first.device) + 1) % 3 - 1
        init.copy_(self.time_first, math.log(0.3) + 0.5 * zigzag)
        ratios = channel_ratios(self.mix_k)
        init.copy_(self.mix_k, ratios**depth_left)
        init.copy_(self.mix_v, ratios**depth_left + 0.3 * depth)
        init.copy_(self.mix_r, ratios ** (0.5 * depth_left))
        init.orthogonal_(self.v_proj.weight)
        for projection in (self.k_proj, self.r_proj, self.o_proj):
            init.zeros_(projection.weight)

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
            state: the last token (B, D, 1), and the sums of the WKV (B, 3, D).
            position_ids: (B, T), only if a row holds several documents: 0 on a real token starts a new one.
        """
        window, memory = (None, None) if state is None else state
        previous, window = token_shift(x, mask, window, position_ids)
        delta = x - previous
        k, v, r = (
            projection(torch.addcmul(previous, delta, mix))
            for projection, mix in (
                (self.k_proj, self.mix_k),
                (self.v_proj, self.mix_v),
                (self.r_proj, self.mix_r),
            )
        )
        w = -torch.exp(self.time_decay.to(torch.promote_types(x.dtype, torch.float32)))
        y, memory = wkv(w, self.time_first, k, v, memory, mask, document_starts(position_ids, mask))
        return self.o_proj(r.sigmoid() * y), (window, memory)
