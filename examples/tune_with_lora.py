"""Tune a checkpoint with LoRA, see what it gained, merge the adapter into the weights and save.

    python examples/tune_with_lora.py demo/model --folder tuned
    python examples/tune_with_lora.py demo/model --dataset notes.txt

No target modules are named: the architecture knows its own, and plain `peft.LoraConfig()` finds them too.
"""

import argparse

import torch
from peft import get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer, Trainer, TrainingArguments, set_seed

import hf_zoo
from hf_zoo.data import load_dataset, pack


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="a checkpoint folder with its tokenizer, or a name on the Hub")
    parser.add_argument("--dataset", default="python-docs")
    parser.add_argument("--folder", default="tuned")
    parser.add_argument("--steps", type=int, default=50)
    options = parser.parse_args()

    set_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(options.model)
    model = AutoModelForCausalLM.from_pretrained(options.model)
    rows = pack(load_dataset(options.dataset, split="train[:20%]"), tokenizer, block_size=128)
    parts = rows.train_test_split(test_size=min(64, len(rows) // 5), seed=0)

    model = get_peft_model(model, hf_zoo.lora_config(model, r=8))
    model.print_trainable_parameters()
    arguments = TrainingArguments(
        options.folder,
        max_steps=options.steps,
        per_device_train_batch_size=8,
        learning_rate=2e-3,
        logging_steps=10,
        save_strategy="no",
        report_to=[],
    )
    trainer = Trainer(model, arguments, train_dataset=parts["train"], eval_dataset=parts["test"])
    before = trainer.evaluate()["eval_loss"]
    trainer.train()
    after = trainer.evaluate()["eval_loss"]
    print(f"held-out loss {before:.3f} before, {after:.3f} after")

    model.eval()
    ids = torch.tensor([parts["test"][0]["input_ids"]])
    with torch.no_grad():
        adapted = model(input_ids=ids).logits
        merged = model.merge_and_unload()
        difference = (merged(input_ids=ids).logits - adapted).abs().max()
    print(f"merged and adapted logits differ by at most {difference:.1e}")
    merged.save_pretrained(options.folder)
    tokenizer.save_pretrained(options.folder)
    print(f"the merged model is in {options.folder}")


if __name__ == "__main__":
    main()
