"""Reasoning by following relations of a graph, differentiably, for a set number of hops.

From a question's vector q and a distribution p over entities, for h = 1 ... K:

    alpha_h = softmax(8 tanh(q_h-1 W rᵀ / 8))     which relation comes next; a wrong one can always be unlearnt
    p_h     = follow(p_h-1, alpha_h)              see layers/relational.py
    q_h     = GRU(sum_t p_h(t) c_t, q_h-1)
    w       = softmax over h of v q_h             after how many hops to halt
    p       = sum_h w_h p_h,   y = sum_t p(t) c_t

Shapes: Q questions, N entities, R relations, M edges, K hops, E size of a concept.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import initialization as init

from ..layers.relational import follow

_CAP = 8.0  # of scores: a relation that seems out of the question still lets through enough to learn from


@dataclass
class Hops:
    """What reasoning found.

    Args:
        answer: p (Q, N), the mean of the hops' distributions by their weights.
        readout: y (Q, E).
        entities: p_h (Q, K, N).
        relations: alpha_h (Q, K, R).
        halting: w (Q, K).
    """

    answer: Tensor
    readout: Tensor
    entities: Tensor
    relations: Tensor
    halting: Tensor


@torch.no_grad()
def trace(hops: Hops, start: Tensor, edges: Tensor) -> tuple[Tensor, Tensor]:
    """The path that brought most to each answer, found backwards from it.

    Args:
        hops: of Q questions.
        start: (Q, N), where they began.
        edges: (3, M).

    Returns:
        (Q, K, 2) of relation and entity for each hop, -1 after the one that gave most of the answer; and the entity
        (Q) that the path begins with.
    """
    heads, kinds, tails = edges
    rows = torch.arange(len(start), device=start.device)
    entity = hops.answer.argmax(-1)
    shares = hops.halting * hops.entities[rows, :, entity]  # (Q, K)
    last = shares.argmax(-1)
    path = torch.full((*shares.shape, 2), -1, device=start.device)
    for hop in reversed(range(shares.shape[1])):
        before = start if hop == 0 else hops.entities[:, hop - 1]
        mass = before.index_select(1, heads) * hops.relations[:, hop].index_select(1, kinds)  # (Q, M)
        mass = mass.masked_fill(tails != entity[:, None], -1.0)
        is_on = (hop <= last) & (mass.amax(-1) > 0) if mass.shape[1] else torch.zeros_like(last, dtype=torch.bool)
        if not bool(is_on.any()):
            continue
        edge = mass.argmax(-1)
        path[:, hop] = torch.where(is_on[:, None], torch.stack((kinds[edge], entity), dim=-1), -1)
        entity = torch.where(is_on, heads[edge], entity)
    return path, entity


def direct_edges(start: Tensor, answers: Tensor, edges: Tensor) -> Tensor:
    """(Q, M), true on edges from where a question starts straight to an answer of it.

    Args:
        start: (Q, N).
        answers: (Q) or (Q, A), numbers of entities, -100 where there are no more.
        edges: (3, M).
    """
    heads, _, tails = edges
    is_answer = (answers.view(len(start), -1, 1) == tails).any(1)
    return (start > 0).index_select(1, heads) & is_answer


class QueryUpdate(nn.GRUCell):
    """q' = GRU(input, q)."""

    @torch.no_grad()
    def initialise(self) -> None:
        """Weights that keep the size of what they multiply."""
        for weight in (self.weight_ih, self.weight_hh):
            init.normal_(weight, std=self.hidden_size**-0.5)
        for bias in (self.bias_ih, self.bias_hh):
            init.zeros_(bias)


class MultiHopReasoner(nn.Module):
    """Follows relations.

    Args:
        concept_size: E.
        num_hops: K, at least one.
    """

    def __init__(self, concept_size: int, num_hops: int) -> None:
        super().__init__()
        self.num_hops = num_hops
        self.relation_proj = nn.Linear(concept_size, concept_size, bias=False)
        self.gru = QueryUpdate(concept_size, concept_size)
        self.halt = nn.Linear(concept_size, 1, bias=False)

    def forward(
        self,
        query: Tensor,
        start: Tensor,
        concepts: Tensor,
        relations: Tensor,
        edges: Tensor,
        hidden: Tensor | None = None,
    ) -> Hops:
        """The hops of each question.

        Args:
            query: (Q, E).
            start: (Q, N), which sums to one.
            concepts: (N, E).
            relations: (R, E).
            edges: (3, M).
            hidden: (Q, M), true on edges that are not there for a question.
        """
        p = start.to(torch.promote_types(start.dtype, torch.float32))
        found, chosen, halting = [], [], []
        for _ in range(self.num_hops):
            scores = (self.relation_proj(query) @ relations.T).to(p.dtype)
            alpha = (_CAP * (scores / _CAP).tanh()).softmax(-1)
            p = follow(p, alpha, edges, hidden)
            query = self.gru(p.to(concepts.dtype) @ concepts, query)
            found.append(p)
            chosen.append(alpha)
            halting.append(self.halt(query))
        weights = torch.cat(halting, dim=-1).to(p.dtype).softmax(-1)
        entities = torch.stack(found, dim=1)
        answer = (weights[..., None] * entities).sum(1)
        readout = answer.to(concepts.dtype) @ concepts
        return Hops(answer, readout, entities, torch.stack(chosen, dim=1), weights)
