"""Published sizes of RETRO; counts are with the embeddings, which decoder and encoder share."""

PAPER = {
    "vocab_size": 128000,
    "is_gated_mlp": False,
    "hidden_act": "gelu",
    "encoder_head_dim": 64,
}
SOURCE = "Borgeaud et al. 2021, arXiv:2112.04426, which counts {} without embeddings and with weights for relative "
SOURCE += "positions; activation, untied embeddings and a vocabulary of exactly 128,000 are uncertain"


def size(layers: int, hidden: int, heads: int, head_dim: int) -> dict:
    """Sizes of a decoder whose feed-forward networks are four times as wide."""
    return {
        **PAPER,
        "num_hidden_layers": layers,
        "hidden_size": hidden,
        "num_attention_heads": heads,
        "head_dim": head_dim,
        "intermediate_size": 4 * hidden,
    }


PRESETS = {
    "retro-tiny": {
        "config": {
            "vocab_size": 512,
            "hidden_size": 64,
            "intermediate_size": 192,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": 512,
            "pad_token_id": 0,
            "chunk_size": 8,
            "cross_layers": [0, 1],
            "encoder_hidden_size": 32,
            "encoder_intermediate_size": 96,
            "num_encoder_heads": 2,
        },
        "parameters": 223_936,
        "source": "for tests and first steps",
    },
    "retro-172m": {"config": size(12, 896, 16, 64), "parameters": 385_383_040, "source": SOURCE.format("172M")},
    "retro-425m": {"config": size(12, 1536, 12, 128), "parameters": 781_959_936, "source": SOURCE.format("425M")},
    "retro-1.5b": {
        "config": {**size(24, 2048, 16, 128), "cross_layers": list(range(8, 24, 3))},
        "parameters": 1_832_768_768,
        "source": SOURCE.format("1.5B"),
    },
    "retro-7.5b": {
        "config": {**size(32, 4096, 32, 128), "cross_layers": list(range(8, 32, 3))},
        "parameters": 7_852_569_856,
        "source": SOURCE.format("7.5B"),
    },
}
