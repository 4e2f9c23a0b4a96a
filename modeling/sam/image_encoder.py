"""SAM's image encoder: a ViT with attention in windows and, in a few layers, over the whole image.

Kirillov et al. 2023, https://arxiv.org/abs/2304.02643, appendix A; Li et al. 2022, https://arxiv.org/abs/2203.16527.

    x = Patches(image) + pos;   x = x + Attn(LN(x));  x = x + MLP(LN(x))        each layer
    embedding = LN(Conv3x3(LN(Conv1x1(x))))                                     the neck

Shapes: B images, S patches along a side, D hidden size, C channels of an embedding.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import initialization as init
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.processing_utils import Unpack
from transformers.utils import ModelOutput, TransformersKwargs
from transformers.utils.output_capturing import OutputRecorder, capture_outputs

from ..base_model import ZooPreTrainedModel
from ..layers.grid_attention import GridAttention
from ..layers.mlp import MLP
from ..layers.norm import ChannelLayerNorm
from .configuration_sam import ZooSamConfig


@dataclass
class ImageEncoderOutput(ModelOutput):
    """Of the image encoder.

    Args:
        last_hidden_state: (B, C, S, S), the image's embedding.
        hidden_states: one (B, S, S, D) a layer, and the patches before them.
        attentions: from eager, one (B windows, H, T, T) a layer.
    """

    last_hidden_state: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None


class SamBlock(GradientCheckpointingLayer):
    """Attention in windows or over the whole image, and an MLP."""

    def __init__(self, config: ZooSamConfig, layer_idx: int) -> None:
        super().__init__()
        self.mixer_norm = nn.LayerNorm(config.hidden_size, config.norm_eps)
        self.self_attn = GridAttention(
            config,
            layer_idx,
            config.hidden_size,
            config.num_attention_heads,
            config.grid_size,
            0 if layer_idx in config.global_attn_indexes else config.window_size,
            config.qkv_bias,
        )
        self.mlp_norm = nn.LayerNorm(config.hidden_size, config.norm_eps)
        self.mlp = MLP(config.hidden_size, config.intermediate_size, config.hidden_act, bias=True)

    def forward(self, x: Tensor, **kwargs: Any) -> Tensor:
        """x (B, S, S, D) -> (B, S, S, D)."""
        x = x + self.self_attn(self.mixer_norm(x), **kwargs)[0]
        return x + self.mlp(self.mlp_norm(x))


class Neck(nn.Module):
    """From hidden states to the embedding that the decoder reads."""

    def __init__(self, hidden_size: int, size: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(hidden_size, size, 1, bias=False)
        self.layer_norm1 = ChannelLayerNorm(size, eps=1e-6)
        self.conv2 = nn.Conv2d(size, size, 3, padding=1, bias=False)
        self.layer_norm2 = ChannelLayerNorm(size, eps=1e-6)

    def forward(self, x: Tensor) -> Tensor:
        """x (B, S, S, D) -> (B, C, S, S)."""
        x = self.layer_norm1(self.conv1(x.permute(0, 3, 1, 2)))
        return self.layer_norm2(self.conv2(x))


class ZooSamPreTrainedModel(ZooPreTrainedModel):
    """Base class: what the attention backends and loaders need to know."""

    config_class = ZooSamConfig
    config: ZooSamConfig
    main_input_name = "pixel_values"
    input_modalities = ("image",)
    accepts_loss_kwargs = False  # the loss is a mean over masks, and labels are pixels
    _no_split_modules = ["SamBlock", "TwoWayBlock"]
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True
    _can_compile_fullgraph = True


class SamImageEncoder(ZooSamPreTrainedModel):
    """Images to embeddings."""

    _can_record_outputs = {"hidden_states": SamBlock, "attentions": OutputRecorder(GridAttention, index=1)}

    def __init__(self, config: ZooSamConfig) -> None:
        super().__init__(config)
        side = config.grid_size
        self.patch_embed = nn.Conv2d(config.num_channels, config.hidden_size, config.patch_size, config.patch_size)
        self.pos_embed = nn.Parameter(torch.zeros(1, side, side, config.hidden_size))
        self.layers = nn.ModuleList(SamBlock(config, i) for i in range(config.num_hidden_layers))
        self.neck = Neck(config.hidden_size, config.prompt_size)
        self.gradient_checkpointing = False
        self.post_init()

    def initialise(self) -> None:
        """Positions start small; the published model takes those of a masked autoencoder."""
        init.normal_(self.pos_embed, std=self.config.initializer_range)

    def get_input_embeddings(self) -> nn.Module:
        """What images enter by."""
        return self.patch_embed

    @capture_outputs(tie_last_hidden_states=False)
    def forward(self, pixel_values: Tensor, **kwargs: Unpack[TransformersKwargs]) -> ImageEncoderOutput:
        """pixel_values (B, channels, image_size, image_size) -> embeddings (B, C, S, S).

        Raises:
            ValueError: the images have another size.
        """
        expected = (self.config.num_channels, self.config.image_size, self.config.image_size)
        if tuple(pixel_values.shape[1:]) != expected:
            raise ValueError(f"pixel_values must be (images, *{expected}), got {tuple(pixel_values.shape)}")
        x = self.patch_embed(pixel_values.to(self.patch_embed.weight.dtype)).permute(0, 2, 3, 1) + self.pos_embed
        for block in self.layers:
            x = block(x, **kwargs)
        return ImageEncoderOutput(last_hidden_state=self.neck(x))
