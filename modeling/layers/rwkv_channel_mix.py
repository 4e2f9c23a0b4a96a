"""RWKV's feed-forward network: a squared ReLU behind a token shift, gated or not.

Peng et al. 2023, https://arxiv.org/abs/2305.13048, section 3.1; Peng et al. 2024, https://arxiv.org/abs/2404.05892
(RWKV-5 and 6); Peng et al. 2025, https://arxiv.org/abs/2503.14456 (RWKV-7):

    gated      y = sigmoid(x_r W_r) ∘ (relu(x_k W_k)^2 W_v)      RWKV-4 to 6
    ungated    y = relu(x_k W_k)^2 W_v                           RWKV-7

where x_m lies between a token and the one before it. W_k, W_v and W_r are `up_proj`, `down_proj` and `gate_proj`.

Shapes: B batch, T tokens, D hidden size, F hidden units.
"""

import torch
from torch import Tensor, nn
from transformers import initialization as init

from .token_shift import channel_ratios, depth_ratios, token_shift


class ChannelMix(nn.Module):
    """The ungated form.

    Args:
        hidden_size: D.
        intermediate_size: F.
        layer_idx, num_layers: how deep it stands, on which its first weights depend.
    """

    is_gated = False

    def __init__(self, hidden_size: int, intermediate_size: int, layer_idx: int = 0, num_layers: int = 1) -> None:
        super().__init__()
        self.depth = depth_ratios(layer_idx, num_layers)
        self.mix_k = nn.Parameter(torch.empty(hidden_size))
        self.up_proj = nn.Linear(hidden_size, intermediate_size, bias=False)
        self.down_proj = nn.Linear(intermediate_size, hidden_size, bias=False)
        if self.is_gated:
            self.mix_r = nn.Parameter(torch.empty(hidden_size))
            self.gate_proj = nn.Linear(hidden_size, hidden_size, bias=False)
        self.initialise()

    @torch.no_grad()
    def initialise(self) -> None:
        """The authors' first weights: a branch starts as zero."""
        _, depth_left = self.depth
        init.copy_(self.mix_k, 1 - channel_ratios(self.mix_k) ** depth_left**4)
        bound = 0.5 * self.up_proj.in_features**-0.5
        init.uniform_(self.up_proj.weight, -bound, bound)
        init.zeros_(self.down_proj.weight)

    def forward(
        self,
        x: Tensor,
        mask: Tensor | None = None,
        state: tuple[Tensor | None, None] | None = None,
        position_ids: Tensor | None = None,
    ) -> tuple[Tensor, tuple[Tensor, None]]:
        """x (B, T, D), mask (B, T) with 1 on real tokens -> y (B, T, D) and the new state.

        Args:
            x: (B, T, D).
            mask: (B, T), see `token_shift`.
            state: the last token (B, D, 1), and None.
            position_ids: (B, T), only if a row holds several documents: 0 starts a new one.
        """
        previous, window = token_shift(x, mask, None if state is None else state[0], position_ids)
        return self.feed_forward(x, previous), (window, None)

    def feed_forward(self, x: Tensor, previous: Tensor) -> Tensor:
        """x and the tokens before (B, T, D) -> y (B, T, D); a mix of 0 is x and of 1 the token before."""
        delta = previous - x
        y = self.down_proj(self.up_proj(torch.addcmul(x, delta, self.mix_k)).relu().square())
        if not self.is_gated:
            return y
        return self.gate_proj(torch.addcmul(x, delta, self.mix_r)).sigmoid() * y


class GatedChannelMix(ChannelMix):
    """The gated form of RWKV-5 and 6."""

    is_gated = True

    @torch.no_grad()
    def initialise(self) -> None:
        """The authors' first weights: branch and gate start as zero."""
        _, depth_left = self.depth
        for mix in (self.mix_k, self.mix_r):
            init.copy_(mix, 1 - channel_ratios(mix) ** depth_left)
        init.orthogonal_(self.up_proj.weight)
        init.zeros_(self.down_proj.weight)
        init.zeros_(self.gate_proj.weight)


class Rwkv4ChannelMix(GatedChannelMix):
    """The gated form of RWKV-4, whose mixes are the share of the token itself."""

    @torch.no_grad()
    def initialise(self) -> None:
        """The authors' first weights: branch and gate start as zero."""
        super().initialise()
        for mix in (self.mix_k, self.mix_r):
            init.copy_(mix, 1 - mix)
        init.orthogonal_(self.up_proj.weight, gain=max(1.0, self.up_proj.out_features / len(self.mix_k)) ** 0.5)

    def feed_forward(self, x: Tensor, previous: Tensor) -> Tensor:
        """x and the tokens before (B, T, D) -> y (B, T, D); a mix of 1 is x and of 0 the token before."""
        return super().feed_forward(previous, x)
