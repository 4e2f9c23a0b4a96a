"""Published sizes of decoders with routed experts; the defaults of the config are Mixtral's.

Switch and GShard are encoder-decoders with relative position biases: what stands here is their decoder stack, without
cross-attention and with rotary positions, under names that say so.
"""


def size(layers: int, hidden: int, heads: int, key_value_heads: int | None = None) -> dict:
    """The four numbers that make the size of the attention."""
    return {
        "num_hidden_layers": layers,
        "hidden_size": hidden,
        "num_attention_heads": heads,
        "num_key_value_heads": heads if key_value_heads is None else key_value_heads,
    }


DEEPSEEK = {
    "router_type": "deepseek",
    "vocab_size": 102400,
    "max_position_embeddings": 4096,
    "norm_eps": 1e-6,
    "initializer_range": 0.006,
    "bos_token_id": 100000,
    "eos_token_id": 100001,
}
SWITCH = {
    "router_type": "switch",
    "num_experts_per_tok": 1,
    "vocab_size": 32128,
    "max_position_embeddings": 512,
    "norm_eps": 1e-6,
    "head_dim": 64,
    "hidden_act": "gelu_new",
    "pad_token_id": 0,
    "bos_token_id": 0,
    "eos_token_id": 1,
}

PRESETS = {
    "moe-tiny": {
        "config": {
            **size(2, 64, 4, 2),
            "vocab_size": 512,
            "intermediate_size": 64,
            "num_experts": 8,
            "max_position_embeddings": 512,
            "pad_token_id": 0,
        },
        "parameters": 288_064,
        "source": "for tests and first steps",
    },
    "mixtral-8x7b": {
        "config": {**size(32, 4096, 32, 8), "rope_parameters": {"rope_type": "default", "rope_theta": 1e6}},
        "parameters": 46_702_792_704,
        "source": "Jiang et al. 2024, arXiv:2401.04088",
    },
    "deepseekmoe-16b": {
        "config": {
            **DEEPSEEK,
            **size(28, 2048, 16),
            "intermediate_size": 10944,
            "moe_intermediate_size": 1408,
            "num_experts": 64,
            "num_experts_per_tok": 6,
            "n_shared_experts": 2,
            "first_k_dense_replace": 1,
        },
        "parameters": 16_375_728_128,
        "source": "Dai et al. 2024, arXiv:2401.06066",
    },
    "deepseekmoe-2b": {
        "config": {
            **DEEPSEEK,
            **size(9, 1280, 10),
            "vocab_size": 8192,
            "bos_token_id": 0,
            "eos_token_id": 1,
            "intermediate_size": 3413,
            "moe_intermediate_size": 853,
            "num_experts": 63,
            "num_experts_per_tok": 7,
            "n_shared_experts": 1,
            "router_aux_loss_coef": 0.01,
        },
        "parameters": 1_967_403_520,
        "source": "Dai et al. 2024, arXiv:2401.06066; vocabulary and the experts' width are uncertain",
    },
    "switch-base-decoder": {
        "config": {
            **SWITCH,
            **size(12, 768, 12),
            "intermediate_size": 2048,
            "num_experts": 128,
            "moe_layer_freq": 2,
        },
        "parameters": 3_730_459_392,
        "source": "decoder stack of Switch-Base, Fedus et al. 2021, arXiv:2101.03961; the published 7B are an "
        "encoder-decoder",
    },
    "switch-large-decoder": {
        "config": {
            **SWITCH,
            **size(24, 1024, 16),
            "intermediate_size": 2816,
            "num_experts": 128,
            "moe_layer_freq": 2,
        },
        "parameters": 13_559_448_576,
        "source": "decoder stack of Switch-Large, Fedus et al. 2021, arXiv:2101.03961; the published 26B are an "
        "encoder-decoder",
    },
    "switch-xxl-decoder": {
        "config": {**SWITCH, **size(24, 4096, 64), "intermediate_size": 10240, "num_experts": 64},
        "parameters": 195_153_825_792,
        "source": "decoder stack of Switch-XXL, Fedus et al. 2021, arXiv:2101.03961; the published 395B are an "
        "encoder-decoder; vocabulary and experts in every layer are uncertain",
    },
    "switch-c-decoder": {
        "config": {
            **SWITCH,
            **size(15, 2080, 32),
            "intermediate_size": 6144,
            "num_experts": 2048,
            "hidden_act": "relu",
            "is_gated_mlp": False,
        },
        "parameters": 785_626_913_760,
        "source": "decoder stack of Switch-C, Fedus et al. 2021, arXiv:2101.03961; the published 1.6T are an "
        "encoder-decoder; vocabulary is uncertain",
    },
    "gshard-600b-decoder": {
        "config": {
            **size(36, 1024, 16),
            "router_type": "gshard",
            "intermediate_size": 8192,
            "num_experts": 2048,
            "moe_layer_freq": 2,
            "vocab_size": 64000,
            "max_position_embeddings": 1024,
            "hidden_act": "relu",
            "is_gated_mlp": False,
            "norm": "layer_norm",
            "head_dim": 128,
        },
        "parameters": 619_248_240_640,
        "source": "Lepikhin et al. 2020, arXiv:2006.16668, all 36 layers as one decoder stack, which has the "
        "published 600B; vocabulary, head size and norm are uncertain",
    },
}
