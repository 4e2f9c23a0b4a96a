"""Published sizes of Longformer; counts are those of the encoder with its pooler."""

SOURCE = "Beltagy et al. 2020, arXiv:2004.05150"

PRESETS = {
    "longformer-tiny": {
        "config": {
            **{"num_hidden_layers": 2, "hidden_size": 64, "num_attention_heads": 4, "intermediate_size": 256},
            **{"vocab_size": 512, "max_position_embeddings": 1026, "attention_window": 8},
        },
        "parameters": 227_712,
        "source": "for tests and first steps",
        "tokenizer": "wordpiece",
    },
    "longformer-base-4096": {"config": {}, "parameters": 148_659_456, "source": SOURCE, "tokenizer": "wordpiece"},
    "longformer-large-4096": {
        "config": {
            **{"num_hidden_layers": 24, "hidden_size": 1024, "num_attention_heads": 16, "intermediate_size": 4096},
        },
        "parameters": 434_600_960,
        "source": SOURCE,
        "tokenizer": "wordpiece",
    },
}
