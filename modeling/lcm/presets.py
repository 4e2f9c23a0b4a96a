"""Sizes of the large concept model with a graph: of our own design, since none are published."""

# Next-concept prediction as small as the rest
PREDICTOR = {
    **{"model_type": "zoo_concept_predictor", "concept_head": "regression", "hidden_size": 32, "sentence_size": 32},
    **{"intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 4},
    "encoder_config": {
        **{"model_type": "zoo_mlm", "vocab_size": 512, "hidden_size": 32, "intermediate_size": 64},
        **{"num_hidden_layers": 1, "num_attention_heads": 4},
    },
}

PRESETS = {
    "lcm-tiny": {
        "config": {
            "vocab_size": 512,
            "hidden_size": 64,
            "intermediate_size": 192,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": 512,
            "sentence_token_ids": [5],
            "cross_every": 1,
            "num_entities": 48,
            "num_relations": 6,
            "num_edges": 160,
            "num_linked": 4,
            "num_free_slots": 2,
            "num_bases": 2,
            "level_sizes": [4, 2],
            "taxonomy_relations": [0],
            "predictor_config": PREDICTOR,
            "pad_token_id": 0,
        },
        "parameters": 650_340,
        "source": "for tests and first steps",
    },
    "lcm-150m": {
        "config": {
            "hidden_size": 768,
            "intermediate_size": 2048,
            "num_hidden_layers": 12,
            "num_attention_heads": 12,
            "concept_size": 384,
            "num_entities": 16384,
            "num_relations": 64,
            "tie_word_embeddings": True,
        },
        "parameters": 149_358_478,
        "source": "our own design: the width and depth of GPT-2, with room for a graph of 16,384 entities",
    },
    "lcm-1.6b": {
        "config": {
            "hidden_size": 2048,
            "intermediate_size": 5632,
            "num_hidden_layers": 24,
            "num_attention_heads": 16,
            "max_position_embeddings": 4096,
            "cross_every": 6,
            "concept_size": 512,
            "num_entities": 131072,
            "num_relations": 256,
            "num_linked": 32,
            "level_sizes": [32, 8],
        },
        "parameters": 1_646_872_084,
        "source": "our own design: a decoder of 1.3 billion parameters, with room for a graph of 131,072 entities",
    },
}
