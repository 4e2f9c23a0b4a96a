"""Learning from two views of the same input, with a target network that follows slowly.

Grill et al. 2020, "Bootstrap your own latent", https://arxiv.org/abs/2006.07733, section 3.1; Li et al. 2021,
https://arxiv.org/abs/2106.11360, pre-train Hi-BEHRT with it:

    loss = 2 - 2 cos(predict(z), z'),  z = project(online(view)),  z' = project'(target(other view)), no gradient
    target <- tau target + (1 - tau) online                          after each step of the optimiser

Shapes: B rows, D size of a vector.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import initialization as init


class Projection(nn.Module):
    """W_2 gelu(LayerNorm(W_1 x)); the paper normalises over the batch, which would make rows depend on each other."""

    def __init__(self, input_size: int, output_size: int) -> None:
        super().__init__()
        self.up_proj = nn.Linear(input_size, output_size)
        self.norm = nn.LayerNorm(output_size)
        self.down_proj = nn.Linear(output_size, output_size)

    def forward(self, x: Tensor) -> Tensor:
        """x (B, input_size) -> (B, output_size)."""
        return self.down_proj(F.gelu(self.norm(self.up_proj(x))))


class MomentumTarget(nn.Module):
    """A slowly following copy of a network; before its first update it stands for the network itself.

    Args:
        network: modules of the same shapes as those that are followed, in the same order.
    """

    def __init__(self, *network: nn.Module) -> None:
        super().__init__()
        self.network = nn.ModuleList(network).requires_grad_(False)
        self.register_buffer("num_updates", torch.zeros((), dtype=torch.long))

    def initialise(self) -> None:
        """No update yet."""
        init.zeros_(self.num_updates)

    @torch.no_grad()
    def follow(self, followed: list[nn.Module], decay: float) -> None:
        """One step towards the modules that are followed; the first takes their weights as they are."""
        decay = decay if self.num_updates else 0.0
        for own, other in zip(self.network, followed, strict=True):
            for kept, new in zip(own.parameters(), other.parameters(), strict=True):
                kept.lerp_(new.detach().to(kept.dtype), 1.0 - decay)
        self.num_updates += 1


def view_loss(predicted: Tensor, target: Tensor) -> Tensor:
    """Mean over rows of 2 - 2 cos, for predictions and targets (B, D)."""
    return (2 - 2 * F.cosine_similarity(predicted.float(), target.detach().float(), dim=-1)).mean()
