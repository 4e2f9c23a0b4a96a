"""Large concept model: a decoder that reads and writes concepts of its sentences and of a knowledge graph.

The parts are those that the literature names, in a form of our own: token-concept cross-attention behind gates that
start closed (Alayrac et al. 2022, https://arxiv.org/abs/2204.14198), a graph whose edges are data, levels of concepts
above sentences, and hops along relations. After every k-th layer of the decoder, for tokens of sentence s:

    Z_j <- Z_j + tanh(g2) CA(Z_j -> H of sentence j)          concepts read their sentence
    h_t <- h_t + tanh(g1) CA(h_t -> Z_1 ... Z_s-1)            tokens read concepts of the sentences before

so that no token sees what is to come. Z_j is made at the first of these layers, see `concept_memory.py`.

Shapes: B batch, T tokens, D hidden size, N sentences, Z concepts of a sentence, E size of a concept, C entities.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers.cache_utils import Cache
from transformers.generation import GenerationMixin
from transformers.modeling_outputs import CausalLMOutputWithPast
from transformers.processing_utils import Unpack
from transformers.utils import ModelOutput, TransformersKwargs
from transformers.utils.generic import can_return_tuple

from ..base_model import ZooPreTrainedModel
from ..classifiers import QuestionAnsweringHead, SequenceClassificationHead, TokenClassificationHead
from ..heads import CausalLMHead, Head
from ..layers.attention import Attention
from ..layers.gated_cross_attention import GatedCrossAttention
from ..layers.relational import LEAST_MASS
from ..llm.modeling_llm import LlmBlock, LlmTrunk
from ..masks import document_numbers, drop_useless_mask
from .cache_lcm import ConceptCacheLayer, concepts_in
from .concept_memory import ConceptMemory, EntityLinker, SentenceConcepts
from .concept_prediction import ConceptPredictionHead
from .concept_reading import ConceptReading, number_sentences
from .configuration_lcm import ZooLcmConfig
from .graph_editing import HasGraph
from .hierarchy import SpanPooling, Taxonomy
from .knowledge_graph import KnowledgeGraph
from .multi_hop import MultiHopReasoner, direct_edges, trace
from .outputs_lcm import ConceptModelOutput, GraphAnswerOutput


class LcmBlock(LlmBlock):
    """The dense decoder's block, with an exchange of tokens and concepts after some."""

    def __init__(self, config: ZooLcmConfig, layer_idx: int) -> None:
        super().__init__(config, layer_idx)
        self.reader, self.writer = None, None
        if (layer_idx + 1) % config.cross_every == 0:
            heads, eps = config.num_attention_heads, config.norm_eps
            size, hidden = config.concept_size, config.hidden_size
            self.reader = GatedCrossAttention(hidden, size, heads, config.head_dim, eps)
            self.writer = GatedCrossAttention(size, hidden, heads, size // heads, eps)

    def forward(
        self,
        x: Tensor,
        mask: Tensor | None,
        entities: Tensor | None = None,
        concepts: Tensor | None = None,
        past_key_values: Cache | None = None,
        reading: ConceptReading | None = None,
        **kwargs: Any,
    ) -> Tensor | tuple[Tensor, Tensor | None, Tensor | None, Tensor | None]:
        """x (B, T, D) -> (B, T, D); after an exchange also the entities (C, E) that it was given, the concepts
        (B, N, Z, E) and the losses of making them."""
        x = super().forward(x, mask, past_key_values, **kwargs)
        if self.reader is None:
            return x
        x, concepts, losses = reading.read(x, entities, concepts, self.layer_idx, self.reader, self.writer)
        return x, entities, concepts, losses


class ZooLcmPreTrainedModel(HasGraph, ZooPreTrainedModel):
    """Base class: what the attention backends and loaders need to know, and what concepts add to the loss."""

    config_class = ZooLcmConfig
    config: ZooLcmConfig
    _no_split_modules = ["LcmBlock", "ConceptMemory"]
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True
    _can_record_outputs = {"hidden_states": LcmBlock, "attentions": Attention}

    def complete_loss(
        self,
        loss: Tensor | None,
        outputs: ModelOutput,
        labels: Tensor | None,
        num_items_in_batch: Tensor | int | None = None,
        **_: Any,
    ) -> Tensor | None:
        """The loss of the task, and in training the terms of concepts: evaluation compares with models without."""
        if loss is None or outputs.concept_loss is None:
            return loss
        share = 1 if num_items_in_batch is None else (labels != -100).sum() / num_items_in_batch
        return loss + share * outputs.concept_loss.to(loss.device)

    @property
    def dummy_inputs(self) -> dict[str, Tensor]:
        """The standard batch, with two sentences that end in each row: levels of one sentence are all the same."""
        inputs = super().dummy_inputs
        inputs["input_ids"][:, [2, 5]] = self.config.sentence_token_ids[0]
        return inputs


class ZooLcmModel(LlmTrunk, ZooLcmPreTrainedModel):
    """The decoder without a head."""

    block_class = LcmBlock
    num_carried = 2

    def __init__(self, config: ZooLcmConfig) -> None:
        super().__init__(config)
        self.knowledge = KnowledgeGraph(config)
        self.memory = ConceptMemory(config)
        self.taxonomy = Taxonomy(config.concept_size) if config.taxonomy_relations else None
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: Tensor | None = None,
        use_cache: bool | None = None,
        sentence_ids: Tensor | None = None,
        mention_ids: Tensor | None = None,
        concepts: Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> ConceptModelOutput:
        """Hidden states (B, T, D) of the last layer, normalised.

        Args:
            sentence_ids: (B, T), number of each token's sentence, from 0, not falling; by default sentences end with
                the tokens of `config.sentence_token_ids`. A cache goes on by these.
            mention_ids: (B, T), number of the entity that a token mentions, -1 for none; without it the model finds
                them. With a cache of tokens before, those of new tokens.
            concepts: (C, E) of the graph, where the caller has made them.
            kwargs: see `DecoderTrunk.forward`, as for the rest.
        """
        past = concepts_in(past_key_values)
        if use_cache is None:
            use_cache = self.config.use_cache and not self.training
        if past is None and use_cache:
            past = ConceptCacheLayer()
        if (input_ids is None) != (inputs_embeds is None):  # or the trunk says what is wrong
            kwargs["reading"] = reading = self._reading(
                input_ids,
                inputs_embeds,
                attention_mask,
                position_ids,
                past_key_values,
                past,
                sentence_ids,
                mention_ids,
            )
            if concepts is None and (reading.num_sentences or self.training):
                concepts = self.knowledge()
            reading.make_concepts = self._make
            # From block to block, not inside `reading`: what is checkpointed must be given what has gradients
            kwargs["carried"] = (concepts, None)
        outputs = super().forward(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            inputs_embeds=inputs_embeds,
            use_cache=use_cache,
            return_dict=True,
            **kwargs,
        )
        if outputs.past_key_values is not None and concepts_in(outputs.past_key_values) is None:
            outputs.past_key_values.layers.append(past)
        if self.training:
            outputs.concept_loss = self._losses_of_graph(concepts) + (outputs.concept_loss or 0.0)
        return outputs

    def output(
        self, x: Tensor, past_key_values: Cache | None, side_outputs: list[tuple[Tensor | None, ...]]
    ) -> ConceptModelOutput:
        """The trunk's output with the losses of making concepts."""
        losses = [loss for (loss,) in side_outputs if loss is not None]
        concept_loss = sum(losses) if losses and self.training else None
        return ConceptModelOutput(last_hidden_state=x, past_key_values=past_key_values, concept_loss=concept_loss)

    def _reading(
        self,
        input_ids: Tensor | None,
        inputs_embeds: Tensor | None,
        attention_mask: Tensor | None,
        position_ids: Tensor | None,
        past_key_values: Cache | None,
        past: ConceptCacheLayer | None,
        sentence_ids: Tensor | None,
        mention_ids: Tensor | None,
    ) -> ConceptReading:
        x = input_ids if inputs_embeds is None else inputs_embeds[..., 0]
        attention_mask = drop_useless_mask(attention_mask)
        is_padded = isinstance(attention_mask, Tensor) and attention_mask.ndim == 2
        real = attention_mask[:, -x.shape[1] :].bool() if is_padded else torch.ones_like(x, dtype=torch.bool)
        documents = document_numbers(None, None if is_padded else position_ids, has_past=past_key_values is not None)
        ended = None if past is None or past.sentences is None else past.ended
        ends = self.sentence_ends(input_ids, inputs_embeds) & real
        if sentence_ids is not None and sentence_ids.shape == x.shape:
            sentences = sentence_ids.masked_fill(~real, -1)
            # The next token goes on with the last sentence, unless its last token ends it
            last = sentences.amax(1)
            is_over = (ends & (sentences == last[:, None])).any(1)
            over = torch.maximum(last + is_over, torch.zeros_like(last) if ended is None else ended)
        else:
            sentences = number_sentences(ends, real, documents, ended)
            starts = ends.sum(1) if documents is None else ends.sum(1) + (documents[:, -1] - documents[:, 0])
            over = starts if ended is None else starts + ended
        if mention_ids is not None and mention_ids.shape != x.shape:
            mention_ids = None  # of the prompt, which the cache remembers
        return ConceptReading(sentences, over, documents, mention_ids, past)

    def sentence_ends(self, input_ids: Tensor | None, inputs_embeds: Tensor | None) -> Tensor:
        """(B, T), true on tokens that end a sentence; embeddings are recognised by their values."""
        vocab = self.embed_tokens.num_embeddings
        known = [number for number in self.config.sentence_token_ids if 0 <= number < vocab]
        x = input_ids if inputs_embeds is None else inputs_embeds
        known = torch.tensor(known, dtype=torch.long, device=x.device)
        if inputs_embeds is None:
            return torch.isin(input_ids, known)
        return (inputs_embeds[..., None, :] == self.embed_tokens(known).to(x.dtype)).all(-1).any(-1)

    def _make(
        self, concepts: Tensor, x: Tensor, members: Tensor, seen: Tensor, mentions: Tensor | None
    ) -> SentenceConcepts:
        return self.memory(x, members, seen, mentions, concepts, self.knowledge.relations, self.knowledge.edges)

    def _losses_of_graph(self, concepts: Tensor) -> Tensor:
        config, graph = self.config, self.knowledge
        loss = config.graph_loss_coefficient * graph.loss(concepts)
        if self.taxonomy is not None:
            heads, kinds, tails = graph.edges
            is_a = torch.isin(kinds, torch.tensor(config.taxonomy_relations, device=kinds.device))
            if bool(is_a.any()):
                taxonomy = self.taxonomy.loss(concepts, heads[is_a], tails[is_a])
                loss = loss + config.taxonomy_loss_coefficient * taxonomy
        return loss


class ZooLcmForCausalLM(CausalLMHead, ZooLcmPreTrainedModel, GenerationMixin):
    """The language model."""

    backbone_class = ZooLcmModel

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | Tensor = 0,
        sentence_ids: Tensor | None = None,
        mention_ids: Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> CausalLMOutputWithPast:
        """Logits (B, T, vocab_size) and, with labels, the mean cross-entropy of the next token.

        Args:
            sentence_ids, mention_ids: (B, T), see `ZooLcmModel.forward`; `generate` takes those of the prompt.
            kwargs: see `CausalLMHead.forward`, as for the rest.
        """
        return super().forward(
            input_ids,
            attention_mask,
            position_ids,
            past_key_values,
            inputs_embeds,
            labels,
            use_cache,
            logits_to_keep,
            sentence_ids=sentence_ids,
            mention_ids=mention_ids,
            return_dict=True,
            **kwargs,
        )


class ZooLcmForGraphQuestionAnswering(Head, ZooLcmPreTrainedModel):
    """Answers a question with an entity, found by following relations from those that it mentions."""

    accepts_loss_kwargs = False  # the loss is a mean over rows

    backbone_class = ZooLcmModel

    def __init__(self, config: ZooLcmConfig) -> None:
        super().__init__(config)
        if not config.num_hops:
            raise ValueError("num_hops must be at least 1 to answer from the graph, got 0")
        size = config.concept_size
        self.pooling = SpanPooling(config.hidden_size, size, config.num_attention_heads, config.norm_eps)
        self.linker = EntityLinker(config.hidden_size, size, config.num_linked)
        self.reasoner = MultiHopReasoner(size, config.num_hops)
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        sentence_ids: Tensor | None = None,
        mention_ids: Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> GraphAnswerOutput:
        """Log-probabilities (B, num_entities) of the answer, and the path to it.

        Args:
            attention_mask: (B, T), 1 on real tokens.
            labels: (B), number of the right entity, or (B, A) where there are several, with -100 after them.
            sentence_ids, mention_ids: (B, T), see `ZooLcmModel.forward`.
            kwargs: see the trunk for the rest.
        """
        graph = self.model.knowledge
        concepts = graph()
        outputs = self.model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            inputs_embeds=inputs_embeds,
            sentence_ids=sentence_ids,
            mention_ids=mention_ids,
            concepts=concepts,
            use_cache=False,
            **kwargs,
        )
        x = outputs.last_hidden_state
        row = torch.ones(x.shape[:2], device=x.device) if attention_mask is None else attention_mask
        row = row[:, None].bool()  # one span
        query = self.pooling(x, row)
        links = self.linker(x, row, concepts, mention_ids)
        start = links.spread(len(concepts))[:, 0]
        hidden = None
        if self.training and self.config.hide_direct_edges and labels is not None:
            hidden = direct_edges(start, labels, graph.edges)
        hops = self.reasoner(query[:, 0], start, concepts, graph.relations, graph.edges, hidden)
        logits = hops.answer.clamp_min(LEAST_MASS).log()
        loss = None
        if labels is not None:
            loss = answer_loss(logits, labels)
            if links.loss is not None:
                loss = loss + self.config.link_loss_coefficient * links.loss
            loss = self.complete_loss(loss, outputs, labels)
        paths, starts = (None, None) if self.training else trace(hops, start, graph.edges)
        return GraphAnswerOutput(
            loss=loss,
            logits=logits,
            paths=paths,
            starts=starts,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )

    def path_of(self, outputs: GraphAnswerOutput, row: int = 0) -> list[str]:
        """The path of one row in words: entity, relation, entity, ..., from what is mentioned to the answer."""
        entities, relations = self.config.entity_names, self.config.relation_names
        steps = [(relations[r], entities[e]) for r, e in outputs.paths[row].tolist() if r >= 0]
        return [entities[int(outputs.starts[row])], *(name for step in steps for name in step)]


def answer_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean over rows of -log of the probability of all right answers together.

    Args:
        logits: (B, C), log-probabilities.
        labels: (B) or (B, A), -100 where there are no more.
    """
    if labels.ndim == 1:
        return F.cross_entropy(logits, labels)
    right = logits.gather(1, labels.clamp_min(0)).masked_fill(labels < 0, -torch.inf)
    return (logits.logsumexp(-1) - right.logsumexp(-1)).mean()


class ZooLcmForConceptPrediction(ConceptPredictionHead, ZooLcmPreTrainedModel):
    """Predicts the sentence that follows, as a vector, and says it."""

    backbone_class = ZooLcmModel


class ZooLcmForSequenceClassification(SequenceClassificationHead, ZooLcmPreTrainedModel):
    """A label for the row, read from its last real token."""

    backbone_class = ZooLcmModel
    score_has_bias = False


class ZooLcmForTokenClassification(TokenClassificationHead, ZooLcmPreTrainedModel):
    """A label for every token."""

    backbone_class = ZooLcmModel


class ZooLcmForQuestionAnswering(QuestionAnsweringHead, ZooLcmPreTrainedModel):
    """Start and end of an answer in the row."""

    backbone_class = ZooLcmModel
