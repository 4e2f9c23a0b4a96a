"""Sizes of hybrids."""


def jamba(layers: int) -> dict:
    """One layer in eight has attention, the fifth of them; every second has 16 experts, of which a token takes 2."""
    return {
        "num_hidden_layers": layers,
        "layer_types": ["full_attention" if i % 8 == 4 else "mamba" for i in range(layers)],
        "mlp_types": ["moe" if i % 2 else "mlp" for i in range(layers)],
        "positions": "none",
        "vocab_size": 65536,
        "num_key_value_heads": 8,
        "max_position_embeddings": 262_144,
        "options": {"moe": {"num_experts": 16, "router_aux_loss_coef": 0.001}},
    }


JAMBA = "the shape of Jamba, Lieber et al. 2024, arXiv:2403.19887, without the norms inside its Mamba layers"

PRESETS = {
    "hybrid-tiny": {
        "config": {
            **{"vocab_size": 512, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2},
            **{"num_attention_heads": 4, "num_key_value_heads": 2},
            "layer_types": ["mamba2", "full_attention"],
            "mlp_types": ["mlp", "moe"],
            "options": {
                "mamba2": {"head_dim": 16, "state_size": 16},
                "moe": {"num_experts": 8, "moe_intermediate_size": 64},
            },
        },
        "parameters": 229_624,
        "source": "for tests and first steps",
    },
    "jamba-v0.1": {
        "config": {**jamba(32), "hidden_size": 4096, "intermediate_size": 14336, "num_attention_heads": 32},
        "parameters": 51_570_315_264,
        "source": JAMBA,
    },
    "jamba-1.5-large": {
        "config": {**jamba(72), "hidden_size": 8192, "intermediate_size": 24576, "num_attention_heads": 64},
        "parameters": 398_555_111_424,
        "source": JAMBA + "; Jamba team 2024, arXiv:2408.12570, 398 B, sizes as recalled",
    },
}
