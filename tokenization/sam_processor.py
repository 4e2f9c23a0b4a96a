"""What feeds `zoo_sam`: images, points and boxes in pixels of the image, and what makes masks of its answers.

It is transformers' own processor of SAM: sizes, normalisation, `post_process_masks`, `generate_crop_boxes` and
`filter_masks` are the published ones. The last step of finding all masks of an image, which transformers hands to
torchvision, is here in torch alone.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedConfig, SamProcessor
from transformers.models.sam.image_processing_pil_sam import SamImageProcessorPil


def suppress(boxes: Tensor, scores: Tensor, most_iou: float) -> Tensor:
    """Indices of boxes that overlap none of a higher score by more than `most_iou`, best first.

    Args:
        boxes: (N, 4), left, top, right, bottom.
        scores: (N,).
    """
    order = scores.argsort(descending=True, stable=True)
    boxes = boxes[order].float()
    low, high = boxes[:, :2], boxes[:, 2:]
    shared = torch.minimum(high[:, None], high) - torch.maximum(low[:, None], low)
    shared = shared.clamp_min(0).prod(-1)
    areas = (high - low).prod(-1)
    overlaps = shared / (areas[:, None] + areas - shared) > most_iou  # nothing overlaps an empty box: 0 / 0 is no
    keep = torch.ones(len(boxes), dtype=torch.bool, device=boxes.device)
    for i in range(len(boxes)):
        if keep[i]:
            keep[i + 1 :] &= ~overlaps[i, i + 1 :]
    return order[keep]


def read_runs(runs: dict[str, list[int]]) -> np.ndarray:
    """The mask (height, width) that run lengths stand for, column by column, beginning with what is off."""
    height, width = runs["size"]
    is_on = np.arange(len(runs["counts"])) % 2 == 1
    return np.repeat(is_on, runs["counts"]).reshape(width, height).T


class ZooSamImageProcessorPil(SamImageProcessorPil):
    """Images for SAM by PIL and numpy, and masks from its answers; without torchvision in every step."""

    _auto_class = "AutoImageProcessor"  # this file is saved beside the settings

    def post_process_for_mask_generation(
        self, all_masks: list[dict], all_scores: Tensor, all_boxes: Tensor, crops_nms_thresh: float
    ) -> tuple[list[np.ndarray], Tensor, list[dict], Tensor]:
        """Masks, scores, run lengths and boxes of those that are no other's double, best first.

        Args:
            all_masks: run lengths of masks, from `filter_masks`.
            all_scores: (N,), predicted quality.
            all_boxes: (N, 4), around the masks.
            crops_nms_thresh: most intersection over union of two boxes that are both kept.
        """
        keep = suppress(all_boxes, all_scores, crops_nms_thresh)
        runs = [all_masks[i] for i in keep]
        return [read_runs(one) for one in runs], all_scores[keep], runs, all_boxes[keep]


class ZooSamProcessor(SamProcessor):
    """Images and prompts to what the model takes; a text is tokenised by its encoder's own tokenizer."""

    _auto_class = "AutoProcessor"

    def __init__(self, image_processor: Any) -> None:
        super().__init__(image_processor)

    @classmethod
    def from_model_config(cls, config: PreTrainedConfig) -> "ZooSamProcessor":
        """The processor of a model's image and mask sizes."""
        image, mask = config.image_size, 4 * config.image_size // config.patch_size
        return cls(
            ZooSamImageProcessorPil(
                size={"longest_edge": image},
                pad_size={"height": image, "width": image},
                mask_size={"longest_edge": mask},
                mask_pad_size={"height": mask, "width": mask},
            )
        )
