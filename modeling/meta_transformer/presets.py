"""Published sizes of Meta-Transformer; counts are those of the encoder and all twelve tokenisers."""


def encoder(layers: int, hidden: int, heads: int, intermediate: int, patch: int) -> dict:
    """Blocks alone."""
    return {
        "model_type": "zoo_vit",
        "num_hidden_layers": layers,
        "hidden_size": hidden,
        "num_attention_heads": heads,
        "intermediate_size": intermediate,
        "patch_size": patch,
        "use_cls": False,
        "pooling": "mean",
        "final_norm": "none",
        "norm_eps": 1e-5,
    }


TINY = {
    "text": {"vocab_size": 512, "max_length": 32},
    "image": {"image_size": 16, "patch_size": 8},
    "infrared": {"image_size": 16, "patch_size": 8},
    "x_ray": {"image_size": 16, "patch_size": 8},
    "video": {"image_size": 16, "patch_size": 8, "num_frames": 4},
    "hyperspectral": {"num_bands": 6, "patch_size": 3},
    "points": {"num_points": 24, "group_size": 8},
    "audio": {"max_frames": 40, "num_mel_bins": 16, "patch_size": 8, "stride": 5},
    "table": {"num_numeric_columns": 3, "category_sizes": [3, 4]},
    "graph": {"node_size": 4, "edge_size": 2, "identifier_size": 16},
    "time_series": {"num_channels": 2},
    "imu": {"num_channels": 6},
}
PICTURES_14 = {name: {"patch_size": 14} for name in ("image", "infrared", "x_ray", "video")}
REST = {name: {} for name in ("text", "hyperspectral", "points", "audio", "table", "graph", "time_series", "imu")}
PAPER = "Zhang et al. 2023, arXiv:2307.10802"

PRESETS = {
    "meta-transformer-tiny": {
        "config": {"modalities": TINY, "encoder_config": encoder(2, 64, 4, 128, 8)},
        "parameters": 173_216,
        "source": "for tests and first steps",
    },
    "meta-transformer-b16": {
        "config": {"encoder_config": encoder(12, 768, 12, 3072, 16)},
        "parameters": 128_984_192,
        "source": f"{PAPER}; the encoder of 85,054,464 is published, columns, nodes and channels depend on the data",
    },
    "meta-transformer-l14": {
        "config": {"modalities": {**PICTURES_14, **REST}, "encoder_config": encoder(24, 1024, 16, 4096, 14)},
        "parameters": 361_078_784,
        "source": f"{PAPER}; the encoder of 302,309,376 is published, columns, nodes and channels depend on the data",
    },
}
