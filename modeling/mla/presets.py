"""Published sizes of DeepSeek-V2 and V3; the defaults of the config are V2-Lite's."""


def yarn(mscale: float) -> dict:
    """Context stretched from 4,096 tokens by 40."""
    return {
        **{"rope_type": "yarn", "rope_theta": 10000.0, "factor": 40.0, "original_max_position_embeddings": 4096},
        **{"beta_fast": 32.0, "beta_slow": 1.0, "mscale": mscale, "mscale_all_dim": mscale},
    }


PRESETS = {
    "mla-tiny": {
        "config": {
            "vocab_size": 512,
            "hidden_size": 64,
            "intermediate_size": 128,
            "moe_intermediate_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "kv_lora_rank": 24,
            "q_lora_rank": 32,
            "qk_nope_head_dim": 16,
            "qk_rope_head_dim": 8,
            "v_head_dim": 16,
            "router_type": "deepseek_v3",
            "num_experts": 8,
            "num_experts_per_tok": 2,
            "n_shared_experts": 1,
            "max_position_embeddings": 512,
            "initializer_range": 0.02,
            "pad_token_id": 0,
        },
        "parameters": 175_024,
        "source": "for tests and first steps",
    },
    "deepseek-v2-lite": {
        "config": {
            "rope_parameters": yarn(0.707),
            "router_aux_loss_coef": 0.001,
            "bos_token_id": 100000,
            "eos_token_id": 100001,
        },
        "parameters": 15_706_484_224,
        "source": "DeepSeek-AI 2024, arXiv:2405.04434; the constants of YaRN are uncertain",
    },
    "deepseek-v2": {
        "config": {
            "hidden_size": 5120,
            "intermediate_size": 12288,
            "moe_intermediate_size": 1536,
            "num_hidden_layers": 60,
            "num_attention_heads": 128,
            "q_lora_rank": 1536,
            "num_experts": 160,
            "n_group": 8,
            "topk_group": 3,
            "routed_scaling_factor": 16.0,
            "rope_parameters": yarn(0.707),
            "router_aux_loss_coef": 0.003,
            "bos_token_id": 100000,
            "eos_token_id": 100001,
        },
        "parameters": 235_741_434_880,
        "source": "DeepSeek-AI 2024, arXiv:2405.04434; the constants of YaRN are uncertain, and the losses that "
        "balance devices and communication are not there",
    },
    "deepseek-v3": {
        "config": {
            "vocab_size": 129280,
            "hidden_size": 7168,
            "intermediate_size": 18432,
            "moe_intermediate_size": 2048,
            "num_hidden_layers": 61,
            "num_attention_heads": 128,
            "q_lora_rank": 1536,
            "router_type": "deepseek_v3",
            "num_experts": 256,
            "num_experts_per_tok": 8,
            "n_shared_experts": 1,
            "n_group": 8,
            "topk_group": 4,
            "routed_scaling_factor": 2.5,
            "first_k_dense_replace": 3,
            "rope_parameters": yarn(1.0),
        },
        "parameters": 671_026_404_352,
        "source": "DeepSeek-AI 2024, arXiv:2412.19437, without the module of multi-token prediction "
        "(num_nextn_predict_layers=1 adds it); the constants of YaRN are uncertain",
    },
}
