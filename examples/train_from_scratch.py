"""Your own text, your own tokenizer, your own configuration: a model trained from nothing with Hugging Face's Trainer.

    python examples/train_from_scratch.py --text notes.txt --folder scratch
    python examples/train_from_scratch.py --model_type zoo_llm

The text is a local file, a built-in name such as python-source, or a dataset of the Hub.
"""

import argparse

from transformers import AutoConfig, AutoModelForCausalLM, Trainer, TrainingArguments, pipeline, set_seed

import hf_zoo  # noqa: F401  registers the architectures
from hf_zoo.data import load_dataset, pack, text_column
from hf_zoo.tokenization.train import train_tokenizer
from hf_zoo.training.loss_curve import LossCurve


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--text", default="python-source")
    parser.add_argument("--model_type", default="zoo_mamba")
    parser.add_argument("--folder", default="scratch")
    parser.add_argument("--steps", type=int, default=200)
    options = parser.parse_args()

    text = load_dataset(options.text, split="train")
    tokenizer = train_tokenizer(text[text_column(text)], kind="bpe", vocab_size=1024)
    rows = pack(text, tokenizer, block_size=128)  # documents in one row do not see each other

    set_seed(0)
    config = AutoConfig.for_model(
        options.model_type,
        vocab_size=len(tokenizer),
        hidden_size=128,
        num_hidden_layers=3,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        **({"num_attention_heads": 4, "intermediate_size": 384} if options.model_type == "zoo_llm" else {}),
    )
    model = AutoModelForCausalLM.from_config(config)
    print(f"{type(model).__name__} with {model.num_parameters():,} parameters, {len(rows):,} rows of 128 tokens")

    arguments = TrainingArguments(
        options.folder,
        max_steps=options.steps,
        per_device_train_batch_size=16,
        learning_rate=3e-3,
        lr_scheduler_type="cosine",
        warmup_steps=options.steps // 10,
        logging_steps=10,
        save_strategy="no",
        report_to=[],
    )
    trainer = Trainer(model, arguments, train_dataset=rows, processing_class=tokenizer, callbacks=[LossCurve()])
    trainer.train()
    trainer.save_model()
    print(f"weights, code, tokenizer and loss curve are in {options.folder}")

    generate = pipeline("text-generation", model=options.folder, do_sample=True, max_new_tokens=30)
    print(generate("import ")[0]["generated_text"])


if __name__ == "__main__":
    main()
