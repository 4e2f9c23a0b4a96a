"""Publish a checkpoint that carries its code, and load it where hf_zoo is not installed.

    python examples/publish_and_load_without_hf_zoo.py
    python examples/publish_and_load_without_hf_zoo.py --push_to your-name/mamba-tiny

The second process cannot import hf_zoo and still gives the same logits, bit for bit.
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

import hf_zoo

# What someone else runs, who has transformers and nothing of ours
ELSEWHERE = """
import sys

sys.modules["hf_zoo"] = None  # from here on `import hf_zoo` fails

from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

folder = sys.argv[1]
model = AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True)
ids = load_file(f"{folder}/ids.safetensors")["ids"]
save_file({"logits": model(ids).logits.detach()}, f"{folder}/logits.safetensors")
print(f"{type(model).__name__} of {type(model).__module__.rpartition('.')[2]}.py loaded without hf_zoo")
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="mamba-tiny", help="a preset")
    parser.add_argument("--push_to", help="a repository of the Hub that you may write to")
    options = parser.parse_args()

    model = hf_zoo.create_model(options.model, task="causal-lm").eval()
    ids = torch.arange(20).reshape(2, 10)
    with tempfile.TemporaryDirectory() as temporary:
        folder = hf_zoo.export_standalone(model, temporary, hf_zoo.create_processor(options.model))
        print("\n".join(sorted(path.name for path in folder.iterdir())))

        save_file({"ids": ids}, folder / "ids.safetensors")
        subprocess.run([sys.executable, "-c", ELSEWHERE, folder], cwd=folder, check=True)
        elsewhere = load_file(Path(folder, "logits.safetensors"))["logits"]
    print("logits are", "bit-equal" if torch.equal(model(ids).logits, elsewhere) else "DIFFERENT")

    if options.push_to:
        model.push_to_hub(options.push_to)  # weights, configuration, code and a model card


if __name__ == "__main__":
    main()
