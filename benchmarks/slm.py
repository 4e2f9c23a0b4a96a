"""zoo_slm beside its rivals: dense sdpa of the same size for linear and local attention, and transformers' ALBERT.

python benchmarks/slm.py
"""

import argparse
import logging
import tempfile

import torch
from paired import growth, report, speed_up
from transformers import AlbertConfig, AlbertForMaskedLM, MistralConfig, MistralForCausalLM

import hf_zoo
from hf_zoo.registry import ARCHITECTURES

SIZES = {
    **{"vocab_size": 1024, "hidden_size": 256, "intermediate_size": 768, "num_hidden_layers": 4},
    **{"num_attention_heads": 4, "num_key_value_heads": 4, "max_position_embeddings": 16384},
}
WINDOW = 128
ALBERT = {
    **{"vocab_size": 8192, "embedding_size": 128, "hidden_size": 256, "intermediate_size": 1024},
    **{"num_hidden_layers": 6, "num_attention_heads": 4, "attn_implementation": "sdpa"},
}


def decoders():
    """The dense model, and the same sizes with linear and with local attention."""
    kinds = {"linear": "linear_attention", "local": "sliding_attention"}
    options = {"sliding_window": WINDOW, "linear_chunk_size": 64}
    made = {
        name: hf_zoo.create_model("slm-tiny", **SIZES, **options, layer_types=[kind] * SIZES["num_hidden_layers"])
        for name, kind in kinds.items()
    }
    return hf_zoo.create_model("llm-tiny", **SIZES), made


def mistrals():
    """transformers' Mistral with the blocks of `zoo_local`, and with the dense mask of sdpa."""
    sizes = {**SIZES, "sliding_window": WINDOW, "tie_word_embeddings": True}
    return [MistralForCausalLM(MistralConfig(**sizes, attn_implementation=name)) for name in ("zoo_local", "sdpa")]


def alberts():
    """Ours and upstream's, with the same weights."""
    rival = AlbertForMaskedLM(AlbertConfig(**ALBERT))
    with tempfile.TemporaryDirectory() as folder:
        rival.save_pretrained(folder)
        return ARCHITECTURES["zoo_slm"].model_class("masked-lm").from_pretrained(folder), rival


def train_step(model, ids):
    """Forward and backward, as a function of nothing."""

    def run():
        model.train()
        model.zero_grad()
        model(ids, labels=ids).loss.backward()

    return run


def forward(model, ids):
    """Forward alone, as a function of nothing."""

    @torch.no_grad()
    def run():
        model.eval()
        model(ids)

    return run


def decode(model, prompt, tokens=32):
    """Single tokens after a prompt, which is read before the clock starts; as a function of nothing."""
    ids = torch.randint(0, SIZES["vocab_size"], (1, prompt))
    with torch.no_grad():
        cache = model.eval()(ids, use_cache=True, logits_to_keep=1).past_key_values

    @torch.no_grad()
    def run():
        for _ in range(tokens):
            model(ids[:, :1], past_key_values=cache, use_cache=True)

    return run


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lengths", type=int, nargs="+", default=[512, 1024, 2048, 4096, 8192])
    parser.add_argument("--pairs", type=int, default=5)
    args = parser.parse_args()
    logging.getLogger("transformers").setLevel(logging.ERROR)
    torch.manual_seed(0)

    rows, notes = [], []
    dense, made = decoders()
    for name, model in made.items():
        times = []
        for length in args.lengths:
            ids = torch.randint(0, SIZES["vocab_size"], (1, length))
            ratio, own, _ = speed_up(train_step(model, ids), train_step(dense, ids), args.pairs)
            rows.append({"work": f"train step, {name}", "tokens": length, "rival": "dense sdpa", "speed-up": ratio})
            times.append(own)
        notes.append(f"{name} grows as length^{growth(args.lengths, times):.2f}")
        late, early = (decode(model, length) for length in (max(args.lengths), min(args.lengths)))
        ratio, _, _ = speed_up(late, early, 4 * args.pairs)
        where = f"itself after {min(args.lengths)}"
        rows.append({"work": f"decode, {name}", "tokens": max(args.lengths), "rival": where, "speed-up": ratio})
    for length in (2048, 4096):
        ids = torch.randint(0, SIZES["vocab_size"], (1, length))
        ratio, _, _ = speed_up(*(train_step(model, ids) for model in mistrals()), args.pairs)
        rows.append({"work": "train step, zoo_local", "tokens": length, "rival": "Mistral, sdpa", "speed-up": ratio})
    ids = torch.randint(0, ALBERT["vocab_size"], (4, 128))
    for work in (train_step, forward):
        ratio, _, _ = speed_up(*(work(model, ids) for model in alberts()), 8 * args.pairs)
        name = work.__name__.replace("_", " ")
        rows.append({"work": f"{name}, ALBERT", "tokens": 128, "rival": "AlbertForMaskedLM", "speed-up": ratio})
    report("slm", rows, f"median of paired runs; {', '.join(notes)}")


if __name__ == "__main__":
    hf_zoo.register()
    main()
