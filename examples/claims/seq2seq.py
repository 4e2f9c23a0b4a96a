"""An encoder tells identifiers of code by their context; a decoder writes a source backwards by attending to it.

Identifier tagging is CodeT5's (Wang et al. 2021, section 3.2), on the standard library: its rival gives every token
the tag that it has most often in training, though the same token may be a name, a part of a string or of a comment.
Reversal is for the attention of Vaswani et al. 2017, section 3.2.3: its rival is the same model, trained as long, from
which the source is hidden.
"""

import tempfile

import torch
from transformers import Trainer, TrainingArguments

import hf_zoo
from hf_zoo.claims import Claim, Examples
from hf_zoo.claims import train as train_on
from hf_zoo.data import load_dataset
from hf_zoo.data.recipes import build_tokenizer
from hf_zoo.training.seq2seq_collators import PairCollator, identifier_tagging

WINDOW, STEPS, SEED, SYMBOLS = 64, 400, 0, 24
SIZES = {"hidden_size": 128, "intermediate_size": 256, "num_attention_heads": 4, "head_dim": 32}
DRY = {"hidden_dropout": 0.0, "attention_dropout": 0.0, "activation_dropout": 0.0}
# The stack of 2017, with the norms where they need no warm-up
VASWANI = {"positions": "sinusoidal", "norm": "layer_norm", "attention_scaling": None, "vocab_size": SYMBOLS}


def windows(split, tokenizer, modules):
    """Rows of WINDOW tokens with their tags, from the first modules of a split, in random order."""
    rows = []
    for text in load_dataset("python-source", split=f"{split}[:{modules}]")["text"]:
        row = identifier_tagging(text, tokenizer)
        rows += [
            {name: ids[i : i + WINDOW] for name, ids in row.items()}
            for i in range(0, len(row["input_ids"]) - WINDOW, WINDOW)
        ]
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))
    return [rows[i] for i in order]


def train_tagging(model, rows, collate):
    """Losses on the way."""
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            folder,
            **{"max_steps": STEPS, "learning_rate": 3e-3, "per_device_train_batch_size": 16, "seed": SEED},
            **{"lr_scheduler_type": "cosine", "warmup_steps": 50, "logging_steps": 10, "save_strategy": "no"},
            **{"use_cpu": True, "report_to": [], "remove_unused_columns": False},
        )
        trainer = Trainer(model, arguments, data_collator=collate, train_dataset=rows)
        trainer.train()
    model.eval()
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


def f1(guesses, tags):
    """Of the tag 1."""
    right = (guesses & (tags == 1)).sum().item()
    return 2 * right / max(guesses.sum().item() + (tags == 1).sum().item(), 1)


def tag_identifiers(claim):
    """The first comparison."""
    tokenizer = build_tokenizer("bpe", 1024)
    rows, held_out = windows("train", tokenizer, 120), windows("test", tokenizer, 12)[:512]
    collate = PairCollator(tokenizer, lambda row: row)
    torch.manual_seed(SEED)
    size = {**SIZES, **DRY, "vocab_size": len(tokenizer), "initializer_range": 0.2}
    model = hf_zoo.create_model("seq2seq-tiny", "pre-training", **size)
    losses = train_tagging(model, rows, collate)
    claim.draw("loss of identifier tagging", "encoder", range(10, STEPS + 1, 10), losses)
    batch = collate(held_out)
    with torch.no_grad():
        guesses = model.tag(batch["input_ids"]) > 0
    ids, tags = (torch.tensor([row[name] for row in rows]) for name in ("input_ids", "tag_labels"))
    named, other = (torch.bincount(ids[tags == tag], minlength=len(tokenizer)) for tag in (1, 0))
    tags = batch["tag_labels"]
    ours, lexical = f1(guesses, tags), f1((named > other)[batch["input_ids"]], tags)
    claim.compare(
        "identifiers are told by their context: less than half of what the most frequent tag of a token misses",
        1 - ours < 0.5 * (1 - lexical),
        f1=ours,
        f1_by_token=lexical,
        f1_of_all=f1(torch.ones_like(tags, dtype=torch.bool), tags),
    )


def reversal(generator):
    """A row of random symbols, to be written backwards."""
    source = torch.randint(3, SYMBOLS, (8,), generator=generator)
    return {"input_ids": source, "labels": source.flip(0), "attention_mask": torch.ones_like(source)}


def hidden(generator):
    """The same with all of the source but its first symbol hidden."""
    example = reversal(generator)
    example["attention_mask"][1:] = 0
    return example


def reverse(claim):
    """The second comparison."""
    right = {}
    for name, draw in (("attending to the source", reversal), ("source hidden", hidden)):
        torch.manual_seed(SEED)
        model = hf_zoo.create_model("seq2seq-tiny", **VASWANI, **DRY)
        losses = train_on(model, draw, steps=STEPS, learning_rate=3e-3)
        claim.draw("loss of reversal", name, range(10, STEPS + 1, 10), losses)
        batch = Examples(draw, 128, seed=99).batch(128)
        labels = batch.pop("labels")
        with torch.no_grad():
            written = model.generate(**batch, max_new_tokens=8, do_sample=False, eos_token_id=None)[:, 1:]
        right[name] = (written == labels).float().mean().item()
    seeing, blind = right.values()
    claim.compare(
        "a source is written backwards by attending to it, and not without",
        seeing > 0.95 and blind < 0.3,
        attending=seeing,
        source_hidden=blind,
    )


def main():
    claim = Claim("seq2seq", "Wang et al. 2021; Vaswani et al. 2017")
    reverse(claim)
    tag_identifiers(claim)
    claim.finish()


if __name__ == "__main__":
    main()
