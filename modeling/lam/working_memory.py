"""Short-term memory beside the window of tokens: a few vectors that each step writes to.

    c = CA(W + s -> h),   z = sigmoid(Z [W; c]),   W <- (1 - z) W + z c

s tells the slots apart, which start at zero.

Shapes: B batch, T tokens, M slots, D hidden size.
"""

import torch
from torch import Tensor, nn
from transformers import initialization as init

from ..layers.attention import exact_attention


class WorkingMemory(nn.Module):
    """Slots (B, M, D) that are updated by attention to what a step has seen.

    Args:
        hidden_size: D.
        num_slots: M.
    """

    def __init__(self, hidden_size: int, num_slots: int) -> None:
        super().__init__()
        self.slot_embed = nn.Parameter(torch.zeros(num_slots, hidden_size))
        self.query = nn.Linear(hidden_size, hidden_size, bias=False)
        self.key = nn.Linear(hidden_size, hidden_size, bias=False)
        self.value = nn.Linear(hidden_size, hidden_size, bias=False)
        self.gate = nn.Linear(2 * hidden_size, hidden_size)

    @torch.no_grad()
    def initialise(self) -> None:
        """Slots are told apart by draws."""
        init.normal_(self.slot_embed, std=1.0)

    def empty(self, rows: int) -> Tensor:
        """Slots that nothing was written to (B, M, D)."""
        return self.slot_embed.new_zeros(rows, *self.slot_embed.shape)

    def forward(self, slots: Tensor, states: Tensor, mask: Tensor) -> Tensor:
        """slots (B, M, D), states (B, T, D), mask (B, T) true where there is something to write -> (B, M, D)."""
        mask = mask.bool()
        has_any = mask.any(-1)[:, None, None]
        seen = (mask[:, None] | ~has_any)[:, None]  # attention to nothing is no number
        q, k, v = self.query(slots + self.slot_embed), self.key(states), self.value(states)
        y = exact_attention(q[:, None], k[:, None], v[:, None], seen).squeeze(1)
        z = self.gate(torch.cat((slots, y), dim=-1)).sigmoid()
        return torch.where(has_any, torch.lerp(slots, y, z), slots)
