"""Published sizes of RWKV-7 World."""


def size(hidden: int, layers: int, ranks: tuple[int, int, int, int] = (64, 64, 32, 128)) -> dict:
    """Width, depth, and the ranks for decay, rate, value and gate."""
    names = ("decay_rank", "rate_rank", "value_rank", "gate_rank")
    return {"hidden_size": hidden, "num_hidden_layers": layers, **dict(zip(names, ranks, strict=True))}


SOURCE = "Peng et al. 2025, arXiv:2503.14456, and the authors' code RWKV-LM/RWKV-v7"
RANKS = f"{SOURCE}; the four ranks are uncertain, though the count is the published one"

PRESETS = {
    "rwkv7-tiny": {
        "config": {
            **size(64, 2, (16, 16, 8, 16)),
            **{"head_size": 16, "vocab_size": 512, "bos_token_id": 1, "eos_token_id": 2},
        },
        "parameters": 179_776,
        "source": "for tests and first steps",
    },
    "rwkv7-0.1b": {"config": size(768, 12), "parameters": 191_034_624, "source": SOURCE},
    "rwkv7-0.4b": {"config": size(1024, 24), "parameters": 450_767_872, "source": RANKS},
    "rwkv7-1.5b": {"config": size(2048, 24, (96, 96, 64, 256)), "parameters": 1_527_404_544, "source": RANKS},
    "rwkv7-2.9b": {"config": size(2560, 32, (96, 96, 64, 320)), "parameters": 2_947_735_040, "source": RANKS},
}
