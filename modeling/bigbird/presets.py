"""Published sizes of BigBird; counts are those of the encoder with its pooler."""

SOURCE = "Zaheer et al. 2020, arXiv:2007.14062"

PRESETS = {
    "bigbird-tiny": {
        "config": {
            **{"num_hidden_layers": 2, "hidden_size": 64, "num_attention_heads": 4, "intermediate_size": 256},
            **{"vocab_size": 512, "max_position_embeddings": 1024, "block_size": 8, "num_random_blocks": 1},
        },
        "parameters": 202_688,
        "source": "for tests and first steps",
        "tokenizer": "wordpiece",
    },
    "bigbird-roberta-base": {"config": {}, "parameters": 127_468_800, "source": SOURCE, "tokenizer": "wordpiece"},
    "bigbird-roberta-large": {
        "config": {
            **{"num_hidden_layers": 24, "hidden_size": 1024, "num_attention_heads": 16, "intermediate_size": 4096},
        },
        "parameters": 359_123_968,
        "source": SOURCE,
        "tokenizer": "wordpiece",
    },
}
