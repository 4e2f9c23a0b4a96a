"""Twelve modalities through one encoder that does not learn any more.

Zhang et al. 2023, https://arxiv.org/abs/2307.10802. Data of modality m become tokens of one kind, and what reads them
is the same for all:

    z = [x_class; t_m(x_m)],   y = head_m(N(f(z)))

f are the blocks of a vision transformer, trained once on images and texts and then frozen; the tokeniser t_m, which
marks places itself, the class token, the norm N and the head learn for each task. Several modalities of one thing
stand side by side, z = [x_class; t_1(x_1); t_2(x_2); ...].

Shapes: B batch, T tokens, D hidden size.
"""

from typing import Any

import torch
from torch import Tensor, nn
from transformers import initialization as init
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import (
    BaseModelOutputWithPooling,
    SequenceClassifierOutput,
    TokenClassifierOutput,
)
from transformers.processing_utils import Unpack
from transformers.utils import ModelOutput, TransformersKwargs
from transformers.utils.generic import can_return_tuple

from ..base_model import ZooPreTrainedModel
from ..classifiers import ClassifierHead
from ..layers.pooler import pool
from ..losses import classification_loss
from ..parts import part_model
from .configuration_meta_transformer import ZooMetaTransformerConfig
from .modality_tokens import INPUTS, ModalityTokens, noise

_CLASS_TOKEN_STD = 0.02


