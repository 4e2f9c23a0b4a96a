"""Images and text in one model, which meet where the config says.

    early        z = [W p_1 ... W p_N] in the places of an image's tokens, p the patches; one transformer for all
    late         z = [f(v_1) ... f(v_N)] instead, v the features of an image tower and f an MLP (Liu et al. 2023,
                 https://arxiv.org/abs/2304.08485 and https://arxiv.org/abs/2310.03744: LLaVA); or, with
                 `num_fusion_layers`, the last layers of the language model attend to v
    interleaved  attention to v behind a gate before every k-th layer (Alayrac et al. 2022,
                 https://arxiv.org/abs/2204.14198: Flamingo)
    joint        two towers and the loss of pairs alone (Radford et al. 2021, https://arxiv.org/abs/2103.00020)

Shapes: B batch, I images of all rows, C channels, T tokens, N features an image, D hidden size, E size of a feature.
"""

import math
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedModel
from transformers import initialization as init
from transformers.cache_utils import Cache
from transformers.generation import GenerationMixin
from transformers.modeling_outputs import (
    BaseModelOutputWithPast,
    BaseModelOutputWithPooling,
    CausalLMOutputWithPast,
    SequenceClassifierOutputWithPast,
)
from transformers.processing_utils import Unpack
from transformers.utils import ModelOutput, TransformersKwargs
from transformers.utils.generic import can_return_tuple

from ..base_model import ZooPreTrainedModel, embed_tokens, where_token
from ..cache import RECURRENT_LAYERS
from ..classifiers import SequenceClassificationHead
from ..clip.modeling_clip import HIGHEST_SCALE, ImageTextOutput
from ..heads import CausalLMHead
from ..layers.gated_cross_attention import GatedCrossAttention
from ..layers.patches import ImageTokens
from ..layers.pooler import pool
from ..layers.projector import Projector
from ..losses import image_text_loss
from ..parts import part_model
from ..vision_heads import dummy_pixels
from .configuration_vlm import ZooVlmConfig
from .media import look, looking_layers, make_media, remember_media
from .stages import StagedModel


class ZooVlmPreTrainedModel(StagedModel, ZooPreTrainedModel):
    """Base class: what the loaders need to know, and which parts learn."""

    config_class = ZooVlmConfig
    config: ZooVlmConfig
    input_modalities = ("image", "text")
    _no_split_modules = ["GatedCrossAttention", "ImageTokens"]
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True

    @property
    def _can_compile_fullgraph(self) -> bool:
        """Whether no size depends on which tokens are images."""
        return self.config.is_spliced

    @property
    def dummy_inputs(self) -> dict[str, Tensor]:
        """A complete, valid batch: two rows of an image and 7 tokens of text."""
        config, generator = self.config, torch.Generator().manual_seed(0)
        most = config.image_token_id if config.fusion != "joint" else config.vocab_size
        text = torch.randint(0, max(most, 1), (2, 7), generator=generator)
        ids = torch.cat((torch.full((2, config.placeholders), config.image_token_id), text), dim=1)
        pixels = dummy_pixels(getattr(config.vision_config, "num_channels", 3), config.vision_config.image_size)
        return {"input_ids": ids, "attention_mask": torch.ones_like(ids), **pixels}


