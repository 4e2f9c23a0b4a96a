"""Sizes of large action models: published decoders that were tuned for calling functions, with this package's heads.

The counts are those of the decoder and, after the plus sign of each source, of our own heads, which nobody published.
"""

LLAMA = {"model_type": "llama", "rms_norm_eps": 1e-5}
LLAMA3 = {
    **LLAMA,
    **{"vocab_size": 128256, "num_key_value_heads": 8, "max_position_embeddings": 131072},
    **{"bos_token_id": 128000, "eos_token_id": 128009},
    "rope_parameters": {
        **{"rope_type": "llama3", "rope_theta": 500000.0, "factor": 8.0, "low_freq_factor": 1.0},
        **{"high_freq_factor": 4.0, "original_max_position_embeddings": 8192},
    },
}
QWEN = {
    **{"model_type": "qwen2", "max_position_embeddings": 32768, "rms_norm_eps": 1e-6},
    **{"rope_parameters": {"rope_type": "default", "rope_theta": 1000000.0}, "bos_token_id": 151643},
    "eos_token_id": 151645,
}
MIXTRAL = {
    **{"model_type": "mixtral", "num_key_value_heads": 8, "rms_norm_eps": 1e-5},
    "rope_parameters": {"rope_type": "default", "rope_theta": 1000000.0},
}
DEEPSEEK_CODER = {
    **{"model_type": "llama", "vocab_size": 32256, "max_position_embeddings": 16384, "rms_norm_eps": 1e-6},
    "rope_parameters": {"rope_type": "linear", "factor": 4.0, "rope_theta": 100000.0},
    **{"bos_token_id": 32013, "eos_token_id": 32014},
}


def size(layers: int, hidden: int, heads: int, intermediate: int) -> dict:
    """The four numbers that make a size."""
    return {
        "num_hidden_layers": layers,
        "hidden_size": hidden,
        "num_attention_heads": heads,
        "intermediate_size": intermediate,
    }


PRESETS = {
    "lam-tiny": {
        "config": {
            "text_config": {
                **{"model_type": "zoo_llm", **size(2, 64, 4, 192), "num_key_value_heads": 2, "vocab_size": 512},
                **{"max_position_embeddings": 512, "pad_token_id": 0},
            },
            **{"num_profile_vectors": 4, "num_profile_values": 4, "tool_dim": 64, "binder_dim": 64, "num_subgoals": 8},
            **{"subgoal_dim": 16, "working_slots": 4, "episodic_dim": 64, "episodic_capacity": 128},
            "latent_dim": 64,
        },
        "parameters": 340_936,
        "source": "for tests and first steps",
    },
}


def xlam(core: dict, parameters: int, of_core: int, base: str, source: str, is_tied: bool = False) -> dict:
    """A published decoder with our heads."""
    heads = f"{parameters - of_core:,}"
    return {
        "config": {"text_config": {**core, "tie_word_embeddings": is_tied}, "tie_word_embeddings": is_tied},
        "parameters": parameters,
        "source": f"{source}; the decoder is {base} with {of_core:,}, our heads add {heads}",
    }


XLAM = "Zhang et al. 2024, arXiv:2409.03215"
XLAM_2 = "Prabhakar et al. 2025, arXiv:2504.03601"
QWEN_3B = {**QWEN, **size(36, 2048, 16, 11008), "num_key_value_heads": 2, "vocab_size": 151936}
QWEN_1_5B = {**QWEN, **size(28, 1536, 12, 8960), "num_key_value_heads": 2, "vocab_size": 151936}
QWEN_32B = {**QWEN, **size(64, 5120, 40, 27648), "num_key_value_heads": 8, "vocab_size": 152064}
MIXTRAL_7B = {**MIXTRAL, **size(32, 4096, 32, 14336), "vocab_size": 32000, "max_position_embeddings": 32768}
MIXTRAL_22B = {**MIXTRAL, **size(56, 6144, 48, 16384), "vocab_size": 32000, "max_position_embeddings": 65536}
DEEPSEEK_1B = {**DEEPSEEK_CODER, **size(24, 2048, 16, 5504)}
DEEPSEEK_7B = {
    **DEEPSEEK_CODER,
    **size(30, 4096, 32, 11008),
    **{"vocab_size": 102400, "max_position_embeddings": 4096, "bos_token_id": 100000, "eos_token_id": 100001},
    "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
}

PRESETS |= {
    "xlam-1b": xlam(DEEPSEEK_1B, 1_435_598_376, 1_346_471_936, "DeepSeek-Coder-1.3B", XLAM),
    "xlam-7b": xlam(DEEPSEEK_7B, 7_246_136_872, 6_910_365_696, "DeepSeek-Coder-7B-v1.5", XLAM),
    "xlam-8x7b": xlam(MIXTRAL_7B, 47_038_563_880, 46_702_792_704, "Mixtral-8x7B", XLAM),
    "xlam-8x22b": xlam(MIXTRAL_22B, 141_362_433_576, 140_620_634_112, "Mixtral-8x22B", XLAM),
    "xlam-2-1b": xlam(QWEN_1_5B, 1_596_083_240, 1_543_714_304, "Qwen2.5-1.5B", XLAM_2, is_tied=True),
    "xlam-2-3b": xlam(QWEN_3B, 3_175_065_128, 3_085_938_688, "Qwen2.5-3B", XLAM_2, is_tied=True),
    "xlam-2-8b": xlam({**LLAMA3, **size(32, 4096, 32, 14336)}, 8_366_032_424, 8_030_261_248, "LLaMA-3.1-8B", XLAM_2),
    "xlam-2-32b": xlam(QWEN_32B, 33_282_738_728, 32_763_876_352, "Qwen2.5-32B", XLAM_2),
    "xlam-2-70b": xlam(
        {**LLAMA3, **size(80, 8192, 64, 28672)}, 71_860_917_800, 70_553_706_496, "LLaMA-3.1-70B", XLAM_2
    ),
}