class ZooMetaTransformerPreTrainedModel(ZooPreTrainedModel):
    """Base class; whatever loads, copies or trains a model leaves the encoder frozen."""

    config_class = ZooMetaTransformerConfig
    config: ZooMetaTransformerConfig
    input_modalities = ("image", "text", "audio", "video", "time")
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True

    @classmethod
    def from_pretrained(cls, *args: Any, **kwargs: Any) -> Any:
        """As for all models; weights that are read could learn, those of a frozen encoder do not."""
        loaded = super().from_pretrained(*args, **kwargs)
        (loaded[0] if isinstance(loaded, tuple) else loaded).freeze()
        return loaded

    @classmethod
    def from_encoder(cls, encoder: nn.Module, **options: Any) -> "ZooMetaTransformerPreTrainedModel":
        """A model on the blocks of another, which both share from then on.

        Args:
            encoder: a `ZooVitModel`, pretrained on images perhaps, or the encoder of another Meta-Transformer.
            options: other fields of the config, such as `modalities` and `num_labels`.
        """
        part = encoder.config.to_dict()
        if options.get("freeze_encoder", True):
            part.update({name: 0.0 for name in part if name.endswith("_dropout")})
        part = {**part, "pooling": "mean"} if part["pooling"] == "attention" else part
        model = cls(cls.config_class(encoder_config=part, **options))
        own = model.base_model.encoder
        for name in ("embed_norm", "layers", "norm"):
            setattr(own, name, getattr(encoder, name))
        model.freeze()
        return model

    def freeze(self) -> None:
        """Stop the encoder from learning, if the config says so."""
        if self.config.freeze_encoder:
            self.base_model.encoder.requires_grad_(False)
            self.train(self.training)

    def train(self, mode: bool = True) -> "ZooMetaTransformerPreTrainedModel":
        """Training mode for all but a frozen encoder; with weights of an adapter in it, it is not frozen."""
        super().train(mode)
        encoder = self.base_model.encoder
        if self.config.freeze_encoder and not any(weight.requires_grad for weight in encoder.parameters()):
            encoder.eval()
            for block in encoder.modules():  # a frozen block is run through backwards: it may forget what it can redo
                if isinstance(block, GradientCheckpointingLayer):
                    block.training = mode
        return self

    @property
    def dummy_inputs(self) -> dict[str, Tensor]:
        """Two rows, each of all modalities."""
        return noise(self.config.modalities, 2, torch.Generator().manual_seed(0))

    def get_input_embeddings(self) -> nn.Module | None:
        """That of texts; None where there are none."""
        tokenisers = self.base_model.tokenisers.by_name
        return tokenisers["text"].embed_tokens if "text" in tokenisers else None

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replace that of texts."""
        self.base_model.tokenisers.by_name["text"].embed_tokens = value


class ZooMetaTransformerModel(ZooMetaTransformerPreTrainedModel):
    """Tokenisers, the class token, the encoder and the norm that follows it."""

    def __init__(self, config: ZooMetaTransformerConfig) -> None:
        super().__init__(config)
        self.main_input_name = INPUTS[next(iter(config.modalities))][0]
        self.tokenisers = ModalityTokens(config.modalities, config.hidden_size)
        self.cls_token = nn.Parameter(torch.empty(config.hidden_size))
        self.encoder = part_model(config.encoder_config, add_pooling_layer=False, add_embeddings=False)
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.encoder_config.norm_eps)
        self.post_init()
        self.freeze()

    @torch.no_grad()
    def initialise(self) -> None:
        """The class token."""
        init.normal_(self.cls_token, std=_CLASS_TOKEN_STD)

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        pixel_values: Tensor | None = None,
        infrared_values: Tensor | None = None,
        x_ray_values: Tensor | None = None,
        pixel_values_videos: Tensor | None = None,
        band_values: Tensor | None = None,
        points: Tensor | None = None,
        audio_values: Tensor | None = None,
        numeric_values: Tensor | None = None,
        category_ids: Tensor | None = None,
        node_values: Tensor | None = None,
        edge_index: Tensor | None = None,
        edge_values: Tensor | None = None,
        node_mask: Tensor | None = None,
        node_identifiers: Tensor | None = None,
        series_values: Tensor | None = None,
        imu_values: Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> BaseModelOutputWithPooling:
        """Hidden states (B, 1 + T, D) with the class token first, and one vector (B, D) a row.

        Tokens of several modalities stand side by side in the order of these arguments.

        Args:
            input_ids, attention_mask: a text (B, T); padding on either side changes nothing.
            pixel_values, infrared_values, x_ray_values: pictures (B, channels, height, width).
            pixel_values_videos: (B, frames, channels, height, width).
            band_values: a hyperspectral picture (B, bands, side, side).
            points: (B, points, channels), the first three of which are the place.
            audio_values: a log-mel spectrogram (B, frames, mel bins).
            numeric_values, category_ids: a row of a table, (B, N) with NaN where a number is missing, and (B, C).
            node_values, node_mask, node_identifiers: of a graph (B, nodes, ...), see `GraphTokens`.
            edge_index, edge_values: of its edges, (B, edges, 2) with -1 where there is none, and (B, edges, ...).
            series_values, imu_values: (B, steps, channels).
        """
        x, mask = self.tokenisers(
            input_ids=input_ids,
            attention_mask=attention_mask,
            pixel_values=pixel_values,
            infrared_values=infrared_values,
            x_ray_values=x_ray_values,
            pixel_values_videos=pixel_values_videos,
            band_values=band_values,
            points=points,
            audio_values=audio_values,
            numeric_values=numeric_values,
            category_ids=category_ids,
            node_values=node_values,
            edge_index=edge_index,
            edge_values=edge_values,
            node_mask=node_mask,
            node_identifiers=node_identifiers,
            series_values=series_values,
            imu_values=imu_values,
        )
        x = torch.cat((self.cls_token.expand(len(x), 1, -1), x), dim=1)
        if mask is not None:
            mask = torch.cat((mask.new_ones(len(x), 1), mask), dim=1)
        outputs = self.encoder(token_embeds=x, attention_mask=mask, **kwargs)
        x = self.norm(outputs.last_hidden_state)
        if self.config.pooling == "cls":
            pooled = x[:, 0]
        else:
            pooled = pool(x[:, 1:], mask if mask is None else mask[:, 1:], "mean")
        return BaseModelOutputWithPooling(
            last_hidden_state=x,
            pooler_output=pooled,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )


class MetaTransformerHead(ClassifierHead):
    """What both classifiers share: all inputs of the model, by name, because Trainer asks which there are."""

    def __init__(self, config: ZooMetaTransformerConfig) -> None:
        super().__init__(config)
        self.main_input_name = self.model.main_input_name

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        pixel_values: Tensor | None = None,
        infrared_values: Tensor | None = None,
        x_ray_values: Tensor | None = None,
        pixel_values_videos: Tensor | None = None,
        band_values: Tensor | None = None,
        points: Tensor | None = None,
        audio_values: Tensor | None = None,
        numeric_values: Tensor | None = None,
        category_ids: Tensor | None = None,
        node_values: Tensor | None = None,
        edge_index: Tensor | None = None,
        edge_values: Tensor | None = None,
        node_mask: Tensor | None = None,
        node_identifiers: Tensor | None = None,
        series_values: Tensor | None = None,
        imu_values: Tensor | None = None,
        labels: Tensor | None = None,
        num_items_in_batch: Tensor | int | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> SequenceClassifierOutput | TokenClassifierOutput:
        """Logits, of a row (B, num_labels) or of its tokens (B, T, num_labels), and with labels the loss.

        Args:
            labels: (B) or (B, num_labels), see `classification_loss`; of tokens (B, T), -100 where there is none.
            kwargs: see the trunk for the rest.
        """
        outputs = self.model(
            input_ids,
            attention_mask,
            pixel_values,
            infrared_values,
            x_ray_values,
            pixel_values_videos,
            band_values,
            points,
            audio_values,
            numeric_values,
            category_ids,
            node_values,
            edge_index,
            edge_values,
            node_mask,
            node_identifiers,
            series_values,
            imu_values,
            **kwargs,
        )
        return self.finish(outputs, labels, num_items_in_batch)

    def finish(
        self, outputs: ModelOutput, labels: Tensor | None, num_items_in_batch: Tensor | int | None
    ) -> SequenceClassifierOutput | TokenClassifierOutput:
        """Logits (B, num_labels) and loss from what the trunk returns."""
        logits = self.score(self.dropout(outputs.pooler_output))
        loss = None
        if labels is not None:
            loss = classification_loss(logits, labels, self.config.problem_type, num_items_in_batch)
        return SequenceClassifierOutput(
            loss=loss, logits=logits, hidden_states=outputs.hidden_states, attentions=outputs.attentions
        )


class ZooMetaTransformerForSequenceClassification(MetaTransformerHead, ZooMetaTransformerPreTrainedModel):
    """One label, several, or a number for the row, whatever it is of."""

    backbone_class = ZooMetaTransformerModel


class ZooMetaTransformerForTokenClassification(MetaTransformerHead, ZooMetaTransformerPreTrainedModel):
    """A label for every token: of words, patches, groups of points, nodes, steps."""

    backbone_class = ZooMetaTransformerModel

    def finish(
        self, outputs: ModelOutput, labels: Tensor | None, num_items_in_batch: Tensor | int | None
    ) -> TokenClassifierOutput:
        """Logits (B, T, num_labels), without the class token."""
        logits = self.score(self.dropout(outputs.last_hidden_state[:, 1:]))
        loss = None
        if labels is not None:
            counted = {"num_items_in_batch": num_items_in_batch}
            loss = self.loss_function(logits=logits, labels=labels, config=self.config, **counted)
        return TokenClassifierOutput(
            loss=loss, logits=logits, hidden_states=outputs.hidden_states, attentions=outputs.attentions
        )
