"""Published sizes of vision towers; counts are those of the tower, without a classifier."""


def size(layers: int, hidden: int, heads: int, intermediate: int, patch: int, image: int = 224) -> dict:
    """What makes a size."""
    return {
        "num_hidden_layers": layers,
        "hidden_size": hidden,
        "num_attention_heads": heads,
        "intermediate_size": intermediate,
        "patch_size": patch,
        "image_size": image,
    }


def clip(sizes: dict, hidden_act: str = "quick_gelu") -> dict:
    """What all towers of CLIP share."""
    return {
        **sizes,
        "hidden_act": hidden_act,
        "norm_eps": 1e-5,
        "patch_bias": False,
        "norm_embeddings": True,
        "final_norm": "pooled",
        "pooling": "cls",
    }


VIT = "Dosovitskiy et al. 2020, arXiv:2010.11929"
CLIP = "Radford et al. 2021, arXiv:2103.00020"
OPENCLIP = "OpenCLIP; Cherti et al. 2022, arXiv:2212.07143"

PRESETS = {
    "vit-tiny": {
        "config": size(2, 64, 4, 128, 8, 32),
        "parameters": 84_736,
        "source": "for tests and first steps",
    },
    "vit-base-patch16": {"config": size(12, 768, 12, 3072, 16), "parameters": 86_389_248, "source": VIT},
    "vit-large-patch16": {"config": size(24, 1024, 16, 4096, 16), "parameters": 304_351_232, "source": VIT},
    "vit-huge-patch14": {"config": size(32, 1280, 16, 5120, 14), "parameters": 632_404_480, "source": VIT},
    "clip-vit-b32": {
        "config": clip(size(12, 768, 12, 3072, 32)),
        "parameters": 87_456_000,
        "source": CLIP,
        "image_processor": "clip",
    },
    "clip-vit-b16": {
        "config": clip(size(12, 768, 12, 3072, 16)),
        "parameters": 85_799_424,
        "source": CLIP,
        "image_processor": "clip",
    },
    "clip-vit-l14": {
        "config": clip(size(24, 1024, 16, 4096, 14)),
        "parameters": 303_179_776,
        "source": CLIP,
        "image_processor": "clip",
    },
    "clip-vit-l14-336": {
        "config": clip(size(24, 1024, 16, 4096, 14, 336)),
        "parameters": 303_507_456,
        "source": CLIP,
        "image_processor": "clip",
    },
    "openclip-vit-h14": {
        "config": clip(size(32, 1280, 16, 5120, 14), "gelu"),
        "parameters": 630_766_080,
        "source": OPENCLIP,
        "image_processor": "clip",
    },
    "openclip-vit-bigg14": {
        "config": clip(size(48, 1664, 16, 8192, 14), "gelu"),
        "parameters": 1_842_777_344,
        "source": OPENCLIP,
        "image_processor": "clip",
    },
    "siglip-vit-b16": {
        "config": {
            **size(12, 768, 12, 3072, 16),
            **{"hidden_act": "gelu_pytorch_tanh", "norm_eps": 1e-6, "use_cls": False, "pooling": "attention"},
        },
        "parameters": 92_884_224,
        "source": "Zhai et al. 2023, arXiv:2303.15343",
    },
    "eva-vit-g": {
        "config": {
            **size(39, 1408, 16, 6144, 14),
            **{"norm_eps": 1e-6, "qkv_bias": "qv", "final_norm": "both", "pooling": "cls"},
        },
        "parameters": 985_897_344,
        "source": "Fang et al. 2022, arXiv:2211.07636, without its last block and with the norm that BLIP-2 adds",
        "image_processor": "clip",
    },
    "eva2-clip-e": {
        "config": {
            **size(63, 1792, 16, 15360, 14),
            **{"norm_eps": 1e-6, "norm_position": "res_post", "final_norm": "none", "pooling": "cls"},
        },
        "parameters": 4_280_905_216,
        "source": "Sun et al. 2023, arXiv:2303.15389, without its last block, as in CogVLM",
        "image_processor": "clip",
    },
    "vit-22b": {
        "config": {
            **size(48, 6144, 48, 24576, 14),
            **{"norm": "rms_norm", "norm_eps": 1e-6, "is_parallel": True, "qk_norm": True, "qkv_bias": "none"},
            **{"use_cls": False, "pooling": "mean"},
        },
        "parameters": 21_750_546_432,
        "source": "Dehghani et al. 2023, arXiv:2302.05442, without its pooling head; biases are uncertain",
    },
}
