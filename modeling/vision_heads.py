"""Heads of vision towers: what an image shows, and what hidden patches of it looked like.

Shapes: B batch, C channels, N patches, D hidden size.
"""

from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig
from transformers.modeling_outputs import ImageClassifierOutput, MaskedImageModelingOutput
from transformers.processing_utils import Unpack
from transformers.utils import TransformersKwargs
from transformers.utils.generic import can_return_tuple

from .classifiers import ClassifierHead
from .heads import Head
from .losses import classification_loss, masked_pixel_loss


class ImageClassificationHead(ClassifierHead):
    """One label, several, or a number for an image."""

    @can_return_tuple
    def forward(
        self,
        pixel_values: Tensor | None = None,
        labels: Tensor | None = None,
        num_items_in_batch: Tensor | int | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> ImageClassifierOutput:
        """Logits (B, num_labels).

        Args:
            pixel_values: (B, C, height, width).
            labels: (B) or (B, num_labels), see `classification_loss`.
            kwargs: see the trunk for the rest.
        """
        outputs = self.model(pixel_values=pixel_values, **kwargs)
        logits = self.score(self.dropout(outputs.pooler_output))
        loss = None
        if labels is not None:
            loss = classification_loss(logits, labels, self.config.problem_type, num_items_in_batch)
        return ImageClassifierOutput(
            loss=loss,
            logits=logits,
            hidden_states=outputs.hidden_states,
            attentions=getattr(outputs, "attentions", None),
        )


class MaskedImageModelingHead(Head):
    """The pixels of masked patches from those around them (Xie et al. 2021, https://arxiv.org/abs/2111.09886)."""

    backbone_arguments: dict[str, Any] = {"add_pooling_layer": False, "use_mask_token": True}

    def __init__(self, config: PreTrainedConfig) -> None:
        super().__init__(config)
        self.decoder = nn.Linear(config.hidden_size, config.patch_size**2 * config.num_channels)
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        pixel_values: Tensor | None = None,
        bool_masked_pos: Tensor | None = None,
        interpolate_pos_encoding: bool = False,
        **kwargs: Unpack[TransformersKwargs],
    ) -> MaskedImageModelingOutput:
        """The image as the model sees it (B, C, height, width) and, with a mask, the mean error of what it hides.

        Args:
            pixel_values: (B, C, height, width), which is also what is to be found.
            bool_masked_pos: (B, N), true on patches that are hidden from the model.
            interpolate_pos_encoding: for images of another size than the config's.
            kwargs: see the trunk for the rest.
        """
        outputs = self.model(
            pixel_values=pixel_values,
            bool_masked_pos=bool_masked_pos,
            interpolate_pos_encoding=interpolate_pos_encoding,
            **kwargs,
        )
        size = self.config.patch_size
        height, width = (side // size for side in pixel_values.shape[2:])
        patches = self.decoder(outputs.last_hidden_state[:, -height * width :])  # (B, N, C p p)
        cells = patches.view(len(patches), height, width, -1, size, size).permute(0, 3, 1, 4, 2, 5)
        pixels = cells.flatten(4).flatten(2, 3)  # (B, C, height, width)
        loss = None
        if bool_masked_pos is not None:
            loss = masked_pixel_loss(pixels, pixel_values, bool_masked_pos.view(-1, height, width), size)
        return MaskedImageModelingOutput(
            loss=loss, reconstruction=pixels, hidden_states=outputs.hidden_states, attentions=outputs.attentions
        )


def dummy_pixels(num_channels: int, image_size: int) -> dict[str, Tensor]:
    """Two images of noise (2, C, size, size)."""
    generator = torch.Generator().manual_seed(0)
    return {"pixel_values": torch.randn(2, num_channels, image_size, image_size, generator=generator)}
