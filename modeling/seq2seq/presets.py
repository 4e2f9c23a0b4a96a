"""Published sizes of the encoder-decoder; counts are those of the language model."""

VASWANI = (
    "Vaswani et al. 2017, arXiv:1706.03762; the vocabulary, about 37000, is uncertain, and so are the biases of "
    "attention: the paper counts 65 and 213 million"
)
T5 = "Raffel et al. 2019, arXiv:1910.10683"
T5_V1_1 = "the T5 1.1 release of 2020, after Shazeer 2020, arXiv:2002.05202"
CODET5 = "Wang et al. 2021, arXiv:2109.00859"


def size(layers: int, hidden: int, heads: int, intermediate: int, head_dim: int = 64) -> dict:
    """The five numbers that make a size."""
    return {
        "num_hidden_layers": layers,
        "hidden_size": hidden,
        "num_attention_heads": heads,
        "intermediate_size": intermediate,
        "head_dim": head_dim,
    }


def transformer(layers: int, hidden: int, heads: int, intermediate: int, dropout: float) -> dict:
    """The encoder-decoder of 2017."""
    return {
        **size(layers, hidden, heads, intermediate),
        "vocab_size": 37000,
        "block_layout": "post",
        "norm": "layer_norm",
        "positions": "sinusoidal",
        "attention_scaling": None,
        "attention_bias": True,
        "mlp_bias": True,
        "embedding_multiplier": hidden**0.5,
        "logit_multiplier": 1.0,
        "hidden_dropout": dropout,
        "attention_dropout": 0.0,
        "activation_dropout": 0.0,
    }


TEXT = {"tokenizer": "unigram", "sentinels": 100}
GATED = {"is_gated_mlp": True, "hidden_act": "gelu_new", "tie_word_embeddings": False}
# Its byte-level BPE has <pad>, <s>, </s> at 0, 1, 2, and decoding starts with <pad>
CODE = {"vocab_size": 32100, "bos_token_id": 1, "eos_token_id": 2}

PRESETS = {
    "seq2seq-tiny": {
        "config": {**size(2, 64, 4, 128, 16), "vocab_size": 512, "bos_token_id": 1, "eos_token_id": 2},
        "parameters": 197_632,
        "source": "for tests and first steps",
        "sentinels": 32,
    },
    "transformer-base": {"config": transformer(6, 512, 8, 2048, 0.1), "parameters": 63_082_496, "source": VASWANI},
    "transformer-big": {"config": transformer(6, 1024, 16, 4096, 0.3), "parameters": 214_245_376, "source": VASWANI},
    "t5-small": {"config": size(6, 512, 8, 2048), "parameters": 60_506_624, "source": T5, **TEXT},
    "t5-base": {"config": size(12, 768, 12, 3072), "parameters": 222_903_552, "source": T5, **TEXT},
    "t5-large": {"config": size(24, 1024, 16, 4096), "parameters": 737_668_096, "source": T5, **TEXT},
    "t5-3b": {"config": size(24, 1024, 32, 16384, 128), "parameters": 2_851_598_336, "source": T5, **TEXT},
    "t5-11b": {"config": size(24, 1024, 128, 65536, 128), "parameters": 11_307_321_344, "source": T5, **TEXT},
    "t5-v1.1-small": {
        "config": {**size(8, 512, 6, 1024), **GATED},
        "parameters": 76_961_152,
        "source": T5_V1_1,
        **TEXT,
    },
    "t5-v1.1-base": {
        "config": {**size(12, 768, 12, 2048), **GATED},
        "parameters": 247_577_856,
        "source": T5_V1_1,
        **TEXT,
    },
    "t5-v1.1-large": {
        "config": {**size(24, 1024, 16, 2816), **GATED},
        "parameters": 783_150_080,
        "source": T5_V1_1,
        **TEXT,
    },
    "t5-v1.1-xl": {
        "config": {**size(24, 2048, 32, 5120), **GATED},
        "parameters": 2_849_757_184,
        "source": T5_V1_1,
        **TEXT,
    },
    "t5-v1.1-xxl": {
        "config": {**size(24, 4096, 64, 10240), **GATED},
        "parameters": 11_135_332_352,
        "source": T5_V1_1,
        **TEXT,
    },
    "codet5-small": {
        "config": {**size(6, 512, 8, 2048), **CODE},
        "parameters": 60_492_288,
        "source": CODET5,
        "sentinels": 100,
    },
    "codet5-base": {
        "config": {**size(12, 768, 12, 3072), **CODE},
        "parameters": 222_882_048,
        "source": CODET5,
        "sentinels": 100,
    },
}
