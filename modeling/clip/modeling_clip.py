"""Images and texts in one space, learnt from pairs.

Radford et al. 2021, https://arxiv.org/abs/2103.00020; the loss of Zhai et al. 2023, https://arxiv.org/abs/2303.15343.

    v = W_v tower_v(image) / |.|,  t = W_t tower_t(text) / |.|
    s_ij = exp(tau) v_i . t_j
    clip    mean of -log softmax_j(s_ij) at j = i, and of the same over i
    siglip  mean over i of -sum_j log sigmoid(z_ij (s_ij + b)),  z_ij = 1 for j = i and -1 otherwise

The pairs of a batch are everybody's: those of other processes count as wrong, too.

Shapes: B pairs, T tokens, C channels, D size of the common space.
"""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedModel
from transformers import initialization as init
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.processing_utils import Unpack
from transformers.utils import ModelOutput, TransformersKwargs
from transformers.utils.generic import can_return_tuple

from ..base_model import ZooPreTrainedModel
from ..layers.pooler import pool, pool_at
from ..losses import image_text_loss
from ..parts import part_model
from ..vision_heads import dummy_pixels
from .configuration_clip import ZooClipConfig

HIGHEST_SCALE = 100.0  # of cosines in CLIP's loss, section 2.5


@dataclass
class ImageTextOutput(ModelOutput):
    """Of a model of images and texts.

    Args:
        loss: of telling pairs apart, where as many images as texts are given.
        logits_per_image: (images, texts), the scaled cosines.
        logits_per_text: (texts, images).
        text_embeds, image_embeds: (texts, D) and (images, D), of length one.
        text_model_output, vision_model_output: of the towers, whose pooled vectors are in the common space.
    """

    loss: Tensor | None = None
    logits_per_image: Tensor | None = None
    logits_per_text: Tensor | None = None
    text_embeds: Tensor | None = None
    image_embeds: Tensor | None = None
    text_model_output: BaseModelOutputWithPooling | None = None
    vision_model_output: BaseModelOutputWithPooling | None = None

    def to_tuple(self) -> tuple[Any, ...]:
        """All values, those of the towers as tuples."""
        return tuple(v.to_tuple() if isinstance(v, ModelOutput) else v for v in self.values())


class ZooClipPreTrainedModel(ZooPreTrainedModel):
    """Base class."""

    config_class = ZooClipConfig
    config: ZooClipConfig
    input_modalities = ("image", "text")
    accepts_loss_kwargs = False  # the loss is a mean over pairs, each against a batch that others complete
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True


