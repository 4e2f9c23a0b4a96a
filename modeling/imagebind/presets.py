"""ImageBind-Huge, the one published size; its count is that of all six towers with their heads."""


def tiny(**other) -> dict:
    """A tower for tests."""
    sizes = {"num_hidden_layers": 2, "hidden_size": 64, "num_attention_heads": 4, "intermediate_size": 128}
    return {**sizes, "path_dropout": 0.0, "head_dropout": 0.0, **other}


PRESETS = {
    "imagebind-tiny": {
        "config": {
            "vision_config": tiny(image_size=32, input_shape=[32, 32], patch_size=8, patch_stride=8),
            "text_config": {
                **{"model_type": "zoo_llm", "vocab_size": 512, "num_hidden_layers": 2, "hidden_size": 64},
                **{"num_attention_heads": 4, "intermediate_size": 128, "max_position_embeddings": 77},
                **{"positions": "learned", "norm": "layer_norm", "hidden_act": "gelu", "is_gated_mlp": False},
                **{"attention_bias": True, "mlp_bias": True, "use_cache": False},
                **{"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0},
            },
            "audio_config": tiny(input_shape=[32, 50], patch_size=16, patch_stride=10),
            "depth_config": tiny(image_size=32, input_shape=[32, 32], patch_size=16, patch_stride=16),
            "thermal_config": tiny(image_size=32, input_shape=[32, 32], patch_size=16, patch_stride=16),
            "imu_config": tiny(input_shape=[64], patch_size=8, patch_stride=8),
            "projection_dim": 32,
        },
        "parameters": 534_081,
        "source": "for tests and first steps",
        "image_processor": "clip",
    },
    "imagebind-huge": {
        "config": {},
        "parameters": 1_200_781_057,
        "source": "Girdhar et al. 2023, arXiv:2305.05665",
        "image_processor": "clip",
    },
}
