"""The three published sizes of Gato and a tiny one; counts are those of the model with its tied head."""

SOURCE = (
    "Reed et al. 2022, arXiv:2205.06175; layers, width and heads are published, that the GEGLU splits the published "
    "feed-forward width and the channels of the patch embedding are uncertain, and so is the total"
)


def size(layers: int, hidden: int, heads: int, feed_forward: int) -> dict:
    """The published numbers; both halves of the GEGLU together are `feed_forward` wide."""
    return {
        "num_hidden_layers": layers,
        "hidden_size": hidden,
        "num_attention_heads": heads,
        "intermediate_size": feed_forward // 2,
    }


PRESETS = {
    "gato-tiny": {
        "config": {
            **size(2, 64, 4, 256),
            **{"text_vocab_size": 512, "num_bins": 1024, "num_discrete": 16, "vocab_size": 1554},
            **{"num_local_positions": 64, "patch_channels": 8, "patch_groups": 4, "stochastic_depth": 0.0},
        },
        "parameters": 401_872,
        "source": "for tests and first steps",
    },
    "gato-79m": {"config": size(8, 768, 24, 3072), "parameters": 93_839_808, "source": SOURCE},
    "gato-364m": {"config": size(12, 1536, 12, 6144), "parameters": 376_334_016, "source": SOURCE},
    "gato-1.18b": {"config": size(24, 2048, 16, 8192), "parameters": 1_131_187_392, "source": SOURCE},
}
