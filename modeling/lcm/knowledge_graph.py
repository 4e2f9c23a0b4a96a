"""A knowledge graph inside a model: vectors that are learnt, edges that are data.

The edges are a buffer (3, M), which is saved with the weights and changed without training. A concept is what message
passing makes of an entity's vector and of its neighbourhood (layers/relational.py), so it follows the edges too.

Triples (h, r, t) are learnt as which t follows h and r, by the score

    DistMult  sum_d h_d r_d t_d                Yang et al. 2014, https://arxiv.org/abs/1412.6575
    ComplEx   Re sum_d h_d r_d conj(t_d)       Trouillon et al. 2016, https://arxiv.org/abs/1606.06357

Shapes: N entities, R relations, M edges, E size of a concept.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import initialization as init

from ..layers.relational import RelationalLayer
from .configuration_lcm import ZooLcmConfig


def draw_edges(num_entities: int, num_relations: int, num_edges: int) -> Tensor:
    """Edges (3, M) between random entities, the same at every call, and so in every new model of a size."""
    generator = torch.Generator().manual_seed(0)
    limits = (num_entities, num_relations, num_entities)
    return torch.stack([torch.randint(limit, (num_edges,), generator=generator, device="cpu") for limit in limits])


class KnowledgeGraph(nn.Module):
    """Entities, relations and edges of the config's numbers; a fresh one has random edges and weights."""

    def __init__(self, config: ZooLcmConfig) -> None:
        super().__init__()
        size = config.concept_size
        self.is_complex = config.graph_score == "complex"
        self.num_negatives, self.num_samples = config.num_negatives, config.num_graph_samples
        self.entities = nn.Parameter(torch.empty(config.num_entities, size))
        self.relations = nn.Parameter(torch.empty(config.num_relations, size))
        edges = draw_edges(config.num_entities, config.num_relations, config.num_edges)
        self.register_buffer("edges", edges.to(self.entities.device))
        self.layers = nn.ModuleList(
            RelationalLayer(size, config.num_relations, config.num_bases, config.norm_eps)
            for _ in range(config.num_graph_layers)
        )

    @torch.no_grad()
    def initialise(self) -> None:
        """Vectors of unit variance, which products of several neither blow up nor make vanish."""
        init.normal_(self.entities)
        init.normal_(self.relations)
        init.copy_(self.edges, draw_edges(len(self.entities), len(self.relations), self.edges.shape[1]))

    def forward(self) -> Tensor:
        """The concepts (N, E)."""
        x = self.entities
        for layer in self.layers:
            x = layer(x, self.relations, self.edges)
        return x

    def score(self, head: Tensor, relation: Tensor, tail: Tensor) -> Tensor:
        """How well triples of vectors (..., E) that broadcast fit, (...)."""
        if not self.is_complex:
            return (head * relation * tail).sum(-1)
        (a, b), (c, d), (e, f) = (x.chunk(2, -1) for x in (head, relation, tail))  # real and imaginary parts
        return ((a * c - b * d) * e + (a * d + b * c) * f).sum(-1)

    def loss(self, concepts: Tensor) -> Tensor:
        """Mean cross-entropy of the right tail among `num_negatives` others, over `num_samples` edges.

        Scores are divided by sqrt(E), as large as they are at first.
        """
        edges, num_entities = self.edges, len(concepts)
        if not edges.shape[1]:
            return concepts.new_zeros(())
        if edges.shape[1] > self.num_samples:
            edges = edges[:, torch.randint(edges.shape[1], (self.num_samples,), device=edges.device)]
        heads, kinds, tails = edges
        h, r = concepts.index_select(0, heads)[:, None], self.relations.index_select(0, kinds)[:, None]  # (n, 1, E)
        scale = concepts.shape[-1] ** -0.5
        if num_entities <= self.num_negatives:
            return F.cross_entropy(self.score(h, r, concepts).float() * scale, tails)
        others = torch.randint(num_entities, (len(heads), self.num_negatives), device=edges.device)
        candidates = torch.cat((tails[:, None], others), dim=1)  # (n, 1 + negatives), the right one first
        vectors = concepts.index_select(0, candidates.flatten()).view(*candidates.shape, -1)
        scores = self.score(h, r, vectors).float() * scale
        scores[:, 1:] = scores[:, 1:].masked_fill(others == tails[:, None], -torch.inf)
        return F.cross_entropy(scores, torch.zeros_like(tails))
