"""Who sees which concepts: sentences of a batch, whatever padding, packing or a cache do to its rows.

A token that ends a sentence is its last. Tokens of sentence s see the concepts of the sentences before it, so that
none sees what is to come: chunk-causal attention, with sentences for chunks.

Shapes: B rows, T new tokens, S tokens with those of a cache, N sentences, Z concepts of a sentence, D hidden size, E
size of a concept, C entities of the graph.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from ..layers.gated_cross_attention import GatedCrossAttention
from .cache_lcm import ConceptCacheLayer
from .concept_memory import SentenceConcepts


def number_sentences(ends: Tensor, real: Tensor, documents: Tensor | None, ended: Tensor | None) -> Tensor:
    """The sentence of each token.

    Args:
        ends: (B, T), true on tokens that end a sentence.
        real: (B, T), true on real tokens.
        documents: (B or 1, T), which of the documents packed into a row a token is of; None where rows hold one.
        ended: (B,), sentences that are over before these tokens; None for none.

    Returns:
        (B, T), from 0; -1 for padding.
    """
    ends = (ends & real).long()
    numbers = ends.cumsum(1) - ends
    if documents is not None:
        numbers = numbers + documents - documents[:, :1]  # a document starts a sentence
    if ended is not None:
        numbers = numbers + ended[:, None]
    return numbers.masked_fill(~real, -1)


class ConceptReading:
    """One forward pass of tokens and concepts.

    Args:
        sentences: (B, T), see `number_sentences`.
        ended: (B,), sentences that are over after these tokens.
        documents: (B, T), None where rows hold one.
        mentions: (B, T), entities that tokens mention, -1 for none; None where nobody knows.
        past: what earlier tokens left; None without a cache.

    Attributes:
        num_sentences: N, of which concepts are made; 0 where no sentence is over that was not before.
        make_concepts: the model's `ConceptMemory`: entities, x, members, seen and mentions -> concepts.
    """

    def __init__(
        self,
        sentences: Tensor,
        ended: Tensor,
        documents: Tensor | None,
        mentions: Tensor | None,
        past: ConceptCacheLayer | None,
    ) -> None:
        self.make_concepts: Callable[..., SentenceConcepts] | None = None
        self.past = past
        self.new, self.documents = sentences, documents
        self.all, self.mentions = sentences, mentions
        num_past = 0
        is_over = bool((ended > 0).any())
        if past is not None:
            if past.sentences is not None:
                num_past = past.sentences.shape[1]
                self.all = torch.cat((past.sentences, sentences), dim=1)
                self.mentions = _join(past.mentions, mentions, num_past, sentences)
                is_over = bool((ended > past.ended).any())
            past.sentences, past.ended, past.mentions = self.all, ended, self.mentions
        # Concepts change when a sentence ends; where none is over nobody can see any
        self.num_sentences = int(self.all.max()) + 1 if is_over and self.all.numel() else 0
        if self.num_sentences:
            numbers = torch.arange(self.num_sentences, device=sentences.device)
            self.members = self.all[:, None] == numbers[:, None]  # (B, N, S)
            self.is_real = self.members.any(-1)
            self.visible = (numbers[:, None] >= numbers) & self.is_real[:, None]  # (B, N, N)
            if documents is not None:
                of_sentence = self._document_of(documents)
                self.visible = self.visible & (of_sentence[:, :, None] == of_sentence[:, None])
            if past is not None:
                past.is_real = self.is_real
        elif past is not None:
            self.is_real = past.is_real
        else:
            self.is_real = None

    def read(
        self,
        x: Tensor,
        entities: Tensor | None,
        concepts: Tensor | None,
        layer: int,
        reader: GatedCrossAttention,
        writer: GatedCrossAttention,
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """One exchange of tokens and concepts.

        Args:
            x: (B, T, D), of the new tokens.
            entities: (C, E), the concepts of the graph; None where no sentence is over.
            concepts: (B, N, Z, E) from the layers before; None at the first exchange, or where there are none.
            layer: number of this one.
            reader: of concepts by tokens.
            writer: of tokens by concepts.

        Returns:
            x and the concepts after it, and the losses of making them, at the first.
        """
        hidden = x if self.past is None else self.past.extend(layer, x)
        losses = None
        keys, values = None, None
        if self.num_sentences:
            if concepts is None:
                made = self.make_concepts(entities, hidden, self.members, self.visible, self.mentions)
                concepts, losses = made.concepts, made.losses
            slots = concepts.shape[2]
            flat = concepts.flatten(1, 2)
            own = self.members.repeat_interleave(slots, dim=1)  # (B, N Z, S): concepts read their sentence
            flat = writer(flat, *writer.project_context(hidden), own)
            concepts = flat.view_as(concepts)
            keys, values = reader.project_context(flat)
            if self.past is not None:
                self.past.concept_keys[layer], self.past.concept_values[layer] = keys, values
        elif self.past is not None and layer in self.past.concept_keys:
            keys, values = self.past.concept_keys[layer], self.past.concept_values[layer]
        if keys is None:
            return reader(x), concepts, losses
        return reader(x, keys, values, self._seen(keys.shape[2] // self.is_real.shape[1])), concepts, losses

    def _seen(self, slots: int) -> Tensor:
        """(B, T, N Z), true where a token may look at a concept."""
        numbers = torch.arange(self.is_real.shape[1], device=self.new.device)
        seen = (numbers < self.new[..., None]) & self.is_real[:, None]  # (B, T, N)
        if self.documents is not None:
            seen = seen & (self.documents[..., None] == self._document_of(self.documents)[:, None])
        return seen.repeat_interleave(slots, dim=-1)

    def _document_of(self, documents: Tensor) -> Tensor:
        """(B, N), the document of each sentence; rows that are packed have no past."""
        places = self.members.long().argmax(-1)  # of its first token
        return documents.expand(len(places), -1).gather(1, places)


def _join(past: Tensor | None, new: Tensor | None, num_past: int, like: Tensor) -> Tensor | None:
    """Mentions (B, S) of all tokens, from those of some."""
    if past is None and new is None:
        return None
    if past is None:
        return F.pad(new, (num_past, 0), value=-1)
    return torch.cat((past, torch.full_like(like, -1) if new is None else new), dim=1)
