"""Published sizes of the Sparse Transformer."""


def size(hidden: int, layers: int, heads: int, intermediate: int | None = None) -> dict:
    """The numbers that make a size; the feed-forward network is four times as wide if not said otherwise."""
    return {
        "hidden_size": hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "intermediate_size": intermediate or 4 * hidden,
    }


SOURCE = "Child et al. 2019, arXiv:1904.10509, section 7, sizes as recalled; the paper rounds to millions"

PRESETS = {
    "sparse-transformer-tiny": {
        "config": {
            **size(64, 2, 4),
            **{"vocab_size": 512, "stride": 8, "summary_size": 2, "position_shape": [64, 8]},
            **{"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2},
        },
        "parameters": 170_240,
        "source": "for tests and first steps",
    },
    "sparse-transformer-enwik8": {
        "config": {**size(512, 30, 8), "attention_dropout": 0.4, "residual_dropout": 0.4},
        "parameters": 94_949_376,
        "source": SOURCE + " (95 M)",
    },
    "sparse-transformer-cifar10": {
        "config": {
            **size(256, 128, 2, 512),
            **{"head_dim": 64, "pattern": "strided", "position_shape": [32, 32, 3]},
            **{"stride": 128, "attention_dropout": 0.25, "residual_dropout": 0.25},
        },
        "parameters": 59_196_672,
        "source": SOURCE + " (59 M)",
    },
    "sparse-transformer-imagenet64": {
        "config": {
            **size(512, 48, 16),
            **{"pattern": "strided", "position_shape": [64, 64, 3]},
            **{"attention_dropout": 0.01, "residual_dropout": 0.01},
        },
        "parameters": 151_644_672,
        "source": SOURCE + " (152 M)",
    },
}
