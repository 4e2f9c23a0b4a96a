"""zoo_retro beside zoo_llm with the same decoder: what retrieval costs, and how that grows with the length.

Neighbours are given, two a chunk of 64 tokens, each 128 tokens long; finding them is not counted.

    python benchmarks/retro.py
"""

import argparse
import logging

import torch
from paired import growth, report, speed_up

import hf_zoo

SIZES = {
    **{"vocab_size": 2048, "hidden_size": 256, "intermediate_size": 768, "num_hidden_layers": 6},
    **{"num_attention_heads": 8, "num_key_value_heads": 8, "max_position_embeddings": 4096},
}
RETRO = {
    **{"chunk_size": 64, "cross_layers": [2, 5], "encoder_hidden_size": 128, "encoder_intermediate_size": 384},
    **{"num_encoder_layers": 2, "num_encoder_heads": 4},
}


def inputs(tokens):
    """A row and neighbours for each of its chunks."""
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(0, SIZES["vocab_size"], (1, tokens), generator=generator)
    neighbours = torch.randint(0, SIZES["vocab_size"], (1, tokens // 64, 2, 128), generator=generator)
    return {"input_ids": ids, "neighbour_ids": neighbours}


def train_step(model, tokens, with_neighbours):
    """Forward and backward."""
    given = inputs(tokens)
    given = given if with_neighbours else {"input_ids": given["input_ids"]}

    def run():
        model.train()
        model.zero_grad()
        model(**given, labels=given["input_ids"]).loss.backward()

    return run


def decode(model, with_neighbours):
    """128 single tokens after a prompt of 64: two chunks are completed on the way."""
    given = inputs(192)
    ids, neighbours = given["input_ids"], given["neighbour_ids"] if with_neighbours else None
    given = {} if neighbours is None else {"neighbour_ids": neighbours}

    @torch.no_grad()
    def run():
        model.eval()
        cache = model(ids[:, :64], use_cache=True, **given).past_key_values
        for t in range(64, 192):
            model(ids[:, t : t + 1], past_key_values=cache, use_cache=True, **given)

    return run


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lengths", type=int, nargs="+", default=[256, 512, 1024, 2048])
    parser.add_argument("--pairs", type=int, default=7)
    args = parser.parse_args()
    logging.getLogger("transformers").setLevel(logging.ERROR)
    torch.manual_seed(0)
    dense = hf_zoo.create_model("llm-tiny", **SIZES)
    retro = hf_zoo.as_retro(dense, train_only_new=False, **RETRO)

    rows, added = [], []
    for length in args.lengths:
        work = train_step(retro, length, True), train_step(dense, length, False)
        ratio, with_retrieval, without = speed_up(*work, args.pairs)
        added.append(with_retrieval - without)
        rows.append({"work": f"training step, {length} tokens", "time against zoo_llm": 1 / ratio})
    for name, with_neighbours in (("with neighbours", True), ("no neighbours given", False)):
        ratio, _, _ = speed_up(decode(retro, with_neighbours), decode(dense, False), args.pairs)
        rows.append({"work": f"128 single tokens, {name}", "time against zoo_llm": 1 / ratio})
    power = growth(args.lengths, added)
    report("retro", rows, f"median of paired runs; what retrieval adds to a step grows as length^{power:.2f}")


if __name__ == "__main__":
    hf_zoo.register()
    main()
