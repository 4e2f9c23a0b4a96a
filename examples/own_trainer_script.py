"""A script that knows nothing of hf_zoo: Auto classes and a Trainer, as thousands are written.

    hf-zoo run examples/own_trainer_script.py
    hf-zoo run examples/own_trainer_script.py --model_type zoo_mlm
    python examples/own_trainer_script.py --model_type bert

`hf-zoo run` starts it with the zoo registered, so that its Auto classes find `zoo_mamba`. It reads handwritten digits,
8 x 8 pixels, as a text of 64 tokens, each one of 17 shades of grey. Needs scikit-learn:
pip install 'hf_zoo[tables]'.
"""

import argparse

import numpy as np
from datasets import Dataset
from sklearn.datasets import load_digits
from transformers import AutoConfig, AutoModelForSequenceClassification, Trainer, TrainingArguments, set_seed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model_type", default="zoo_mamba")
    parser.add_argument("--folder", default="digits")
    parser.add_argument("--steps", type=int, default=250)
    options = parser.parse_args()

    digits = load_digits()
    rows = Dataset.from_dict({"input_ids": digits.data.astype(np.int64), "labels": digits.target})
    parts = rows.train_test_split(test_size=300, seed=0)

    set_seed(0)
    sizes = {"vocab_size": 17, "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    # Shade 0 is a colour like the others, not padding
    config = AutoConfig.for_model(options.model_type, **sizes, num_labels=10, pad_token_id=None)
    model = AutoModelForSequenceClassification.from_config(config)
    arguments = TrainingArguments(
        options.folder,
        max_steps=options.steps,
        per_device_train_batch_size=32,
        learning_rate=2e-3,
        logging_steps=25,
        save_strategy="no",
        report_to=[],
    )
    trainer = Trainer(
        model,
        arguments,
        train_dataset=parts["train"],
        eval_dataset=parts["test"],
        compute_metrics=lambda prediction: {
            "accuracy": float((prediction.predictions.argmax(-1) == prediction.label_ids).mean())
        },
    )
    trainer.train()
    accuracy = trainer.evaluate()["eval_accuracy"]
    trainer.save_model()
    print(f"{type(model).__name__}: {accuracy:.1%} of 300 held-out digits right; saved in {options.folder}")


if __name__ == "__main__":
    main()
