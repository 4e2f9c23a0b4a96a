"""SAM's mask decoder: prompts and image look at each other, and each mask token becomes a filter of pixels.

Kirillov et al. 2023, appendix A:

    t, x = TwoWay([iou, mask_0..3, prompts], embedding + picture)
    mask_k = <MLP_k(t_mask_k), Upscale(x)>,   iou = MLP(t_iou)

Shapes: B images, P prompts an image, D prompt size, S patches along a side, M mask tokens.
"""

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..layers.norm import ChannelLayerNorm
from ..layers.two_way_attention import InnerAttention, TwoWayBlock
from .configuration_sam import ZooSamConfig


class ReluMLP(nn.Module):
    """Linear layers with ReLU between them."""

    def __init__(self, input_size: int, hidden_size: int, output_size: int, depth: int) -> None:
        super().__init__()
        sizes = [input_size, *[hidden_size] * (depth - 1), output_size]
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(sizes))

    def forward(self, x: Tensor) -> Tensor:
        """x (..., input size) -> (..., output size)."""
        for layer in self.layers[:-1]:
            x = F.relu(layer(x))
        return self.layers[-1](x)


class MaskDecoder(nn.Module):
    """Embeddings and prompts to masks, and how good each is."""

    def __init__(self, config: ZooSamConfig) -> None:
        super().__init__()
        size = config.prompt_size
        num_masks = config.num_multimask_outputs + 1
        self.iou_token = nn.Embedding(1, size)
        self.mask_tokens = nn.Embedding(num_masks, size)
        self.layers = nn.ModuleList(
            TwoWayBlock(
                config,
                i,
                size,
                config.num_decoder_heads,
                config.decoder_intermediate_size,
                config.attention_downsample_rate,
                config.norm_eps,
            )
            for i in range(config.num_decoder_layers)
        )
        inner_size = size // config.attention_downsample_rate
        self.final_attn = InnerAttention(config, config.num_decoder_layers, size, inner_size, config.num_decoder_heads)
        self.final_norm = nn.LayerNorm(size)
        self.upscale_conv1 = nn.ConvTranspose2d(size, size // 4, 2, 2)
        self.upscale_norm = ChannelLayerNorm(size // 4, eps=1e-6)
        self.upscale_conv2 = nn.ConvTranspose2d(size // 4, size // 8, 2, 2)
        self.hypernetworks = nn.ModuleList(ReluMLP(size, size, size // 8, 3) for _ in range(num_masks))
        self.iou_head = ReluMLP(size, config.iou_head_size, num_masks, config.iou_head_depth)

    def forward(
        self, embeddings: Tensor, positions: Tensor, prompts: Tensor, picture: Tensor
    ) -> tuple[Tensor, Tensor]:
        """All M masks (B, P, M, 4 S, 4 S) as logits, and how good each is likely to be (B, P, M).

        Args:
            embeddings: (B, D, S, S) of images.
            positions: (S, S, D) of patches.
            prompts: (B, P, N, D).
            picture: (B or 1, P or 1, D, S or 1, S or 1).
        """
        side = embeddings.shape[-1]
        first = torch.cat((self.iou_token.weight, self.mask_tokens.weight))
        first = torch.cat((first.expand(*prompts.shape[:2], -1, -1), prompts), dim=2)
        tokens, positions = first, positions.flatten(0, 1)
        patches = (embeddings[:, None] + picture).flatten(3).mT  # (B, P or 1, S S, D)
        for block in self.layers:
            tokens, patches = block(tokens, patches, first, positions)
        seen = self.final_attn(tokens + first, patches + positions, patches)
        tokens = self.final_norm(tokens + seen)

        pixels = patches.flatten(0, 1).mT.unflatten(-1, (side, side))
        pixels = F.gelu(self.upscale_norm(self.upscale_conv1(pixels)))
        pixels = F.gelu(self.upscale_conv2(pixels))  # (B P, D / 8, 4 S, 4 S)
        filters = [mlp(tokens[:, :, 1 + k]) for k, mlp in enumerate(self.hypernetworks)]
        filters = torch.stack(filters, dim=2)  # (B, P, M, D / 8)
        masks = filters @ pixels.flatten(2).unflatten(0, prompts.shape[:2])
        return masks.unflatten(-1, pixels.shape[-2:]), self.iou_head(tokens[:, :, 0])
