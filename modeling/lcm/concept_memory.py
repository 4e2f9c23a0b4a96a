"""The concepts of each sentence: what it mentions, what it says as a whole, and what follows from the graph.

    Z_s = [entities that s mentions | free concepts | c1_s | what K hops from the entities lead to]

Entities are found by the dot product of tokens with concepts. The likeliest m are taken, each times 1 + w - sg(w) with
its softmax weight w: as they are, with gradients for the weights (the straight-through estimator).

Shapes: B rows, S tokens, N sentences, m entities of a sentence, Z concepts of a sentence, D hidden size, E size of a
concept, C entities of the graph.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import initialization as init

from .configuration_lcm import ZooLcmConfig
from .hierarchy import ConceptHierarchy, SpanPooling
from .multi_hop import Hops, MultiHopReasoner

_LEAST = -1e30  # score of what is not mentioned at all


@dataclass
class Links:
    """Which entities spans are about.

    Args:
        numbers: (B, N, m).
        weights: (B, N, m), which sum to one, or are zero where a span mentions nothing.
        loss: of finding those that are known to be mentioned; None where none are, and outside training.
    """

    numbers: Tensor
    weights: Tensor
    loss: Tensor | None

    def spread(self, num_entities: int) -> Tensor:
        """The weights as a distribution over all entities, (B, N, C) of float32."""
        weights = self.weights.to(torch.promote_types(self.weights.dtype, torch.float32))
        return weights.new_zeros(*weights.shape[:2], num_entities).scatter_add(2, self.numbers, weights)


class EntityLinker(nn.Module):
    """Finds entities.

    Args:
        hidden_size: D.
        concept_size: E.
        num_linked: m.
    """

    def __init__(self, hidden_size: int, concept_size: int, num_linked: int) -> None:
        super().__init__()
        self.num_linked = num_linked
        self.mention_proj = nn.Linear(hidden_size, concept_size, bias=False)

    def forward(self, x: Tensor, members: Tensor, concepts: Tensor, mentions: Tensor | None) -> Links:
        """The entities of each span: those that are known to be mentioned, or the likeliest where nobody knows.

        Args:
            x: (B, S, D).
            members: (B, N, S), true on the tokens of a span.
            concepts: (C, E).
            mentions: (B, S), number of the entity that a token mentions, -1 for none; None where nobody knows.
        """
        in_span = members.any(1)
        span = members.long().argmax(1)  # (B, S), anything for a token of none
        loss = None
        if mentions is None:
            scores = self.score(x, concepts).masked_fill(~in_span[..., None], _LEAST)
            if members.shape[1] == 1:
                spans = scores.amax(1, keepdim=True)
            else:
                spans = scores.new_full((len(x), members.shape[1], len(concepts)), _LEAST)
                spans = spans.scatter_reduce(1, span[..., None].expand_as(scores), scores, "amax")
        else:
            known = (mentions >= 0) & in_span
            if self.training and bool(known.any()):
                loss = F.cross_entropy(self.score(x[known], concepts), mentions[known])
            spans = torch.full((len(x), members.shape[1], len(concepts)), _LEAST, device=x.device)
            rows = torch.arange(len(x), device=x.device)[:, None].expand_as(span)
            spans[rows[known], span[known], mentions[known]] = 0.0
        best, numbers = spans.topk(self.num_linked, dim=-1)
        return Links(numbers, best.softmax(-1).masked_fill(best <= _LEAST / 2, 0.0), loss)

    def score(self, x: Tensor, concepts: Tensor) -> Tensor:
        """x (..., D), concepts (C, E) -> how well each entity fits (..., C), of float32."""
        return (self.mention_proj(x) @ concepts.T).float() * concepts.shape[-1] ** -0.5


@dataclass
class SentenceConcepts:
    """What was made of the sentences.

    Args:
        concepts: (B, N, Z, E).
        losses: weighted, to be added to the model's.
    """

    concepts: Tensor
    losses: Tensor


class ConceptMemory(nn.Module):
    """Makes the concepts of sentences from hidden states of their tokens."""

    def __init__(self, config: ZooLcmConfig) -> None:
        super().__init__()
        self.link_weight, self.assignment_weight = config.link_loss_coefficient, config.assignment_loss_coefficient
        size, heads = config.concept_size, config.num_attention_heads
        self.pooling = SpanPooling(config.hidden_size, size, heads, config.norm_eps)
        self.linker = EntityLinker(config.hidden_size, size, config.num_linked)
        self.hierarchy = ConceptHierarchy(size, heads, config.level_sizes, config.norm_eps)
        for assign in self.hierarchy.assign:  # logits of unit variance: concepts of a level differ from the start
            assign.init_scale = size**-0.5 / config.initializer_range
        self.reasoner = MultiHopReasoner(size, config.num_hops) if config.num_hops else None
        self.free_slots = nn.Parameter(torch.empty(config.num_free_slots, size))
        self.num_slots = config.num_linked + config.num_free_slots + 1 + bool(config.num_hops)

    @torch.no_grad()
    def initialise(self) -> None:
        """Free concepts are as large as those of entities."""
        init.normal_(self.free_slots)

    def forward(
        self,
        x: Tensor,
        members: Tensor,
        seen: Tensor,
        mentions: Tensor | None,
        concepts: Tensor,
        relations: Tensor,
        edges: Tensor,
    ) -> SentenceConcepts:
        """The concepts of each sentence.

        Args:
            x: (B, S, D).
            members: (B, N, S), true on the tokens of a sentence.
            seen: (B, N, N), true where a sentence may look at another: it and those before it.
            mentions: (B, S), see `EntityLinker`.
            concepts: (C, E), of the graph.
            relations: (R, E).
            edges: (3, M).
        """
        levels, entropy = self.hierarchy(self.pooling(x, members), seen)
        sentences = levels[0]
        links = self.linker(x, members, concepts, mentions)
        linked = F.embedding(links.numbers, concepts)  # (B, N, m, E)
        weights = links.weights.to(linked.dtype)[..., None]
        through = (1 + weights - weights.detach()) * (weights > 0)
        free = self.free_slots.expand(*sentences.shape[:2], -1, -1)
        parts = [linked * through, free, sentences[:, :, None]]
        if self.reasoner is not None:
            hops = self.reason(sentences, links, concepts, relations, edges)
            parts.append(hops.readout.view_as(sentences)[:, :, None])
        losses = self.assignment_weight * entropy
        if links.loss is not None:
            losses = losses + self.link_weight * links.loss
        return SentenceConcepts(torch.cat(parts, dim=2), losses)

    def reason(self, query: Tensor, links: Links, concepts: Tensor, relations: Tensor, edges: Tensor) -> Hops:
        """query (B, N, E) -> the hops of B N questions, from the entities that each is about."""
        start = links.spread(len(concepts)).flatten(0, 1)
        return self.reasoner(query.flatten(0, 1), start, concepts, relations, edges)
