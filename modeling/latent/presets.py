"""Sizes of the Multihead Latent Transformer; none are published."""


def size(hidden: int, layers: int, heads: int, latent: int, intermediate: int) -> dict:
    """The numbers that make a size."""
    return {
        **{"hidden_size": hidden, "num_hidden_layers": layers, "num_attention_heads": heads},
        **{"latent_dim": latent, "intermediate_size": intermediate},
    }


PRESETS = {
    "latent-tiny": {
        "config": {**size(128, 2, 4, 32, 256), "vocab_size": 512, "max_position_embeddings": 512, "pad_token_id": 0},
        "parameters": 425_384,
        "source": "for tests and first steps",
    },
    "latent-small": {"config": size(768, 12, 12, 64, 2048), "parameters": 121_847_376, "source": "a size of our own"},
    "latent-base": {
        "config": size(2048, 24, 16, 128, 5504),
        "parameters": 1_163_714_944,
        "source": "a size of our own",
    },
}
