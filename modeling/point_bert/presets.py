"""Published sizes of Point-BERT; counts are those of the encoder with its projection, without heads and tokenizer."""

ULIP = "Xue et al. 2022, arXiv:2212.05171; Yu et al. 2021, arXiv:2111.14819"

PRESETS = {
    "point-bert-tiny": {
        "config": {
            **{"num_points": 128, "num_groups": 16, "group_size": 8, "group_embedding_size": 32, "position_size": 16},
            **{"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4},
            **{"codebook_size": 64, "codebook_dim": 16, "graph_size": 8, "folding_size": 32},
        },
        "parameters": 77_088,
        "source": "for tests and first steps",
    },
    "point-bert-base": {
        "config": {"num_points": 1024, "num_groups": 64},
        "parameters": 21_858_816,
        "source": "Yu et al. 2021, arXiv:2111.14819, as for classification",
    },
    "point-bert-ulip": {
        "config": {"projection_dim": 512},
        "parameters": 22_252_032,
        "source": ULIP,
    },
    "point-bert-ulip2": {
        "config": {"projection_dim": 1280},
        "parameters": 22_841_856,
        "source": "ULIP-2, arXiv:2305.08275, as in its authors' code",
    },
    "point-bert-ulip2-18": {
        "config": {"projection_dim": 1280, "num_hidden_layers": 18, "num_channels": 6, "num_points": 10_000},
        "parameters": 33_482_112,
        "source": "ULIP-2, arXiv:2305.08275, coloured points; its depth is published, that its width is that of the "
        "smaller one is uncertain",
    },
}
