"""Configuration of the large concept model."""

from typing import Any, Literal

from huggingface_hub.dataclasses import strict
from transformers import PreTrainedConfig

from ..llm.configuration_llm import ZooLlmConfig
from ..parts import PART, part_config


@strict
class ZooLcmConfig(ZooLlmConfig):
    """The fields of the dense decoder (llm), and those of concepts, their graph and what is made of them.

    Args:
        sentence_token_ids: tokens that end a sentence; the default is LLaMA's line feed.
        cross_every: tokens and concepts look at each other after every so many layers.
        concept_size: of a concept, hidden_size without it.
        num_entities, num_relations, num_edges: of the knowledge graph; `load_graph` and the methods that edit it
            keep them up to date.
        entity_names, relation_names: of the graph, in the order of their numbers.
        num_graph_layers, num_bases: of the message passing that makes an entity's concept of its neighbourhood.
        num_linked: entities that a sentence may be about.
        num_free_slots: learned concepts of each sentence beside those of the graph.
        level_sizes: abstract concepts of each level above sentences.
        num_hops: relations that are followed one after the other.
        hide_direct_edges: in training a question does not see edges from where it starts straight to its answer, so
            that the longer way is learnt; for questions of two hops or more.
        graph_score: how a triple is scored when the graph is learnt.
        num_negatives: other entities that the tail of a triple is told from, drawn anew each step; all of them where
            there are no more.
        num_graph_samples: triples that a step learns, drawn anew; all of them where there are no more.
        taxonomy_relations: numbers of the relations whose tail is the more general of the two ("is a").
        link_loss_coefficient, graph_loss_coefficient, taxonomy_loss_coefficient, assignment_loss_coefficient: weights
            in the loss, in training, of finding the entities that are mentioned, of the triples, of what is more
            general, and of assignments to abstract concepts that are not clear.
        predictor_config: of the architecture `zoo_concept_predictor`, for the head that predicts concepts.
    """

    model_type = "zoo_lcm"
    sub_configs = {"predictor_config": PART}
    may_be_zero = ("num_edges", "num_graph_layers", "num_free_slots", "num_hops")

    sentence_token_ids: list[int] | None = None
    cross_every: int = 4
    concept_size: int | None = None
    num_entities: int = 1024
    num_relations: int = 16
    num_edges: int = 0
    entity_names: list[str] | None = None
    relation_names: list[str] | None = None
    num_graph_layers: int = 2
    num_bases: int = 4
    num_linked: int = 16
    num_free_slots: int = 8
    level_sizes: list[int] | None = None
    num_hops: int = 3
    hide_direct_edges: bool = False
    graph_score: Literal["distmult", "complex"] = "distmult"
    num_negatives: int = 64
    num_graph_samples: int = 256
    taxonomy_relations: list[int] | None = None
    link_loss_coefficient: float = 0.1
    graph_loss_coefficient: float = 0.1
    taxonomy_loss_coefficient: float = 0.1
    assignment_loss_coefficient: float = 0.01
    predictor_config: dict[str, Any] | PreTrainedConfig | None = None

    def __post_init__(self, **kwargs) -> None:
        if self.predictor_config is not None:
            self.predictor_config = part_config(self.predictor_config, "predictor_config")
        if self.concept_size is None:
            self.concept_size = self.hidden_size
        if self.sentence_token_ids is None:
            self.sentence_token_ids = [13]
        if self.level_sizes is None:
            self.level_sizes = [16]
        if self.taxonomy_relations is None:
            self.taxonomy_relations = []
        super().__post_init__(**kwargs)

    def validate_architecture(self) -> None:
        """How the sizes fit together."""
        super().validate_architecture()
        if not 1 <= self.cross_every <= self.num_hidden_layers:
            raise ValueError(
                f"cross_every must be from 1 to num_hidden_layers={self.num_hidden_layers}, got {self.cross_every}"
            )
        self.require_multiple("concept_size", of="num_attention_heads")
        if self.graph_score == "complex" and self.concept_size % 2:
            raise ValueError(f"concept_size must be even for graph_score 'complex', got {self.concept_size}")
        if self.num_linked > self.num_entities:
            raise ValueError(f"num_linked={self.num_linked} is more than num_entities={self.num_entities}")
        if any(size < 1 for size in self.level_sizes):
            raise ValueError(f"level_sizes must be at least 1 each, got {self.level_sizes}")
        if wrong := [r for r in self.taxonomy_relations if not 0 <= r < self.num_relations]:
            raise ValueError(f"taxonomy_relations holds {wrong[0]}, and relations are 0 to {self.num_relations - 1}")
        for field, count in (("entity_names", self.num_entities), ("relation_names", self.num_relations)):
            names = getattr(self, field)
            if names is not None and (len(names) != count or len(set(names)) != count):
                raise ValueError(f"{field} must be {count} different names, got {len(names)}")
