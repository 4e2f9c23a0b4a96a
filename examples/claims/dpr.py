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

STEPS, BATCH = 700, 96
QUESTION, PASSAGE = 24, 72  # tokens


def words(text):
    """Lower-case words; those that are written together in an identifier apart."""
    text = re.sub(r"([a-z0-9])([A-Z])", r"\1 \2", text).replace("_", " ")
    return re.findall(r"[a-z]+|\d+", text.lower())


def pair(row):
    """Passage, literal question and paraphrased question of a documented object."""
    names = set(words(f"{row['name']} {row['signature']}"))
    sentence = words(re.split(r"(?<=[.!?])\s|\n\s*\n", row["doc"].strip())[0])
    rest = [word for word in sentence if word not in names and word.rstrip("s") not in names]
    passage = words(f"{row['name']} {row['code']}")[:160]
    return " ".join(passage), " ".join(sentence), " ".join(rest)


def main():
    claim = Claim("dpr", "Karpukhin et al. 2020")
    pairs = {}
    for split in ("train", "validation", "test"):
        rows = (row for row in load_dataset("python-docs", split) if row["code"] and row["kind"] != "module")
        pairs[split] = [p for p in map(pair, rows) if len(p[2].split()) >= 4]
    tokenizer = train_tokenizer([" ".join(p[:2]) for p in pairs["train"]], "wordpiece", 8000)

    def tokens(texts, length):
        options = {"padding": "max_length", "truncation": True, "max_length": length, "return_tensors": "pt"}
        return tokenizer(texts, **options)

    passages = tokens([p[0] for p in pairs["train"]], PASSAGE)
    questions = [tokens([p[form] for p in pairs["train"]], QUESTION) for form in (1, 2)]

    def draw(generator):
        i = int(torch.randint(len(pairs["train"]), (), generator=generator))
        form = questions[int(torch.randint(2, (), generator=generator))]
        row = {name: form[name][i] for name in ("input_ids", "attention_mask")}
        return row | {f"passage_{name}": passages[name][i] for name in row}

    torch.manual_seed(0)
    encoder = {
        **{"model_type": "zoo_mlm", "vocab_size": len(tokenizer), "hidden_size": 256, "intermediate_size": 512},
        **{"num_hidden_layers": 1, "num_attention_heads": 4, "hidden_dropout": 0.0, "attention_dropout": 0.0},
    }
    model = hf_zoo.create_model(
        "dpr-tiny", question_config=encoder, pooling="mean", similarity="cosine", temperature=0.05, share_encoders=True
    )
    losses = train(model, draw, steps=STEPS, learning_rate=1e-3, batch_size=BATCH)
    claim.draw("loss in training", "dual encoder", range(10, STEPS + 1, 10), losses)

    every = [p for part in pairs.values() for p in part]
    unseen = range(len(pairs["train"]), len(every))
    dense, lexical = TextEncoder(model, tokenizer, max_length=PASSAGE), Bm25([p[0] for p in every])
    vectors = dense.passages([p[0] for p in every])
    recall = {}
    for form, name in ((1, "literal"), (2, "paraphrased")):
        asked = [every[i][form] for i in unseen]
        found = {
            "dpr": search_exactly(dense.questions(asked), [(0, vectors)], np.empty(0, np.int64), 20)[1],
            "bm25": lexical.search(asked, 20)[1],
        }
        recall[name] = {who: evaluate(rows, list(unseen))["recall@5"] for who, rows in found.items()}
        print(name, {who: evaluate(rows, list(unseen)) for who, rows in found.items()})
    for name, statement in (
        (
            "paraphrased",
            "without the names of what is asked for, the dual encoder finds more than BM25 among the first 5",
        ),
        ("literal", "and with them no less"),
    ):
        measured = recall[name]
        holds = measured["dpr"] > measured["bm25"] if name == "paraphrased" else measured["dpr"] >= measured["bm25"]
        claim.compare(statement, holds, **measured)
    claim.finish()


if __name__ == "__main__":
    main()
