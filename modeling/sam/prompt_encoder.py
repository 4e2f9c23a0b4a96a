"""SAM's prompt encoder: points, boxes and text as tokens, masks as a picture (Kirillov et al. 2023, section 3).

    point   Fourier(x, y) + type, which is background, foreground, or which corner of a box
    text    W t + b, of the vector t of any text encoder
    mask    two convolutions that halve the side each, and one that widens; without a mask a learnt vector

Shapes: B images, P prompts an image, N points a prompt, D prompt size, E size of a text's vector.
"""

import torch
from torch import Tensor, nn

from ..layers.fourier_positions import FourierPositions
from ..layers.mlp import activation
from ..layers.norm import ChannelLayerNorm
from .configuration_sam import ZooSamConfig

# Labels of points; those of corners and of a text are this package's way to have all kinds of prompts in one batch
BACKGROUND = 0
FOREGROUND = 1
TOP_LEFT = 2
BOTTOM_RIGHT = 3
TEXT = 4
NO_POINT = -1  # stands at the end of prompts without a box
PADDING = -10  # a token of zeros, where a batch has prompts of fewer points


class MaskEmbedding(nn.Module):
    """A mask as a picture of the image embedding's size."""

    def __init__(self, channels: int, size: int, hidden_act: str) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, channels // 4, 2, 2)
        self.layer_norm1 = ChannelLayerNorm(channels // 4, eps=1e-6)
        self.conv2 = nn.Conv2d(channels // 4, channels, 2, 2)
        self.layer_norm2 = ChannelLayerNorm(channels, eps=1e-6)
        self.conv3 = nn.Conv2d(channels, size, 1)
        self.act_fn = activation(hidden_act)

    def forward(self, masks: Tensor) -> Tensor:
        """masks (B, 1, 4 S, 4 S), logits -> (B, D, S, S)."""
        x = self.act_fn(self.layer_norm1(self.conv1(masks)))
        return self.conv3(self.act_fn(self.layer_norm2(self.conv2(x))))


class PromptEncoder(nn.Module):
    """Prompts to tokens and a picture."""

    def __init__(self, config: ZooSamConfig) -> None:
        super().__init__()
        size = config.prompt_size
        self.image_size = config.image_size
        self.mask_size = config.mask_size
        self.point_types = nn.Embedding(4, size)
        self.not_a_point_embed = nn.Embedding(1, size)
        self.no_mask_embed = nn.Embedding(1, size)
        self.mask_embed = MaskEmbedding(config.mask_input_channels, size, config.hidden_act)
        if config.text_config is not None:
            self.text_projection = nn.Linear(config.text_config.hidden_size, size)

    def tokens(
        self, points: Tensor, labels: Tensor, positions: FourierPositions, text: Tensor | None = None
    ) -> Tensor:
        """Tokens (B, P, N, D) of points with labels.

        Args:
            points: (B, P, N, 2), x before y in pixels of the model's image; a pixel's middle is half a pixel on.
            labels: (B, P, N), the numbers above.
            positions: of points in the unit square.
            text: (B, P or 1, E) for those that are labelled as text.
        """
        labels = labels[..., None]
        place = positions((points + 0.5) / self.image_size)
        kind = self.point_types(labels[..., 0].clamp(BACKGROUND, BOTTOM_RIGHT).long())
        tokens = torch.where(labels == NO_POINT, self.not_a_point_embed.weight, place + kind)
        if text is not None:
            projected = self.text_projection(text.to(self.text_projection.weight.dtype))
            tokens = torch.where(labels == TEXT, projected[:, :, None], tokens)
        return torch.where(labels == PADDING, 0, tokens)

    def picture(self, masks: Tensor | None) -> Tensor:
        """masks (B, P, 4 S, 4 S) or None -> (B or 1, P or 1, D, S or 1, S or 1), to be added to the embedding.

        Raises:
            ValueError: the masks have another size.
        """
        if masks is None:
            return self.no_mask_embed.weight[None, :, :, None, None]
        if masks.ndim != 4 or tuple(masks.shape[2:]) != (self.mask_size, self.mask_size):
            raise ValueError(
                f"input_masks must be (images, prompts, {self.mask_size}, {self.mask_size}), got {tuple(masks.shape)}"
            )
        flat = masks.flatten(0, 1)[:, None].to(self.mask_embed.conv1.weight.dtype)
        return self.mask_embed(flat).unflatten(0, masks.shape[:2])


def join_prompts(
    points: Tensor | None, labels: Tensor | None, boxes: Tensor | None, has_text: bool, shape: tuple[int, int]
) -> tuple[Tensor, Tensor] | None:
    """All prompts of a batch as points (B, P, N, 2) with labels (B, P, N); None without any.

    Args:
        points: (B, P, N, 2).
        labels: (B, P, N); foreground without them.
        boxes: (B, P, 4), left, top, right, bottom.
        has_text: whether a text stands beside them.
        shape: (B, P).
    """
    given = next((x for x in (points, boxes) if x is not None), None)
    if given is None and not has_text:
        return None
    device = None if given is None else given.device
    empty = torch.zeros(*shape, 1, 2, device=device)
    parts = []
    if has_text:
        parts.append((empty, torch.full(shape, TEXT, device=device)[..., None]))
    if points is not None:
        labels = torch.full(points.shape[:3], FOREGROUND, device=device) if labels is None else labels
        parts.append((points.float(), labels.long()))
    if boxes is None:
        parts.append((empty, torch.full(shape, NO_POINT, device=device)[..., None]))
    else:
        corners = torch.tensor([TOP_LEFT, BOTTOM_RIGHT], device=device).expand(*shape, -1)
        parts.append((boxes.unflatten(-1, (2, 2)).float(), corners))
    points, labels = (torch.cat(part, dim=2) for part in zip(*parts, strict=True))
    return points, labels
