"""Published sizes of Mamba-2."""


def size(hidden: int, layers: int) -> dict:
    """The two numbers that make a size."""
    return {"hidden_size": hidden, "num_hidden_layers": layers}


SOURCE = "Dao and Gu 2024, arXiv:2405.21060"

PRESETS = {
    "mamba2-tiny": {
        "config": {
            **size(64, 2),
            **{"vocab_size": 512, "state_size": 32, "head_dim": 16, "bos_token_id": 1, "eos_token_id": 2},
        },
        "parameters": 93_552,
        "source": "for tests and first steps",
    },
    "mamba2-130m": {"config": size(768, 24), "parameters": 128_989_632, "source": SOURCE},
    "mamba2-370m": {"config": size(1024, 48), "parameters": 368_346_624, "source": SOURCE},
    "mamba2-780m": {"config": size(1536, 48), "parameters": 780_161_280, "source": SOURCE},
    "mamba2-1.3b": {"config": size(2048, 48), "parameters": 1_343_757_312, "source": SOURCE},
    "mamba2-2.7b": {"config": size(2560, 64), "parameters": 2_702_599_680, "source": SOURCE},
    "codestral-mamba-7b": {
        "config": {
            **size(4096, 64),
            **{"vocab_size": 32768, "num_groups": 8, "tie_word_embeddings": False},
            **{"bos_token_id": 1, "eos_token_id": 2},
        },
        "parameters": 7_285_403_648,
        "source": "Mistral AI 2024, Codestral Mamba",
    },
}
