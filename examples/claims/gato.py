"""One network with one set of weights captions images, continues text and acts.

Reed et al. 2022, abstract: "The same network with the same weights can play Atari, caption images, chat" and more.
Here: it balances CartPole's pole, names Latin letters that it never saw, and continues Python's documentation. The
loss is a mean over tokens, and an action is one of many, so that half of all rows are of CartPole.
"""

import random
import statistics
import tempfile

import torch
from transformers import Trainer, TrainingArguments

import hf_zoo
from hf_zoo.claims import Claim
from hf_zoo.control import collect, evaluate
from hf_zoo.data import load_dataset
from hf_zoo.tokenization.gato_processor import join

SEED, STEPS, ROWS = 0, 1500, 32
TIMESTEPS, LETTERS = 6, 48  # of a window of an episode, and characters of a window of text


class Mixture(torch.utils.data.Dataset):
    """Windows of episodes, captioned glyphs and windows of text, in turn; window i is always the same."""

    def __init__(self, processor, episodes, glyphs, text):
        self.processor, self.text = processor, text
        self.episodes = [[processor.timestep(*step) for step in steps] for steps in episodes]
        self.captions = [join(processor.image(glyph["image"]), processor.text(glyph["text"])) for glyph in glyphs]

    def __len__(self):
        return STEPS * ROWS

    def __getitem__(self, index):
        draw = random.Random(f"{SEED} {index}")
        if index % 8 < 4:
            steps = draw.choice(self.episodes)
            first = draw.randrange(max(len(steps) - TIMESTEPS, 1))
            return join(*steps[first : first + TIMESTEPS])
        if index % 8 == 4:
            return self.processor.text(window(self.text, draw))
        return draw.choice(self.captions)


def window(text, draw):
    first = draw.randrange(len(text) - LETTERS)
    return text[first : first + LETTERS]


def trained(processor, mixture):
    torch.manual_seed(SEED)
    model = hf_zoo.create_model("gato-tiny")
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            folder,
            max_steps=STEPS,
            learning_rate=3e-3,
            warmup_steps=STEPS // 20,
            lr_scheduler_type="cosine",
            per_device_train_batch_size=ROWS,
            seed=SEED,
            use_cpu=True,
            report_to=[],
            save_strategy="no",
            logging_steps=10,
            remove_unused_columns=False,
        )
        trainer = Trainer(model, arguments, data_collator=processor.batch, train_dataset=mixture)
        trainer.train()
    return model.eval(), [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


@torch.no_grad()
def words_named(model, processor, glyphs, images):
    """Mean share of words that a caption and the right one have in common, of all words in either."""
    batch = processor(images=images)  # all of one size, so that no row is padded
    batch.pop("labels")
    tokenizer, shares = processor.tokenizer, []
    ends = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    written = model.generate(**batch, max_new_tokens=40, do_sample=False, **ends)
    for glyph, ids in zip(glyphs, written[:, batch["input_ids"].shape[1] :].tolist(), strict=True):
        text = [token for token in ids if token < processor.text_vocab_size]
        said = set(tokenizer.decode(text, skip_special_tokens=True).split())
        right = set(glyph["text"].split())
        shares.append(len(said & right) / len(said | right))
    return statistics.mean(shares)


@torch.no_grad()
def loss_on_text(model, processor, train_text, test_text):
    """Nats a token on unseen text, the model's and that of frequencies of tokens in the text it was trained on."""
    draw = random.Random(SEED)
    batch = processor([window(test_text, draw) for _ in range(256)])
    ids = processor.tokenizer(train_text[:1_000_000], verbose=False)["input_ids"]
    counts = torch.bincount(torch.tensor(ids), minlength=processor.text_vocab_size).float() + 1
    labels = batch["labels"][:, 1:]
    return model(**batch).loss.item(), -(counts / counts.sum()).log()[labels[labels != -100]].mean().item()


def main():
    claim = Claim("gato", "Reed et al. 2022")
    processor = hf_zoo.create_processor("gato-tiny")
    # Noise pushes the expert off its path, so that the data say what to do there
    episodes, _ = collect("CartPole-v1", 60, seed=0, noise=0.3)
    glyphs, docs = load_dataset("glyphs"), load_dataset("python-docs")
    glyphs = {split: [row for row in rows if row["text"].startswith("latin")] for split, rows in glyphs.items()}
    texts = {split: "\n".join(docs[split]["doc"]) for split in ("train", "test")}
    model, losses = trained(processor, Mixture(processor, episodes, list(glyphs["train"]), texts["train"]))
    claim.draw("loss of all three", "one set of weights", range(10, STEPS + 1, 10), losses)

    _, expert = collect("CartPole-v1", 10, seed=1)
    returns = evaluate(model, processor, "CartPole-v1", 10, seed=1, max_tokens=6 * TIMESTEPS)
    claim.compare(
        "it keeps CartPole's pole up for at least 90 % of the expert's time",
        statistics.mean(returns) >= 0.9 * statistics.mean(expert),
        model=statistics.mean(returns),
        expert=statistics.mean(expert),
    )
    seen = list(glyphs["test"])[:150]
    images = [glyph["image"] for glyph in seen]
    own = words_named(model, processor, seen, images)
    other = words_named(model, processor, seen, images[1:] + images[:1])
    claim.compare(
        "shown a glyph that it never saw, its caption has more words of the right name than shown another one, by a "
        "tenth of all words at least",
        own > other + 0.1,
        shown_the_glyph=own,
        shown_another=other,
    )
    ours, frequencies = loss_on_text(model, processor, texts["train"], texts["test"])
    claim.compare(
        "it continues unseen text, at least one nat a token better than the frequencies of tokens",
        ours < frequencies - 1,
        model=ours,
        frequencies=frequencies,
    )
    claim.finish()


if __name__ == "__main__":
    main()
