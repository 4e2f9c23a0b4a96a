"""The vision transformer, and the towers that differ from it in where norms stand and what is pooled.

Dosovitskiy et al. 2020, https://arxiv.org/abs/2010.11929; Radford et al. 2021, https://arxiv.org/abs/2103.00020
(CLIP); Zhai et al. 2023, https://arxiv.org/abs/2303.15343 (SigLIP); Fang et al. 2022,
https://arxiv.org/abs/2211.07636 and Sun et al. 2023, https://arxiv.org/abs/2303.15389 (EVA-CLIP); Dehghani et al.
2023, https://arxiv.org/abs/2302.05442 (ViT-22B).

    z = [x_class; E x_1; ...; E x_N] + P
    pre        z <- z + A(N1(z));  z <- z + F(N2(z))
    res_post   z <- z + N1(A(z));  z <- z + N2(F(z))
    parallel   z <- z + A(N1(z)) + F(N1(z))

Shapes: B batch, C channels, T tokens (patches and the class token), D hidden size.
"""

from functools import partial
from typing import Any

from torch import Tensor, nn
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.processing_utils import Unpack
from transformers.utils import TransformersKwargs
from transformers.utils.output_capturing import capture_outputs

from ..base_model import ZooPreTrainedModel
from ..layers.attention_pooling import AttentionPooling
from ..layers.dropout import Dropout, drop_rows
from ..layers.image_attention import ImageAttention
from ..layers.mlp import MLP
from ..layers.norm import NORMS
from ..layers.patches import ImageTokens
from ..layers.pooler import FirstTokenPooler, pool
from ..masks import drop_useless_mask, encoder_mask
from ..vision_heads import ImageClassificationHead, MaskedImageModelingHead, dummy_pixels
from .configuration_vit import ZooVitConfig


class VitBlock(GradientCheckpointingLayer):
    """Attention among all tokens, then a feed-forward network, each with its norm and residual."""

    def __init__(self, config: ZooVitConfig, layer_idx: int) -> None:
        super().__init__()
        self.is_parallel = config.is_parallel
        self.is_pre_norm = config.norm_position == "pre"
        norm, head_dim = partial(NORMS[config.norm], eps=config.norm_eps), None
        if config.qk_norm:
            head_dim = config.hidden_size // config.num_attention_heads
        self.self_attn = ImageAttention(
            config,
            layer_idx,
            config.hidden_size,
            config.num_attention_heads,
            config.qkv_bias,
            config.attention_dropout,
            q_norm=head_dim and norm(head_dim),
            k_norm=head_dim and norm(head_dim),
        )
        self.mixer_norm = norm(config.hidden_size)
        self.mlp = MLP(config.hidden_size, config.intermediate_size, config.hidden_act, bias=True)
        self.mlp_norm = None if self.is_parallel else norm(config.hidden_size)
        self.dropout = Dropout(config.hidden_dropout) if config.hidden_dropout else None
        self.path_dropout = config.path_dropout * layer_idx / max(config.num_hidden_layers - 1, 1)

    def forward(self, x: Tensor, mask: Tensor | None, **kwargs: Any) -> Tensor:
        """x (B, T, D), mask as the attention backend wants it -> (B, T, D)."""
        if self.is_parallel:
            normed = self.mixer_norm(x)
            return x + self.drop(self.self_attn(normed, mask, **kwargs)[0]) + self.drop(self.mlp(normed))
        if self.is_pre_norm:
            x = x + self.drop(self.self_attn(self.mixer_norm(x), mask, **kwargs)[0])
            return x + self.drop(self.mlp(self.mlp_norm(x)))
        x = x + self.drop(self.mixer_norm(self.self_attn(x, mask, **kwargs)[0]))
        return x + self.drop(self.mlp_norm(self.mlp(x)))

    def drop(self, y: Tensor) -> Tensor:
        """Dropout of a branch: of its numbers, and of the whole of it in some rows."""
        y = y if self.dropout is None else self.dropout(y)
        return drop_rows(y, self.path_dropout) if self.training and self.path_dropout else y


class ZooVitPreTrainedModel(ZooPreTrainedModel):
    """Base class: what the attention backends and loaders need to know."""

    config_class = ZooVitConfig
    config: ZooVitConfig
    main_input_name = "pixel_values"
    input_modalities = ("image",)
    may_be_missing = ("pooler",)  # a classifier does not train it
    _no_split_modules = ["VitBlock", "ImageTokens"]
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True
    _can_compile_fullgraph = True
    _can_record_outputs = {"hidden_states": VitBlock, "attentions": ImageAttention}

    def lost_weights(self, missing: list[str]) -> list[str]:
        """As for all models; a mask token that a file lacks is new, whoever wrote it."""
        return [name for name in super().lost_weights(missing) if not name.endswith("mask_token")]

    @property
    def dummy_inputs(self) -> dict[str, Tensor]:
        """Two images of noise."""
        return dummy_pixels(self.config.num_channels, self.config.image_size)


