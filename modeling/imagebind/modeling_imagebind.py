"""ImageBind: images, texts, sounds, depth, heat and motion in one space, each learnt from pairs with images alone.

Girdhar et al. 2023, https://arxiv.org/abs/2305.05665:

    e_m = W_m LN(tower_m(signal)_cls) / |.|,  the mean of those of several clips
    loss = sum over m of (CE_i(s_m e_v,i . e_m,j) + CE_j(the same)) / 2,  for all m beside images v

Sounds and texts, say, are never compared in training, and yet end up side by side.

Shapes: B things, K clips, C channels, F frames of a clip, T tokens, D size of the common space.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import initialization as init
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.processing_utils import Unpack
from transformers.utils import ModelOutput, TransformersKwargs
from transformers.utils.generic import can_return_tuple

from ..base_model import ZooPreTrainedModel
from ..layers.bias_key_attention import BiasKeyAttention
from ..layers.norm import NORMS
from ..layers.pooler import pool_at
from ..layers.signal_tokens import MapEmbedding, SignalTokens, TubeEmbedding, WindowEmbedding
from ..losses import image_text_loss
from ..parts import FreezesParts, part_model
from ..vit.modeling_vit import VitBlock, ZooVitModel
from .configuration_imagebind import FIELDS, ZooImagebindConfig, ZooImagebindTowerConfig

_HIGHEST_SCALE = 100.0
INPUTS = {
    "vision": "pixel_values",
    "audio": "audio_values",
    "depth": "depth_values",
    "thermal": "thermal_values",
    "imu": "imu_values",
}


@dataclass
class ImagebindOutput(ModelOutput):
    """Of what was given, one vector (B, D) each, of length one, or the mean of those of several clips.

    Args:
        loss: of telling the pairs of images with each other kind apart, where as many of both are given.
        logits_per_image, logits_per_text: (images, texts) and (texts, images), scaled cosines, where both are given.
        image_embeds, text_embeds, audio_embeds, depth_embeds, thermal_embeds, imu_embeds: the vectors.
    """

    loss: Tensor | None = None
    logits_per_image: Tensor | None = None
    logits_per_text: Tensor | None = None
    image_embeds: Tensor | None = None
    text_embeds: Tensor | None = None
    audio_embeds: Tensor | None = None
    depth_embeds: Tensor | None = None
    thermal_embeds: Tensor | None = None
    imu_embeds: Tensor | None = None


class TowerBlock(VitBlock):
    """A block of the vision transformer, perhaps with a key and a value more."""

    def __init__(self, config: ZooImagebindTowerConfig, layer_idx: int) -> None:
        super().__init__(config, layer_idx)
        if config.bias_kv:
            size, heads = config.hidden_size, config.num_attention_heads
            self.self_attn = BiasKeyAttention(
                config, layer_idx, size, heads, config.qkv_bias, config.attention_dropout
            )


class ZooImagebindTower(ZooVitModel):
    """A vision transformer of tubes, of maps or of windows."""

    config_class = ZooImagebindTowerConfig
    config: ZooImagebindTowerConfig
    block_class = TowerBlock
    _no_split_modules = ["SignalTokens", "TowerBlock"]

    def make_embeddings(self, config: ZooImagebindTowerConfig, use_mask_token: bool) -> nn.Module:
        """What makes tokens of the signal."""
        channels, size, patch = config.num_channels, config.hidden_size, config.patch_size
        if config.kind == "tubes":
            pieces = TubeEmbedding(channels, size, config.num_frames, patch)
        elif config.kind == "map":
            pieces = MapEmbedding(channels, size, patch, config.patch_stride)
        else:
            pieces = WindowEmbedding(channels, size, patch)
        norm = NORMS[config.norm](size, eps=config.norm_eps) if config.norm_patches else None
        return SignalTokens(pieces, math.prod(config.grid), size, norm)


class ZooImagebindPreTrainedModel(FreezesParts, ZooPreTrainedModel):
    """Base class."""

    config_class = ZooImagebindConfig
    config: ZooImagebindConfig
    main_input_name = "pixel_values"
    input_modalities = ("image", "text", "audio")
    accepts_loss_kwargs = False  # the loss is a mean over pairs, each against a batch that others complete
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True


class ZooImagebindModel(ZooImagebindPreTrainedModel):
    """All towers; with as many images as other things it returns the loss, so that `Trainer` trains it as it is."""

    def __init__(self, config: ZooImagebindConfig) -> None:
        super().__init__(config)
        self.heads = nn.ModuleDict()
        self.text_logit_scale = None
        for name in config.modalities:
            part = getattr(config, FIELDS[name])
            head = nn.Linear(part.hidden_size, config.projection_dim, bias=False)
            head.init_scale = part.hidden_size**-0.5 / config.initializer_range
            self.heads[name] = head
            tower = part_model(part) if name == "text" else ZooImagebindTower._from_config(part)
            # An attribute each: transformers asks only a model's own children what must stay on one device
            self.add_module(f"{name}_tower", tower)
        if "text" in config.modalities:
            self.text_logit_scale = nn.Parameter(torch.tensor(config.text_logit_scale_init_value))
        self.post_init()
        self.freeze()

    @torch.no_grad()
    def initialise(self) -> None:
        """The scale of texts."""
        if self.text_logit_scale is not None:
            init.constant_(self.text_logit_scale, self.config.text_logit_scale_init_value)

    def frozen_parts(self) -> list[nn.Module]:
        """Towers and heads of frozen modalities."""
        names = [name for name in self.config.frozen_modalities if name in self.config.modalities]
        return [part for name in names for part in (self._tower(name), self.heads[name])]

    def freeze(self) -> None:
        """The scale of texts, too, where they are frozen."""
        super().freeze()
        if self.text_logit_scale is not None and "text" in self.config.frozen_modalities:
            self.text_logit_scale.requires_grad_(False)

    def get_input_embeddings(self) -> nn.Module:
        """Of the text tower, or of the vision tower where there is none."""
        return self._tower(self._embedded).get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replace them."""
        self._tower(self._embedded).set_input_embeddings(value)

    @property
    def _embedded(self) -> str:
        return "text" if "text" in self.config.modalities else "vision"

    @property
    def dummy_inputs(self) -> dict[str, Tensor]:
        """Two things of every kind that there is a tower for."""
        generator = torch.Generator().manual_seed(0)
        inputs = {}
        for name in self.config.modalities:
            part = getattr(self.config, FIELDS[name])
            if name == "text":
                inputs["input_ids"] = torch.randint(0, part.vocab_size, (2, 8), generator=generator)
                inputs["input_ids"][:, -1] = part.eos_token_id
            else:
                inputs[INPUTS[name]] = torch.randn(2, part.num_channels, *part.input_shape, generator=generator)
        return inputs

    @can_return_tuple
    def get_text_features(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, **kwargs: Unpack[TransformersKwargs]
    ) -> BaseModelOutputWithPooling:
        """The tower's output for texts, with `pooler_output` in the common space (B, D), of length one.

        Args:
            input_ids: (B, T), ending with the end token, where a text is read.
            attention_mask: (B, T) with 1 on real tokens.
        """
        outputs = self._tower("text")(input_ids=input_ids, attention_mask=attention_mask, **kwargs)
        pooled = pool_at(outputs.last_hidden_state, input_ids, self.config.text_config.eos_token_id, attention_mask)
        return self._projected("text", outputs, pooled)

    @can_return_tuple
    def get_signal_features(
        self, name: str, values: Tensor, **kwargs: Unpack[TransformersKwargs]
    ) -> BaseModelOutputWithPooling:
        """The tower's output for all clips, with `pooler_output` in the common space (B, D).

        Those vectors are of length one, or the mean of those of a thing's clips.

        Args:
            name: of the modality.
            values: images (B, C, height, width), clips of films (B, K, C, F, height, width), maps and series (B, C,
                ...) or clips of them (B, K, C, ...).

        Raises:
            ValueError: another shape.
        """
        tower = self._tower(name)
        part = tower.config
        frames = (part.num_frames,) if part.kind == "tubes" else ()
        shapes = {(part.num_channels, *part.input_shape), (part.num_channels, *frames, *part.input_shape)}
        has_clips = values.shape[2:] in shapes and values.shape[1:] not in shapes
        if values.shape[1 + has_clips :] not in shapes:
            shown = " or ".join(str(shape) for shape in sorted(shapes, key=len))
            raise ValueError(
                f"{INPUTS[name]} must be (things, ...) or (things, clips, ...) of {shown}, got {tuple(values.shape)}"
            )
        clips = values.flatten(0, 1) if has_clips else values
        outputs = tower(token_embeds=tower.embeddings(clips), **kwargs)
        pooled = F.dropout(outputs.pooler_output, part.head_dropout, tower.training)
        outputs = self._projected(name, outputs, pooled)
        if has_clips:
            outputs.pooler_output = outputs.pooler_output.unflatten(0, values.shape[:2]).mean(1)
        return outputs

    def _projected(self, name: str, outputs: ModelOutput, pooled: Tensor) -> BaseModelOutputWithPooling:
        return BaseModelOutputWithPooling(
            last_hidden_state=outputs.last_hidden_state,
            pooler_output=F.normalize(self.heads[name](pooled), dim=-1),
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )

    def _tower(self, name: str) -> nn.Module:
        if name not in self.config.modalities:
            raise ValueError(f"there is no tower for {name!r}: modalities are {', '.join(self.config.modalities)}")
        return getattr(self, f"{name}_tower")

    def scale_of(self, name: str) -> Tensor | float:
        """What cosines of images with a modality are multiplied by."""
        if name == "text":
            return self.text_logit_scale.clamp(max=math.log(_HIGHEST_SCALE)).exp()
        return getattr(self.config, FIELDS[name]).logit_scale

    @can_return_tuple
    def forward(
        self,
        pixel_values: Tensor | None = None,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        audio_values: Tensor | None = None,
        depth_values: Tensor | None = None,
        thermal_values: Tensor | None = None,
        imu_values: Tensor | None = None,
        return_loss: bool = True,
        **kwargs: Unpack[TransformersKwargs],
    ) -> ImagebindOutput:
        """Vectors of all that is given and, where images are, the loss of their pairs with everything else.

        Args:
            input_ids, attention_mask: see `get_text_features`.
            pixel_values, audio_values, depth_values, thermal_values, imu_values: see `get_signal_features`.
            return_loss: whether the n-th image is of the n-th of everything else.

        Raises:
            ValueError: nothing is given, or something for which there is no tower.
        """
        signals = zip(INPUTS, (pixel_values, audio_values, depth_values, thermal_values, imu_values), strict=True)
        kwargs["return_dict"] = True
        outputs = {name: self.get_signal_features(name, x, **kwargs) for name, x in signals if x is not None}
        if input_ids is not None:
            outputs["text"] = self.get_text_features(input_ids, attention_mask, **kwargs)
        found = {name: each.pooler_output for name, each in outputs.items()}
        if not found:
            raise ValueError(f"give at least one of {', '.join(INPUTS.values())} and input_ids")
        images, losses = found.get("vision"), []
        for name, vectors in found.items():
            if return_loss and images is not None and name != "vision" and len(vectors) == len(images):
                losses.append(image_text_loss(images, vectors, self.scale_of(name)))
        logits = None
        if images is not None and "text" in found:
            logits = images @ found["text"].T * self.scale_of("text")
        return ImagebindOutput(
            loss=sum(losses) if losses else None,
            logits_per_image=logits,
            logits_per_text=None if logits is None else logits.T,
            image_embeds=images,
            **{f"{name}_embeds": vectors for name, vectors in found.items() if name != "vision"},
        )
