"""The work that benchmarks time, each as a function of nothing that does it once, and models to do it with."""

import tempfile
from collections.abc import Callable

import torch
from transformers import PreTrainedModel

from hf_zoo.registry import ARCHITECTURES


def same_weights(model_type: str, rival: PreTrainedModel, task: str | None = None) -> PreTrainedModel:
    """The zoo's model with the weights of a rival that it can open, by default with its main head."""
    with tempfile.TemporaryDirectory() as folder:
        rival.save_pretrained(folder)
        return ARCHITECTURES[model_type].model_class(task).from_pretrained(folder)


def _ids(model: PreTrainedModel, rows: int, tokens: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, model.config.vocab_size, (rows, tokens), generator=generator)


def train_step(model: PreTrainedModel, tokens: int, rows: int = 1) -> Callable[[], None]:
    """Forward and backward."""
    ids = _ids(model, rows, tokens)

    def run() -> None:
        model.train()
        model.zero_grad()
        model(ids, labels=ids).loss.backward()

    return run


def prefill(model: PreTrainedModel, tokens: int) -> Callable[[], None]:
    """A prompt into a cache."""
    ids = _ids(model, 1, tokens)

    @torch.no_grad()
    def run() -> None:
        model.eval()
        model(ids, use_cache=True, logits_to_keep=1)

    return run


def decode(model: PreTrainedModel, prompt: int = 64, tokens: int = 64) -> Callable[[], None]:
    """Single tokens after a prompt."""
    ids = _ids(model, 1, prompt + tokens)

    @torch.no_grad()
    def run() -> None:
        model.eval()
        outputs = model(ids[:, :prompt], use_cache=True)
        name = "past_key_values" if "past_key_values" in outputs else "cache_params"  # Mamba's upstream
        for t in range(prompt, prompt + tokens):
            model(ids[:, t : t + 1], use_cache=True, **{name: outputs[name]})

    return run


def generation(model: PreTrainedModel, prompt: int = 64, tokens: int = 64) -> Callable[[], None]:
    """Greedy `generate` after a prompt."""
    ids = _ids(model, 1, prompt)
    options = {"max_new_tokens": tokens, "do_sample": False, "eos_token_id": None, "pad_token_id": 0}

    @torch.no_grad()
    def run() -> None:
        model.eval()
        model.generate(ids, attention_mask=torch.ones_like(ids), **options)

    return run
