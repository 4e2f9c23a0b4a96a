"""Next-concept prediction: a decoder over vectors of sentences, in four forms of what it predicts.

Barault et al. 2024, "Large Concept Models: Language Modeling in a Sentence Representation Space",
https://arxiv.org/abs/2412.08821.

    z_n = normalised vector of sentence n
    h_n = Trunk(W z_1 ... W z_n)                  a dense decoder whose tokens are sentences
    z_n+1 ~ Head(h_1 ... h_n)                     see concept_heads.py

Vectors come from the caller, or from an encoder of the model's own, and a decoder of its own says them in words.

Shapes: B batch, N concepts, S size of a sentence's vector, T tokens of a sentence, D hidden size.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers.cache_utils import Cache
from transformers.modeling_outputs import BaseModelOutputWithPast
from transformers.processing_utils import Unpack
from transformers.utils import ModelOutput, TransformersKwargs
from transformers.utils.generic import can_return_tuple

from ..base_model import ZooPreTrainedModel
from ..layers.attention import Attention
from ..llm.modeling_llm import LlmBlock, LlmTrunk
from ..parts import FreezesParts
from .concept_heads import HEADS, Quantised, Regression
from .configuration_concept_predictor import ZooConceptPredictorConfig
from .denoiser import additive_mask
from .generation_concept_predictor import GeneratesConcepts
from .sentence_autoencoder import SentenceAutoencoder
from .sentence_space import SentenceSpace

_NOT_LEARNT = -100  # a label whose numbers are all that is left out of the loss, as a collator fills rows up


@dataclass
class ConceptPredictionOutput(ModelOutput):
    """Of a concept predictor.

    Args:
        loss: with labels; in normalised space, or in nats a code.
        predictions: (B, N, S), of the concepts after each, in the encoder's space; of "regression" alone.
        last_hidden_state: (B, N, D), contexts.
        past_key_values: of the trunk.
        hidden_states: one (B, N, D) a layer of the trunk, and what goes into it.
        attentions: of the trunk, one (B, H, N, N) a layer, from eager.
    """

    loss: Tensor | None = None
    predictions: Tensor | None = None
    last_hidden_state: Tensor | None = None
    past_key_values: Cache | None = None
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None


class ZooConceptPredictorPreTrainedModel(ZooPreTrainedModel):
    """Base class: what the attention backends and loaders need to know."""

    config_class = ZooConceptPredictorConfig
    config: ZooConceptPredictorConfig
    main_input_name = "concepts"
    _no_split_modules = ["LlmBlock", "DenoiserBlock"]
    _supports_sdpa = True
    _supports_attention_backend = True
    _can_record_outputs = {"hidden_states": LlmBlock, "attentions": Attention}

    @property
    def dummy_inputs(self) -> dict[str, Tensor]:
        """Two rows of four vectors, with the mask that says so: a third axis is not that of concepts."""
        generator = torch.Generator().manual_seed(0)
        concepts = torch.randn(2, 4, self.config.sentence_size, generator=generator)
        return {"concepts": concepts, "attention_mask": torch.ones(2, 4, dtype=torch.long)}


class ZooConceptPredictorModel(LlmTrunk, ZooConceptPredictorPreTrainedModel):
    """The decoder without a head: contexts of sentences."""

    def __init__(self, config: ZooConceptPredictorConfig) -> None:
        super().__init__(config)
        self.space = SentenceSpace(config.sentence_size)
        self.post_init()

    def make_embeddings(self, config: ZooConceptPredictorConfig) -> nn.Module:
        """What takes normalised vectors into the trunk."""
        return nn.Linear(config.sentence_size, config.hidden_size)

    @can_return_tuple
    def forward(
        self,
        concepts: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: Tensor | None = None,
        use_cache: bool | None = None,
        condition: Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> BaseModelOutputWithPast:
        """Contexts (B, N, D).

        Args:
            concepts: (B, N, S), vectors of sentences as their encoder makes them.
            attention_mask: (B, past + N), 1 on real concepts.
            inputs_embeds: (B, N, D), instead of concepts.
            condition: (B, N, D), added to them: what else is known by the end of each sentence.
            kwargs: see `DecoderTrunk.forward`, as for the rest.

        Raises:
            ValueError: both or neither of concepts and inputs_embeds, or vectors of another size.
        """
        if (concepts is None) == (inputs_embeds is None):
            raise ValueError("give exactly one of concepts and inputs_embeds")
        if concepts is not None:
            inputs_embeds = self.embed_tokens(self.space.normalise(self.check(concepts)))
        if condition is not None:
            inputs_embeds = inputs_embeds + condition
        return super().forward(
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            inputs_embeds=inputs_embeds,
            use_cache=use_cache,
            return_dict=True,
            **kwargs,
        )

    def check(self, concepts: Tensor) -> Tensor:
        """The same concepts, in the dtype of the weights."""
        if concepts.ndim != 3 or concepts.shape[-1] != self.config.sentence_size or not concepts.shape[1]:
            raise ValueError(
                f"concepts must be (rows, one or more, sentence_size={self.config.sentence_size}), "
                f"got {tuple(concepts.shape)}"
            )
        return concepts.to(self.embed_tokens.weight.dtype)

    def encode_noised(
        self,
        z: Tensor | None,
        noised: Tensor,
        step: Tensor,
        seen: Tensor,
        real: Tensor,
        past_key_values: Cache | None = None,
    ) -> Tensor:
        """Hidden states (B, M, D) of noised vectors, each of which looks at clean ones and at itself.

        Args:
            z: (B, N, S), clean and normalised; None where a cache holds them, which is left as it was.
            noised: (B, M, S): with z those in the places of all N concepts, else the one after them.
            step: (B, M, D), of diffusion, embedded.
            seen: (B, M, N), which clean vectors a noised one may look at.
            real: (B, N), true on real concepts.
            past_key_values: of the clean vectors.
        """
        x = self.embed_tokens(noised) + step
        count, device = x.shape[1], x.device
        itself = torch.eye(count, dtype=torch.bool, device=device).expand(len(x), -1, -1)
        mask = torch.cat((seen, itself), dim=-1)
        position_ids = real.long().sum(-1, keepdim=True)
        if z is not None:
            x = torch.cat((self.embed_tokens(z), x), dim=1)
            causal = torch.ones(count, count, dtype=torch.bool, device=device).tril() & real[:, None]
            mask = torch.cat((torch.cat((causal, torch.zeros_like(causal)), dim=-1), mask), dim=1)
            position_ids = (real.long().cumsum(-1) - 1).clamp_min(0).repeat(1, 2)
        y = LlmTrunk.forward(
            self,
            inputs_embeds=x,
            attention_mask=dict.fromkeys(set(self.config.layer_types), additive_mask(mask, x.dtype)),
            position_ids=position_ids,
            past_key_values=past_key_values,
            use_cache=False,
        ).last_hidden_state
        if past_key_values is not None:
            past_key_values.crop(-count)
        return y[:, -count:]


class HasSentences(FreezesParts):
    """Mixin of models that may have an encoder and a decoder of sentences, as `self.sentences`."""

    def concepts_of(
        self, concepts: Tensor | None, input_ids: Tensor | None, token_mask: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        """Vectors (B, N, S) from exactly one of the two, and, of sentences, which are real (B, N).

        Raises:
            ValueError: both or neither are given, or there are sentences and no encoder.
        """
        if (concepts is None) == (input_ids is None):
            raise ValueError("give exactly one of concepts and input_ids")
        if concepts is not None:
            return concepts, None
        return self.sentences.encode(input_ids, token_mask), real_sentences(input_ids, token_mask)


def real_sentences(input_ids: Tensor, token_mask: Tensor | None) -> Tensor:
    """Which of the sentences (B, N, T) hold a real token (B, N)."""
    if token_mask is None:
        return torch.ones(input_ids.shape[:2], dtype=torch.bool, device=input_ids.device)
    return token_mask.any(-1)


class ZooConceptPredictorForConceptPrediction(HasSentences, GeneratesConcepts, ZooConceptPredictorPreTrainedModel):
    """Predicts the next concept, and generates; encoder and decoder of sentences, where it has them, are frozen."""

    accepts_loss_kwargs = False  # the loss is a mean over concepts
    may_be_missing = ("model.",)  # from a checkpoint of sentences alone

    def __init__(self, config: ZooConceptPredictorConfig) -> None:
        super().__init__(config)
        self.model = ZooConceptPredictorModel(config)
        self.head = HEADS[config.concept_head](config)
        self.sentences = SentenceAutoencoder(config)
        self.post_init()
        self.freeze()

    def frozen_parts(self) -> list[nn.Module]:
        """The encoder and decoder of sentences."""
        return [self.sentences]

    @can_return_tuple
    def forward(
        self,
        concepts: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Cache | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        input_ids: Tensor | None = None,
        token_mask: Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> ConceptPredictionOutput:
        """Contexts of sentences and, with labels, the loss of predicting each from those before it.

        Args:
            concepts: (B, N, S), vectors of sentences as their encoder makes them.
            attention_mask: (B, past + N), 1 on real concepts.
            labels: (B, N, S), usually the concepts; rows of -100 are not learnt, as where only an answer is.
            input_ids, token_mask: (B, N, T), sentences instead of concepts, for a model with an encoder. Without
                labels their own vectors are learnt in training.
            kwargs: see the trunk for the rest, such as `condition`.

        Raises:
            ValueError: both or neither of concepts and input_ids, labels of another shape, or code books that
                nobody has fitted.
        """
        given = concepts
        concepts, real = self.concepts_of(concepts, input_ids, token_mask)
        if attention_mask is None and real is not None and not bool(real.all()):
            attention_mask = real.long()
        outputs = self.model(
            concepts=concepts,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            use_cache=use_cache,
            **kwargs,
        )
        if labels is None and given is None and self.training:
            labels = concepts
        loss = None
        if labels is not None:
            loss = self.loss(concepts, outputs.last_hidden_state, attention_mask, labels)
        predictions = None
        if isinstance(self.head, Regression):
            predictions = self.model.space.denormalise(self.head(outputs.last_hidden_state))
        return ConceptPredictionOutput(
            loss=loss,
            predictions=predictions,
            last_hidden_state=outputs.last_hidden_state,
            past_key_values=outputs.past_key_values,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )

    def fit_space(self, vectors: Tensor) -> None:
        """Take the space's centre and spread, and code books where there are any, from vectors (M, S) of a corpus."""
        self.model.space.fit(vectors)
        if isinstance(self.head, Quantised):
            self.head.quantiser.fit(self.model.space.normalise(vectors))

    def loss(self, concepts: Tensor, hidden: Tensor, attention_mask: Tensor | None, labels: Tensor) -> Tensor:
        """Mean over the concepts that are to be learnt.

        Args:
            concepts, labels: (B, N, S).
            hidden: (B, N, D), contexts.
            attention_mask: (B, N).
        """
        if labels.shape != concepts.shape:
            raise ValueError(
                f"labels must be of the shape of concepts {tuple(concepts.shape)}, got {tuple(labels.shape)}"
            )
        concepts = self.model.check(concepts)
        real = torch.ones(concepts.shape[:2], dtype=torch.bool, device=concepts.device)
        if attention_mask is not None:
            real = attention_mask[:, -concepts.shape[1] :].bool()
        counts = real & (labels != _NOT_LEARNT).any(-1)
        if not self.head.predicts_first:
            counts = counts & (real.long().cumsum(-1) > 1)
        z, targets = (self.model.space.normalise(x.to(concepts.dtype)) for x in (concepts, labels))
        losses = self.head.losses(self.model, hidden, z, targets, real).float()
        return losses.masked_fill(~counts, 0.0).sum() / counts.sum().clamp_min(1)


