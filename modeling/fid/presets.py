"""Published sizes of Fusion-in-Decoder: those of T5."""

FID = "Izacard and Grave 2020, arXiv:2007.01282"


def size(layers: int, hidden: int, heads: int, intermediate: int, head_dim: int = 64) -> dict:
    """The five numbers that make a size."""
    return {
        "num_hidden_layers": layers,
        "hidden_size": hidden,
        "num_attention_heads": heads,
        "intermediate_size": intermediate,
        "head_dim": head_dim,
    }


TEXT = {"tokenizer": "unigram", "sentinels": 100}

PRESETS = {
    "fid-tiny": {
        "config": {**size(2, 64, 4, 128, 16), "vocab_size": 512, "bos_token_id": 1, "eos_token_id": 2},
        "parameters": 197_632,
        "source": "for tests and first steps",
        "sentinels": 32,
    },
    "fid-base": {"config": size(12, 768, 12, 3072), "parameters": 222_903_552, "source": FID, **TEXT},
    "fid-large": {"config": size(24, 1024, 16, 4096), "parameters": 737_668_096, "source": FID, **TEXT},
}
