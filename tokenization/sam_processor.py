"""What feeds `zoo_sam`: images, points and boxes in pixels of the image, and what makes masks of its answers.

It is transformers' own processor of SAM, whose image processor needs no torchvision: `post_process_masks`,
`generate_crop_boxes` and `filter_masks` are the published ones, and so are sizes and normalisation.
"""

from typing import Any

from transformers import PreTrainedConfig, SamProcessor
from transformers.models.sam.image_processing_pil_sam import SamImageProcessorPil


class ZooSamProcessor(SamProcessor):
    """Images and prompts to what the model takes; a text is tokenised by its encoder's own tokenizer."""

    attributes = ["image_processor"]
    image_processor_class = "SamImageProcessor"
    _auto_class = "AutoProcessor"  # this file is saved beside the settings

    def __init__(self, image_processor: Any) -> None:
        super().__init__(image_processor)

    @classmethod
    def from_model_config(cls, config: PreTrainedConfig) -> "ZooSamProcessor":
        """The processor of a model's image and mask sizes."""
        image, mask = config.image_size, 4 * config.image_size // config.patch_size
        return cls(
            SamImageProcessorPil(
                size={"longest_edge": image},
                pad_size={"height": image, "width": image},
                mask_size={"longest_edge": mask},
                mask_pad_size={"height": mask, "width": mask},
            )
        )
