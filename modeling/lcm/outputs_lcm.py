"""What the large concept model gives back beside what all models do."""

from dataclasses import dataclass

from torch import Tensor
from transformers.modeling_outputs import BaseModelOutputWithPast
from transformers.utils import ModelOutput


@dataclass
class ConceptModelOutput(BaseModelOutputWithPast):
    """Of the trunk.

    Args:
        concept_loss: what entities, triples, what is more general and assignments add to the loss in training.
    """

    concept_loss: Tensor | None = None


@dataclass
class GraphAnswerOutput(ModelOutput):
    """Of the model that answers with an entity.

    Args:
        loss: of the answers, with what concepts add in training.
        logits: (B, num_entities), log-probabilities.
        paths: (B, num_hops, 2), number of the relation and of the entity at each hop of the path that brought most to
            the answer, -1 after its end; outside training.
        starts: (B), number of the entity that the path begins with.
        hidden_states: one (B, T, D) a layer, and the embeddings.
        attentions: one (B, H, T, T) a layer.
    """

    loss: Tensor | None = None
    logits: Tensor | None = None
    paths: Tensor | None = None
    starts: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None
