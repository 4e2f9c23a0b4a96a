"""CodeT5's objectives on the standard library: lost spans are rebuilt from what is around them, and identifiers are
told from strings and comments by their context.

Wang et al. 2021, section 3.2, on the denoising of Raffel et al. 2019. Every batch is of one of the two objectives.
Rivals of the spans: the frequency of each token, and the same model, trained as long, that sees the sentinels of the
source alone. Rival of the tags: for every token the tag that it has most often in training.
"""

import tempfile

import torch
from transformers import Trainer, TrainingArguments

import hf_zoo
from hf_zoo.claims import Claim
from hf_zoo.data import load_dataset
from hf_zoo.data.recipes import build_tokenizer
from hf_zoo.training.seq2seq_collators import (
    AlternatingCollator,
    PairCollator,
    SpanCorruptionCollator,
    add_sentinels,
    identifier_tagging,
    sentinel_ids,
)

WINDOW, STEPS = 64, 800
SIZES = {"hidden_size": 128, "intermediate_size": 256, "num_attention_heads": 4, "head_dim": 32}


def windows(split, tokenizer, modules):
    """Rows of WINDOW tokens with their tags, from modules that parse."""
    rows = []
    for text in load_dataset("python-source", split=split)["text"]:
        if modules and len(text) < 60_000:
            row = identifier_tagging(text, tokenizer)
            rows += [
                {name: ids[i : i + WINDOW] for name, ids in row.items()}
                for i in range(0, len(row["input_ids"]) - WINDOW, WINDOW)
            ]
            modules -= 1
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))
    return [rows[i] for i in order]


def without_source(batch, sentinels):
    """The batch with all of the source hidden but its sentinels."""
    seen = torch.isin(batch["input_ids"], torch.tensor(sentinels))
    return {**batch, "attention_mask": batch["attention_mask"] * seen}


def train(model, rows, collate, steps):
    """Losses on the way."""
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            folder,
            **{"max_steps": steps, "learning_rate": 3e-3, "per_device_train_batch_size": 32, "seed": 1},
            **{"lr_scheduler_type": "cosine", "warmup_steps": 50, "logging_steps": 10, "save_strategy": "no"},
            **{"use_cpu": True, "report_to": [], "remove_unused_columns": False},
        )
        trainer = Trainer(model, arguments, data_collator=collate, train_dataset=rows)
        trainer.train()
    model.eval()
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


@torch.no_grad()
def span_loss(model, batches, sentinels):
    """Mean loss of the tokens in lost spans; sentinels and the end, which are no text, do not count."""
    total = count = 0
    for batch in batches:
        read = model.prepare_decoder_input_ids_from_labels(batch["labels"])
        labels = batch["labels"].masked_fill(torch.isin(batch["labels"], torch.tensor([*sentinels, 2])), -100)
        loss = model(**{**batch, "labels": labels, "decoder_input_ids": read}).loss
        total, count = total + loss.item() * (labels != -100).sum().item(), count + (labels != -100).sum().item()
    return total / count


def f1(guesses, tags):
    """Of the tag 1."""
    right = (guesses & (tags == 1)).sum().item()
    return 2 * right / max(guesses.sum().item() + (tags == 1).sum().item(), 1)


def main():
    claim = Claim("seq2seq", "Wang et al. 2021")
    tokenizer = build_tokenizer("bpe", 384)
    add_sentinels(tokenizer, 32)
    sentinels = sentinel_ids(tokenizer)
    rows, held_out = windows("train", tokenizer, 150), windows("test", tokenizer, 20)[:512]
    corrupt = SpanCorruptionCollator(tokenizer)
    tag = PairCollator(tokenizer, lambda row: row)
    batches = [corrupt(held_out[i : i + 32]) for i in range(0, len(held_out), 32)]

    def make():
        torch.manual_seed(0)
        options = {"vocab_size": len(tokenizer), "initializer_range": 0.2, "hidden_dropout": 0.0}
        return hf_zoo.create_model("seq2seq-tiny", "pre-training", **SIZES, **options, attention_dropout=0.0)

    model = make()
    losses = train(model, rows, AlternatingCollator([corrupt, tag]), STEPS)
    claim.draw("loss", "both objectives in turn", range(10, STEPS + 1, 10), losses)
    blind = make()  # learns from as many batches of spans
    losses = train(blind, rows, lambda batch: without_source(corrupt(batch), sentinels), STEPS // 2)
    claim.draw("loss", "spans without their source", range(10, STEPS // 2 + 1, 10), losses)

    seeing = span_loss(model, batches, sentinels)
    blinded = span_loss(blind, [without_source(batch, sentinels) for batch in batches], sentinels)
    counts = torch.ones(len(tokenizer))
    for row in rows:
        counts += torch.bincount(torch.tensor(row["input_ids"]), minlength=len(tokenizer))
    frequency = -(counts / counts.sum()).log()
    lost = torch.cat([batch["labels"].flatten() for batch in batches])
    lost = lost[(lost != -100) & ~torch.isin(lost, torch.tensor([*sentinels, 2]))]
    unigram = frequency[lost].mean().item()
    claim.compare(
        "lost spans are rebuilt from the source: less loss than without it, and than by frequency",
        seeing < 0.85 * blinded and seeing < 0.7 * unigram,
        with_source=seeing,
        without_source=blinded,
        by_frequency=unigram,
    )

    batch = tag(held_out)
    with torch.no_grad():
        guesses = model(input_ids=batch["input_ids"]).tag_logits > 0
    tags, votes = batch["tag_labels"], torch.zeros(2, len(tokenizer))
    for row in rows:
        for value in (0, 1):
            ids = [i for i, t in zip(row["input_ids"], row["tag_labels"], strict=True) if t == value]
            votes[value] += torch.bincount(torch.tensor(ids, dtype=torch.long), minlength=len(tokenizer))
    lexical = f1((votes[1] > votes[0])[batch["input_ids"]], tags)
    ours, always = f1(guesses, tags), f1(torch.ones_like(tags, dtype=torch.bool), tags)
    claim.compare(
        "identifiers are told by their context: less than half of what the most frequent tag of a token misses",
        1 - ours < 0.5 * (1 - lexical) and ours > always,
        f1=ours,
        f1_by_token=lexical,
        f1_of_all=always,
    )
    claim.finish()


if __name__ == "__main__":
    main()
