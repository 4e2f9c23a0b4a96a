"""C-Former: the frames of any acoustic encoder, joined into as many tokens as the speech has words.

Dong and Xu 2019, https://arxiv.org/abs/1905.11235 (continuous integrate-and-fire); before a language model, Chen et
al. 2023, "X-LLM", https://arxiv.org/abs/2305.04160, section 3.2:

    h = encoder(sound),  a_t = sigmoid(w . relu(conv(h)_t)),  c = integrate and fire (h, a)
    y = relu(W_2 adaptor(relu(W_1 c))),  or relu(W c)

In training a is scaled to as many tokens as the transcript has, and

    loss = CE(V y_u, label_u) + 0.5 CTC(V' h) + |sum a - U|,  summed over rows and divided by their tokens

Shapes: B batch, T frames, U tokens, D hidden size, L size of the language model.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedModel
from transformers.processing_utils import Unpack
from transformers.utils import ModelOutput, TransformersKwargs
from transformers.utils.generic import can_return_tuple

from ..base_model import ZooPreTrainedModel
from ..heads import Head
from ..layers.dropout import Dropout
from ..layers.integrate_and_fire import fired_tokens, integrate_and_fire, scale_weights
from ..layers.precision import without_autocast
from ..parts import FreezesParts, part_model
from .configuration_cformer import ZooCformerConfig


@dataclass
class FiredOutput(ModelOutput):
    """Of a model that fires tokens.

    Args:
        last_hidden_state: (B, U, L), what a language model is to read.
        token_mask: (B, U), 1 on tokens that were fired.
        quantities: (B), the sum of weights, in tokens, before any scaling.
        frame_states: (B, T, D), of the encoder, in this model's size.
        frame_mask: (B, T), true on real frames; None where all are.
        hidden_states, attentions: of the acoustic encoder's layers.
    """

    last_hidden_state: Tensor | None = None
    token_mask: Tensor | None = None
    quantities: Tensor | None = None
    frame_states: Tensor | None = None
    frame_mask: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None


@dataclass
class FiredCTCOutput(ModelOutput):
    """Of a recogniser.

    Args:
        loss: over tokens, by CTC and of the number of tokens.
        logits: (B, T, vocab_size), of frames, for CTC.
        token_logits: (B, U, vocab_size), of the tokens that were fired.
        token_mask: (B, U), 1 on them.
        quantities: (B), the sum of weights, in tokens.
        hidden_states, attentions: of the acoustic encoder's layers.
    """

    loss: Tensor | None = None
    logits: Tensor | None = None
    token_logits: Tensor | None = None
    token_mask: Tensor | None = None
    quantities: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None


class FrameWeights(nn.Module):
    """How much of a token each frame is: h (B, T, D) -> a (B, T) between 0 and 1."""

    def __init__(self, hidden_size: int, kernel_size: int) -> None:
        super().__init__()
        self.conv = nn.Conv1d(hidden_size, hidden_size, kernel_size, padding=kernel_size // 2)
        self.score = nn.Linear(hidden_size, 1)

    def forward(self, h: Tensor, mask: Tensor | None) -> Tensor:
        """h (B, T, D), mask (B, T) true on real frames -> a (B, T), zero on others."""
        if mask is not None:
            h = h * mask[..., None]
        weights = self.score(F.relu(self.conv(h.mT)).mT)[..., 0].sigmoid()
        return weights if mask is None else weights * mask


class ZooCformerPreTrainedModel(FreezesParts, ZooPreTrainedModel):
    """Base class."""

    config_class = ZooCformerConfig
    config: ZooCformerConfig
    main_input_name = "input_values"
    input_modalities = ("audio",)
    _supports_sdpa = True

    @property
    def dummy_inputs(self) -> dict[str, Tensor]:
        """What the acoustic encoder takes, as it comes."""
        encoder = (self.model if isinstance(self, Head) else self).encoder
        inputs = dict(encoder.dummy_inputs)
        return {"input_values": inputs.pop(encoder.main_input_name), **inputs}


class ZooCformerModel(ZooCformerPreTrainedModel):
    """Sounds to tokens in the size of a language model."""

    def __init__(self, config: ZooCformerConfig) -> None:
        super().__init__(config)
        size = config.hidden_size
        encoder = part_model(config.encoder_config)
        self.encoder = encoder.get_encoder() if config.encoder_config.is_encoder_decoder else encoder
        encoder_size = config.encoder_config.hidden_size
        self.in_proj = None if encoder_size == size else nn.Linear(encoder_size, size)
        self.weights = FrameWeights(size, config.weight_kernel_size)
        self.dropout = Dropout(config.hidden_dropout)
        self.adaptor_proj = self.adaptor = None
        if config.adaptor_config is not None:
            self.adaptor = part_model(config.adaptor_config, add_pooling_layer=False)
            self.adaptor_proj = nn.Linear(size, config.adaptor_config.hidden_size)
            size = config.adaptor_config.hidden_size
        self.out_proj = nn.Linear(size, config.output_size)
        self.post_init()
        self.freeze()

    def frozen_parts(self) -> list[nn.Module]:
        """The acoustic encoder, if the config says so."""
        return [self.encoder] if self.config.freeze_encoder else []

    def get_input_embeddings(self) -> nn.Module:
        """The acoustic encoder's."""
        return self.encoder.get_input_embeddings()

    @can_return_tuple
    def forward(
        self,
        input_values: Tensor,
        attention_mask: Tensor | None = None,
        num_tokens: Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> FiredOutput:
        """Tokens (B, U, L), U that of the row with most of them.

        Args:
            input_values: what the acoustic encoder reads, under whatever name.
            attention_mask: its mask (B, samples or frames), 1 on what is real.
            num_tokens: (B), how many tokens there are, as in training; counted from the weights without it.
        """
        inputs: dict[str, Any] = {self.encoder.main_input_name: input_values, "attention_mask": attention_mask}
        heard = self.encoder(**inputs, **kwargs)
        h, mask = to_frames(self.encoder, heard.last_hidden_state, attention_mask)
        if self.in_proj is not None:
            h = self.in_proj(h)
        threshold = self.config.threshold
        with without_autocast(h):
            weights = self.weights(h, mask).float()
            quantities = weights.sum(-1) / threshold
            if num_tokens is None:
                num_tokens = fired_tokens(weights, threshold, self.config.least_tail)
            else:
                weights = scale_weights(weights, num_tokens, threshold)
            tokens = integrate_and_fire(h, weights, int(num_tokens.max()), threshold)
        token_mask = torch.arange(tokens.shape[1], device=h.device) < num_tokens[:, None]
        y = self.dropout(tokens)
        if self.adaptor is not None:
            y = F.relu(self.adaptor_proj(y))
            y = self.adaptor(inputs_embeds=y, attention_mask=token_mask.long()).last_hidden_state
        return FiredOutput(
            last_hidden_state=F.relu(self.out_proj(y)),
            token_mask=token_mask.long(),
            quantities=quantities,
            frame_states=h,
            frame_mask=mask,
            hidden_states=heard.hidden_states,
            attentions=heard.attentions,
        )


def to_frames(encoder: PreTrainedModel, h: Tensor, attention_mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """The hidden states of an acoustic encoder in the order of time (B, T, D), and which of them are real (B, T).

    Patches of one stretch of time become their mean; where an encoder does not tell what becomes of a mask (Whisper
    hears silence), all are real.
    """
    if hasattr(encoder, "mask_of_patches"):
        bands = encoder.config.num_mel_bins // encoder.config.patch_size
        mask = encoder.mask_of_patches(attention_mask)
        return h.unflatten(1, (-1, bands)).mean(2), None if mask is None else mask[:, ::bands]
    if attention_mask is None or not hasattr(encoder, "_get_feature_vector_attention_mask"):
        return h, None
    return h, encoder._get_feature_vector_attention_mask(h.shape[1], attention_mask)


class ZooCformerForCTC(Head, ZooCformerPreTrainedModel):
    """A recogniser: a word for each token that is fired, and CTC over frames beside it."""

    backbone_class = ZooCformerModel

    def __init__(self, config: ZooCformerConfig) -> None:
        super().__init__(config)
        self.lm_head = nn.Linear(config.output_size, config.vocab_size)
        self.ctc_head = nn.Linear(config.hidden_size, config.vocab_size)
        self.post_init()

    def frozen_parts(self) -> list[nn.Module]:
        """Those of the trunk."""
        return self.model.frozen_parts()

    @can_return_tuple
    def forward(
        self,
        input_values: Tensor,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        num_items_in_batch: Tensor | int | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> FiredCTCOutput:
        """Logits of frames and of tokens and, with labels, the loss.

        Args:
            input_values, attention_mask: see the trunk.
            labels: (B, U), the transcript, -100 after its end; each row has one word at least.
            num_items_in_batch: words of all accumulated batches.
            kwargs: see the trunk for the rest.
        """
        lengths = None if labels is None else (labels != -100).sum(-1)
        if lengths is not None and not bool((lengths > 0).all()):
            raise ValueError("a row of labels has no word: integrate-and-fire cannot be scaled to none")
        outputs = self.model(input_values, attention_mask, lengths, **kwargs)
        logits, token_logits = self.ctc_head(outputs.frame_states), self.lm_head(outputs.last_hidden_state)
        loss = None
        if labels is not None:
            labels = labels[:, : token_logits.shape[1]]
            loss = F.cross_entropy(token_logits.float().flatten(0, 1), labels.flatten(), reduction="sum")
            loss = loss + self.config.quantity_coefficient * (outputs.quantities - lengths).abs().sum()
            if self.config.ctc_coefficient:
                loss = loss + self.config.ctc_coefficient * self._ctc_loss(logits, outputs.frame_mask, labels, lengths)
            loss = loss / (lengths.sum() if num_items_in_batch is None else num_items_in_batch)
        return FiredCTCOutput(
            loss=loss,
            logits=logits,
            token_logits=token_logits,
            token_mask=outputs.token_mask,
            quantities=outputs.quantities,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )

    def _ctc_loss(self, logits: Tensor, mask: Tensor | None, labels: Tensor, lengths: Tensor) -> Tensor:
        """Sum over rows; one whose transcript has more words than there are frames counts as nothing."""
        frames = torch.full_like(lengths, logits.shape[1]) if mask is None else mask.sum(-1)
        return F.ctc_loss(
            logits.float().log_softmax(-1).transpose(0, 1),
            labels.clamp_min(0),
            frames,
            lengths,
            blank=self.config.pad_token_id,
            reduction="sum",
            zero_infinity=True,
        )