class ZooVlmModel(ZooVlmPreTrainedModel):
    """Both parts and what joins them; of "joint" it is the whole model, and returns the loss of pairs."""

    def __init__(self, config: ZooVlmConfig) -> None:
        super().__init__(config)
        vision, text = config.vision_config, config.text_config
        self.vision_tower = self.patch_embed = self.projector = self.media_norm = None
        if config.fusion == "early":
            sizes = vision.image_size, vision.patch_size, getattr(vision, "num_channels", 3), vision.hidden_size
            self.patch_embed = ImageTokens(*sizes, use_cls=False)
        else:
            self.vision_tower = part_model(vision, add_pooling_layer=config.fusion == "joint")
        self.language_model = part_model(text, add_pooling_layer=False)
        if config.is_spliced:
            options = config.projector_layers, config.projector_hidden_act, config.projector_bias
            self.projector = Projector(self._feature_size(), text.hidden_size, *options)
        self.cross_attention = nn.ModuleDict()
        if looking := looking_layers(config):
            self.media_norm = nn.LayerNorm(self._feature_size())
            self._add_cross_attention(looking)
        if config.fusion == "joint":
            self.visual_projection = self._projection(vision.hidden_size)
            self.text_projection = self._projection(text.hidden_size)
            self.logit_scale = nn.Parameter(torch.tensor(config.logit_scale_init_value))
        self.post_init()

    def _feature_size(self) -> int:
        layers = self.config.vision_feature_layer
        joined = len(layers) if isinstance(layers, list) and self.config.fusion != "early" else 1
        return self.config.vision_config.hidden_size * joined

    def _projection(self, size: int) -> nn.Linear:
        projection = nn.Linear(size, self.config.projection_dim, bias=False)
        projection.init_scale = size**-0.5 / self.config.initializer_range
        return projection

    def _add_cross_attention(self, looking: list[int]) -> None:
        """Put attention to images before some layers of the language model, whose own weights keep their names."""
        text = self.config.text_config
        heads = text.num_attention_heads
        sizes = text.hidden_size, self._feature_size(), heads, text.hidden_size // heads
        for layer_idx in looking:
            self.cross_attention[str(layer_idx)] = GatedCrossAttention(*sizes)
        lists = (m for m in self.language_model.modules() if isinstance(m, nn.ModuleList))
        layers = next(m for m in lists if len(m) == text.num_hidden_layers)
        for layer_idx, layer in enumerate(layers):
            cross = self.cross_attention[str(layer_idx)] if layer_idx in looking else None
            layer.register_forward_pre_hook(partial(look, cross, layer_idx), with_kwargs=True)

    @torch.no_grad()
    def initialise(self) -> None:
        """The scale of "joint"."""
        if self.config.fusion == "joint":
            init.constant_(self.logit_scale, self.config.logit_scale_init_value)

    @classmethod
    def from_parts(cls, vision: PreTrainedModel, language: PreTrainedModel, **options: Any) -> "ZooVlmPreTrainedModel":
        """A model of pretrained parts, whose weights are copied; what joins them is new.

        Args:
            vision: an image tower, or for "early" whatever has its config.
            language: a language model; one with a head gives its head, where this class has one.
            options: other fields of the config; `schedule` is "pretrained_then_joined" without it.
        """
        options = {"schedule": "pretrained_then_joined", **options}
        model = cls(cls.config_class(vision_config=vision.config, text_config=language.config, **options))
        trunk = getattr(model, "model", model)
        if trunk.vision_tower is not None:
            weights = vision.base_model.state_dict()
            trunk.vision_tower.load_state_dict({name: weights[name] for name in trunk.vision_tower.state_dict()})
        weights = language.base_model.state_dict()
        trunk.language_model.load_state_dict({name: weights[name] for name in trunk.language_model.state_dict()})
        scores = language.get_output_embeddings()
        if scores is not None and model.get_output_embeddings() is not None:
            model.get_output_embeddings().load_state_dict(scores.state_dict())
        return model

    def get_input_embeddings(self) -> nn.Module:
        """Of the language model."""
        return self.language_model.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replace those of the language model."""
        self.language_model.set_input_embeddings(value)

    @can_return_tuple
    def get_image_features(
        self, pixel_values: Tensor, **kwargs: Unpack[TransformersKwargs]
    ) -> BaseModelOutputWithPooling:
        """The image tower's output, with images as the language model is given them as `pooler_output`: in the places
        of tokens (I, N, D), to be attended to (I, N, E), or for "joint" as vectors of the common space (I, D).

        Args:
            pixel_values: (I, C, height, width), normalised.
        """
        outputs, x = self._see(pixel_values, **kwargs)
        if self.config.is_spliced:
            x = self.projector(x)
        elif self.config.fusion == "joint":
            x = self.visual_projection(x)
        else:
            x = self.media_norm(x)
        return BaseModelOutputWithPooling(
            last_hidden_state=outputs.last_hidden_state,
            pooler_output=x,
            hidden_states=outputs.get("hidden_states"),
            attentions=outputs.get("attentions"),
        )

    def _see(self, pixel_values: Tensor, **kwargs: Any) -> tuple[ModelOutput, Tensor]:
        """The tower's output, and what stands for the images before anything joins them with text: (I, N, E), or
        (I, E) for "joint"."""
        config = self.config
        if self.patch_embed is not None:
            x = self.patch_embed(pixel_values)
            return BaseModelOutputWithPooling(last_hidden_state=x), x
        layer, run = config.vision_feature_layer, partial(self.vision_tower, pixel_values=pixel_values)
        if config.fusion == "joint":
            outputs = run(**kwargs)
            pooled = outputs.pooler_output
            return outputs, (outputs.last_hidden_state.mean(1) if pooled is None else pooled).flatten(1)
        if layer is None:
            outputs = run(**kwargs)
            x = outputs.last_hidden_state
        elif isinstance(layer, int) and config.vision_config.model_type == "zoo_vit" and not kwargs:
            # Blocks after the one that is wanted are not run
            num_blocks = layer if layer >= 0 else config.vision_config.num_hidden_layers + 1 + layer
            outputs = run(num_blocks=num_blocks)
            x = outputs.last_hidden_state
        else:
            outputs = run(**{**kwargs, "output_hidden_states": True})
            states = outputs.hidden_states
            x = states[layer] if isinstance(layer, int) else torch.cat([states[i] for i in layer], dim=-1)
        return outputs, x[:, 1:] if config.vision_feature_select_strategy == "default" else x

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        pixel_values: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: Tensor | None = None,
        use_cache: bool | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> BaseModelOutputWithPast | ImageTextOutput:
        """Hidden states (B, T, D) of the language model's last layer; of "joint" the scores of pairs and their loss.

        Args:
            input_ids: (B, T), `image_token_id` where an image is: `config.placeholders` times.
            pixel_values: (I, C, height, width), the images of all rows in the order of their placeholders; rows may
                have none or several. For "joint" one a row. Without any, a placeholder is a token like others.
            attention_mask, position_ids, past_key_values, use_cache: see the language model.
            inputs_embeds: (B, T, D), instead of input_ids; the embedding of `image_token_id` where an image is.

        Raises:
            ValueError: there are not as many placeholders as features.
        """
        given = {"attention_mask": attention_mask, "position_ids": position_ids, "past_key_values": past_key_values}
        given |= {"use_cache": use_cache, **kwargs}
        given = {name: value for name, value in given.items() if value is not None}  # encoders know nothing of caches
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("give exactly one of input_ids and inputs_embeds")
        words = {"input_ids": input_ids} if inputs_embeds is None else {"inputs_embeds": inputs_embeds}
        if self.config.fusion == "joint":
            return self._compare(pixel_values, **words, **given)
        if self.config.is_spliced and pixel_values is None:
            return self.language_model(**words, **given)
        is_image = where_token(self.get_input_embeddings(), self.config.image_token_id, input_ids, inputs_embeds)
        features = None
        if pixel_values is not None:
            features = self.get_image_features(pixel_values).pooler_output
            self._check_counts(is_image, features)
        if self.config.is_spliced:
            x = embed_tokens(self.get_input_embeddings(), input_ids, inputs_embeds)
            x = x.masked_scatter(is_image[..., None], features.to(x.dtype))
            return self.language_model(inputs_embeds=x, **given)
        keeps = use_cache if use_cache is not None else not self.training
        only_last = self.config.fusion == "interleaved"
        media = make_media(features, is_image, past_key_values, bool(keeps), only_last)
        outputs = self.language_model(**words, **given, media=media)
        if (cache := outputs.get("past_key_values")) is not None:
            remember_media(cache, media, is_image)
        return outputs

    def _check_counts(self, is_image: Tensor, features: Tensor) -> None:
        if torch.compiler.is_compiling():
            return
        places = int(is_image.sum())
        found = features.shape[0] * (features.shape[1] if self.config.is_spliced else 1)
        if found != places:
            each, what = (self.config.num_image_tokens, "features") if self.config.is_spliced else (1, "images")
            raise ValueError(
                f"there are {places} placeholders of id {self.config.image_token_id} for {found} {what}: a text needs "
                f"{each} for each of its images"
            )

    def _compare(self, pixel_values: Tensor | None, **given: Any) -> ImageTextOutput:
        if pixel_values is None:
            raise ValueError("fusion='joint' compares texts with images: give pixel_values")
        outputs = self.language_model(**given)
        pooled = pool(outputs.last_hidden_state, given.get("attention_mask"), self.config.text_pooling)
        texts = F.normalize(self.text_projection(pooled), dim=-1)
        images = F.normalize(self.get_image_features(pixel_values).pooler_output, dim=-1)
        scale = self.logit_scale.clamp(max=math.log(HIGHEST_SCALE)).exp()
        logits = texts @ images.T * scale
        return ImageTextOutput(
            loss=image_text_loss(images, texts, scale) if len(images) == len(texts) else None,
            logits_per_image=logits.T,
            logits_per_text=logits,
            text_embeds=texts,
            image_embeds=images,
            text_model_output=outputs,
        )


class ZooVlmForConditionalGeneration(CausalLMHead, ZooVlmPreTrainedModel, GenerationMixin):
    """Writes text about images; "joint" cannot."""

    backbone_class = ZooVlmModel
    from_parts = classmethod(ZooVlmModel.from_parts.__func__)

    def __init__(self, config: ZooVlmConfig) -> None:
        if config.fusion == "joint":
            raise ValueError("fusion='joint' has no model that writes: its towers meet in the loss alone")
        super().__init__(config)

    def post_init(self) -> None:
        """As for all models, with scores that are tied to the embeddings of whatever language model there is."""
        names = {id(module): name for name, module in self.named_modules()}
        self._tied_weights_keys = {"lm_head.weight": f"{names[id(self.get_input_embeddings())]}.weight"}
        super().post_init()

    def _supports_default_dynamic_cache(self) -> bool:
        kinds = getattr(self.config.text_config, "layer_types", None) or ("full_attention",)
        return not all(kind in RECURRENT_LAYERS for kind in kinds)  # such a language model makes a cache of its own

    def get_image_features(
        self, pixel_values: Tensor, **kwargs: Unpack[TransformersKwargs]
    ) -> BaseModelOutputWithPooling:
        """See `ZooVlmModel.get_image_features`."""
        return self.model.get_image_features(pixel_values, **kwargs)

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        pixel_values: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | Tensor = 0,
        **kwargs: Unpack[TransformersKwargs],
    ) -> CausalLMOutputWithPast:
        """Logits (B, T, vocab_size) and, with labels, the mean cross-entropy of the next token.

        Args:
            pixel_values: see `ZooVlmModel.forward`; `generate` takes it too.
            labels: (B, T), -100 on placeholders, on padding and on what another said. Shifted here, so the last
                placeholder is what the first word is said after.
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
            pixel_values=pixel_values,
            return_dict=True,
            **kwargs,
        )

    def prepare_inputs_for_generation(self, input_ids: Tensor, **kwargs: Any) -> dict[str, Any]:
        """What one step is given: images only with the tokens that hold their places."""
        inputs = super().prepare_inputs_for_generation(input_ids, **kwargs)
        given = inputs.get("input_ids")
        if (
            inputs.get("pixel_values") is not None
            and given is not None
            and not (given == self.config.image_token_id).any()
        ):
            inputs["pixel_values"] = None
        return inputs

    def _expand_inputs_for_generation(
        self, expand_size: int = 1, is_encoder_decoder: bool = False, input_ids: Tensor | None = None, **kwargs: Any
    ) -> tuple[Tensor, dict[str, Any]]:
        """Rows as often as there are beams, each with all its images: a row may have none or several."""
        pixels = kwargs.pop("pixel_values", None)
        if pixels is not None and expand_size > 1 and input_ids is not None:
            counts = (input_ids == self.config.image_token_id).sum(-1) // self.config.placeholders
            rows = pixels.split(counts.tolist())
            pixels = torch.cat([row for row in rows for _ in range(expand_size)])
        ids, kwargs = super()._expand_inputs_for_generation(
            expand_size=expand_size, is_encoder_decoder=is_encoder_decoder, input_ids=input_ids, **kwargs
        )
        return ids, kwargs if pixels is None else {**kwargs, "pixel_values": pixels}


