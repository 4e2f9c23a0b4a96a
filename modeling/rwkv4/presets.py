"""Published sizes of RWKV-4, trained on the Pile."""


def size(hidden: int, layers: int) -> dict:
    """The two numbers that make a size."""
    return {"hidden_size": hidden, "num_hidden_layers": layers}


SOURCE = "Peng et al. 2023, arXiv:2305.13048, table 2"

PRESETS = {
    "rwkv4-tiny": {
        "config": {**size(64, 2), "vocab_size": 512, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2},
        "parameters": 173_696,
        "source": "for tests and first steps",
    },
    "rwkv4-169m": {"config": size(768, 12), "parameters": 169_342_464, "source": SOURCE},
    "rwkv4-430m": {"config": size(1024, 24), "parameters": 430_397_440, "source": SOURCE},
    "rwkv4-1.5b": {"config": size(2048, 24), "parameters": 1_515_106_304, "source": SOURCE},
    "rwkv4-3b": {"config": size(2560, 32), "parameters": 2_984_627_200, "source": SOURCE},
    "rwkv4-7b": {"config": size(4096, 32), "parameters": 7_392_649_216, "source": SOURCE},
    "rwkv4-14b": {"config": size(5120, 40), "parameters": 14_148_597_760, "source": SOURCE},
}