class ZooConceptPredictorForSentenceAutoencoding(HasSentences, ZooConceptPredictorPreTrainedModel):
    """Learns vectors of sentences by saying them again: the space that concepts are then predicted in."""

    main_input_name = "input_ids"

    def __init__(self, config: ZooConceptPredictorConfig) -> None:
        super().__init__(config)
        for field in ("encoder_config", "decoder_config"):
            if getattr(config, field) is None:
                raise ValueError(f"{field} must be set to learn vectors of sentences")
        self.sentences = SentenceAutoencoder(config)
        self.post_init()

    @property
    def dummy_inputs(self) -> dict[str, Tensor]:
        """Two sentences."""
        generator = torch.Generator().manual_seed(0)
        vocab = self.config.encoder_config.get_text_config().vocab_size
        return {"input_ids": torch.randint(0, vocab, (2, 8), generator=generator)}

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> ConceptPredictionOutput:
        """Vectors of sentences, as `last_hidden_state` (B, 1, S), and with labels the loss of saying them again.

        Args:
            input_ids, attention_mask: (B, T).
            labels: (B, T), usually input_ids; -100 where nothing is to be learnt.
        """
        mask = None if attention_mask is None else attention_mask[:, None]
        concepts = self.sentences.encode(input_ids[:, None], mask)
        loss = None if labels is None else self.sentences.decoding_loss(concepts[:, 0], labels)
        return ConceptPredictionOutput(loss=loss, last_hidden_state=concepts)
