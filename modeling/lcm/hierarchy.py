"""From tokens to sentences to abstract concepts, and back.

    c1_s = sum_t softmax_t(u x_t) V x_t               over the tokens of sentence s, a softmax for each head
    P    = softmax(c_l W)                             which abstract concept each of level l is part of
    c_l+1 = Pᵀ c_l, each divided by its share         over the sentences up to s: nobody sees what comes later
    c_l  <- Block(c_l);   c_l <- c_l + CA(c_l -> c_l+1)      upwards, then downwards

and what is more general, as boxes that lie in each other (Vilnis et al. 2018, https://arxiv.org/abs/1805.06627, with
the soft sides of Li et al. 2019, https://openreview.net/forum?id=H1xSNiRcF7). The share of a that lies in b,

    s(a, b) = vol(box_a and box_b) / vol(box_a),   vol = (prod_d softplus(side_d))^(1 / E)

is to be 1 for "a is a b" and 0 for other pairs: without these the box of everything would do for every b.

Shapes: B rows, S tokens, N sentences, A abstract concepts of a level, D hidden size, E size of a concept, H heads, K
head size.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..layers.attention import exact_attention
from ..layers.gated_cross_attention import GatedCrossAttention
from ..layers.mlp import MLP
from ..layers.norm import RMSNorm


class SpanPooling(nn.Module):
    """One vector for the tokens of each span, weighed by attention.

    Args:
        hidden_size: D.
        concept_size: E.
        num_heads: H.
    """

    def __init__(self, hidden_size: int, concept_size: int, num_heads: int, eps: float) -> None:
        super().__init__()
        self.norm = RMSNorm(hidden_size, eps)
        self.score = nn.Linear(hidden_size, num_heads, bias=False)
        self.v_proj = nn.Linear(hidden_size, concept_size, bias=False)

    def forward(self, x: Tensor, members: Tensor) -> Tensor:
        """x (B, S, D), members (B, N, S) true on the tokens of a span -> (B, N, E), zero for a span without any."""
        x = self.norm(x)
        scores = self.score(x).transpose(1, 2)[:, :, None].float()  # (B, H, 1, S)
        is_empty = ~members.any(-1)[:, None, :, None]
        weights = scores.masked_fill(~(members[:, None] | is_empty), -torch.inf).softmax(-1)  # (B, H, N, S)
        weights = weights.masked_fill(is_empty, 0.0).to(x.dtype)
        v = self.v_proj(x).unflatten(-1, (weights.shape[1], -1)).transpose(1, 2)
        return (weights @ v).transpose(1, 2).flatten(2)


class LevelBlock(nn.Module):
    """A transformer block over the concepts of one level.

    Args:
        concept_size: E.
        num_heads: H.
        eps: of the norms.
    """

    def __init__(self, concept_size: int, num_heads: int, eps: float) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.mixer_norm = RMSNorm(concept_size, eps)
        self.q_proj, self.k_proj, self.v_proj, self.o_proj = (
            nn.Linear(concept_size, concept_size, bias=False) for _ in range(4)
        )
        self.mlp_norm = RMSNorm(concept_size, eps)
        self.mlp = MLP(concept_size, 2 * concept_size, "gelu")

    def forward(self, x: Tensor, seen: Tensor | None = None) -> Tensor:
        """x (B, N, E), seen (B, N, N) true where one may look -> (B, N, E)."""
        y = self.mixer_norm(x)
        q, k, v = (
            proj(y).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
            for proj in (self.q_proj, self.k_proj, self.v_proj)
        )
        y = exact_attention(q, k, v, None if seen is None else seen[:, None])
        x = x + self.o_proj(y.transpose(1, 2).flatten(2))
        return x + self.mlp(self.mlp_norm(x))


class ConceptHierarchy(nn.Module):
    """Levels of concepts above tokens.

    Args:
        concept_size: E.
        num_heads: H.
        level_sizes: A of each level above sentences.
        eps: of the norms.
    """

    def __init__(self, concept_size: int, num_heads: int, level_sizes: list[int], eps: float) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(LevelBlock(concept_size, num_heads, eps) for _ in (1, *level_sizes))
        self.assign = nn.ModuleList(nn.Linear(concept_size, size, bias=False) for size in level_sizes)
        head_dim = concept_size // num_heads
        self.down = nn.ModuleList(
            GatedCrossAttention(concept_size, concept_size, num_heads, head_dim, eps) for _ in level_sizes
        )

    def forward(self, x: Tensor, seen: Tensor) -> tuple[list[Tensor], Tensor]:
        """All levels, and how unclear the assignments to them are.

        Args:
            x: (B, N, E), of sentences.
            seen: (B, N, N), true where a sentence may look at another; a sentence that is empty is seen by none.

        Returns:
            (B, N, E), then (B, N, A, E) of each level above, as it is once sentence n is over; and the mean entropy
            of the assignments, of sentences that are not empty.
        """
        nobody = ~seen.any(-1, keepdim=True)
        is_real = seen.diagonal(dim1=1, dim2=2)  # (B, N)
        level = self.blocks[0](x, seen | nobody)
        levels, entropies = [level], []
        for number, assign in enumerate(self.assign):
            p = assign(level).float().softmax(-1)  # (B, N, A), above the first (B, N, A, A')
            entropy = -(p * p.clamp_min(1e-12).log()).sum(-1).unflatten(1, (-1, 1)).flatten(2).mean(-1)
            entropies.append((entropy * is_real).sum() / is_real.sum().clamp_min(1))
            p = p.to(level.dtype)
            if number == 0:
                shares = seen.to(p.dtype)[..., None] * p[:, None]  # (B, N, N, A)
                level = shares.transpose(2, 3) @ level[:, None]  # (B, N, A, E)
                shares = shares.sum(2)
            else:
                level = p.mT @ level
                shares = p.sum(-2)
            level = level / shares[..., None].clamp_min(1e-6)
            level = self.blocks[number + 1](level.flatten(0, 1)).view_as(level)
            levels.append(level)
        for number in reversed(range(len(self.down))):
            low, high = levels[number], levels[number + 1]
            low = low[:, :, None] if number == 0 else low
            rows, context = low.flatten(0, 1), high.flatten(0, 1)
            everything = torch.ones(1, 1, 1, dtype=torch.bool, device=x.device)
            all_seen = everything.expand(len(rows), rows.shape[1], context.shape[1])
            levels[number] = self.down[number](rows, *self.down[number].project_context(context), all_seen)
            levels[number] = levels[number].view_as(low).view_as(x if number == 0 else low)
        entropy = torch.stack(entropies).mean() if entropies else x.new_zeros(())
        return levels, entropy


class Taxonomy(nn.Module):
    """Concepts as boxes, of which the more general hold the others.

    Args:
        concept_size: E.
    """

    def __init__(self, concept_size: int) -> None:
        super().__init__()
        self.box = nn.Linear(concept_size, 2 * concept_size)

    def boxes(self, concepts: Tensor) -> tuple[Tensor, Tensor]:
        """concepts (..., E) -> lower and upper corner, each (..., E)."""
        centre, side = self.box(concepts).float().chunk(2, -1)
        half = F.softplus(side)
        return centre - half, centre + half

    def loss(self, concepts: Tensor, special: Tensor, general: Tensor) -> Tensor:
        """Mean over pairs of -log s(a, b), and over as many wrong ones of -log(1 - s(a, b')).

        Args:
            concepts: (C, E).
            special, general: (n,), numbers of a and b in "a is a b"; b' is the b of another pair.
        """
        low, high = self.boxes(concepts)
        right = self._share(low, high, special, general)
        other = general.roll(1)
        pairs = len(concepts) * special + general
        is_wrong = ~torch.isin(len(concepts) * special + other, pairs)
        wrong = -torch.log(-torch.expm1(self._share(low, high, special, other).clamp_max(-1e-6)))
        return (wrong * is_wrong).sum() / is_wrong.sum().clamp_min(1) - right.mean()

    def _share(self, low: Tensor, high: Tensor, special: Tensor, general: Tensor) -> Tensor:
        """log s(a, b) of pairs (n,)."""
        low_a, high_a, low_b, high_b = (
            corners.index_select(0, numbers) for numbers in (special, general) for corners in (low, high)
        )
        shared = log_volume(torch.maximum(low_a, low_b), torch.minimum(high_a, high_b))
        return shared - log_volume(low_a, high_a)


def log_volume(low: Tensor, high: Tensor) -> Tensor:
    """low, high (..., E) -> (...), the mean over axes: the size of a concept must not be the size of the loss."""
    return F.softplus(high - low).clamp_min(1e-12).log().mean(-1)