class ZooVlmForSequenceClassification(SequenceClassificationHead, ZooVlmPreTrainedModel):
    """A label for an image with its text: a class, or whether the two belong together."""

    backbone_class = ZooVlmModel

    def make_score(self, config: ZooVlmConfig) -> nn.Module:
        """Of one vector; of "joint" the sum of what each tower scores by itself, a decision as late as can be."""
        if config.fusion != "joint":
            return super().make_score(config)
        return nn.Linear(2 * config.projection_dim, config.num_labels)

    def summary(self, outputs: ModelOutput, attention_mask: Tensor | None) -> Tensor:
        """One vector a row (B, D); of "joint" both (B, 2 D)."""
        if self.config.fusion == "joint":
            return torch.cat((outputs.text_embeds, outputs.image_embeds), dim=-1)
        return pool(outputs.last_hidden_state, attention_mask, self.config.text_pooling)

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        pixel_values: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        num_items_in_batch: Tensor | int | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> SequenceClassifierOutputWithPast:
        """Logits (B, num_labels).

        Args:
            pixel_values: see `ZooVlmModel.forward`.
            labels: (B) or (B, num_labels), see `classification_loss`.
            kwargs: see `SequenceClassificationHead.forward`, as for the rest.
        """
        return super().forward(
            input_ids,
            attention_mask,
            None,
            position_ids,
            past_key_values,
            inputs_embeds,
            labels,
            use_cache,
            num_items_in_batch,
            pixel_values=pixel_values,
            return_dict=True,
            **kwargs,
        )
