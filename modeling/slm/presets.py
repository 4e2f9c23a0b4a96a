"""A small mixture, and published sizes of linear transformers and of ALBERT; counts are those of the trunk."""


def size(layers: int, hidden: int, heads: int) -> dict:
    """The three numbers that make a size; the feed-forward network is four times as wide."""
    return {
        "num_hidden_layers": layers,
        "hidden_size": hidden,
        "num_attention_heads": heads,
        "intermediate_size": 4 * hidden,
    }


ALBERT = {
    "vocab_size": 30000,
    "embedding_size": 128,
    "max_position_embeddings": 512,
    "type_vocab_size": 2,
    "positions": "learned",
    "sharing": "all",
    "block_layout": "post",
    "norm": "layer_norm",
    "norm_eps": 1e-12,
    "norm_embeddings": True,
    "hidden_act": "gelu_new",
    "feed_forward": "plain",
    "attention_bias": True,
    "mlp_bias": True,
    "is_causal": False,
    "classifier_dropout": 0.1,
    "pad_token_id": 0,
    "bos_token_id": 2,
    "eos_token_id": 3,
}
LINEAR = {
    "vocab_size": 256,
    "positions": "learned",
    "norm": "layer_norm",
    "norm_eps": 1e-5,
    "hidden_act": "gelu",
    "feed_forward": "plain",
    "attention_bias": True,
    "mlp_bias": True,
    "bos_token_id": None,
    "eos_token_id": None,
}
LAN = "Lan et al. 2019, arXiv:1909.11942, without dropout as in version 2"
KATHAROPOULOS = "Katharopoulos et al. 2020, arXiv:2006.16236, with 256 grey values as tokens"


def albert(layers: int, hidden: int, heads: int, parameters: int) -> dict:
    """A preset of ALBERT."""
    return {
        "config": {**ALBERT, **size(layers, hidden, heads)},
        "parameters": parameters,
        "source": LAN,
        "tokenizer": "wordpiece",
        "task": "masked-lm",
    }


def linear(layers: int, pixels: int, parameters: int, uncertain: str) -> dict:
    """A preset of the linear transformer that draws images."""
    kinds = {"layer_types": ["linear_attention"] * layers, "max_position_embeddings": pixels}
    return {
        "config": {**LINEAR, **size(layers, 256, 8), **kinds},
        "parameters": parameters,
        "source": f"{KATHAROPOULOS}; {uncertain}",
    }


PRESETS = {
    "slm-tiny": {
        "config": {
            **size(2, 64, 4),
            "intermediate_size": 128,
            "vocab_size": 512,
            "max_position_embeddings": 512,
            "num_key_value_heads": 2,
            "layer_types": ["linear_attention", "sliding_attention"],
            "sliding_window": 6,
            "linear_chunk_size": 5,
            "pad_token_id": 0,
        },
        "parameters": 110_912,
        "source": "for tests and first steps",
    },
    "linear-transformer-mnist": linear(8, 784, 6_584_832, "biases and norms are uncertain"),
    "linear-transformer-cifar10": linear(8, 3072, 7_170_560, "the number of layers, biases and norms are uncertain"),
    "albert-base-v2": albert(12, 768, 12, 11_683_584),
    "albert-large-v2": albert(24, 1024, 16, 17_683_968),
    "albert-xlarge-v2": albert(24, 2048, 16, 58_724_864),
    "albert-xxlarge-v2": albert(12, 4096, 64, 222_595_584),
}
