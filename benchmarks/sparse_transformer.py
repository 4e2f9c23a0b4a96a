"""zoo_sparse_transformer over doublings of the length: how time and memory of a training step grow, and against dense.

The stride follows the square root of the length, as in the paper; dense is zoo_llm with sdpa of the same size.

    python benchmarks/sparse_transformer.py
"""

import argparse
import logging
import math

from paired import growth, peak_of_tensors, report, speed_up
from rivals import train_step

import hf_zoo

SIZES = {
    **{"vocab_size": 256, "hidden_size": 128, "intermediate_size": 512, "num_hidden_layers": 2},
    **{"num_attention_heads": 4, "pad_token_id": None, "bos_token_id": None, "eos_token_id": None},
}


def sparse(length, pattern):
    """The model for texts of a length, with the stride that leaves the fewest keys to see."""
    columns = 4 if pattern == "fixed" else 1  # l + c n / l keys are fewest at l = sqrt(c n)
    stride = round(math.sqrt(columns * length))
    options = {"stride": stride, "summary_size": columns, "pattern": pattern}
    shape = (-(-length // stride), stride)
    return hf_zoo.create_model("sparse-transformer-tiny", **SIZES, **options, position_shape=shape)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lengths", type=int, nargs="+", default=[2048, 4096, 8192, 16384])
    parser.add_argument("--pairs", type=int, default=5)
    args = parser.parse_args()
    logging.getLogger("transformers").setLevel(logging.ERROR)

    rows, notes = [], []
    for pattern in ("fixed", "strided"):
        times, peaks = [], []
        for length in args.lengths:
            ours = sparse(length, pattern)
            dense = hf_zoo.create_model("llm-tiny", **SIZES, num_key_value_heads=4, max_position_embeddings=length)
            ratio, own, _ = speed_up(train_step(ours, length), train_step(dense, length), args.pairs)
            peak = peak_of_tensors(train_step(ours, length))
            rows.append({"pattern": pattern, "tokens": length, "speed-up against dense sdpa": ratio})
            times.append(own)
            peaks.append(float(peak))
        time_power, memory_power = growth(args.lengths, times), growth(args.lengths, peaks)
        notes.append(f"{pattern}: time grows as length^{time_power:.2f}, peak memory as length^{memory_power:.2f}")
    report("sparse_transformer", rows, "training step; " + "; ".join(notes))


if __name__ == "__main__":
    hf_zoo.register()
    main()
