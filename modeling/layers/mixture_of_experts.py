"""A feed-forward layer of routed experts, and of shared ones that every token passes through.

    y_t = sum over e in S(t) of  g_te FFN_e(x_t)  +  FFN_shared(x_t)    Dai et al. 2024, arXiv:2401.06066, Eq. (9)

The router (routers.py) chooses S and g, the experts (experts.py) hold the networks.

Shapes: B batch, T tokens, D hidden size, N = B T, E experts, k experts a token.
"""

import torch
from torch import Tensor, nn

from .experts import Experts
from .routers import Router
from .routing import Routing, router_z_loss


class MixtureOfExperts(nn.Module):
    """A router, its experts, and shared ones if there are any.

    Args:
        gate: chooses.
        experts: compute.
        shared_experts: x (B, T, D) -> (B, T, D), for every token.
    """

    def __init__(self, gate: Router, experts: Experts, shared_experts: nn.Module | None = None) -> None:
        super().__init__()
        self.gate = gate
        self.experts = experts
        self.shared_experts = shared_experts

    def forward(self, x: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Routing]:
        """x (B, T, D), mask (B, T) with 1 on real tokens -> y (B, T, D) and what the router decided."""
        flat = x.reshape(-1, x.shape[-1])
        routing = self.gate(flat, None if mask is None else mask.reshape(-1))
        if routing.tokens is None:
            y = self.experts(flat, routing.experts, routing.weights)
        else:
            y = self.experts(flat[routing.tokens], routing.experts, routing.weights)
            y = torch.zeros_like(flat).index_add(0, routing.tokens, y)
        y = y.view_as(x)
        if self.shared_experts is not None:
            y = y + self.shared_experts(x)
        return y, routing

    def side_outputs(
        self, routing: Routing, mask: Tensor | None, num_rows: int
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Balance loss, z-loss, and what the router is to remember, of a routing of `num_rows` rows of tokens.

        Args:
            mask: (B, T) with 1 on real tokens.
        """
        mask = None if mask is None else mask.reshape(-1)
        z_loss = router_z_loss(routing.logits, mask)
        return self.gate.balance_loss(routing, mask, num_rows), z_loss, self.gate.observation(routing)
