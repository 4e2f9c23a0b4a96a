"""Published sizes of the dense decoder; the defaults of the config are LLaMA's."""

GPT2 = {
    "vocab_size": 50257,
    "max_position_embeddings": 1024,
    "norm": "layer_norm",
    "norm_eps": 1e-5,
    "hidden_act": "gelu_new",
    "is_gated_mlp": False,
    "positions": "learned",
    "attention_bias": True,
    "mlp_bias": True,
    "embedding_dropout": 0.1,
    "attention_dropout": 0.1,
    "residual_dropout": 0.1,
    "scale_residual_init": True,
    "tie_word_embeddings": True,
    "bos_token_id": 50256,
    "eos_token_id": 50256,
}
LLAMA2 = {"max_position_embeddings": 4096, "norm_eps": 1e-5}
OLMO = {
    "vocab_size": 50304,
    "norm": "layer_norm_without_affine",
    "norm_eps": 1e-5,
    "pad_token_id": 1,
    "bos_token_id": None,
    "eos_token_id": 50279,
}


def size(layers: int, hidden: int, heads: int, intermediate: int, key_value_heads: int | None = None) -> dict:
    """The five numbers that make a size."""
    return {
        "num_hidden_layers": layers,
        "hidden_size": hidden,
        "num_attention_heads": heads,
        "intermediate_size": intermediate,
        "num_key_value_heads": key_value_heads,
    }


