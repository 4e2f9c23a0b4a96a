"""ViT and the vision towers of CLIP, SigLIP and BLIP-2 as `zoo_vit`."""

from transformers.core_model_loading import Chunk, WeightConverter, WeightRenaming, WeightTransform

from .mlm import renamings
from .operations import DropAxes, WithoutKeyBias
from .table import Upstream

FINAL_NORM = r"(?<![_r])(?<!pooler\.)norm\."  # not `mixer_norm.`, `layernorm.` or that of a pooler
QKV = [f"self_attn.{name}_proj" for name in "qkv"]
VIT_NAMES = {
    r"embeddings\.patch_embeddings\.projection\.": r"embeddings\.patch_embed\.",
    r"\.attention\.": r"\.self_attn\.",
    r"layernorm_before\.": r"mixer_norm\.",
    r"layernorm_after\.": r"mlp_norm\.",
    r"mlp\.fc1\.": r"mlp\.up_proj\.",
    r"mlp\.fc2\.": r"mlp\.down_proj\.",
}
# What CLIP, SigLIP and BLIP-2 share
TOWER_NAMES = {
    r"embeddings\.patch_embedding\.": r"embeddings\.patch_embed\.",
    r"encoder\.layers\.": r"layers\.",
    r"layer_norm1\.": r"mixer_norm\.",
    r"layer_norm2\.": r"mlp_norm\.",
    r"mlp\.fc1\.": r"mlp\.up_proj\.",
    r"mlp\.fc2\.": r"mlp\.down_proj\.",
}


def vit_weights() -> list[WeightTransform]:
    """Tokens and positions are stored with axes of one row; masked pixels come from a convolution."""
    return [
        *renamings(VIT_NAMES),
        WeightRenaming(r"layernorm\.", FINAL_NORM),
        WeightConverter("embeddings.cls_token", "embeddings.cls_token", [DropAxes(2)]),
        WeightConverter("embeddings.mask_token", "embeddings.mask_token", [DropAxes(2)]),
        WeightConverter("embeddings.position_embeddings", "embeddings.embed_positions.weight", [DropAxes(1)]),
        WeightRenaming(r"decoder\.0\.bias", r"decoder\.bias"),
        WeightConverter("decoder.0.weight", "decoder.weight", [DropAxes(0, 2)]),
    ]


def clip_weights() -> list[WeightTransform]:
    """Only names differ."""
    return [
        *renamings(TOWER_NAMES),
        WeightRenaming(r"embeddings\.class_embedding", r"embeddings\.cls_token"),
        WeightRenaming(r"embeddings\.position_embedding\.", r"embeddings\.embed_positions\."),
        WeightRenaming(r"self_attn\.out_proj\.", r"self_attn\.o_proj\."),
        WeightRenaming(r"pre_layrnorm\.", r"embed_norm\."),
        WeightRenaming(r"post_layernorm\.", FINAL_NORM),
    ]


def siglip_weights() -> list[WeightTransform]:
    """The pooling has its three projections in one tensor."""
    pooled = [f"pooler.{name}_proj" for name in "qkv"]
    return [
        *renamings(TOWER_NAMES),
        WeightRenaming(r"embeddings\.position_embedding\.", r"embeddings\.embed_positions\."),
        WeightRenaming(r"self_attn\.out_proj\.", r"self_attn\.o_proj\."),
        WeightRenaming(r"post_layernorm\.", FINAL_NORM),
        WeightConverter("head.probe", "pooler.probe", [DropAxes(2)]),
        WeightConverter("head.attention.in_proj_weight", [f"{n}.weight" for n in pooled], [Chunk(dim=0)]),
        WeightConverter("head.attention.in_proj_bias", [f"{n}.bias" for n in pooled], [Chunk(dim=0)]),
        WeightRenaming(r"head\.attention\.out_proj\.", r"pooler\.o_proj\."),
        WeightRenaming(r"head\.layernorm\.", r"pooler\.norm\."),
        WeightRenaming(r"head\.mlp\.", r"pooler\.mlp\."),
    ]


def blip_2_weights() -> list[WeightTransform]:
    """One fused projection, whose bias has zeros where keys would have theirs."""
    return [
        *renamings(TOWER_NAMES),
        WeightConverter("embeddings.class_embedding", "embeddings.cls_token", [DropAxes(2)]),
        WeightConverter("embeddings.position_embedding", "embeddings.embed_positions.weight", [DropAxes(1)]),
        WeightConverter("self_attn.qkv.weight", [f"{n}.weight" for n in QKV], [Chunk(dim=0)]),
        WeightConverter("self_attn.qkv.bias", [f"{QKV[0]}.bias", f"{QKV[2]}.bias"], [WithoutKeyBias()]),
        WeightRenaming(r"self_attn\.projection\.", r"self_attn\.o_proj\."),
        WeightRenaming(r"post_layernorm\.", FINAL_NORM),
    ]


PLAIN = {"norm": "layer_norm", "norm_position": "pre", "is_parallel": False, "qk_norm": False}
TOWER = {"renamed": {"norm_eps": "layer_norm_eps"}}
SIGLIP = {"use_cls": False, "patch_bias": True, "norm_embeddings": False, "final_norm": "tokens", "qkv_bias": "all"}
CLIP = {"use_cls": True, "patch_bias": False, "norm_embeddings": True, "final_norm": "pooled", "qkv_bias": "all"}
BLIP_2 = {"use_cls": True, "patch_bias": True, "norm_embeddings": False, "final_norm": "both"}

UPSTREAM = [
    Upstream(
        "vit",
        vit_weights,
        renamed={
            "norm_eps": "layer_norm_eps",
            "hidden_dropout": "hidden_dropout_prob",
            "attention_dropout": "attention_probs_dropout_prob",
        },
        fixed={
            **PLAIN,
            **{"use_cls": True, "patch_bias": True, "norm_embeddings": False, "final_norm": "tokens"},
            "pooling": "tanh",
        },
        derived={"qkv_bias": ("qkv_bias", lambda config: "all" if config.qkv_bias else "none")},
        required={"pooler_act": "tanh"},
        written={
            "qkv_bias": lambda config: config.qkv_bias == "all",
            "encoder_stride": lambda config: config.patch_size,
        },
    ),
    Upstream("clip_vision_model", clip_weights, **TOWER, fixed={**PLAIN, **CLIP, "pooling": "cls"}),
    Upstream(
        "siglip_vision_model",
        siglip_weights,
        **TOWER,
        fixed={**PLAIN, **SIGLIP, "pooling": "attention"},
        required={"vision_use_head": True},
    ),
    Upstream(
        "blip_2_vision_model",
        blip_2_weights,
        **TOWER,
        fixed={**PLAIN, **BLIP_2, "pooling": "cls"},
        derived={"qkv_bias": ("qkv_bias", lambda config: "qv" if config.qkv_bias else "none")},
        written={"qkv_bias": lambda config: config.qkv_bias == "qv"},
        class_names={"feature-extraction": "Blip2VisionModel"},
    ),
]
