"""Published sizes of next-concept prediction, with vectors of SONAR's size; the encoder and the decoder are apart.

Feed-forward networks are 2/3 of four times the hidden size wide, rounded up to a multiple of 256.
"""

LCM = "Barault et al. 2024, arXiv:2412.08821, and the configuration that its authors published"


def size(hidden: int, heads: int, intermediate: int, layers: int) -> dict:
    """What the authors set alike: biases in attention and MLP, rotary positions, RMS norm, dropout of 0.1."""
    return {
        **{"hidden_size": hidden, "num_attention_heads": heads, "intermediate_size": intermediate},
        **{"num_hidden_layers": layers, "max_position_embeddings": 4096, "residual_dropout": 0.1},
        **{"attention_bias": True, "mlp_bias": True},
    }


NOTE = "counts queries and keys that see only themselves, which are not here"

PRESETS = {
    "concept-predictor-tiny": {
        "config": {
            **{"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4},
            **{"sentence_size": 32, "num_denoiser_layers": 2, "num_diffusion_steps": 20, "num_sampling_steps": 10},
            **{"num_codebooks": 4, "codebook_size": 16},
        },
        "parameters": 282_784,
        "source": "for tests and first steps",
    },
    "base-lcm-1.6b": {
        "config": {"concept_head": "regression", **size(2048, 16, 5632, 32)},
        "parameters": 1_649_185_792,
        "source": f"{LCM}; its note of 1,647,635,456 is 0.1 % below what these sizes come to",
    },
    "two-tower-lcm-1.6b": {
        "config": {"concept_head": "two_tower", **size(2048, 16, 5632, 5), "num_denoiser_layers": 13},
        "parameters": 1_536_433_152,
        "source": f"{LCM}; its note of 1,635,101,696 {NOTE}",
    },
    "two-tower-lcm-7b": {
        "config": {"concept_head": "two_tower", **size(4096, 32, 11008, 5), "num_denoiser_layers": 14},
        "parameters": 6_460_904_960,
        "source": f"{LCM}; its note of 6,930,781,696 {NOTE}",
    },
}
