"""Published sizes of BEATs; counts are those of the encoder, without heads and tokenizer."""

PRESETS = {
    "beats-tiny": {
        "config": {
            **{"num_mel_bins": 32, "patch_size": 8, "patch_embedding_size": 32, "hidden_size": 64},
            **{"intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4},
            **{"position_kernel_size": 16, "position_groups": 4, "num_buckets": 32, "max_distance": 64},
            **{"codebook_size": 32, "codebook_dim": 16, "num_estimator_layers": 1},
            **{"hidden_dropout": 0.0, "attention_dropout": 0.0},
        },
        "parameters": 88_168,
        "source": "for tests and first steps",
    },
    "beats-base": {
        "config": {},
        "parameters": 90_311_792,
        "source": "Chen et al. 2022, arXiv:2212.09058; all iterations",
    },
}
