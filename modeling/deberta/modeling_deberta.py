"""DeBERTa: an encoder whose attention keeps content and relative position apart.

He et al. 2020, https://arxiv.org/abs/2006.03654 (versions 1 and 2); He et al. 2021,
https://arxiv.org/abs/2111.09543 (version 3):

    e = LayerNorm(Tok[id])                                                       no absolute positions
    h = LayerNorm(x + W_o A(x));  y = LayerNorm(h + W_2 gelu(W_1 h))             a block, see disentangled_attention.py
    enhanced mask decoder: q_0 = x + P[i], q_n = block(query q_{n-1}, keys x)    the last block of a masked LM
    replaced-token detection: L = L_MLM(generator) + 50 L_RTD(model, its samples), E_D = stop_gradient(E_G) + E_Δ

Shapes: B batch, T tokens, D hidden size.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.activations import ACT2FN
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.processing_utils import Unpack
from transformers.utils import TransformersKwargs
from transformers.utils.generic import can_return_tuple

from ..base_model import ZooPreTrainedModel, embed_tokens, embedding_size
from ..classifiers import (
    MultipleChoiceHead,
    QuestionAnsweringHead,
    SequenceClassificationHead,
    TokenClassificationHead,
)
from ..encoder import EncoderTrunk
from ..heads import MaskedLMHead
from ..layers.disentangled_attention import DisentangledAttention, RelativePositions, RelativeRows
from ..layers.dropout import Dropout
from ..layers.mlp import MLP
from ..layers.pooler import ContextPooler
from ..layers.positions import LearnedPositions
from ..layers.shared_embedding import EmbeddingDifference
from ..layers.token_convolution import TokenConvolution
from ..losses import replaced_token_loss
from ..outputs import ReplacedTokenOutput
from .configuration_deberta import ZooDebertaConfig


class DebertaBlock(GradientCheckpointingLayer):
    """Attention to both sides, then a feed-forward network, each with its norm and residual."""

    def __init__(self, config: ZooDebertaConfig, layer_idx: int) -> None:
        super().__init__()
        self.self_attn = DisentangledAttention(
            config,
            layer_idx,
            config.hidden_size,
            config.num_attention_heads,
            config.position_terms,
            config.share_projections,
            config.key_bias,
            config.attention_dropout,
        )
        self.mixer_norm = nn.LayerNorm(config.hidden_size, eps=config.norm_eps)
        self.mlp = MLP(config.hidden_size, config.intermediate_size, config.hidden_act, bias=True)
        self.mlp_norm = nn.LayerNorm(config.hidden_size, eps=config.norm_eps)
        self.dropout = Dropout(config.hidden_dropout)
        self.local = None
        if config.conv_kernel_size and layer_idx == 0:
            self.local = TokenConvolution(
                config.hidden_size,
                config.conv_kernel_size,
                config.conv_groups,
                config.conv_act,
                config.norm_eps,
                config.hidden_dropout,
            )

    def forward(
        self,
        x: Tensor,
        mask: Tensor | None,
        positions: Tensor | None = None,
        query: Tensor | None = None,
        rows: RelativeRows | None = None,
        padding: Tensor | None = None,
        packed: Tensor | None = None,
        **kwargs: Any,
    ) -> Tensor:
        """x (B, T, D) -> (B, T, D).

        Args:
            mask: as the attention backend wants it.
            positions, rows: from `RelativePositions`.
            query: (B, T, D), whom the block works on instead of x, which is then only looked at.
            padding: (B, T) with 1 on real tokens.
            packed: (B, T), positions that restart at 0 where a packed document starts.
        """
        positions = None if positions is None else self.dropout(positions)
        attended, _ = self.self_attn(x, mask, positions, rows, query, **kwargs)
        h = self.mixer_norm((x if query is None else query) + self.dropout(attended))
        y = self.mlp_norm(h + self.dropout(self.mlp(h)))
        return y if self.local is None else self.local(x, y, padding, packed)


class ZooDebertaPreTrainedModel(ZooPreTrainedModel):
    """Base class: what the attention backends and loaders need to know.

    Flash attention takes no bias, and disentangled attention is one.
    """

    config_class = ZooDebertaConfig
    config: ZooDebertaConfig
    may_be_missing = ("decoder_positions",)  # only a masked LM has them
    _no_split_modules = ["DebertaBlock"]
    _supports_sdpa = True
    _supports_flex_attn = True
    _supports_attention_backend = True
    _can_compile_fullgraph = True
    _can_record_outputs = {"hidden_states": DebertaBlock, "attentions": DisentangledAttention}


class ZooDebertaModel(EncoderTrunk, ZooDebertaPreTrainedModel):
    """The encoder without a head; with `has_mask_decoder` its last layer is the enhanced mask decoder, if the config
    has one."""

    def __init__(self, config: ZooDebertaConfig, has_mask_decoder: bool = False) -> None:
        super().__init__(config, DebertaBlock)
        size, eps = embedding_size(config), config.norm_eps
        self.embed_positions = self.embed_types = self.embed_proj = self.relative = self.decoder_positions = None
        if config.position_biased_input:
            self.embed_positions = LearnedPositions(config.max_position_embeddings, size)
        if config.type_vocab_size:
            self.embed_types = nn.Embedding(config.type_vocab_size, size)
        if size != config.hidden_size:
            self.embed_proj = nn.Linear(size, config.hidden_size, bias=False)
        self.embed_norm = nn.LayerNorm(config.hidden_size, eps=eps)
        self.dropout = Dropout(config.hidden_dropout)
        if config.position_terms:
            self.relative = RelativePositions(
                config.hidden_size,
                config.max_relative_positions,
                config.position_buckets,
                config.p2c_index,
                nn.LayerNorm(config.hidden_size, eps=eps) if config.norm_relative else None,
            )
        if has_mask_decoder and config.mask_decoder_steps:
            self.decoder_positions = LearnedPositions(config.max_position_embeddings, config.hidden_size)
        self.post_init()

    def place(self, x: Tensor, position_ids: Tensor, token_type_ids: Tensor | None) -> Tensor:
        """x (B, T, E) -> (B, T, D). Sentences are told apart only if the config has embeddings for them."""
        if self.embed_positions is not None:
            x = x + self.embed_positions(position_ids)
        if self.embed_types is not None:
            x = x + self.embed_types(torch.zeros_like(position_ids) if token_type_ids is None else token_type_ids)
        if self.embed_proj is not None:
            x = self.embed_proj(x)
        return self.dropout(self.embed_norm(x))

    def run(
        self,
        x: Tensor,
        mask: Tensor | None,
        position_ids: Tensor,
        padding: Tensor | None,
        packed: Tensor | None,
        **kwargs: Any,
    ) -> Tensor:
        """x (B, T, D) through all blocks; the mask decoder runs the last one on queries that know where they are."""
        positions, rows = (None, None) if self.relative is None else self.relative(x.shape[1])
        kwargs.update(rows=rows, padding=padding, packed=packed)
        last = len(self.layers) if self.decoder_positions is None else -1
        for block in self.layers[:last]:
            x = block(x, mask, positions, **kwargs)
        if self.decoder_positions is None:
            return x
        query = x + self.decoder_positions(position_ids)
        for _ in range(self.config.mask_decoder_steps):
            query = self.layers[-1](x, mask, positions, query, **kwargs)
        return query


class ZooDebertaForMaskedLM(MaskedLMHead, ZooDebertaPreTrainedModel):
    """The masked language model."""

    backbone_class = ZooDebertaModel
    backbone_arguments = {"has_mask_decoder": True}

    def __init__(self, config: ZooDebertaConfig) -> None:
        if not config.legacy_head and (config.embedding_size or not config.tie_word_embeddings):
            raise ValueError("legacy_head=False is for tied embeddings of the hidden size: set legacy_head=True")
        super().__init__(config)


class ReplacedTokenHead(nn.Module):
    """Whether a token was replaced: w · act(W h)."""

    def __init__(self, config: ZooDebertaConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)
        self.act_fn = ACT2FN[config.hidden_act]
        self.score = nn.Linear(config.hidden_size, 1)

    def forward(self, x: Tensor) -> Tensor:
        """x (B, T, D) -> (B, T), positive where a token looks replaced."""
        return self.score(self.act_fn(self.dense(x)))[..., 0]


class ZooDebertaForPreTraining(ZooDebertaPreTrainedModel):
    """Replaced-token detection: a generator fills masks in, the model finds what it filled in wrongly (version 3).

    The embedding is that of the generator and a difference (`EmbeddingDifference`), so the trunk has none of its own;
    `encoder()` puts them together for what comes after pre-training.
    """

    def __init__(self, config: ZooDebertaConfig) -> None:
        super().__init__(config)
        self.generator = ZooDebertaForMaskedLM(config.generator_config())
        self.model = ZooDebertaModel(config)
        self.model.embed_tokens = None
        self.embed_difference = EmbeddingDifference(config.vocab_size, embedding_size(config))
        self.replaced_head = ReplacedTokenHead(config)
        self.post_init()

    def get_input_embeddings(self) -> nn.Embedding:
        """The generator's, of which the model's own is a difference."""
        return self.generator.model.embed_tokens

    def set_input_embeddings(self, value: nn.Embedding) -> None:
        """Replace the generator's, when the vocabulary is resized; new rows start without a difference."""
        self.generator.model.embed_tokens = value
        self.embed_difference.resize(value.num_embeddings)

    def get_output_embeddings(self) -> nn.Linear:
        """The generator's last layer."""
        return self.generator.lm_head

    def set_output_embeddings(self, new_embeddings: nn.Linear) -> None:
        """Replace the generator's last layer."""
        self.generator.lm_head = new_embeddings

    def lost_weights(self, missing: list[str]) -> list[str]:
        """All that are missing: a folder of another head has no generator, and its embedding would be lost."""
        return sorted(missing)

    @torch.no_grad()
    def encoder(self) -> ZooDebertaModel:
        """A copy of the model for fine-tuning, with its embedding put together; save it for other heads to open."""
        encoder = ZooDebertaModel(self.config).to(self.device, self.dtype)
        weight = self.get_input_embeddings().weight + self.embed_difference.weight
        encoder.load_state_dict({**self.model.state_dict(), "embed_tokens.weight": weight})
        return encoder.train(self.training)

    def _sample(self, scores: Tensor) -> Tensor:
        """A token for each row of scores (N, vocab_size) -> (N,); outside training the same ones every time, so that
        losses of evaluations can be compared."""
        if not len(scores):
            return scores.new_zeros(0, dtype=torch.long)
        generator = None if self.training else torch.Generator(scores.device).manual_seed(0)
        return scores.softmax(-1).multinomial(1, generator=generator)[:, 0]

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        num_items_in_batch: Tensor | int | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> ReplacedTokenOutput:
        """Logits (B, T), positive where a token looks replaced.

        With labels, masked tokens are first replaced by samples of the generator, and the loss is that of both.

        Args:
            labels: (B, T), the original token where one was masked and -100 elsewhere.
            inputs_embeds: (B, T, E), instead of input_ids and without labels: nothing can be replaced in them.
            num_items_in_batch: labels of all accumulated batches.
            kwargs: see the trunk for the rest.

        Raises:
            ValueError: labels with inputs_embeds.
        """
        if labels is not None and inputs_embeds is not None:
            raise ValueError("replaced-token detection needs input_ids: give no inputs_embeds with labels")
        shared = embed_tokens(self.get_input_embeddings(), input_ids, inputs_embeds)
        context = {
            **{"attention_mask": attention_mask, "token_type_ids": token_type_ids, "position_ids": position_ids},
        }
        masked_loss = replaced = None
        if labels is not None:
            masked, total = labels != -100, num_items_in_batch
            total = masked.sum().clamp_min(1) if total is None else total
            hidden = self.generator.model(inputs_embeds=shared, **context).last_hidden_state[masked]
            scores = self.generator.lm_head(self.generator.transform(hidden)).float()
            masked_loss = F.cross_entropy(scores, labels[masked], reduction="sum") / total
            input_ids = input_ids.masked_scatter(masked, self._sample(scores.detach()))
            replaced = masked & (input_ids != labels)
            shared = self.get_input_embeddings()(input_ids)
        if input_ids is not None:
            shared = self.embed_difference(input_ids, shared)
        outputs = self.model(inputs_embeds=shared, **context, **kwargs)
        logits = self.replaced_head(outputs.last_hidden_state)
        loss = replaced_loss = None
        if labels is not None:
            replaced_loss = replaced_token_loss(logits, replaced, attention_mask)
            replaced_loss = replaced_loss * (masked.sum() / total)  # the part of a batch in what is accumulated
            loss = masked_loss + self.config.replaced_loss_weight * replaced_loss
        return ReplacedTokenOutput(
            loss=loss,
            logits=logits,
            masked_loss=masked_loss,
            replaced_loss=replaced_loss,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )


class ContextPooled:
    """Mixin: one vector a row from `ContextPooler`, which belongs to the head; the encoder has none."""

    backbone_class = ZooDebertaModel

    def __init__(self, config: ZooDebertaConfig) -> None:
        super().__init__(config)
        self.pooler = ContextPooler(config.hidden_size, config.pooler_act, config.pooler_dropout)
        self.post_init()

    def summary(self, outputs: Any, attention_mask: Tensor | None) -> Tensor:
        """One vector (B, D) a row."""
        return self.pooler(outputs.last_hidden_state, attention_mask)


class ZooDebertaForSequenceClassification(ContextPooled, SequenceClassificationHead, ZooDebertaPreTrainedModel):
    """A label for the row, from its pooled [CLS]."""


class ZooDebertaForTokenClassification(TokenClassificationHead, ZooDebertaPreTrainedModel):
    """A label for every token."""

    backbone_class = ZooDebertaModel


class ZooDebertaForQuestionAnswering(QuestionAnsweringHead, ZooDebertaPreTrainedModel):
    """Start and end of an answer in the row."""

    backbone_class = ZooDebertaModel


class ZooDebertaForMultipleChoice(ContextPooled, MultipleChoiceHead, ZooDebertaPreTrainedModel):
    """Which of several texts fits best."""
