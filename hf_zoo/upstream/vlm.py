"""LLaVA as `zoo_vlm`: its image tower as `zoo_vit`, its language model as `zoo_llm`."""

from typing import Any

from transformers.core_model_loading import WeightConverter, WeightRenaming, WeightTransform

from ..registry import ARCHITECTURES
from .clip import IMAGE, reader
from .llm import UPSTREAM as LANGUAGE
from .operations import FoldIdentity, SumOfBiases
from .table import Upstream

TEXT = {upstream.model_type: upstream for upstream in LANGUAGE if upstream.model_type in ("llama", "mistral")}
TOWER = r"vision_tower\.layers\.(\d+)\."
LAYER = r"language_model\.layers\.(\d+)\."
OURS = {TOWER: r"vision_tower\.layers\.\1\.", LAYER: r"language_model\.layers\.\1\."}
NAMES = {
    r"vision_tower\.embeddings\.class_embedding": r"vision_tower\.embeddings\.cls_token",
    r"vision_tower\.embeddings\.patch_embedding\.": r"vision_tower\.embeddings\.patch_embed\.",
    r"vision_tower\.embeddings\.position_embedding\.": r"vision_tower\.embeddings\.embed_positions\.",
    r"vision_tower\.pre_layrnorm\.": r"vision_tower\.embed_norm\.",
    r"vision_tower\.post_layernorm\.": r"vision_tower\.norm\.",
    r"vision_tower\.encoder\.layers\.": r"vision_tower\.layers\.",
    TOWER + r"layer_norm1\.": OURS[TOWER] + r"mixer_norm\.",
    TOWER + r"layer_norm2\.": OURS[TOWER] + r"mlp_norm\.",
    TOWER + r"mlp\.fc1\.": OURS[TOWER] + r"mlp\.up_proj\.",
    TOWER + r"mlp\.fc2\.": OURS[TOWER] + r"mlp\.down_proj\.",
    TOWER + r"self_attn\.out_proj\.": OURS[TOWER] + r"self_attn\.o_proj\.",
    LAYER + r"input_layernorm\.": OURS[LAYER] + r"mixer_norm\.",
    LAYER + r"post_attention_layernorm\.": OURS[LAYER] + r"mlp_norm\.",
}


def weights() -> list[WeightTransform]:
    """Of the tower and the language model only names differ."""
    return [WeightRenaming(theirs, ours) for theirs, ours in NAMES.items()]


def projector(config: Any) -> list[WeightTransform]:
    """Two layers; or one, which upstream has as two without an activation, the second of which changes nothing."""
    theirs = [f"multi_modal_projector.linear_{i}" for i in (1, 2)]
    if config.projector_layers == 1:
        folded = [
            WeightConverter([f"{n}.weight" for n in theirs], "projector.linears.0.weight", [FoldIdentity()]),
            WeightConverter([f"{n}.bias" for n in theirs], "projector.linears.0.bias", [SumOfBiases()]),
        ]
        return folded if config.projector_bias else folded[:1]
    return [
        WeightRenaming(rf"multi_modal_projector\.linear_{i + 1}\.", rf"projector\.linears\.{i}\.") for i in range(2)
    ]


def read_text(config: Any) -> dict[str, Any]:
    """The config of the language model.

    Raises:
        ValueError: it is of no architecture that `zoo_llm` reads.
    """
    kind = config.text_config.model_type
    if kind not in TEXT:
        raise ValueError(f"llava with a text_config of {kind!r} cannot be opened; only of {', '.join(TEXT)}")
    part = reader(TEXT[kind], "zoo_llm", "text_config")(config)
    return {**part, "architectures": None}


def read_image(config: Any) -> dict[str, Any]:
    """The config of the image tower.

    Raises:
        ValueError: it is not CLIP's.
    """
    kind = config.vision_config.model_type
    if kind != IMAGE.model_type:
        raise ValueError(f"llava with a vision_config of {kind!r} cannot be opened; only of {IMAGE.model_type!r}")
    return reader(IMAGE, "zoo_vit", "vision_config")(config)


def write_text(config: Any) -> dict[str, Any]:
    """The first of upstream's language models that the zoo's equals."""
    text = config.text_config
    if text.model_type != ARCHITECTURES["zoo_llm"].model_type:
        raise ValueError(f"text_config of {text.model_type!r} cannot be written as llava; only of 'zoo_llm'")
    kind = "llama" if text.sliding_window is None else "mistral"
    return TEXT[kind].write_config(text).to_dict()


UPSTREAM = [
    Upstream(
        "llava",
        weights,
        renamed={
            "image_token_id": "image_token_index",
            "projector_bias": "multimodal_projector_bias",
        },
        fixed={"fusion": "late", "num_fusion_layers": 0, "text_pooling": "last"},
        derived={
            "vision_config": (None, read_image),
            "text_config": (None, read_text),
            "projector_layers": (None, lambda config: 1 if config.projector_hidden_act == "linear" else 2),
            # transformers keeps both without a meaning of its own
            "schedule": ("schedule", lambda config: getattr(config, "schedule", "pretrained_then_joined")),
            "stage": ("stage", lambda config: getattr(config, "stage", "tune")),
            "num_image_tokens": (None, lambda config: None),
        },
        written={
            "vision_config": lambda config: IMAGE.write_config(config.vision_config).to_dict(),
            "text_config": write_text,
            "image_seq_length": lambda config: config.num_image_tokens,
            "projector_hidden_act": lambda config: (
                "linear" if config.projector_layers == 1 else config.projector_hidden_act
            ),
        },
        sized_weights=projector,
        other_meaning=("sequence-classification",),
    ),
]
