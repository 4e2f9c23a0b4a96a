"""Open a checkpoint of transformers as a zoo model, with the same logits, and write it back.

    python examples/open_upstream_checkpoint.py
    python examples/open_upstream_checkpoint.py path/to/a/llama --folder back

Without a path a small Llama with random weights is made on the spot. Llama, Mistral, OLMo, GPT-2, StarCoder and BLOOM
folders open as ZooLlmForCausalLM, Mamba's as ZooMambaForCausalLM, BERT's as ZooMlmForMaskedLM.
"""

import argparse
import tempfile
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from hf_zoo.modeling.llm.modeling_llm import ZooLlmForCausalLM
from hf_zoo.upstream import to_upstream


def small_llama(folder: Path) -> Path:
    sizes = {"hidden_size": 64, "intermediate_size": 192, "num_hidden_layers": 2, "vocab_size": 512}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2}
    LlamaForCausalLM(LlamaConfig(**sizes, **heads)).save_pretrained(folder)
    return folder


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("path", nargs="?", help="a folder or a name on the Hub")
    parser.add_argument("--folder", help="where to write it back; a temporary folder without it")
    options = parser.parse_args()

    with tempfile.TemporaryDirectory() as temporary:
        path = options.path or small_llama(Path(temporary, "llama"))
        stock = AutoModelForCausalLM.from_pretrained(path)
        ours = ZooLlmForCausalLM.from_pretrained(path)

        ids = torch.randint(stock.config.vocab_size, (2, 16), generator=torch.Generator().manual_seed(0))
        difference = (stock(ids).logits - ours(ids).logits).abs().max()
        print(f"{type(stock).__name__} opened as {type(ours).__name__}: logits differ by at most {difference:.1e}")

        back = options.folder or Path(temporary, "back")
        to_upstream(ours, stock.config.model_type).save_pretrained(back)
        again = AutoModelForCausalLM.from_pretrained(back)
        expected = stock.state_dict()
        is_equal = all(torch.equal(value, expected[name]) for name, value in again.state_dict().items())
        print(f"written back as {type(again).__name__}: weights {'bit-equal' if is_equal else 'DIFFER'}")


if __name__ == "__main__":
    main()
