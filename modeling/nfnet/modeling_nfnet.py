"""NFNet: a residual network that needs no norms, because it knows the variance of every signal beforehand.

Brock et al. 2021, https://arxiv.org/abs/2102.06171 (High-performance large-scale image recognition without
normalization), and https://arxiv.org/abs/2101.08692, on which it rests:

    h' = h + alpha g f(act(h) / beta),   beta = sqrt(Var h),  g a scalar that starts at 0
    Var h' = Var h + alpha^2 inside a stage;  1 + alpha^2 where one begins, as there h' = W pool(act(h) / beta) + ...
    f = 1x1 -> 3x3 in groups -> 3x3 in groups -> 1x1 -> squeeze-and-excite, with activations between

Shapes: B batch, C channels.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import initialization as init
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.processing_utils import Unpack
from transformers.utils import TransformersKwargs
from transformers.utils.output_capturing import capture_outputs

from ..base_model import ZooPreTrainedModel
from ..layers.dropout import drop_rows
from ..layers.scaled_convolution import ScaledConv2d, SqueezeExcite, scaled_gelu
from ..vision_heads import ImageClassificationHead, dummy_pixels
from .configuration_nfnet import ZooNfnetConfig

_STEM_STRIDES = (2, 1, 1, 2)


class NfnetStem(nn.Module):
    """Four convolutions that make the image four times smaller."""

    def __init__(self, num_channels: int, widths: list[int]) -> None:
        super().__init__()
        sizes = zip((num_channels, *widths), widths, _STEM_STRIDES, strict=False)
        self.convs = nn.ModuleList(ScaledConv2d(before, after, 3, stride) for before, after, stride in sizes)

    def forward(self, x: Tensor) -> Tensor:
        """x (B, C, height, width) -> (B, C', height / 4, width / 4); the first block brings the last activation."""
        for i, conv in enumerate(self.convs):
            x = conv(x if i == 0 else scaled_gelu(x))
        return x


class NfnetBlock(GradientCheckpointingLayer):
    """A bottleneck with two grouped convolutions.

    Args:
        config: its sizes.
        in_channels, out_channels: C before and after.
        stride: 2 where the image is halved.
        variance: of the input, as the analysis has it.
        path_dropout: share of rows for which the branch is left out in training.
    """

    def __init__(
        self,
        config: ZooNfnetConfig,
        in_channels: int,
        out_channels: int,
        stride: int,
        variance: float,
        path_dropout: float,
    ) -> None:
        super().__init__()
        groups = int(out_channels * config.bottleneck_ratio) // config.group_size
        width = groups * config.group_size
        self.stride = stride
        self.beta = variance**0.5
        self.alpha = config.residual_scale
        self.path_dropout = path_dropout
        is_transition = stride > 1 or in_channels != out_channels
        self.shortcut = ScaledConv2d(in_channels, out_channels, 1) if is_transition else None
        self.reduce = ScaledConv2d(in_channels, width, 1)
        self.mix = ScaledConv2d(width, width, 3, stride, groups)
        self.mix_again = ScaledConv2d(width, width, 3, 1, groups)
        self.expand = ScaledConv2d(width, out_channels, 1)
        self.channels = SqueezeExcite(out_channels, max(1, int(out_channels * config.squeeze_ratio)))
        self.skip_gain = nn.Parameter(torch.zeros(()))

    @torch.no_grad()
    def initialise(self) -> None:
        """A fresh block is its shortcut (De and Smith 2020, https://arxiv.org/abs/2002.10444, SkipInit)."""
        init.zeros_(self.skip_gain)

    def forward(self, x: Tensor, **kwargs: Any) -> Tensor:
        """x (B, C, height, width) -> (B, C', height / stride, width / stride), rounded up."""
        scaled = scaled_gelu(x, 1 / self.beta)
        if self.shortcut is not None:
            pooled = F.avg_pool2d(scaled, 2, ceil_mode=True) if self.stride > 1 else scaled
            x = self.shortcut(pooled)
        y = self.mix(scaled_gelu(self.reduce(scaled)))
        y = self.expand(scaled_gelu(self.mix_again(scaled_gelu(y))))
        y = self.channels(y)
        if self.training and self.path_dropout:
            y = drop_rows(y, self.path_dropout)
        return torch.addcmul(x, y, self.skip_gain * self.alpha)


class NfnetStage(nn.Module):
    """Blocks at one size of the image."""

    def __init__(self, blocks: list[NfnetBlock]) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)

    def forward(self, x: Tensor) -> Tensor:
        """x (B, C, height, width) -> (B, C', height', width')."""
        for block in self.blocks:
            x = block(x)
        return x


def make_stages(config: ZooNfnetConfig) -> nn.ModuleList:
    """All stages, each block told the variance of its input."""
    stages, channels, variance, index = [], config.stem_widths[-1], 1.0, 0
    for number, (depth, width) in enumerate(zip(config.depths, config.widths, strict=True)):
        blocks = []
        for i in range(depth):
            stride = 2 if number and not i else 1
            path_dropout = config.path_dropout * index / config.num_hidden_layers
            block = NfnetBlock(config, channels, width, stride, variance, path_dropout)
            variance = (1.0 if block.shortcut is not None else variance) + config.residual_scale**2
            blocks.append(block)
            channels, index = width, index + 1
        stages.append(NfnetStage(blocks))
    return nn.ModuleList(stages)


class ZooNfnetPreTrainedModel(ZooPreTrainedModel):
    """Base class."""

    config_class = ZooNfnetConfig
    config: ZooNfnetConfig
    main_input_name = "pixel_values"
    input_modalities = ("image",)
    _no_split_modules = ["NfnetBlock"]
    _can_compile_fullgraph = True
    _can_record_outputs = {"hidden_states": NfnetStage}

    @property
    def dummy_inputs(self) -> dict[str, Tensor]:
        """Two images of noise."""
        return dummy_pixels(self.config.num_channels, self.config.image_size)


class ZooNfnetModel(ZooNfnetPreTrainedModel):
    """The tower without a head."""

    def __init__(self, config: ZooNfnetConfig) -> None:
        super().__init__(config)
        self.stem = NfnetStem(config.num_channels, config.stem_widths)
        self.layers = make_stages(config)
        self.final_conv = ScaledConv2d(config.widths[-1], config.hidden_size, 1)
        self.gradient_checkpointing = False
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        """The first convolution."""
        return self.stem.convs[0]

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replace the first convolution."""
        self.stem.convs[0] = value

    @capture_outputs(tie_last_hidden_states=False)
    def forward(
        self, pixel_values: Tensor | None = None, **kwargs: Unpack[TransformersKwargs]
    ) -> BaseModelOutputWithPooling:
        """One vector (B, C) a cell of the last grid, row by row, as (B, cells, C), and their mean (B, C).

        `output_hidden_states` gives what goes into the first stage, and what comes out of each, (B, C, height, width).

        Args:
            pixel_values: (B, C, height, width), normalised, of any size; 32 pixels of a side make a cell.
        """
        if pixel_values is None:
            raise ValueError("give pixel_values")
        x = self.stem(pixel_values.to(self.final_conv.weight.dtype))
        for stage in self.layers:
            x = stage(x)
        x = scaled_gelu(self.final_conv(x)).flatten(2).mT  # (B, cells, C)
        return BaseModelOutputWithPooling(last_hidden_state=x, pooler_output=x.mean(1))


class ZooNfnetForImageClassification(ImageClassificationHead, ZooNfnetPreTrainedModel):
    """A label for the image, from the mean of its grid."""

    backbone_class = ZooNfnetModel
