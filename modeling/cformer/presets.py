"""The C-Former of X-LLM; counts are those of the model without the recogniser's heads."""

UNCERTAIN = "the encoder's depth and the shape of its convolutions are uncertain"
BERT = {"model_type": "zoo_mlm", "vocab_size": 21128}

PRESETS = {
    "cformer-tiny": {
        "config": {
            "encoder_config": {
                **{"model_type": "zoo_beats", "num_mel_bins": 32, "patch_size": 4, "patch_embedding_size": 32},
                **{"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4},
                **{"position_kernel_size": 16, "position_groups": 4, "num_buckets": 32, "max_distance": 64},
                **{"hidden_dropout": 0.0, "attention_dropout": 0.0},
            },
            "adaptor_config": {
                **{"model_type": "zoo_mlm", "vocab_size": 64, "hidden_size": 64, "intermediate_size": 128},
                **{"num_hidden_layers": 2, "num_attention_heads": 4, "max_position_embeddings": 64},
                **{"hidden_dropout": 0.0, "attention_dropout": 0.0},
            },
            **{"hidden_size": 48, "output_size": 64, "vocab_size": 512},
        },
        "parameters": 179_449,
        "source": "for tests and first steps",
    },
    "cformer-x-llm": {
        "config": {
            "encoder_config": {
                **{"model_type": "wav2vec2-conformer", "hidden_size": 512, "intermediate_size": 2048},
                **{"num_hidden_layers": 12, "num_attention_heads": 8, "position_embeddings_type": "relative"},
            },
            "adaptor_config": BERT,
        },
        "parameters": 188_431_745,
        "source": f"Chen et al. 2023, arXiv:2305.04160: BERT and the width of 512 are published, {UNCERTAIN}",
    },
    "cformer-x-llm-fc": {
        "config": {
            "encoder_config": {
                **{"model_type": "wav2vec2-conformer", "hidden_size": 512, "intermediate_size": 2048},
                **{"num_hidden_layers": 12, "num_attention_heads": 8, "position_embeddings_type": "relative"},
            },
        },
        "parameters": 85_312_129,
        "source": "as above, with the one linear layer that the authors' code offers instead of a BERT",
    },
}
