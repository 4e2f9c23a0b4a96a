"""A user that SAM trains with: a first prompt, and then clicks where its mask is wrong.

Kirillov et al. 2023, appendix A, "Training algorithm". All of it is drawn from torch's generator.

Shapes: B images, P masks an image, S side of a mask in pixels.
"""

import torch
from torch import Tensor

from .prompt_encoder import BACKGROUND, BOTTOM_RIGHT, FOREGROUND, NO_POINT, TEXT, TOP_LEFT


def resize_masks(masks: Tensor, size: int) -> Tensor:
    """Masks (B, P, height, width) as booleans (B, P, S, S): a pixel is on where at least half of it was.

    Raises:
        ValueError: the masks are not square, as images are for the model.
    """
    if masks.ndim != 4 or masks.shape[2] != masks.shape[3]:
        raise ValueError(f"labels must be masks (images, masks, side, side), got {tuple(masks.shape)}")
    masks = (masks > 0).float()
    return torch.nn.functional.adaptive_avg_pool2d(masks, size) >= 0.5


def random_pixels(region: Tensor) -> Tensor:
    """A pixel (B, P, 2), x before y, of each region (B, P, S, S), all equally likely; any where a region is empty."""
    noise = torch.rand(region.shape, device=region.device) + region
    place = noise.flatten(2).argmax(-1)
    size = region.shape[-1]
    return torch.stack((place % size, place // size), dim=-1)


def clicks(truth: Tensor, masks: Tensor, image_size: int) -> tuple[Tensor, Tensor]:
    """A click where each mask is wrong: points (B, P, 1, 2) in pixels of the image, and their labels (B, P, 1).

    Where nothing is wrong, the click is on the mask itself.

    Args:
        truth: (B, P, S, S), boolean.
        masks: (B, P, S, S), boolean; empty for a first click, which is then a foreground one.
        image_size: pixels along a side of the image.
    """
    wrong = truth ^ masks
    region = torch.where(wrong.any(-1).any(-1)[..., None, None], wrong, truth)
    place = random_pixels(region)
    is_on = truth.flatten(2).gather(2, (place[..., 1:] * truth.shape[-1] + place[..., :1]))
    points = (place + 0.5) * (image_size / truth.shape[-1]) - 0.5
    return points[:, :, None], torch.where(is_on, FOREGROUND, BACKGROUND)


def noisy_boxes(truth: Tensor, image_size: int, noise_std: float, max_noise: float) -> Tensor:
    """The corners (B, P, 2, 2) of a box around each mask, moved at random.

    Args:
        truth: (B, P, S, S), boolean.
        image_size: pixels along a side of the image.
        noise_std: standard deviation, as a share of the box's side.
        max_noise: most by which a corner moves, in pixels.
    """
    size = truth.shape[-1]
    low, high = [], []
    for axis in (-2, -1):  # columns for x, rows for y
        filled = truth.any(axis).float()
        low.append(filled.argmax(-1))
        high.append(size - filled.flip(-1).argmax(-1))
    corners = torch.stack((torch.stack(low, -1), torch.stack(high, -1)), dim=2) * (image_size / size)
    sides = (corners[:, :, 1:] - corners[:, :, :1]).expand_as(corners)
    noise = (torch.randn_like(corners) * noise_std * sides).clamp(-max_noise, max_noise)
    return (corners + noise).clamp(0, image_size) - 0.5


def first_prompts(
    truth: Tensor, image_size: int, box_noise: tuple[float, float], box_probability: float, text_probability: float
) -> tuple[Tensor, Tensor]:
    """A first prompt for each mask, a click, a box or its text: points (B, P, 2, 2) with labels (B, P, 2).

    Each of them is two tokens long, so that all kinds meet in one batch.

    Args:
        truth: (B, P, S, S), boolean.
        image_size: pixels along a side of the image.
        box_noise: standard deviation as a share of the side, and most in pixels.
        box_probability: how often it is a box rather than a click.
        text_probability: how often it is the text; 0 where there is none.
    """
    point, label = clicks(truth, torch.zeros_like(truth), image_size)
    point = torch.cat((point, torch.zeros_like(point)), dim=2)
    label = torch.cat((label, torch.full_like(label, NO_POINT)), dim=2)
    box = noisy_boxes(truth, image_size, *box_noise)
    shape = truth.shape[:2]
    is_box = torch.rand(shape, device=truth.device) < box_probability
    is_text = torch.rand(shape, device=truth.device) < text_probability
    kinds = torch.tensor([[TOP_LEFT, BOTTOM_RIGHT], [TEXT, NO_POINT]], device=truth.device)
    points = torch.where(is_box[..., None, None], box, point)
    labels = torch.where(is_box[..., None], kinds[0], label)
    return points, torch.where(is_text[..., None], kinds[1], labels)


def iou(masks: Tensor, truth: Tensor) -> Tensor:
    """Intersection over union of boolean masks (..., S, S) -> (...); 1 where both are empty."""
    both, either = (masks & truth).sum((-2, -1)), (masks | truth).sum((-2, -1))
    return torch.where(either > 0, both / either.clamp_min(1), 1.0)
