"""The tour, in about three minutes on two CPU cores: train, tune with LoRA, save, reload elsewhere, generate.

    make demo
    python examples/demo.py --steps 2000 --folder longer

A language model of two million weights learns the standard library's source, then an adapter learns to write
docstrings. Started again after an interruption the demo goes on where it was; a part that is finished is not repeated.
"""

import argparse
import json
import shutil
import subprocess
import sys
from pathlib import Path

from rich.console import Console
from rich.panel import Panel
from rich.syntax import Syntax
from rich.table import Table

BLOCK_SIZE = 256
BATCH_SIZE = 4
SIZES = {
    **{"vocab_size": 2048, "hidden_size": 192, "intermediate_size": 512, "num_hidden_layers": 4},
    **{"num_attention_heads": 6, "num_key_value_heads": 2, "tie_word_embeddings": True},
    "initializer_range": 0.06,  # of a narrow model; 0.02 is for widths of thousands
}
console = Console()


def train_model(folder: Path, steps: int) -> None:
    from datasets import DatasetDict
    from transformers import set_seed

    import hf_zoo
    from hf_zoo.data import load_dataset
    from hf_zoo.data.recipes import build_tokenizer
    from hf_zoo.training.train import train

    tokenizer = build_tokenizer("bpe", SIZES["vocab_size"])
    set_seed(0)
    model = hf_zoo.create_model("llm-tiny", **SIZES)
    splits = {"train": "train", "validation": "validation[:6]"}
    dataset = DatasetDict({name: load_dataset("python-source", split) for name, split in splits.items()})
    train(model, dataset, tokenizer=tokenizer, **arguments(folder, steps), learning_rate=4e-3)


def tune_model(base: Path, folder: Path, steps: int) -> None:
    from datasets import DatasetDict

    from hf_zoo.data import load_dataset
    from hf_zoo.training.train import train

    splits = {"train": "train[:4000]", "validation": "validation[:100]"}
    rows = DatasetDict({name: load_dataset("python-docs", split) for name, split in splits.items()})
    rows = rows.filter(lambda kind: kind in ("function", "method"), input_columns="kind")
    rows = rows.map(lambda row: {"text": f'{row["signature"]}:\n    """{row["doc"]}"""\n'})
    rows = rows.select_columns("text")
    train(str(base), rows, lora={"r": 8}, **arguments(folder, steps), learning_rate=4e-3)


def arguments(folder: Path, steps: int) -> dict:
    return {
        **{"output_dir": str(folder), "block_size": BLOCK_SIZE, "per_device_train_batch_size": BATCH_SIZE},
        **{"max_steps": steps, "save_steps": max(steps // 3, 1), "save_total_limit": 1, "eval_on_start": True},
        **{
            "lr_scheduler_type": "cosine",
            "warmup_steps": steps // 10,
            "adam_beta2": 0.95,
            "logging_steps": max(steps // 15, 1),
        },
    }


def generate(model: Path, adapter: Path, prompt: str, max_new_tokens: int) -> None:
    """What runs in the new process: stock transformers and peft, to which `import hf_zoo` adds the architectures."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer, set_seed

    import hf_zoo  # noqa: F401

    network = AutoModelForCausalLM.from_pretrained(model)
    tokenizer = AutoTokenizer.from_pretrained(model)
    inputs = tokenizer(prompt, return_tensors="pt")
    sampling = {"do_sample": True, "temperature": 0.6, "top_p": 0.95}
    for title in ("pre-trained on python-source", "tuned with LoRA on python-docs"):
        if title.startswith("tuned"):
            network = PeftModel.from_pretrained(network, adapter)
        set_seed(0)
        with torch.no_grad():
            ids = network.generate(**inputs, **sampling, max_new_tokens=max_new_tokens)[0]
        text = tokenizer.decode(ids, skip_special_tokens=True).rstrip()
        console.print(Panel(Syntax(text, "python", word_wrap=True, background_color="default"), title=title))


def is_finished(folder: Path) -> bool:
    record = folder / "run.json"
    return record.exists() and json.loads(record.read_text())["finished"]


def stage(title: str, folder: Path, start, *start_arguments) -> bool:
    """Train into a folder, or say that it is there; True if all of the training was now."""
    console.rule(title)
    if is_finished(folder):
        console.print(f"{folder} is finished; delete it to train anew.", highlight=False)
        return False
    is_fresh = not any(folder.glob("checkpoint-*"))
    start(*start_arguments)
    return is_fresh


def summarise(folder: Path, is_fresh: dict[str, bool]) -> None:
    table = Table("", "validation loss before", "after", "tokens a second", box=None)
    for name in is_fresh:
        history = json.loads((folder / name / "training.json").read_text())
        losses = [entry["eval_loss"] for entry in history if "eval_loss" in entry]
        speed = next(entry["train_steps_per_second"] for entry in reversed(history) if "train_runtime" in entry)
        tokens = speed * BATCH_SIZE * BLOCK_SIZE  # Trainer counts all steps, those before an interruption too
        table.add_row(name, f"{losses[0]:.2f}", f"{losses[-1]:.2f}", f"{tokens:,.0f}" if is_fresh[name] else "-")
    console.print(table)
    shutil.copyfile(folder / "model" / "loss.png", folder / "loss.png")
    files = {
        "loss.png": "the loss of pre-training",
        "model": "weights, code, tokenizer, losses: loads with or without hf_zoo",
        "adapter": "the LoRA adapter: loads with peft on top of the model",
    }
    for name, what in files.items():
        console.print(f"{folder / name}  {what}", soft_wrap=True, highlight=False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("demo"))
    parser.add_argument("--steps", type=int, default=800, help="of pre-training; the adapter takes an eighth")
    parser.add_argument("--generate-only", action="store_true", help="what the demo starts in a new process")
    options = parser.parse_args()
    model, adapter = options.folder / "model", options.folder / "adapter"
    if options.generate_only:
        # A method. The space after "def" is left out, since it belongs to the next token: " name"
        generate(model, adapter, "    def", max_new_tokens=80)
        return
    is_fresh = {}
    is_fresh["model"] = stage("1. Train a language model on python-source", model, train_model, model, options.steps)
    tuning_steps = max(options.steps // 8, 1)
    is_fresh["adapter"] = stage(
        "2. Tune it with LoRA on python-docs", adapter, tune_model, model, adapter, tuning_steps
    )
    console.rule("3. Reload both in a new process and generate")
    subprocess.run([sys.executable, __file__, "--folder", options.folder, "--generate-only"], check=True)
    console.rule("What is there now")
    summarise(options.folder, is_fresh)


if __name__ == "__main__":
    main()
