"""Sizes of S4 and S4D, those of the long-range arena as causal language models."""


def size(hidden: int, layers: int, vocabulary: int = 256) -> dict:
    """The numbers that make a size."""
    return {"hidden_size": hidden, "num_hidden_layers": layers, "vocab_size": vocabulary}


ARENA = "layers and channels of Gu et al. 2022, arXiv:2206.11893, table of the long-range arena, as recalled"

PRESETS = {
    "s4-tiny": {
        "config": {**size(64, 2, 512), "state_size": 16, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2},
        "parameters": 90_816,
        "source": "for tests and first steps",
    },
    "s4-lra-listops": {"config": size(128, 8), "parameters": 595_072, "source": ARENA},
    "s4-lra-text": {"config": size(256, 6), "parameters": 1_318_656, "source": ARENA},
    "s4-lra-image": {"config": size(512, 6), "parameters": 4_210_176, "source": ARENA},
    "s4d-lra-text": {"config": {**size(256, 6), "state_space": "diagonal"}, "parameters": 1_220_352, "source": ARENA},
    "s4d-lra-image": {"config": {**size(512, 6), "state_space": "diagonal"}, "parameters": 4_013_568, "source": ARENA},
}
