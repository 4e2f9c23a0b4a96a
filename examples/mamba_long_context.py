"""What a context costs while generating: Mamba's state stays as it is, a dense decoder's cache grows with every token.

    python examples/mamba_long_context.py
    python examples/mamba_long_context.py --lengths 1024 4096 16384 --steps 32

Both models have fresh weights and about as many parameters; neither memory nor time depends on what was learned.
"""

import argparse
import time

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor
from transformers import PreTrainedModel

import hf_zoo


def num_bytes(thing: object) -> int:
    """Bytes of all tensors in a cache."""
    if isinstance(thing, Tensor):
        return thing.nbytes
    if isinstance(thing, dict):
        return sum(map(num_bytes, thing.values()))
    if isinstance(thing, list):
        return sum(map(num_bytes, thing))
    return num_bytes(vars(thing)) if hasattr(thing, "layers") or hasattr(thing, "device") else 0


@torch.no_grad()
def measure(model: PreTrainedModel, length: int, steps: int) -> tuple[int, float]:
    """Bytes of the cache after `length` tokens, and milliseconds for each token generated after them."""
    ids = torch.randint(3, model.config.vocab_size, (1, length), generator=torch.Generator().manual_seed(0))
    cache = model(ids, use_cache=True, logits_to_keep=1).past_key_values
    size = num_bytes(cache)
    ids = torch.cat([ids, ids[:, :1]], dim=1)  # generation goes on with the one token that the cache has not seen
    start = time.perf_counter()
    model.generate(ids, past_key_values=cache, max_new_tokens=steps, min_new_tokens=steps, do_sample=False)
    return size, 1000 * (time.perf_counter() - start) / steps


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lengths", type=int, nargs="+", default=[512, 2048, 8192])
    parser.add_argument("--steps", type=int, default=32, help="tokens to generate")
    options = parser.parse_args()

    sizes = {"hidden_size": 256, "num_hidden_layers": 4}
    dense = hf_zoo.create_model(
        "llm-tiny",
        **sizes,
        intermediate_size=1024,
        num_key_value_heads=4,
        max_position_embeddings=max(options.lengths) + options.steps + 1,
    )
    mamba = hf_zoo.create_model("mamba-tiny", **{**sizes, "num_hidden_layers": 10})
    table = Table("context", box=None)
    for model in (dense, mamba):
        name = f"{model.config.model_type}, {model.num_parameters() / 1e6:.1f} M"
        table.add_column(f"{name}\ncache", justify="right")
        table.add_column("\nms per token", justify="right")
    for length in options.lengths:
        cells = [f"{length:,}"]
        for model in (dense, mamba):
            size, milliseconds = measure(model.eval(), length, options.steps)
            cells += [f"{size / 1024:,.0f} KiB", f"{milliseconds:.1f}"]
        table.add_row(*cells)
    Console().print(table)


if __name__ == "__main__":
    main()
