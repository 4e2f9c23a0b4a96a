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

_CERTAIN = 1e4  # score of an entity that is known to be mentioned, beside which others have no weight


@dataclass
class Links:
    """Which entities spans are about.

    Args:
        numbers: (B, N, m).
        weights: (B, N, m), which sum to one.
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
        """The entities of each span.

        Args:
            x: (B, S, D).
            members: (B, N, S), true on the tokens of a span.
            concepts: (C, E).
            mentions: (B, S), number of the entity that a token mentions, -1 for none; None where nobody knows.
        """
        scores = (self.mention_proj(x) @ concepts.T).float() * concepts.shape[-1] ** -0.5  # (B, S, C)
        loss = None
        if mentions is not None:
            known = (mentions >= 0) & members.any(1)
            if self.training and bool(known.any()):
                loss = F.cross_entropy(scores[known], mentions[known])
            certain = torch.where(known, _CERTAIN, 0.0).to(scores.dtype)[..., None]
            scores = scores.scatter_add(2, mentions.clamp_min(0)[..., None], certain)
        number = members.long().argmax(1) if members.shape[1] > 1 else members.new_zeros(x.shape[:2]).long()
        scores = scores.masked_fill(~members.any(1)[..., None], torch.finfo(scores.dtype).min)
        spans = scores.new_full((len(x), members.shape[1], len(concepts)), torch.finfo(scores.dtype).min)
        spans = spans.scatter_reduce(1, number[..., None].expand_as(scores), scores, "amax")
        best, numbers = spans.topk(min(self.num_linked, len(concepts)), dim=-1)
        return Links(numbers, best.softmax(-1), loss)


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
        linked = concepts[links.numbers]  # (B, N, m, E)
        weights = links.weights.to(linked.dtype)[..., None]
        free = self.free_slots.expand(*sentences.shape[:2], -1, -1)
        parts = [linked * (1 + weights - weights.detach()), free, sentences[:, :, None]]
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
