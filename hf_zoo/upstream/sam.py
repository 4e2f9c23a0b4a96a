"""transformers' SAM as `zoo_sam`."""

from functools import partial
from typing import Any

from transformers.core_model_loading import Concatenate, WeightConverter, WeightRenaming, WeightTransform

from .table import Upstream

LAYER = r"vision_encoder\.layers\.(\d+)\."
OUR_LAYER = r"image_encoder\.layers\.\1\."
DECODER = r"mask_decoder\.transformer\.layers\.(\d+)\."
OUR_DECODER = r"mask_decoder\.layers\.\1\."
NAMES = {
    r"shared_image_embedding\.positional_embedding": r"positions\.directions",
    r"vision_encoder\.patch_embed\.projection\.": r"image_encoder\.patch_embed\.",
    r"vision_encoder\.pos_embed": r"image_encoder\.pos_embed",
    r"vision_encoder\.neck\.": r"image_encoder\.neck\.",
    LAYER + r"attn\.qkv\.": OUR_LAYER + r"self_attn\.qkv_proj\.",
    LAYER + r"attn\.proj\.": OUR_LAYER + r"self_attn\.o_proj\.",
    LAYER + r"attn\.rel_pos_": OUR_LAYER + r"self_attn\.rel_pos_",
    LAYER + r"layer_norm1\.": OUR_LAYER + r"mixer_norm\.",
    LAYER + r"layer_norm2\.": OUR_LAYER + r"mlp_norm\.",
    LAYER + r"mlp\.lin1\.": OUR_LAYER + r"mlp\.up_proj\.",
    LAYER + r"mlp\.lin2\.": OUR_LAYER + r"mlp\.down_proj\.",
    DECODER + r"layer_norm1\.": OUR_DECODER + r"self_norm\.",
    DECODER + r"layer_norm2\.": OUR_DECODER + r"token_norm\.",
    DECODER + r"layer_norm3\.": OUR_DECODER + r"mlp_norm\.",
    DECODER + r"layer_norm4\.": OUR_DECODER + r"patch_norm\.",
    DECODER + r"mlp\.lin1\.": OUR_DECODER + r"mlp\.up_proj\.",
    DECODER + r"mlp\.lin2\.": OUR_DECODER + r"mlp\.down_proj\.",
    r"mask_decoder\.transformer\.layer_norm_final_attn\.": r"mask_decoder\.final_norm\.",
    r"mask_decoder\.upscale_layer_norm\.": r"mask_decoder\.upscale_norm\.",
    r"output_hypernetworks_mlps\.(\d+)\.proj_in\.": r"hypernetworks\.\1\.layers\.0\.",
    r"output_hypernetworks_mlps\.(\d+)\.layers\.0\.": r"hypernetworks\.\1\.layers\.1\.",
    r"output_hypernetworks_mlps\.(\d+)\.proj_out\.": r"hypernetworks\.\1\.layers\.2\.",
}
PROJECTIONS = {"q_proj": "q_proj", "k_proj": "k_proj", "v_proj": "v_proj", "out_proj": "o_proj"}
ATTENTIONS = {
    DECODER + r"self_attn\.": OUR_DECODER + r"self_attn\.",
    DECODER + r"cross_attn_token_to_image\.": OUR_DECODER + r"token_attn\.",
    DECODER + r"cross_attn_image_to_token\.": OUR_DECODER + r"patch_attn\.",
    r"mask_decoder\.transformer\.final_attn_token_to_image\.": r"mask_decoder\.final_attn\.",
}
NAMES |= {rf"{theirs}{a}\.": rf"{ours}{b}\." for theirs, ours in ATTENTIONS.items() for a, b in PROJECTIONS.items()}

# zoo field -> field of upstream's vision, prompt or decoder config
VISION = {
    **{name: name for name in ("hidden_size", "num_hidden_layers", "num_attention_heads", "num_channels")},
    **{name: name for name in ("image_size", "patch_size", "window_size", "qkv_bias", "hidden_act")},
    **{"intermediate_size": "mlp_dim", "norm_eps": "layer_norm_eps", "prompt_size": "output_channels"},
}
DECODER_FIELDS = {
    **{name: name for name in ("attention_downsample_rate", "num_multimask_outputs", "iou_head_depth")},
    **{"num_decoder_layers": "num_hidden_layers", "num_decoder_heads": "num_attention_heads"},
    **{"decoder_intermediate_size": "mlp_dim", "iou_head_size": "iou_head_hidden_dim"},
}
# (config, field) -> the value that can be read
ALWAYS = {
    ("vision_config", "use_abs_pos"): True,
    ("vision_config", "use_rel_pos"): True,
    ("vision_config", "attention_dropout"): 0.0,
    ("mask_decoder_config", "hidden_act"): "relu",
    ("mask_decoder_config", "attention_downsample_rate"): 2,  # its blocks have 2, whatever the config says
    ("prompt_encoder_config", "num_point_embeddings"): 4,
}


