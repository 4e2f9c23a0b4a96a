"""Published sizes of CLIP; counts are those of both towers with their projections."""


def image(layers: int, hidden: int, heads: int, intermediate: int, patch: int, size: int = 224, **other) -> dict:
    """An image tower."""
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


def text(layers: int, hidden: int, heads: int, **other) -> dict:
    """A text tower; its feed-forward network is four times as wide."""
    return {
        "model_type": "zoo_llm",
        "vocab_size": 49408,
        "num_hidden_layers": layers,
        "hidden_size": hidden,
        "num_attention_heads": heads,
        "intermediate_size": 4 * hidden,
        "max_position_embeddings": 77,
        "positions": "learned",
        "norm": "layer_norm",
        "norm_eps": 1e-5,
        "hidden_act": "quick_gelu",
        "is_gated_mlp": False,
        "attention_bias": True,
        "mlp_bias": True,
        "use_cache": False,
        "bos_token_id": 49406,
        "eos_token_id": 49407,
        "pad_token_id": 49407,
        **other,
    }


CLIP = "Radford et al. 2021, arXiv:2103.00020"
OPENCLIP = "OpenCLIP; Cherti et al. 2022, arXiv:2212.07143"
TINY_IDS = {"vocab_size": 512, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}

PRESETS = {
    "clip-tiny": {
        "config": {
            "vision_config": image(2, 64, 4, 128, 8, 32),
            "text_config": text(2, 64, 4, **TINY_IDS),
            "projection_dim": 64,
        },
        "parameters": 226_625,
        "source": "for tests and first steps",
        "image_processor": "clip",
    },
    "clip-vit-base-patch32": {
        "config": {"vision_config": image(12, 768, 12, 3072, 32), "text_config": text(12, 512, 8)},
        "parameters": 151_277_313,
        "source": CLIP,
        "image_processor": "clip",
    },
    "clip-vit-base-patch16": {
        "config": {"vision_config": image(12, 768, 12, 3072, 16), "text_config": text(12, 512, 8)},
        "parameters": 149_620_737,
        "source": CLIP,
        "image_processor": "clip",
    },
    "clip-vit-large-patch14": {
        "config": {
            "vision_config": image(24, 1024, 16, 4096, 14),
            "text_config": text(12, 768, 12),
            "projection_dim": 768,
        },
        "parameters": 427_616_513,
        "source": CLIP,
        "image_processor": "clip",
    },
    "clip-vit-large-patch14-336": {
        "config": {
            "vision_config": image(24, 1024, 16, 4096, 14, 336),
            "text_config": text(12, 768, 12),
            "projection_dim": 768,
        },
        "parameters": 427_944_193,
        "source": CLIP,
        "image_processor": "clip",
    },
    "openclip-vit-huge-patch14": {
        "config": {
            "vision_config": image(32, 1280, 16, 5120, 14, hidden_act="gelu"),
            "text_config": text(24, 1024, 16, hidden_act="gelu"),
            "projection_dim": 1024,
        },
        "parameters": 986_109_441,
        "source": OPENCLIP,
        "image_processor": "clip",
    },
    "openclip-vit-bigg-patch14": {
        "config": {
            "vision_config": image(48, 1664, 16, 8192, 14, hidden_act="gelu"),
            "text_config": text(32, 1280, 20, hidden_act="gelu"),
            "projection_dim": 1280,
        },
        "parameters": 2_539_567_105,
        "source": OPENCLIP,
        "image_processor": "clip",
    },
}