PRESETS = {
    "llm-tiny": {
        "config": {**size(2, 64, 4, 192, 2), "vocab_size": 512, "max_position_embeddings": 512, "pad_token_id": 0},
        "parameters": 164_160,
        "source": "for tests and first steps",
    },
    "gpt2": {
        "config": {**GPT2, **size(12, 768, 12, 3072)},
        "parameters": 124_439_808,
        "source": "Radford et al. 2019",
    },
    "gpt2-medium": {
        "config": {**GPT2, **size(24, 1024, 16, 4096)},
        "parameters": 354_823_168,
        "source": "Radford et al. 2019",
    },
    "gpt2-large": {
        "config": {**GPT2, **size(36, 1280, 20, 5120)},
        "parameters": 774_030_080,
        "source": "Radford et al. 2019",
    },
    "gpt2-xl": {
        "config": {**GPT2, **size(48, 1600, 25, 6400)},
        "parameters": 1_557_611_200,
        "source": "Radford et al. 2019",
    },
    "llama-7b": {
        "config": size(32, 4096, 32, 11008),
        "parameters": 6_738_415_616,
        "source": "Touvron et al. 2023, arXiv:2302.13971",
    },
    "llama-13b": {
        "config": size(40, 5120, 40, 13824),
        "parameters": 13_015_864_320,
        "source": "Touvron et al. 2023, arXiv:2302.13971",
    },
    "llama-33b": {
        "config": size(60, 6656, 52, 17920),
        "parameters": 32_528_943_616,
        "source": "Touvron et al. 2023, arXiv:2302.13971",
    },
    "llama-65b": {
        "config": {**size(80, 8192, 64, 22016), "norm_eps": 1e-5},
        "parameters": 65_285_660_672,
        "source": "Touvron et al. 2023, arXiv:2302.13971; norm_eps is uncertain",
    },
    "llama2-7b": {
        "config": {**LLAMA2, **size(32, 4096, 32, 11008)},
        "parameters": 6_738_415_616,
        "source": "Touvron et al. 2023, arXiv:2307.09288",
    },
    "llama2-13b": {
        "config": {**LLAMA2, **size(40, 5120, 40, 13824)},
        "parameters": 13_015_864_320,
        "source": "Touvron et al. 2023, arXiv:2307.09288",
    },
    "llama2-70b": {
        "config": {**LLAMA2, **size(80, 8192, 64, 28672, 8)},
        "parameters": 68_976_648_192,
        "source": "Touvron et al. 2023, arXiv:2307.09288",
    },
    "mistral-7b-v0.1": {
        "config": {
            **size(32, 4096, 32, 14336, 8),
            "max_position_embeddings": 32768,
            "norm_eps": 1e-5,
            "sliding_window": 4096,
        },
        "parameters": 7_241_732_096,
        "source": "Jiang et al. 2023, arXiv:2310.06825",
    },
    "olmo-1b": {
        "config": {**OLMO, **size(16, 2048, 16, 8192), "tie_word_embeddings": True},
        "parameters": 1_176_764_416,
        "source": "Groeneveld et al. 2024, arXiv:2402.00838",
    },
    "olmo-7b": {
        "config": {**OLMO, **size(32, 4096, 32, 11008)},
        "parameters": 6_888_095_744,
        "source": "Groeneveld et al. 2024, arXiv:2402.00838",
    },
    "amber-7b": {
        "config": size(32, 4096, 32, 11008),
        "parameters": 6_738_415_616,
        "source": "Liu et al. 2023, arXiv:2312.06550",
    },
    "crystalcoder-7b": {
        "config": {
            **size(32, 4096, 32, 10922),
            "vocab_size": 32032,
            "norm": "layer_norm",
            "norm_eps": 1e-5,
            "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.25},
            "attention_bias": True,
            "mlp_bias": True,
            "attention_scaling": 1 / 128,
            "embedding_multiplier": 14.6,
            "logit_multiplier": 2.22 * 0.0625,
        },
        "parameters": 6_706_481_792,
        "source": "Liu et al. 2023, arXiv:2312.06550; biases and intermediate_size are uncertain",
    },
    "bloomberggpt-50b": {
        "config": {
            **size(70, 7680, 40, 30720),
            "vocab_size": 131072,
            "norm": "layer_norm",
            "norm_eps": 1e-5,
            "hidden_act": "gelu_new",
            "is_gated_mlp": False,
            "positions": "alibi",
            "attention_bias": True,
            "mlp_bias": True,
            "norm_embeddings": True,
            "initializer_range": 0.00659,
            "scale_residual_init": True,
            "tie_word_embeddings": True,
        },
        "parameters": 50_558_868_480,
        "source": "Wu et al. 2023, arXiv:2303.17564",
    },
    "starcoder-15.5b": {
        "config": {
            **GPT2,
            **size(40, 6144, 48, 24576, 1),
            "vocab_size": 49152,
            "max_position_embeddings": 8192,
            "hidden_act": "gelu_pytorch_tanh",
            "bos_token_id": 0,
            "eos_token_id": 0,
        },
        "parameters": 15_517_456_384,
        "source": "Li et al. 2023, arXiv:2305.06161",
    },
    "wizardcoder-15b": {
        "config": {
            **GPT2,
            **size(40, 6144, 48, 24576, 1),
            "vocab_size": 49153,
            "max_position_embeddings": 8192,
            "hidden_act": "gelu_pytorch_tanh",
            "pad_token_id": 49152,
            "bos_token_id": 0,
            "eos_token_id": 0,
        },
        "parameters": 15_517_462_528,
        "source": "Luo et al. 2023, arXiv:2306.08568; the one added token is uncertain",
    },
}

# How published models were made of a base: data for `hf_zoo.recipe`
RECIPES = {
    "wizardcoder": {
        "base": "starcoder-15.5b",
        "lora": None,
        "template": (
            "Below is an instruction that describes a task. Write a response that appropriately completes the request."
            "\n\n### Instruction:\n{instruction}\n\n### Response:"
        ),
        "training": {"learning_rate": 2e-5, "warmup_steps": 30, "max_steps": 200, "lr_scheduler_type": "cosine"},
        "source": "Luo et al. 2023, arXiv:2306.08568; all weights, batches of 512 rows of 2,048 tokens",
    },
    "fingpt": {
        "base": "llama2-7b",
        "lora": {"r": 8, "lora_alpha": 32, "lora_dropout": 0.1, "target_modules": ["q_proj", "k_proj", "v_proj"]},
        "template": "Instruction: {instruction}\nInput: {input}\nAnswer: ",
        "training": {"learning_rate": 1e-4},
        "source": "Yang et al. 2023, arXiv:2306.06031; the adapter's numbers and the learning rate are uncertain",
    },
}