class ZooVitModel(ZooVitPreTrainedModel):
    """The tower without a head.

    Args:
        config: its sizes.
        add_pooling_layer: with False, "tanh" pooling is the class token as it is.
        use_mask_token: whether patches can be masked.
        add_embeddings: with False, the tower has no patches of its own and takes `token_embeds` alone.
    """

    block_class: type[nn.Module] = VitBlock

    def __init__(
        self,
        config: ZooVitConfig,
        add_pooling_layer: bool = True,
        use_mask_token: bool = False,
        add_embeddings: bool = True,
    ) -> None:
        super().__init__(config)
        self.embeddings = self.make_embeddings(config, use_mask_token) if add_embeddings else None
        norm = partial(NORMS[config.norm], config.hidden_size, eps=config.norm_eps)
        self.embed_norm = norm() if config.norm_embeddings else None
        self.dropout = Dropout(config.hidden_dropout)
        self.layers = nn.ModuleList(self.block_class(config, i) for i in range(config.num_hidden_layers))
        self.norm = None if config.final_norm == "none" else norm()
        self.pooler = None
        if config.pooling == "attention":
            sizes = config.hidden_size, config.num_attention_heads, config.intermediate_size
            self.pooler = AttentionPooling(*sizes, config.hidden_act, config.norm_eps)
        elif config.pooling == "tanh" and add_pooling_layer:
            self.pooler = FirstTokenPooler(config.hidden_size)
        self.gradient_checkpointing = False
        self.post_init()

    def make_embeddings(self, config: ZooVitConfig, use_mask_token: bool) -> nn.Module:
        """What makes tokens of the input."""
        return ImageTokens(
            config.image_size,
            config.patch_size,
            config.num_channels,
            config.hidden_size,
            config.use_cls,
            config.patch_bias,
            use_mask_token,
        )

    def get_input_embeddings(self) -> nn.Module | None:
        """The map of patches, if there is one."""
        return None if self.embeddings is None else self.embeddings.patch_embed

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replace the map of patches."""
        self.embeddings.patch_embed = value

    @capture_outputs(tie_last_hidden_states=False)
    def forward(
        self,
        pixel_values: Tensor | None = None,
        bool_masked_pos: Tensor | None = None,
        interpolate_pos_encoding: bool = False,
        token_embeds: Tensor | None = None,
        attention_mask: Tensor | None = None,
        num_blocks: int | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> BaseModelOutputWithPooling:
        """Hidden states (B, T, D) and one vector (B, D) an image.

        `output_hidden_states` gives what goes into the first block, and what comes out of each, without the last norm.

        Args:
            pixel_values: (B, C, height, width), normalised.
            bool_masked_pos: (B, patches), true where the mask token stands for the patch.
            interpolate_pos_encoding: whether images of another size take interpolated positions.
            token_embeds: (B, T, D) instead of pixel_values: tokens of any kind with whatever marks their place.
            attention_mask: (B, T) with 1 on tokens that count.
            num_blocks: how many blocks are run, for whoever wants what comes out of one of them; then nothing is
                normalised or pooled.
        """
        if (pixel_values is None) == (token_embeds is None):
            raise ValueError("give exactly one of pixel_values and token_embeds")
        if token_embeds is None and self.embeddings is None:
            raise ValueError("the tower was made with add_embeddings=False: give token_embeds")
        x = token_embeds
        if x is None:
            x = self.embeddings(pixel_values, bool_masked_pos, bool(interpolate_pos_encoding))
        attention_mask = drop_useless_mask(attention_mask)
        x = self.dropout(x)
        if self.embed_norm is not None:
            x = self.embed_norm(x)
        mask = None if attention_mask is None else encoder_mask(self.config, x, attention_mask, None)
        for block in self.layers[:num_blocks]:
            x = block(x, mask, **kwargs)
        if num_blocks is not None:
            return BaseModelOutputWithPooling(last_hidden_state=x)
        if self.config.final_norm in ("tokens", "both"):
            x = self.norm(x)
        return BaseModelOutputWithPooling(last_hidden_state=x, pooler_output=self.pool(x, attention_mask))

    def pool(self, x: Tensor, attention_mask: Tensor | None) -> Tensor:
        """x (B, T, D), attention_mask (B, T) or None -> the vector of each image (B, D)."""
        if self.pooler is not None:
            pooled = self.pooler(x, attention_mask)
        elif self.config.pooling == "mean":
            patches = slice(int(self.config.use_cls), None)
            mask = attention_mask if attention_mask is None else attention_mask[:, patches]
            pooled = pool(x[:, patches], mask, "mean")
        else:
            pooled = x[:, 0]
        return self.norm(pooled) if self.config.final_norm in ("pooled", "both") else pooled


class ZooVitForImageClassification(ImageClassificationHead, ZooVitPreTrainedModel):
    """A label for the image, from its pooled vector."""

    backbone_class = ZooVitModel
    backbone_arguments = {"add_pooling_layer": False}


class ZooVitForMaskedImageModeling(MaskedImageModelingHead, ZooVitPreTrainedModel):
    """Pixels of masked patches."""

    backbone_class = ZooVitModel
