"""Trained on pairs, a dual encoder finds passages whose words the question does not share.

Karpukhin et al. 2020, "Dense Passage Retrieval for Open-Domain Question Answering",
https://arxiv.org/abs/2004.04906, sections 4 and 5. Here a question is the first sentence of a docstring of the
standard library, and its passage the code that it describes, without docstrings; identifiers are split into words. A
paraphrased question has lost all words of the object's name and signature. BM25 searches the same words.
"""

import re

import numpy as np
import torch

import hf_zoo
from hf_zoo.claims import Claim, train
from hf_zoo.data import load_dataset
from hf_zoo.retrieval import Bm25, TextEncoder, evaluate
from hf_zoo.retrieval.exact import search_exactly
from hf_zoo.tokenization.train import train_tokenizer

STEPS, BATCH = 700, 128
QUESTION, PASSAGE = 24, 72  # tokens


def words(text):
    """Lower-case words; those that are written together in an identifier apart."""
    text = re.sub(r"([a-z0-9])([A-Z])", r"\1 \2", text).replace("_", " ")
    return re.findall(r"[a-z]+|\d+", text.lower())


def pair(row):
    """Passage, and as questions each sentence of its docstring, literal and without names."""
    names = set(words(f"{row['name']} {row['signature']}"))
    literal = [words(sentence) for sentence in re.split(r"(?<=[.!?])\s|\n\s*\n", row["doc"].strip())]
    rest = [[w for w in sentence if w not in names and w.rstrip("s") not in names] for sentence in literal]
    kept = [i for i, sentence in enumerate(rest) if len(sentence) >= 4 or i == 0]
    passage = words(f"{row['name']} {row['code']}")[:160]
    return passage, [literal[i] for i in kept], [rest[i] for i in kept]


def main():
    claim = Claim("dpr", "Karpukhin et al. 2020")
    pairs = {}
    for split in ("train", "validation", "test"):
        rows = (row for row in load_dataset("python-docs", split) if row["code"] and row["kind"] != "module")
        pairs[split] = [p for p in map(pair, rows) if len(p[2][0]) >= 4]
    every = pairs["train"]
    tokenizer = train_tokenizer([" ".join(p[0] + p[1][0]) for p in every], "wordpiece", 8000)

    def tokens(texts, length):
        options = {"padding": "max_length", "truncation": True, "max_length": length, "return_tensors": "pt"}
        return tokenizer([" ".join(text) for text in texts], **options)

    passages = tokens([p[0] for p in every], PASSAGE)

    def draw(generator):
        """A passage, and a sentence of its own with a quarter of the words left out."""
        i = int(torch.randint(len(every), (), generator=generator))
        literal, any_sentence = (torch.rand(2, generator=generator) < torch.tensor([0.6, 0.5])).tolist()
        form = every[i][1 if literal else 2]
        sentence = form[int(torch.randint(len(form), (), generator=generator)) if any_sentence else 0]
        kept = torch.rand(len(sentence), generator=generator) < 0.75
        question = tokens([[w for w, k in zip(sentence, kept, strict=True) if k] or sentence], QUESTION)
        row = {name: question[name][0] for name in ("input_ids", "attention_mask")}
        return row | {f"passage_{name}": passages[name][i] for name in row}

    torch.manual_seed(0)
    encoder = {
        **{"model_type": "zoo_mlm", "vocab_size": len(tokenizer), "hidden_size": 256, "intermediate_size": 512},
        **{"num_hidden_layers": 1, "num_attention_heads": 4, "hidden_dropout": 0.1, "attention_dropout": 0.1},
    }
    options = {"pooling": "mean", "projection_dim": 256, "similarity": "cosine", "temperature": 0.05}
    model = hf_zoo.create_model("dpr-tiny", question_config=encoder, share_encoders=True, **options)
    losses = train(model, draw, steps=STEPS, learning_rate=1e-3, batch_size=BATCH)
    claim.draw("loss in training", "dual encoder", range(10, STEPS + 1, 10), losses)

    unseen = pairs["validation"] + pairs["test"]
    texts, numbers = [" ".join(p[0]) for p in unseen], list(range(len(unseen)))
    dense, lexical = TextEncoder(model, tokenizer, max_length=PASSAGE), Bm25(texts)
    vectors, none = dense.passages(texts), np.empty(0, np.int64)
    recall = {}
    for form, name in ((1, "literal"), (2, "paraphrased")):
        asked = [" ".join(p[form][0]) for p in unseen]
        found = {
            "dpr": search_exactly(dense.questions(asked), [(0, vectors)], none, 20)[1],
            "bm25": lexical.search(asked, 20)[1],
        }
        recall[name] = {who: evaluate(rows, numbers)["recall@5"] for who, rows in found.items()}
        print(name, {who: evaluate(rows, numbers) for who, rows in found.items()})
    measured = recall["paraphrased"]
    claim.compare(
        "without names in the question, the dual encoder finds more than BM25 among the first 5",
        measured["dpr"] > measured["bm25"],
        **measured,
    )
    measured = recall["literal"]
    error = (measured["bm25"] * (1 - measured["bm25"]) / len(unseen)) ** 0.5
    claim.compare(
        "and with them as much, within the standard error of so many questions",
        measured["dpr"] >= measured["bm25"] - error,
        **measured,
        standard_error=error,
    )
    claim.finish()


if __name__ == "__main__":
    main()
