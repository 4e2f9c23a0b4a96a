"""The more retrieved passages a reader joins, the more questions it answers.

Izacard and Grave 2021, "Leveraging Passage Retrieval with Generative Models for Open Domain Question Answering",
https://arxiv.org/abs/2007.01282, figure 3. A question is the first sentence of a docstring of the standard
library; the answer is the package that the object belongs to; BM25 finds docstrings of other objects, few of which
happen to name their package. In training the packages' names are exchanged at random, in passages and answer alike, so
nothing can be learnt by heart and reading is all there is to learn; questions that are asked afterwards are of other
objects, with the names as they are. Where no passage names its answer, a guess is all that is left: the share of
questions whose passages do is given beside.
"""

import random
import re
import sys
import zlib
from collections import Counter

import torch

import hf_zoo
from hf_zoo.claims import Claim, train
from hf_zoo.data import load_dataset
from hf_zoo.retrieval import Bm25

PACKAGES, VOCABULARY = 12, 3000  # of the largest packages; of the most frequent words
QUESTION, PASSAGE, READ = 14, 48, 6  # words, words, passages in training
STEPS, BATCH, LR = 700, 16, 2e-3
COUNTS = (1, 5, 20)
PAD, END, UNKNOWN, ASKS, SAYS = range(5)
SIZES = {
    **{"hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 2, "decoder_layers": 1, "head_dim": 32},
    **{"num_attention_heads": 4, "hidden_dropout": 0.0, "attention_dropout": 0.0, "activation_dropout": 0.0},
    **{"pad_token_id": PAD, "eos_token_id": END, "decoder_start_token_id": PAD},
}


def words(text):
    """Lower-case words; those that are written together in an identifier apart."""
    return re.findall(r"[a-z]+", re.sub(r"([a-z0-9])([A-Z])", r"\1 \2", text).lower())


def package(row):
    return row["path"].split("/")[0].removesuffix(".py").strip("_").lower()


class Library:
    """Questions, answers and passages as numbers of words.

    `found[i]` are the numbers of the 20 passages that BM25 finds for question i, its own docstring never among them.
    """

    def __init__(self):
        rows = [row for split in load_dataset("python-docs").values() for row in split if row["kind"] != "module"]
        largest = sorted(name for name, _ in Counter(map(package, rows)).most_common(PACKAGES))
        rows = [row for row in rows if package(row) in largest]
        passages = [words(row["doc"])[:PASSAGE] for row in rows]
        first = [words(re.split(r"(?<=[.!?])\s|\n\s*\n", row["doc"].strip())[0]) for row in rows]
        asked = [[word for word in sentence if word not in largest][:QUESTION] for sentence in first]

        frequent = [word for word, _ in Counter(word for text in passages for word in text).most_common(VOCABULARY)]
        names = ["<pad>", "<end>", "<unknown>", "<asks>", "<says>", *largest]
        self.number = {word: i for i, word in enumerate(dict.fromkeys(names + frequent))}
        self.packages = torch.tensor([self.number[name] for name in largest])
        self.questions, self.passages = (
            [[self.number.get(word, UNKNOWN) for word in text] for text in texts] for texts in (asked, passages)
        )
        self.answers = [self.number[package(row)] for row in rows]
        nearest = Bm25(" ".join(text) for text in passages).search([" ".join(text) or "it" for text in asked], 21)[1]
        self.found = [[j for j in found if j != i][:20] for i, found in enumerate(nearest.tolist())]
        places = [zlib.crc32(f"{row['path']}:{row['name']}".encode()) for row in rows]
        self.train = [i for i, place in enumerate(places) if place % 5 and any(self.says(i))]
        self.held_out = [i for i, place in enumerate(places) if not place % 5 and self.questions[i]]

    def says(self, i, of=None):
        """Which of the passages found for question i, or for question `of`, name its answer."""
        return [self.answers[i] in self.passages[j] for j in self.found[i if of is None else of]]

    def read(self, i, found):
        """Question i with each of the passages (passages, length)."""
        rows = torch.full((len(found), QUESTION + PASSAGE + 2), PAD)
        for row, j in zip(rows, found, strict=True):
            text = [ASKS, *self.questions[i], SAYS, *self.passages[j]]
            row[: len(text)] = torch.tensor(text)
        return rows

    def draw(self, generator):
        """Some of the passages of a question, one that names the answer among them, with the packages exchanged."""
        i = self.train[int(torch.randint(len(self.train), (), generator=generator))]
        order, says = torch.randperm(20, generator=generator).tolist(), self.says(i)
        answering = next(place for place in order if says[place])
        others = [place for place in order if place != answering][: READ - 1]
        exchanged = torch.arange(len(self.number))
        exchanged[self.packages] = self.packages[torch.randperm(PACKAGES, generator=generator)]
        ids = exchanged[self.read(i, [self.found[i][place] for place in (answering, *others)])]
        labels = torch.tensor([int(exchanged[self.answers[i]]), END])
        return {"input_ids": ids, "attention_mask": (ids != PAD).long(), "labels": labels}


@torch.no_grad()
def answers(model, library, questions, count, passages_of=None):
    """Share of the questions answered exactly from their first passages, or from those of other questions."""
    right = 0
    for start in range(0, len(questions), 50):
        batch, others = (some[start : start + 50] for some in (questions, passages_of or questions))
        ids = torch.stack([library.read(i, library.found[j][:count]) for i, j in zip(batch, others, strict=True)])
        said = model.generate(input_ids=ids, attention_mask=(ids != PAD).long(), max_new_tokens=2)[:, 1]
        right += sum(word == library.answers[i] for word, i in zip(said.tolist(), batch, strict=True))
    return right / len(questions)


@torch.no_grad()
def attended(model, library, questions):
    """How often the passage with the highest score names the answer, and how often any passage would; of questions
    that some passages answer and some do not."""
    hits, chance = [], []
    for i in questions:
        says = library.says(i)
        if 0 < sum(says) < len(says):
            ids = library.read(i, library.found[i])[None]
            scores = model.passage_scores(ids, (ids != PAD).long())
            hits.append(says[int(scores.argmax())])
            chance.append(sum(says) / len(says))
    return sum(hits) / len(hits), sum(chance) / len(chance)


def main(seed: int = 0):
    claim, library = Claim("fid", "Izacard and Grave 2021"), Library()
    torch.manual_seed(seed)
    model = hf_zoo.create_model("fid-tiny", vocab_size=len(library.number), **SIZES)
    losses = train(model, library.draw, STEPS, LR, BATCH, seed=seed + 1)
    claim.draw("loss in training", f"{READ} passages", range(10, STEPS + 1, 10), losses)

    asked = library.held_out
    right = [answers(model, library, asked, count) for count in COUNTS]
    said = [sum(any(library.says(i)[:count]) for i in asked) / len(asked) for count in COUNTS]
    claim.draw("questions answered, by passages", "reader", COUNTS, right)
    claim.draw("questions answered, by passages", "answer is in the passages", COUNTS, said)
    claim.compare(
        "exact answers to held-out questions rise from 1 to 5 to 20 passages, each time by two standard errors",
        all(b - a > 2 * (b * (1 - b) / len(asked)) ** 0.5 for a, b in zip(right, right[1:], strict=False)),
        **{f"{count} passages": share for count, share in zip(COUNTS, right, strict=True)},
        **{f"in the {count}": share for count, share in zip(COUNTS, said, strict=True)},
    )
    others = random.Random(seed).sample(asked, len(asked))
    shuffled = answers(model, library, asked, COUNTS[-1], passages_of=others)
    claim.compare(
        "from the passages of other questions it answers less than half as much",
        shuffled < right[-1] / 2,
        own=right[-1],
        of_others=shuffled,
    )
    hits, chance = attended(model, library, asked)
    claim.compare(
        "cross-attention tells which passages answer: the one with the highest score does so twice as often as any",
        hits > 2 * chance,
        highest_score=hits,
        any_passage=chance,
    )
    claim.finish()


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
