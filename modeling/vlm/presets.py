"""Published sizes of LLaVA; counts are those of the whole model, with all layers of the image tower."""


def image(layers: int, hidden: int, heads: int, intermediate: int, patch: int, size: int, **other) -> dict:
    """CLIP's image tower."""
    return {
        "model_type": "zoo_vit",
        "num_hidden_layers": layers,
        "hidden_size": hidden,
        "num_attention_heads": heads,
        "intermediate_size": intermediate,
        "patch_size": patch,
        "image_size": size,
        "hidden_act": "quick_gelu",
        "norm_eps": 1e-5,
        "patch_bias": False,
        "norm_embeddings": True,
        "final_norm": "pooled",
        "pooling": "cls",
        **other,
    }


def text(layers: int, hidden: int, heads: int, intermediate: int, **other) -> dict:
    """A language model of LLaMA's form."""
    return {
        "model_type": "zoo_llm",
        "num_hidden_layers": layers,
        "hidden_size": hidden,
        "num_attention_heads": heads,
        "intermediate_size": intermediate,
        "norm_eps": 1e-5,
        **other,
    }


JOINED = {"schedule": "pretrained_then_joined", "stage": "tune"}
VICUNA = {"vocab_size": 32064, "max_position_embeddings": 4096, "pad_token_id": 32001}
LLAVA = (
    "Liu et al. 2023, arXiv:2304.08485; CLIP ViT-L/14 at 224 pixels and Vicuna with 64 ids more, as transformers has"
)
LLAVA_15 = "Liu et al. 2023, arXiv:2310.03744; CLIP ViT-L/14 at 336 pixels and Vicuna 1.5 with 64 ids more"

PRESETS = {
    "vlm-tiny": {
        "config": {
            # Features are those of the last block, so that all of the tower is used
            "vision_config": image(2, 64, 4, 128, 8, 32, final_norm="none", pooling="mean"),
            "text_config": text(2, 64, 4, 128, vocab_size=512, max_position_embeddings=256, pad_token_id=0),
            "image_token_id": 480,  # some ids are left after it, as in published models
            "vision_feature_layer": -1,
        },
        "parameters": 236_608,
        "source": "for tests and first steps",
    },
    "llava-v1-7b": {
        "config": {
            "vision_config": image(24, 1024, 16, 4096, 14, 224),
            "text_config": text(32, 4096, 32, 11008, **{**VICUNA, "max_position_embeddings": 2048}),
            "projector_layers": 1,
            **JOINED,
        },
        "parameters": 7_046_318_080,
        "source": LLAVA,
        "image_processor": "clip",
    },
    "llava-1.5-7b": {
        "config": {
            "vision_config": image(24, 1024, 16, 4096, 14, 336),
            "text_config": text(32, 4096, 32, 11008, **VICUNA),
            **JOINED,
        },
        "parameters": 7_063_427_072,
        "source": LLAVA_15,
        "image_processor": "clip",
    },
    "llava-1.5-13b": {
        "config": {
            "vision_config": image(24, 1024, 16, 4096, 14, 336),
            "text_config": text(40, 5120, 40, 13824, **VICUNA),
            **JOINED,
        },
        "parameters": 13_351_494_656,
        "source": LLAVA_15,
        "image_processor": "clip",
    },
}
