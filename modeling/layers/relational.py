"""What a graph of typed edges does to vectors of its nodes, and to a distribution over them.

Relational message passing (Schlichtkrull et al. 2017, https://arxiv.org/abs/1703.06103, whose equation (3) is the
decomposition into bases; messages of entity times relation as in Vashishth et al. 2020,
https://arxiv.org/abs/1911.03082, weighed by attention):

    a_e = softmax over the edges into t of  q_t (k_h + r)ᵀ / sqrt(D),      e = (h, r, t)
    m_t = sum_e a_e (x_h * r) W_r,    W_r = sum_b c_rb B_b
    y_t = Norm(x_t + m_t W)

Following relations (Cohen et al. 2020, https://arxiv.org/abs/2002.06115, section 2.2):

    p'(t) = sum_e p(h) alpha(r),  divided by its sum

Shapes: N nodes, R relations, M edges, D size of a node, Q distributions.
"""

import torch
from torch import Tensor, nn
from transformers import initialization as init

from .norm import RMSNorm

LEAST_MASS = 1e-12  # less than this is none


def segment_softmax(scores: Tensor, segments: Tensor, num_segments: int) -> Tensor:
    """scores (M), segments (M) with the number of each one's group -> weights (M) that sum to one in each group."""
    largest = scores.new_full((num_segments,), -torch.inf).scatter_reduce(0, segments, scores.detach(), "amax")
    weights = (scores - largest.index_select(0, segments)).exp()
    return weights / weights.new_zeros(num_segments).index_add(0, segments, weights).index_select(0, segments)


def follow(p: Tensor, relations: Tensor, edges: Tensor, hidden: Tensor | None = None) -> Tensor:
    """Where a distribution gets to by one step along the edges.

    Args:
        p: (Q, N), of at least float32.
        relations: (Q, R), how much of it goes along edges of each kind.
        edges: (3, M) of head, relation and tail.
        hidden: (Q, M), true where an edge is not there for a distribution.

    Returns:
        (Q, N) that sums to one, or is zero where no edge leads anywhere.
    """
    heads, kinds, tails = edges
    # (M, Q): whole rows are gathered and added; the gradient of `p.T[heads]` would sort them first
    mass = p.T.index_select(0, heads) * relations.T.to(p.dtype).index_select(0, kinds)
    if hidden is not None:
        mass = mass.masked_fill(hidden.T, 0.0)
    reached = mass.new_zeros(p.T.shape).index_add(0, tails, mass).T
    total = reached.sum(-1, keepdim=True)
    p = torch.where(total > LEAST_MASS, reached / total.clamp_min(LEAST_MASS), 0.0)
    return torch.where(p > LEAST_MASS, p, 0.0)  # or gradients of several steps pass the largest number there is


class RelationalLayer(nn.Module):
    """Each node gets messages along the edges that lead to it; one without any keeps what it has, normalised.

    Args:
        hidden_size: D.
        num_relations: R.
        num_bases: matrices that all relations share.
        eps: of the norm.
    """

    def __init__(self, hidden_size: int, num_relations: int, num_bases: int, eps: float) -> None:
        super().__init__()
        self.q_proj = nn.Linear(hidden_size, hidden_size, bias=False)
        self.k_proj = nn.Linear(hidden_size, hidden_size, bias=False)
        self.o_proj = nn.Linear(hidden_size, hidden_size, bias=False)
        self.bases = nn.Parameter(torch.empty(num_bases, hidden_size, hidden_size))
        self.coefficients = nn.Parameter(torch.empty(num_relations, num_bases))
        self.norm = RMSNorm(hidden_size, eps)

    @torch.no_grad()
    def initialise(self) -> None:
        """Messages start about as large as what they are made of."""
        init.normal_(self.bases, std=self.bases.shape[-1] ** -0.5)
        init.normal_(self.coefficients, std=self.coefficients.shape[-1] ** -0.5)

    def forward(self, x: Tensor, relations: Tensor, edges: Tensor) -> Tensor:
        """x (N, D), relations (R, D), edges (3, M) -> y (N, D)."""
        heads, kinds, tails = edges
        q, k = self.q_proj(x).index_select(0, tails), self.k_proj(x).index_select(0, heads)
        r = relations.index_select(0, kinds)
        scores = (q * (k + r)).sum(-1) * x.shape[-1] ** -0.5
        weights = segment_softmax(scores.to(torch.promote_types(x.dtype, torch.float32)), tails, len(x))
        messages = x.index_select(0, heads) * r * weights.to(x.dtype)[:, None]  # (M, D)
        shares = self.coefficients.index_select(0, kinds)
        sums = [x.new_zeros(x.shape).index_add(0, tails, messages * share[:, None]) for share in shares.unbind(1)]
        return self.norm(x + self.o_proj(sum(y @ basis for y, basis in zip(sums, self.bases, strict=True))))
