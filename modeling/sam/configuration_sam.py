"""Configuration of SAM."""

from typing import Any, ClassVar, Literal

from huggingface_hub.dataclasses import strict
from transformers import PreTrainedConfig

from ..base_config import ZooConfig
from ..parts import PART, part_config


@strict
class ZooSamConfig(ZooConfig):
    """Sizes of the image encoder, of prompts and of the mask decoder; the defaults are those of SAM ViT-B.

    Args:
        image_size: side of the square image, in pixels; smaller images are filled up on the right and below.
        window_size: side of the windows of attention, in patches.
        global_attn_indexes: layers whose attention sees the whole image.
        prompt_size: width of image embeddings, prompts and the mask decoder.
        mask_input_channels: width between the convolutions that read a mask as a prompt.
        attention_downsample_rate: by how much attention between prompts and image is narrower than `prompt_size`.
        num_multimask_outputs: masks that answer an ambiguous prompt, beside the one for several prompts.
        iou_head_depth, iou_head_size: layers and width of what predicts how good each mask is.
        text_config: config of a text encoder, or a dictionary with its `model_type`; None for a model without text.
        text_pooling: what of the text becomes one prompt: the "cls" token, the "last", or the "mean" of all.
        num_clicks: simulated corrections in training, after the first prompt.
        num_refinements: further passes of training without a new click, one of them at the end.
        box_probability: how often the first prompt of training is a box rather than a click.
        box_noise: standard deviation of a box's corners in training, as a share of its side.
        max_box_noise: most by which a corner moves, in pixels.
        text_probability: how often the first prompt of training is the text, where there is one.
        focal_coefficient, dice_coefficient, iou_coefficient: weights of the three losses.
    """

    model_type = "zoo_sam"
    sub_configs: ClassVar[dict[str, Any]] = {"text_config": PART}
    may_be_zero = ("num_clicks", "num_refinements")

    hidden_size: int = 768
    intermediate_size: int = 3072
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    num_channels: int = 3
    image_size: int = 1024
    patch_size: int = 16
    window_size: int = 14
    global_attn_indexes: list[int] | tuple[int, ...] = (2, 5, 8, 11)
    qkv_bias: bool = True
    hidden_act: str = "gelu"
    norm_eps: float = 1e-6
    prompt_size: int = 256
    mask_input_channels: int = 16
    num_decoder_layers: int = 2
    num_decoder_heads: int = 8
    decoder_intermediate_size: int = 2048
    attention_downsample_rate: int = 2
    num_multimask_outputs: int = 3
    iou_head_depth: int = 3
    iou_head_size: int = 256
    text_config: dict | PreTrainedConfig | None = None
    text_pooling: Literal["cls", "mean", "last"] = "mean"
    num_clicks: int = 8
    num_refinements: int = 2
    box_probability: float = 0.5
    box_noise: float = 0.1
    max_box_noise: float = 20.0
    text_probability: float = 0.5
    focal_coefficient: float = 20.0
    dice_coefficient: float = 1.0
    iou_coefficient: float = 1.0
    initializer_range: float = 0.02

    def __post_init__(self, **kwargs: Any) -> None:
        if self.text_config is not None:
            self.text_config = part_config(self.text_config, "text_config")
        self.global_attn_indexes = list(self.global_attn_indexes)
        super().__post_init__(**kwargs)

    @property
    def grid_size(self) -> int:
        """Patches along a side of the image."""
        return self.image_size // self.patch_size

    @property
    def mask_size(self) -> int:
        """Pixels along a side of a predicted mask."""
        return 4 * self.grid_size

    def get_text_config(self, *args: Any, **kwargs: Any) -> PreTrainedConfig:
        """The text encoder's where there is one."""
        return self if self.text_config is None else self.text_config

    def validate_architecture(self) -> None:
        """How the sizes fit together."""
        self.validate_sizes()  # before they divide each other
        self.require_multiple("image_size", "patch_size")
        self.require_multiple("hidden_size", "num_attention_heads")
        self.require_multiple("prompt_size", "attention_downsample_rate")
        inner = self.prompt_size // self.attention_downsample_rate
        if inner % self.num_decoder_heads:
            raise ValueError(
                f"prompt_size / attention_downsample_rate = {inner} must be a multiple of num_decoder_heads="
                f"{self.num_decoder_heads}"
            )
        for name, unit in (("prompt_size", 8), ("mask_input_channels", 4)):
            if getattr(self, name) % unit:
                raise ValueError(f"{name} must be a multiple of {unit}, got {getattr(self, name)}")
        if wrong := [i for i in self.global_attn_indexes if not 0 <= i < self.num_hidden_layers]:
            raise ValueError(f"global_attn_indexes has {wrong[0]}, but layers are 0 to {self.num_hidden_layers - 1}")
        if self.iou_head_depth < 2:
            raise ValueError(f"iou_head_depth must be at least 2, got {self.iou_head_depth}")
        for name in ("box_probability", "text_probability"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ValueError(f"{name} must be from 0 to 1, got {getattr(self, name)}")
