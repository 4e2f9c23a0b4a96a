"""Published sizes of hierarchical encoders; counts are those of the encoder with its pooler."""

HAT = "Chalkidis et al. 2022, arXiv:2210.05529"
BEHRT = "Li et al. 2021, arXiv:2106.11360"

PRESETS = {
    "hibert-tiny": {
        "config": {
            **{"num_hidden_layers": 2, "layout": "SD", "hidden_size": 64, "num_attention_heads": 4},
            **{"intermediate_size": 256, "vocab_size": 512, "segment_size": 16, "max_position_embeddings": 16},
            **{"position_offset": 0, "pad_token_id": 0, "bos_token_id": None, "eos_token_id": None},
        },
        "parameters": 140_224,
        "source": "for tests and first steps",
        "tokenizer": "wordpiece",
    },
    "hat-base-4096": {
        "config": {},
        "parameters": 152_803_584,
        "source": f"{HAT}; interleaved, the pooling is a choice of the task",
    },
    "hat-base-4096-late": {
        "config": {"layout": "SSSSSSDSSDSSDSSD", "num_hidden_layers": 16},
        "parameters": 152_803_584,
        "source": f"{HAT}; the authors' layout l1",
    },
    "hat-base-4096-adhoc": {
        "config": {"layout": "SSSSSSSSSSSSDDDD", "num_hidden_layers": 16},
        "parameters": 152_803_584,
        "source": f"{HAT}; ad hoc, the authors' layout f12",
    },
    "hat-small-8192": {
        "config": {
            **{"hidden_size": 256, "num_attention_heads": 8, "intermediate_size": 512, "vocab_size": 50000},
            **{"num_hidden_layers": 8, "max_segments": 64},
        },
        "parameters": 17_149_952,
        "source": f"{HAT}; sizes of the authors' example configuration, the layout (6 S, 2 D) is uncertain",
    },
    "hi-behrt": {
        "config": {
            **{"num_hidden_layers": 8, "layout": "SSSSDDDD", "hidden_size": 150, "num_attention_heads": 6},
            **{"intermediate_size": 108, "segment_size": 50, "segment_stride": 30, "max_segments": 40},
            **{"segment_summary": "mean", "pooling": "first", "vocab_size": 3000, "num_ages": 110},
            **{"type_vocab_size": 2, "max_position_embeddings": 1220, "position_offset": 0, "pad_token_id": 0},
            **{"bos_token_id": None, "eos_token_id": None, "hidden_dropout": 0.2, "attention_dropout": 0.2},
        },
        "parameters": 1_688_214,
        "source": f"{BEHRT}; sizes are uncertain, and the vocabulary is that of the data: 3,000 stands for it",
    },
}