class ZooClipModel(ZooClipPreTrainedModel):
    """Both towers; with as many images as texts it returns the loss, so that `Trainer` trains it as it is."""

    def __init__(self, config: ZooClipConfig) -> None:
        super().__init__(config)
        self.vision_model = part_model(config.vision_config)
        self.text_model = part_model(config.text_config, add_pooling_layer=config.text_pooling == "pooler")
        self.visual_projection = self._projection(config.vision_config.hidden_size)
        self.text_projection = self._projection(config.text_config.hidden_size)
        self.logit_scale = nn.Parameter(torch.tensor(config.logit_scale_init_value))
        self.logit_bias = None
        if config.loss_type == "siglip":
            self.logit_bias = nn.Parameter(torch.tensor(config.logit_bias_init_value))
        self.post_init()

    def _projection(self, size: int) -> nn.Linear | None:
        if not self.config.projection_dim:
            return None
        projection = nn.Linear(size, self.config.projection_dim, bias=False)
        projection.init_scale = size**-0.5 / self.config.initializer_range
        return projection

    @torch.no_grad()
    def initialise(self) -> None:
        """The scale, and the bias of scores."""
        init.constant_(self.logit_scale, self.config.logit_scale_init_value)
        if self.logit_bias is not None:
            init.constant_(self.logit_bias, self.config.logit_bias_init_value)

    @classmethod
    def from_towers(cls, vision: PreTrainedModel, text: PreTrainedModel, **options: Any) -> "ZooClipModel":
        """A model from pretrained towers, whose weights are copied.

        Args:
            vision: the image tower.
            text: the text tower.
            options: other fields of the config.
        """
        config = ZooClipConfig(vision_config=vision.config, text_config=text.config, **options)
        model = cls(config)
        for part, tower in ((model.vision_model, vision), (model.text_model, text)):
            weights = tower.state_dict()
            part.load_state_dict({name: weights[name] for name in part.state_dict()})
        return model

    @property
    def dummy_inputs(self) -> dict[str, Tensor]:
        """Two images and two texts of 8 tokens that end with their end token."""
        inputs, vision = super().dummy_inputs, self.config.vision_config
        if self.config.text_pooling == "eot":
            inputs["input_ids"][:, -1] = self.config.text_config.eos_token_id
        return {**inputs, **dummy_pixels(getattr(vision, "num_channels", 3), vision.image_size)}

    def get_input_embeddings(self) -> nn.Module:
        """Of the text tower."""
        return self.text_model.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replace those of the text tower."""
        self.text_model.set_input_embeddings(value)

    def resize_token_embeddings(self, new_num_tokens: int | None = None, *args: Any, **kwargs: Any) -> nn.Module:
        """Resize the text tower's vocabulary."""
        embedding = self.text_model.resize_token_embeddings(new_num_tokens, *args, **kwargs)
        self.vocab_size = self.config.vocab_size  # as transformers leaves it
        return embedding

    @can_return_tuple
    def get_text_features(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> BaseModelOutputWithPooling:
        """The text tower's output, with `pooler_output` in the common space (B, D), of any length.

        Args:
            input_ids: (B, T).
            attention_mask: (B, T) with 1 on real tokens.
            position_ids: (B, T); by default real tokens are counted.
        """
        if position_ids is not None:
            kwargs["position_ids"] = position_ids
        outputs = self.text_model(input_ids=input_ids, attention_mask=attention_mask, **kwargs)
        kind, x = self.config.text_pooling, outputs.last_hidden_state
        if kind == "pooler":
            pooled = outputs.pooler_output
        elif kind in ("eot", "highest_id"):
            token_id = self.config.text_config.eos_token_id if kind == "eot" else None
            pooled = pool_at(x, input_ids, token_id, attention_mask)
        else:
            pooled = pool(x, attention_mask, kind)
        return self._projected(outputs, pooled, self.text_projection)

    @can_return_tuple
    def get_image_features(
        self, pixel_values: Tensor, interpolate_pos_encoding: bool = False, **kwargs: Unpack[TransformersKwargs]
    ) -> BaseModelOutputWithPooling:
        """The image tower's output, with `pooler_output` in the common space (B, D), of any length.

        Args:
            pixel_values: (B, C, height, width), normalised.
            interpolate_pos_encoding: for images of another size than the tower's, where it can.
        """
        if interpolate_pos_encoding:
            kwargs["interpolate_pos_encoding"] = True
        outputs = self.vision_model(pixel_values=pixel_values, **kwargs)
        pooled = outputs.pooler_output
        if pooled is None:
            pooled = outputs.last_hidden_state.mean(1)
        return self._projected(outputs, pooled.flatten(1), self.visual_projection)

    def _projected(
        self, outputs: ModelOutput, pooled: Tensor, projection: nn.Linear | None
    ) -> BaseModelOutputWithPooling:
        return BaseModelOutputWithPooling(
            last_hidden_state=outputs.last_hidden_state,
            pooler_output=pooled if projection is None else projection(pooled),
            hidden_states=outputs.hidden_states,
            attentions=getattr(outputs, "attentions", None),
        )

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor,
        pixel_values: Tensor,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        return_loss: bool = True,
        interpolate_pos_encoding: bool = False,
        **kwargs: Unpack[TransformersKwargs],
    ) -> ImageTextOutput:
        """Scores of all images with all texts and, where there are as many of both, the loss.

        Args:
            input_ids, attention_mask, position_ids: (texts, T), see `get_text_features`.
            pixel_values: (images, C, height, width).
            return_loss: whether the n-th text is of the n-th image.
            interpolate_pos_encoding: see `get_image_features`.
        """
        vision = self.get_image_features(pixel_values, interpolate_pos_encoding, **kwargs)
        text = self.get_text_features(input_ids, attention_mask, position_ids, **kwargs)
        images, texts = (F.normalize(outputs.pooler_output, dim=-1) for outputs in (vision, text))
        scale = self.logit_scale
        if self.logit_bias is None:
            scale = scale.clamp(max=math.log(HIGHEST_SCALE))
        scale = scale.exp()
        loss = None
        if return_loss and len(images) == len(texts):
            loss = image_text_loss(images, texts, scale, self.logit_bias)
        logits = texts @ images.T * scale
        if self.logit_bias is not None:
            logits = logits + self.logit_bias
        return ImageTextOutput(
            loss=loss,
            logits_per_image=logits.T,
            logits_per_text=logits,
            text_embeds=texts,
            image_embeds=images,
            text_model_output=text,
            vision_model_output=vision,
        )
