"""zoo_seq2seq beside transformers' T5ForConditionalGeneration: the same weights, in the same process.

python benchmarks/seq2seq.py
"""

import argparse
import logging
from collections.abc import Callable

import torch
from paired import report, speed_up
from rivals import same_weights
from transformers import PreTrainedModel, T5Config, T5ForConditionalGeneration

import hf_zoo

MODELS = {
    "t5-small, 4 layers": {"d_model": 512, "d_ff": 2048, "num_layers": 4, "num_heads": 8, "vocab_size": 4096},
    "as wide as BERT, 2 layers": {"d_model": 768, "d_ff": 3072, "num_layers": 2, "num_heads": 12, "vocab_size": 4096},
}


def pairs_of(rows: int, source: int, target: int, padding: int = 0) -> dict[str, torch.Tensor]:
    """Random sources and targets; of half of the sources the last tokens are padding."""
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(2, 4096, (rows, source + target), generator=generator)
    mask = torch.ones(rows, source, dtype=torch.long)
    mask[::2, source - padding :] = 0
    return {"input_ids": ids[:, :source], "attention_mask": mask, "labels": ids[:, source:].contiguous()}


def train_step(model: PreTrainedModel) -> Callable[[], None]:
    """Forward and backward."""
    batch = pairs_of(rows=4, source=128, target=64, padding=16)

    def run() -> None:
        model.train()
        model.zero_grad()
        model(**batch).loss.backward()

    return run


def first_token(model: PreTrainedModel) -> Callable[[], None]:
    """The source read, and one step of the decoder."""
    batch = pairs_of(rows=1, source=256, target=1)
    start = torch.zeros(1, 1, dtype=torch.long)

    @torch.no_grad()
    def run() -> None:
        model.eval()
        model(input_ids=batch["input_ids"], decoder_input_ids=start, use_cache=True)

    return run


def decode(model: PreTrainedModel) -> Callable[[], None]:
    """The decoder alone, token by token."""
    batch = pairs_of(rows=1, source=128, target=33)
    with torch.no_grad():
        encoded = model.eval().get_encoder()(input_ids=batch["input_ids"])

    @torch.no_grad()
    def run() -> None:
        model.eval()
        cache = None
        for t in range(batch["labels"].shape[1]):
            token = batch["labels"][:, t : t + 1]
            cache = model(
                encoder_outputs=encoded, decoder_input_ids=token, past_key_values=cache, use_cache=True
            ).past_key_values

    return run


def generation(model: PreTrainedModel, num_beams: int = 1) -> Callable[[], None]:
    """`generate` for four sources, half of them padded."""
    batch = pairs_of(rows=4, source=128, target=1, padding=16)
    del batch["labels"]
    options = {"max_new_tokens": 24, "min_new_tokens": 24, "do_sample": False, "num_beams": num_beams}

    @torch.no_grad()
    def run() -> None:
        model.eval()
        model.generate(**batch, **options)

    return run


WORKS = {
    "forward and backward, 4 rows of 128 to 64 tokens": train_step,
    "256 tokens read, the first one written": first_token,
    "33 single tokens after 128 that were read": decode,
    "`generate`, 24 tokens for each of 4 sources": generation,
    "`generate` with 4 beams": lambda model: generation(model, num_beams=4),
}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=11)
    args = parser.parse_args()
    logging.getLogger("transformers").setLevel(logging.ERROR)
    rows = []
    for shape, sizes in MODELS.items():
        torch.manual_seed(0)
        rival = T5ForConditionalGeneration(T5Config(**sizes, decoder_start_token_id=0))
        ours = same_weights("zoo_seq2seq", rival)
        for name, work in WORKS.items():
            ratio, _, _ = speed_up(work(ours), work(rival), args.pairs)
            rows.append({"model": shape, "work": name, "speed-up": ratio})
    report("seq2seq", rows, "median of paired runs against T5ForConditionalGeneration")


if __name__ == "__main__":
    hf_zoo.register()
    main()
