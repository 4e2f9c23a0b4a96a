"""An embedding that is another's and a difference of its own.

He et al. 2021, https://arxiv.org/abs/2111.09543, section 3.3, gradient-disentangled embedding sharing:

    E_D = stop_gradient(E_G) + E_Δ,     E_Δ = 0 at the start

What is learnt through E_D stays out of E_G, and what E_G learns still reaches E_D.
"""

import torch
from torch import Tensor, nn
from transformers import initialization as init


class EmbeddingDifference(nn.Embedding):
    """E_Δ; the embedding that it is the difference to is given with each call."""

    def initialise(self) -> None:
        """Zeros: the two embeddings start as one."""
        init.zeros_(self.weight)

    def forward(self, input_ids: Tensor, shared: Tensor) -> Tensor:
        """input_ids (B, T), what the other embedding makes of them (B, T, D) -> (B, T, D)."""
        return shared.detach() + super().forward(input_ids)

    @torch.no_grad()
    def resize(self, vocab_size: int) -> None:
        """Cut the table, or add rows without a difference."""
        kept = self.weight[:vocab_size]
        self.weight = nn.Parameter(torch.cat((kept, kept.new_zeros(vocab_size - len(kept), kept.shape[1]))))
        self.num_embeddings = vocab_size
