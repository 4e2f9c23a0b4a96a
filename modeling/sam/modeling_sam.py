"""SAM: a mask of whatever is prompted for, by points, a box, a rough mask or words.

Kirillov et al. 2023, "Segment Anything", https://arxiv.org/abs/2304.02643.

    E = ImageEncoder(image)                                   once an image, most of the cost
    masks, quality = MaskDecoder(E, PromptEncoder(prompts))   a few milliseconds a prompt
    loss = 20 focal + dice + (quality - IoU)^2                of the best of three masks after one prompt, of the
                                                              single mask after several; mean over iterations

Shapes: B images, P prompts (and masks) an image, N points a prompt, S patches along a side, C prompt size.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers.processing_utils import Unpack
from transformers.utils import ModelOutput, TransformersKwargs
from transformers.utils.generic import can_return_tuple

from ..layers.fourier_positions import FourierPositions
from ..layers.pooler import pool
from ..losses import dice_loss, focal_loss
from ..parts import part_model
from .configuration_sam import ZooSamConfig
from .image_encoder import SamImageEncoder, ZooSamPreTrainedModel
from .interaction import clicks, first_prompts, iou, resize_masks
from .mask_decoder import MaskDecoder
from .prompt_encoder import PromptEncoder, join_prompts


@dataclass
class SamOutput(ModelOutput):
    """Of SAM.

    Args:
        loss: with labels.
        iou_scores: (B, P, M), how good each mask is likely to be.
        pred_masks: (B, P, M, 4 S, 4 S), logits; M is 3, or 1 without `multimask_output`. With labels the mask of
            the last iteration.
        mask_loss, iou_loss: with labels, the two parts of the loss: of masks, and of their scores.
        vision_hidden_states: of the image encoder, one (B, S, S, D) a layer, and the patches before them.
        vision_attentions: of the image encoder, from eager.
    """

    loss: Tensor | None = None
    iou_scores: Tensor | None = None
    pred_masks: Tensor | None = None
    mask_loss: Tensor | None = None
    iou_loss: Tensor | None = None
    vision_hidden_states: tuple[Tensor, ...] | None = None
    vision_attentions: tuple[Tensor, ...] | None = None


@dataclass
class Answer:
    """What one iteration of a conversation with the model gives.

    Args:
        masks: (B, P, M, 4 S, 4 S), logits of all masks that answer.
        scores: (B, P, M), their predicted quality.
        best: (B, P, 4 S, 4 S), the mask that the next click corrects: that of the highest score.
    """

    masks: Tensor
    scores: Tensor
    best: Tensor


class ZooSamModel(ZooSamPreTrainedModel):
    """Segment Anything; with labels it simulates a user and returns the loss, so that `Trainer` trains it."""

    def __init__(self, config: ZooSamConfig) -> None:
        super().__init__(config)
        self.image_encoder = SamImageEncoder(config)
        self.positions = FourierPositions(config.prompt_size)
        self.prompt_encoder = PromptEncoder(config)
        self.mask_decoder = MaskDecoder(config)
        if config.text_config is not None:
            self.text_encoder = part_model(config.text_config, add_pooling_layer=False)
        self.post_init()

    @property
    def dummy_inputs(self) -> dict[str, Tensor]:
        """Two images with one click each, and a text where the model reads any."""
        generator, config = torch.Generator().manual_seed(0), self.config
        shape = (2, config.num_channels, config.image_size, config.image_size)
        inputs = {
            "pixel_values": torch.randn(shape, generator=generator),
            "input_points": torch.rand((2, 1, 1, 2), generator=generator) * config.image_size,
            "input_labels": torch.ones(2, 1, 1, dtype=torch.long),
        }
        return inputs if config.text_config is None else {**inputs, **super().dummy_inputs}

    def get_input_embeddings(self) -> torch.nn.Module:
        """What images enter by."""
        return self.image_encoder.patch_embed

    @torch.no_grad()
    def get_image_embeddings(self, pixel_values: Tensor, **kwargs: Unpack[TransformersKwargs]) -> Tensor:
        """pixel_values (B, channels, image_size, image_size) -> embeddings (B, C, S, S), for any number of prompts."""
        return self.image_encoder(pixel_values, **kwargs).last_hidden_state

    def get_image_wide_positional_embeddings(self) -> Tensor:
        """Positions of all patches (1, C, S, S)."""
        return self.positions.of_grid(self.config.grid_size).permute(2, 0, 1)[None]

    def get_text_embeddings(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """Texts (B, P, T), or (B, T) for one prompt an image, -> vectors (B, P, E) of the text encoder.

        Raises:
            ValueError: the model has no text encoder.
        """
        if self.config.text_config is None:
            raise ValueError("input_ids are given to a model without a text encoder: set text_config in its config")
        if input_ids.ndim == 2:
            input_ids = input_ids[:, None]
        mask = None if attention_mask is None else attention_mask.reshape(-1, input_ids.shape[-1])
        hidden = self.text_encoder(input_ids.flatten(0, 1), attention_mask=mask).last_hidden_state
        return pool(hidden, mask, self.config.text_pooling).unflatten(0, input_ids.shape[:2])

    @can_return_tuple
    def forward(
        self,
        pixel_values: Tensor | None = None,
        input_points: Tensor | None = None,
        input_labels: Tensor | None = None,
        input_boxes: Tensor | None = None,
        input_masks: Tensor | None = None,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        text_embeds: Tensor | None = None,
        image_embeddings: Tensor | None = None,
        multimask_output: bool = True,
        labels: Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> SamOutput:
        """Masks for prompts.

        Args:
            pixel_values: (B, channels, image_size, image_size).
            input_points: (B, P, N, 2), x before y in pixels of the model's image.
            input_labels: (B, P, N), 1 on what is meant, 0 beside it, -10 for filling; 1 without them.
            input_boxes: (B, P, 4), left, top, right, bottom.
            input_masks: (B, P or 1, 4 S, 4 S), logits of an earlier answer.
            input_ids, attention_mask: (B, P, T) or (B, T), texts.
            text_embeds: (B, P, E), vectors of texts, instead of input_ids.
            image_embeddings: (B, C, S, S) from `get_image_embeddings`, instead of pixel_values.
            multimask_output: three masks, for one ambiguous prompt; or one.
            labels: (B, P, side, side), true masks of the model's image at any resolution; empty ones are filling.
                The first prompts are those that are given, or simulated ones; clicks follow. Texts are among the
                simulated first prompts, and stand alone where `text_probability` is 1.

        Raises:
            ValueError: both or neither of pixel_values and image_embeddings, or shapes that do not fit together.
        """
        if (pixel_values is None) == (image_embeddings is None):
            raise ValueError("give exactly one of pixel_values and image_embeddings")
        hidden_states = attentions = None
        if image_embeddings is None:
            vision = self.image_encoder(pixel_values, **kwargs)
            image_embeddings = vision.last_hidden_state
            hidden_states, attentions = vision.hidden_states, vision.attentions
        if input_ids is not None:
            text_embeds = self.get_text_embeddings(input_ids, attention_mask)
        states = {"vision_hidden_states": hidden_states, "vision_attentions": attentions}
        if labels is not None:
            prompts = None
            if input_points is not None or input_boxes is not None:
                shape = self._shape(image_embeddings, input_points, input_boxes)
                prompts = join_prompts(input_points, input_labels, input_boxes, False, shape)
            truth = resize_masks(labels, self.config.mask_size)
            return SamOutput(
                **self.interactive_loss(image_embeddings, truth, prompts, input_masks, text_embeds), **states
            )
        shape = self._shape(image_embeddings, input_points, input_boxes, text_embeds, input_masks)
        prompts = join_prompts(input_points, input_labels, input_boxes, text_embeds is not None, shape)
        masks, scores = self.answer(image_embeddings, prompts, input_masks, text_embeds, shape)
        chosen = slice(1, None) if multimask_output else slice(0, 1)
        return SamOutput(iou_scores=scores[:, :, chosen], pred_masks=masks[:, :, chosen], **states)

    def _shape(self, image_embeddings: Tensor, *prompts: Tensor | None) -> tuple[int, int]:
        """B and P."""
        given = [x.shape[:2] for x in prompts if x is not None]
        num_prompts = max([1, *[shape[1] for shape in given]])
        for shape in given:
            if shape[0] != len(image_embeddings) or shape[1] not in (1, num_prompts):
                raise ValueError(
                    f"prompts are for {tuple(shape)} (images, prompts), but there are {len(image_embeddings)} images "
                    f"and {num_prompts} prompts"
                )
        return len(image_embeddings), num_prompts

    def answer(
        self,
        image_embeddings: Tensor,
        prompts: tuple[Tensor, Tensor] | None,
        masks: Tensor | None,
        text_embeds: Tensor | None,
        shape: tuple[int, int],
    ) -> tuple[Tensor, Tensor]:
        """One pass of prompt encoder and decoder: all masks (B, P, M, 4 S, 4 S) and their scores (B, P, M).

        Args:
            image_embeddings: (B, C, S, S).
            prompts: points (B, P, N, 2) and labels (B, P, N).
            masks: (B, P or 1, 4 S, 4 S).
            text_embeds: (B, P or 1, E).
            shape: (B, P).
        """
        if prompts is None:
            tokens = image_embeddings.new_zeros(*shape, 0, self.config.prompt_size)
        else:
            points, labels = (x.to(image_embeddings.device) for x in prompts)
            tokens = self.prompt_encoder.tokens(points, labels, self.positions, text_embeds)
        picture = self.prompt_encoder.picture(masks)
        positions = self.positions.of_grid(self.config.grid_size)
        return self.mask_decoder(image_embeddings.to(positions.dtype), positions, tokens, picture)

    def interact(
        self,
        image_embeddings: Tensor,
        truth: Tensor,
        prompts: tuple[Tensor, Tensor] | None = None,
        masks: Tensor | None = None,
        text_embeds: Tensor | None = None,
    ) -> Iterator[Answer]:
        """A conversation: each answer is followed by a click where its best mask is wrong, or by none.

        Args:
            image_embeddings: (B, C, S, S).
            truth: (B, P, 4 S, 4 S), boolean.
            prompts: points (B, P, N, 2) and labels (B, P, N) to start with; drawn without them.
            masks: (B, P, 4 S, 4 S) to start with.
            text_embeds: (B, P, E).
        """
        config = self.config
        num_steps = config.num_clicks + config.num_refinements
        # Passes without a click: the last one, and others anywhere
        quiet = torch.randperm(max(num_steps - 1, 0))[: max(config.num_refinements - 1, 0)].tolist()
        quiet = {*quiet, num_steps - 1} if config.num_refinements else set()
        if prompts is None:
            prompts = first_prompts(
                truth,
                config.image_size,
                (config.box_noise, config.max_box_noise),
                config.box_probability,
                0.0 if text_embeds is None else config.text_probability,
            )
        is_single = True
        for step in range(num_steps + 1):
            all_masks, scores = self.answer(image_embeddings, prompts, masks, text_embeds, truth.shape[:2])
            chosen = slice(1, None) if is_single else slice(0, 1)
            all_masks, scores = all_masks[:, :, chosen], scores[:, :, chosen]
            index = scores.argmax(-1)[:, :, None, None, None].expand(-1, -1, 1, *truth.shape[2:])
            masks = all_masks.detach().gather(2, index)[:, :, 0]
            yield Answer(all_masks, scores, masks)
            if step not in quiet and step < num_steps:
                click = clicks(truth, masks > 0, config.image_size)
                prompts = tuple(torch.cat(pair, dim=2) for pair in zip(prompts, click, strict=True))
            is_single = False

    def interactive_loss(self, image_embeddings: Tensor, truth: Tensor, *start: Any) -> dict[str, Tensor]:
        """Fields of the output: the loss and its parts, and the last answer.

        Args:
            image_embeddings: (B, C, S, S).
            truth: (B, P, 4 S, 4 S), boolean; empty masks do not count.
            start: what `interact` starts with.
        """
        config, counts = self.config, truth.any(-1).any(-1)
        total = counts.sum().clamp_min(1)
        mask_losses, iou_losses = [], []
        for answer in self.interact(image_embeddings, truth, *start):
            logits, target = answer.masks.float(), truth[:, :, None].expand(answer.masks.shape)
            losses = config.focal_coefficient * focal_loss(logits, target.float())
            losses = losses + config.dice_coefficient * dice_loss(logits, target.float())
            error = (answer.scores.float() - iou(logits > 0, target)).square().mean(-1)
            mask_losses.append((losses.amin(-1) * counts).sum() / total)
            iou_losses.append((error * counts).sum() / total)
        mask_loss, iou_loss = torch.stack(mask_losses).mean(), torch.stack(iou_losses).mean()
        return {
            "loss": mask_loss + config.iou_coefficient * iou_loss,
            "iou_scores": answer.scores,
            "pred_masks": answer.masks,
            "mask_loss": mask_loss.detach(),
            "iou_loss": iou_loss.detach(),
        }