def renamings() -> list[WeightTransform]:
    """Names, and the four types of points in one table."""
    kinds = [f"prompt_encoder.point_embed.{i}.weight" for i in range(4)]
    types = WeightConverter(kinds, "prompt_encoder.point_types.weight", [Concatenate(dim=0)])
    return [*(WeightRenaming(theirs, ours) for theirs, ours in NAMES.items()), types]


def iou_head(config: Any) -> list[WeightTransform]:
    """Its layers are counted from the first, and not from the second."""
    last = config.iou_head_depth - 1
    names = {r"proj_in": 0, **{rf"layers\.{i}": i + 1 for i in range(last - 1)}, r"proj_out": last}
    return [
        WeightRenaming(rf"mask_decoder\.iou_prediction_head\.{theirs}\.", rf"mask_decoder\.iou_head\.layers\.{ours}\.")
        for theirs, ours in names.items()
    ]


def read_vision(field: str, upstream: Any) -> Any:
    """A field of the vision config, once all that cannot be read is known not to be there."""
    vision, prompts, decoder = upstream.vision_config, upstream.prompt_encoder_config, upstream.mask_decoder_config
    for (part, name), value in ALWAYS.items():
        if (found := getattr(getattr(upstream, part), name)) != value:
            raise ValueError(f"sam with {part}.{name}={found!r} cannot be opened; only {value!r}")
    sizes = {vision.output_channels, prompts.hidden_size, decoder.hidden_size, 2 * vision.num_pos_feats}
    if len(sizes) > 1:
        raise ValueError(f"sam with prompts, embeddings and decoder of different sizes {sorted(sizes)}: give them one")
    shared = {"layer_norm_eps": (vision, prompts, decoder), "hidden_act": (vision, prompts)}
    for name, parts in shared.items():
        if len({getattr(part, name) for part in parts}) > 1:
            raise ValueError(f"sam with different {name} in its parts cannot be opened")
    return getattr(vision, field)


def vision_config(config: Any) -> dict[str, Any]:
    """Upstream's, from a zoo config."""
    fields = {theirs: getattr(config, ours) for ours, theirs in VISION.items()}
    indexes = list(config.global_attn_indexes)
    return {**fields, "global_attn_indexes": indexes, "num_pos_feats": config.prompt_size // 2}


def prompt_encoder_config(config: Any) -> dict[str, Any]:
    """Upstream's, from a zoo config."""
    same = {name: getattr(config, name) for name in ("image_size", "patch_size", "mask_input_channels", "hidden_act")}
    return {**same, "hidden_size": config.prompt_size, "layer_norm_eps": config.norm_eps}


def mask_decoder_config(config: Any) -> dict[str, Any]:
    """Upstream's, from a zoo config."""
    fields = {theirs: getattr(config, ours) for ours, theirs in DECODER_FIELDS.items()}
    return {**fields, "hidden_size": config.prompt_size, "layer_norm_eps": config.norm_eps}


def read_decoder(field: str, upstream: Any) -> Any:
    """A field of the decoder's config."""
    return getattr(upstream.mask_decoder_config, field)


def indexes_of(upstream: Any) -> list[int]:
    """Layers that see the whole image."""
    return list(upstream.vision_config.global_attn_indexes)


def mask_channels_of(upstream: Any) -> int:
    """Of the prompt encoder."""
    return upstream.prompt_encoder_config.mask_input_channels


UPSTREAM = [
    Upstream(
        "sam",
        renamings,
        derived={
            **{ours: (None, partial(read_vision, theirs)) for ours, theirs in VISION.items()},
            **{ours: (None, partial(read_decoder, theirs)) for ours, theirs in DECODER_FIELDS.items()},
            "global_attn_indexes": (None, indexes_of),
            "mask_input_channels": (None, mask_channels_of),
        },
        written={
            "vision_config": vision_config,
            "prompt_encoder_config": prompt_encoder_config,
            "mask_decoder_config": mask_decoder_config,
        },
        sized_weights=iou_head,
    ),
]
