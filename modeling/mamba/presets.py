"""Published sizes of Mamba."""


def size(hidden: int, layers: int) -> dict:
    """The two numbers that make a size."""
    return {"hidden_size": hidden, "num_hidden_layers": layers}


SOURCE = "Gu and Dao 2023, arXiv:2312.00752"

PRESETS = {
    "mamba-tiny": {
        "config": {**size(64, 2), "vocab_size": 512, "bos_token_id": 1, "eos_token_id": 2},
        "parameters": 98_240,
        "source": "for tests and first steps",
    },
    "mamba-130m": {"config": size(768, 24), "parameters": 129_135_360, "source": SOURCE},
    "mamba-370m": {"config": size(1024, 48), "parameters": 371_516_416, "source": SOURCE},
    "mamba-790m": {"config": size(1536, 48), "parameters": 793_204_224, "source": SOURCE},
    "mamba-1.4b": {"config": size(2048, 48), "parameters": 1_372_178_432, "source": SOURCE},
    "mamba-2.8b": {"config": size(2560, 64), "parameters": 2_768_345_600, "source": SOURCE},
}
