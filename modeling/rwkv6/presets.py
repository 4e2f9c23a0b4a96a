"""Published sizes of RWKV-5 World and RWKV-6 World."""


def size(hidden: int, layers: int, **others: int | bool) -> dict:
    """Width, depth, and what differs."""
    return {"hidden_size": hidden, "num_hidden_layers": layers, **others}


SOURCE = "Peng et al. 2024, arXiv:2404.05892, and the authors' code RWKV-LM/RWKV-v5; not checked against the paper"

PRESETS = {
    "rwkv6-tiny": {
        "config": {
            **size(64, 2, head_size=16, shift_rank=8, decay_rank=16),
            **{"vocab_size": 512, "bos_token_id": 1, "eos_token_id": 2},
        },
        "parameters": 188_672,
        "source": "for tests and first steps",
    },
    "rwkv5-0.4b": {"config": size(1024, 24, is_data_dependent=False), "parameters": 461_721_600, "source": SOURCE},
    "rwkv5-1.5b": {"config": size(2048, 24, is_data_dependent=False), "parameters": 1_577_754_624, "source": SOURCE},
    "rwkv5-3b": {"config": size(2560, 32, is_data_dependent=False), "parameters": 3_062_999_040, "source": SOURCE},
    "rwkv5-7b": {"config": size(4096, 32, is_data_dependent=False), "parameters": 7_518_044_160, "source": SOURCE},
    "rwkv6-1.6b": {"config": size(2048, 24), "parameters": 1_599_873_024, "source": SOURCE},
    "rwkv6-3b": {"config": size(2560, 32), "parameters": 3_099_863_040, "source": SOURCE},
    "rwkv6-7b": {
        "config": size(4096, 32, shift_rank=64, decay_rank=128),
        "parameters": 7_635_746_816,
        "source": SOURCE,
    },
}
