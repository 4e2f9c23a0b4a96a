"""Published sizes of DeBERTa, versions 1 to 3; counts are those of the encoder without a head."""


def size(layers: int, hidden: int, heads: int, vocab: int) -> dict:
    """The four numbers that make a size; the feed-forward network is four times as wide."""
    return {
        "num_hidden_layers": layers,
        "hidden_size": hidden,
        "num_attention_heads": heads,
        "intermediate_size": 4 * hidden,
        "vocab_size": vocab,
    }


VERSION_1 = {
    **{"position_terms": ["c2p", "p2c"], "position_buckets": 0, "norm_relative": False},
    **{"share_projections": False, "key_bias": False, "legacy_head": False},
}
VERSION_2 = {"conv_kernel_size": 3, "conv_act": "gelu", "legacy_head": False}
VERSION_3 = {"legacy_head": False}
FIRST = "He et al. 2020, arXiv:2006.03654"
SECOND = "the authors' release of version 2, arXiv:2006.03654"
THIRD = "He et al. 2021, arXiv:2111.09543"

PRESETS = {
    "deberta-tiny": {
        "config": {**size(2, 64, 4, 512), "position_buckets": 32, "conv_kernel_size": 3, "conv_act": "gelu"},
        "parameters": 149_568,
        "source": "for tests and first steps",
        "tokenizer": "wordpiece",
    },
    "deberta-base": {
        "config": {**size(12, 768, 12, 50265), **VERSION_1},
        "parameters": 138_601_728,
        "source": FIRST,
        "tokenizer": "wordpiece",
    },
    "deberta-large": {
        "config": {**size(24, 1024, 16, 50265), **VERSION_1},
        "parameters": 405_163_008,
        "source": FIRST,
        "tokenizer": "wordpiece",
    },
    "deberta-xlarge": {
        "config": {**size(48, 1024, 16, 50265), **VERSION_1},
        "parameters": 757_804_032,
        "source": FIRST,
        "tokenizer": "wordpiece",
    },
    "deberta-v2-xlarge": {
        "config": {**size(24, 1536, 24, 128100), **VERSION_2},
        "parameters": 884_593_152,
        "source": SECOND,
        "tokenizer": "wordpiece",
    },
    "deberta-v2-xxlarge": {
        "config": {**size(48, 1536, 24, 128100), **VERSION_2},
        "parameters": 1_564_549_632,
        "source": SECOND,
        "tokenizer": "wordpiece",
    },
    "deberta-v3-xsmall": {
        "config": {**size(12, 384, 6, 128100), **VERSION_3},
        "parameters": 70_682_112,
        "source": f"{THIRD}; the release's smallest size",
        "tokenizer": "wordpiece",
    },
    "deberta-v3-small": {
        "config": {**size(6, 768, 12, 128100), **VERSION_3},
        "parameters": 141_304_320,
        "source": THIRD,
        "tokenizer": "wordpiece",
    },
    "deberta-v3-base": {
        "config": {**size(12, 768, 12, 128100), **VERSION_3},
        "parameters": 183_831_552,
        "source": THIRD,
        "tokenizer": "wordpiece",
    },
    "deberta-v3-large": {
        "config": {**size(24, 1024, 16, 128100), **VERSION_3},
        "parameters": 434_012_160,
        "source": THIRD,
        "tokenizer": "wordpiece",
    },
}
