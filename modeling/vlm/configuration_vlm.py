"""Configuration of the vision-language model."""

from typing import Any, ClassVar, Literal

from huggingface_hub.dataclasses import strict
from transformers import PreTrainedConfig
from transformers.activations import ACT2FN

from ..base_config import ZooConfig
from ..parts import PART, part_config

# CLIP ViT-L/14 at 336 pixels and Vicuna, the parts of LLaVA-1.5
IMAGE = {
    **{"model_type": "zoo_vit", "image_size": 336, "patch_size": 14, "hidden_size": 1024, "intermediate_size": 4096},
    **{"num_hidden_layers": 24, "num_attention_heads": 16, "hidden_act": "quick_gelu", "norm_eps": 1e-5},
    **{"patch_bias": False, "norm_embeddings": True, "final_norm": "pooled", "pooling": "cls"},
}
TEXT = {"model_type": "zoo_llm", "vocab_size": 32064, "max_position_embeddings": 4096, "norm_eps": 1e-5}

# What each stage of training changes; heads of tasks learn in all of them
STAGES = {
    "all": ("vision", "connector", "language"),
    "align": ("connector",),
    "tune": ("connector", "language"),
    "perceive": ("vision", "connector"),
}


@strict
class ZooVlmConfig(ZooConfig):
    """Two models, of any architecture of the zoo or of transformers, and where images meet text.

    Args:
        vision_config: config of the image tower, or a dictionary with its `model_type`; that of CLIP ViT-L/14 at 336
            pixels without. "early" takes its patches, channels and width alone.
        text_config: of the language model; that of LLaVA-1.5 without.
        fusion: patches enter the language model before any layer has seen them ("early"); a whole image tower comes
            first ("late"); attention to the images stands before every k-th layer of the language model
            ("interleaved"); or two towers meet in the loss alone ("joint").
        num_fusion_layers: for "late", how many of the last layers attend to the images; with 0 their features take
            the place of tokens (LLaVA).
        cross_attention_every: k of "interleaved".
        schedule: whether all is learnt "from_scratch" or parts were "pretrained_then_joined": only what `stage` is
            without a value follows from it, "all" and "align".
        stage: which parts learn: "all"; the connector alone ("align"); it and the language model ("tune"); or it and
            the image tower ("perceive").
        image_token_id: the placeholder of images.
        num_image_tokens: features that an image has; counted without it, where the tower tells its patches.
        vision_feature_layer: whose output the features are, counted as in `hidden_states`; several are joined, and
            None is the tower's last hidden state.
        vision_feature_select_strategy: "default" leaves out the first feature, a class token; "full" takes all.
        projector_layers: linear layers between the tower and the places of tokens.
        projector_hidden_act: between two of them.
        projector_bias: whether they have one.
        text_pooling: which token of a text stands for it in "joint" and in classification: the "last" or the first
            real one ("cls"), or the "mean".
        projection_dim: size of the common space of "joint".
        logit_scale_init_value: logarithm of the factor on its cosines.
    """

    model_type = "zoo_vlm"
    sub_configs: ClassVar[dict[str, Any]] = {"vision_config": PART, "text_config": PART}
    keys_to_ignore_at_inference = ["past_key_values"]
    may_be_zero = ("num_fusion_layers",)

    vision_config: dict | PreTrainedConfig | None = None
    text_config: dict | PreTrainedConfig | None = None
    fusion: Literal["early", "late", "interleaved", "joint"] = "late"
    num_fusion_layers: int = 0
    cross_attention_every: int = 4
    schedule: Literal["from_scratch", "pretrained_then_joined"] = "from_scratch"
    stage: Literal["all", "align", "tune", "perceive"] | None = None
    image_token_id: int = 32000
    num_image_tokens: int | None = None
    vision_feature_layer: int | list[int] | None = -2
    vision_feature_select_strategy: Literal["default", "full"] = "default"
    projector_layers: int = 2
    projector_hidden_act: str = "gelu"
    projector_bias: bool = True
    text_pooling: Literal["last", "cls", "mean"] = "last"
    projection_dim: int = 512
    logit_scale_init_value: float = 2.6592
    classifier_dropout: float = 0.0
    initializer_range: float = 0.02
    tie_word_embeddings: bool = False

    def __post_init__(self, **kwargs: Any) -> None:
        self.vision_config = part_config(self.vision_config or IMAGE, "vision_config")
        self.text_config = part_config(self.text_config or TEXT, "text_config")
        if self.stage is None:
            self.stage = "all" if self.schedule == "from_scratch" else "align"
        if self.num_image_tokens is None and hasattr(self.vision_config, "patch_size"):
            self.num_image_tokens = self._counted_features()
        super().__post_init__(**kwargs)

    def _counted_features(self) -> int:
        vision = self.vision_config
        patches = (vision.image_size // vision.patch_size) ** 2
        has_cls = getattr(vision, "use_cls", "siglip" not in vision.model_type)
        if self.fusion == "early":
            return patches
        return patches + has_cls - (self.vision_feature_select_strategy == "default")

    @property
    def hidden_size(self) -> int:
        """Of the language model."""
        return self.text_config.hidden_size

    @property
    def vocab_size(self) -> int:
        """Of the language model."""
        return self.text_config.vocab_size

    @vocab_size.setter
    def vocab_size(self, value: int) -> None:
        self.text_config.vocab_size = value

    @property
    def pad_token_id(self) -> int | None:
        """Of the language model."""
        return self.text_config.pad_token_id

    @pad_token_id.setter
    def pad_token_id(self, value: int | None) -> None:
        self.text_config.pad_token_id = value

    @property
    def is_spliced(self) -> bool:
        """Whether features of images take the places of tokens."""
        return self.fusion == "early" or self.fusion == "late" and not self.num_fusion_layers

    @property
    def placeholders(self) -> int:
        """How many placeholders an image has in a text."""
        if self.fusion == "joint":
            return 0
        return self.num_image_tokens if self.is_spliced else 1

    def validate_architecture(self) -> None:
        """How the parts fit together."""
        text, vision = self.text_config, self.vision_config
        if self.fusion != "joint" and not 0 <= self.image_token_id < text.vocab_size:
            raise ValueError(
                f"image_token_id={self.image_token_id} must be below the vocab_size={text.vocab_size} of text_config"
            )
        if self.num_fusion_layers and (self.fusion != "late" or self.num_fusion_layers > text.num_hidden_layers):
            raise ValueError(
                f"num_fusion_layers={self.num_fusion_layers} is for fusion='late' and at most the "
                f"{text.num_hidden_layers} layers of text_config; fusion is {self.fusion!r}"
            )
        if self.fusion == "interleaved" and not 1 <= self.cross_attention_every <= text.num_hidden_layers:
            raise ValueError(
                f"cross_attention_every={self.cross_attention_every} must be from 1 to the {text.num_hidden_layers} "
                "layers of text_config"
            )
        if self.num_image_tokens is None and self.is_spliced:
            raise ValueError(f"num_image_tokens must be set: {vision.model_type} does not tell its patch_size")
        if self.fusion == "early" and not hasattr(vision, "patch_size"):
            raise ValueError(f"fusion='early' takes patches, and {vision.model_type} has no patch_size")
        if text.is_encoder_decoder:
            raise ValueError(f"text_config must be of a decoder or an encoder, {text.model_type} is both")
        if self.projector_hidden_act not in ACT2FN:
            raise ValueError(
                f"projector_hidden_act {self.projector_hidden_act!r} is not an activation that transformers knows"
            )
