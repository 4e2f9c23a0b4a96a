"""A large concept model answers questions by following a graph, which a language model of its size cannot learn.

Questions of one to three hops about the standard library ("What is the package of the module of the base class of
json.decoder.JSONDecodeError?"), held out by a hash. The concept model has the graph as edges, and learns from training
questions and their answers alone: no path is shown to it. The entity that a question starts from is found by its name.
The language model has as many parameters and as many steps, reads the same facts as sentences and the same questions
with their answers, and is right where it would write the answer. Then, for questions whose last step can be led
elsewhere, that edge is changed and the question is asked again, without training.
"""

import torch

import hf_zoo
from hf_zoo.claims import Claim, train
from hf_zoo.data import load_dataset
from hf_zoo.tokenization.train import train_tokenizer

STEPS = 450  # of each model
ASKED, EDITED = 150, 20  # questions for each number of hops, and edges that are changed
LENGTH, BATCH = 44, 24  # tokens of a row, rows of a step
SIZES = {"vocab_size": 1024, "num_attention_heads": 4, "num_key_value_heads": 4, "max_position_embeddings": 128}
MODEL = {**SIZES, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2}
CONCEPTS = {
    **{"cross_every": 2, "num_linked": 1, "num_free_slots": 1, "level_sizes": [2], "num_graph_layers": 1},
    **{"num_hops": 3, "taxonomy_relations": []},
}
RIVAL = {**SIZES, "hidden_size": 112, "intermediate_size": 352, "num_hidden_layers": 4, "tie_word_embeddings": True}
SEED = 0


def draw_from(batch):
    """Rows of a batch, drawn."""

    def draw(generator):
        row = int(torch.randint(len(batch["input_ids"]), (), generator=generator))
        return {name: values[row] for name, values in batch.items()}

    return draw


def main():
    claim = Claim("lcm", "our own design, after the parts that the literature gives large concept models")
    facts = load_dataset("python-graph-triples", "train")
    triples = list(zip(facts["head"], facts["relation"], facts["tail"], strict=True))
    questions = load_dataset("python-graph")
    tokenizer = train_tokenizer([*facts["text"], *questions["train"]["question"]], "bpe", SIZES["vocab_size"])

    def tokens(texts):
        ids = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
        return tokenizer.pad(
            {"input_ids": ids}, padding_side="right", return_tensors="pt", padding="max_length", max_length=LENGTH
        )

    def short(rows):
        """Those that fit into a row together with their answer."""
        texts = [f"{row['question']} {row['answer']}" for row in rows]
        sizes = [len(ids) for ids in tokenizer(texts, add_special_tokens=False)["input_ids"]]
        return [row for row, size in zip(rows, sizes, strict=True) if size < LENGTH]

    train_rows = short(list(questions["train"]))
    asked = {
        hops: [row for row in short(list(questions["test"].shuffle(seed=1))) if row["hops"] == hops][:ASKED]
        for hops in (1, 2, 3)
    }
    print(f"{len(triples)} facts, {len(train_rows)} questions", flush=True)

    torch.manual_seed(SEED)
    model = hf_zoo.create_model("lcm-tiny", "graph-question-answering", **MODEL, **CONCEPTS)
    model.load_graph(triples)
    rival = hf_zoo.create_model("llm-tiny", **RIVAL)

    def read(rows):
        """Questions for the concept model, with the entity whose name ends the question at its last token."""
        batch = tokens([row["question"] for row in rows])
        last = batch["attention_mask"].sum(1) - 1
        names = [row["question"].rsplit(" ", 1)[1].removesuffix("?") for row in rows]
        mentions = torch.full_like(batch["input_ids"], -1)
        mentions[torch.arange(len(rows)), last] = model.mention_ids(names)[0]
        return {**batch, "mention_ids": mentions, "labels": model.mention_ids([row["answer"] for row in rows])[0]}

    @torch.no_grad()
    def answers(rows):
        """Names of the answers, and the paths, entities and relations in turn."""
        found, paths = [], []
        for start in range(0, len(rows), 50):
            outputs = model(**read(rows[start : start + 50]))
            found += [model.config.entity_names[i] for i in outputs.logits.argmax(-1)]
            paths += [model.path_of(outputs, row) for row in range(len(outputs.logits))]
        return found, paths

    losses = train(model, draw_from(read(train_rows)), STEPS, 4e-3, BATCH, seed=SEED + 1)
    claim.draw("loss", "concept model, of answers", range(10, STEPS + 1, 10), losses)

    def text_rows(texts):
        batch = tokens([f"{text}{tokenizer.eos_token}" for text in texts])
        return {**batch, "labels": batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)}

    told = [row["text"] for row in facts if len(tokenizer(row["text"])["input_ids"]) < LENGTH]
    texts = text_rows([*told, *(f"{row['question']} {row['answer']}" for row in train_rows)])
    losses = train(rival, draw_from(texts), STEPS, 4e-3, BATCH, seed=SEED + 1)
    claim.draw("loss", "language model, of tokens", range(10, STEPS + 1, 10), losses)

    @torch.no_grad()
    def rival_accuracy(rows):
        """Share of rows whose answer greedy search would write: each of its tokens, to the end, is the likeliest."""
        right = 0
        for row in rows:
            ids = text_rows([f"{row['question']} {row['answer']}"])
            known = len(tokenizer(row["question"], add_special_tokens=False)["input_ids"])
            size = int(ids["attention_mask"].sum())
            wanted = ids["input_ids"][0, known:size]
            said = rival(ids["input_ids"][:, :size]).logits[0, known - 1 : size - 1].argmax(-1)
            right += bool((said == wanted).all())
        return right / len(rows)

    accuracy, rivals, right_paths, right_answers = {}, {}, 0, 0
    for hops, rows in asked.items():
        found, paths = answers(rows)
        is_right = [answer == row["answer"] for answer, row in zip(found, rows, strict=True)]
        for row, path, good in zip(rows, paths, is_right, strict=True):
            right_answers += good
            right_paths += good and path[::2] == row["path"] and path[1::2] == row["relations"]
        accuracy[hops], rivals[hops] = sum(is_right) / len(rows), rival_accuracy(rows)
        print(f"{hops} hops: {accuracy[hops]:.3f}, language model {rivals[hops]:.3f}", flush=True)
    claim.draw("held-out answers that are right", "concept model", list(accuracy), list(accuracy.values()))
    claim.draw("held-out answers that are right", "language model of its size", list(rivals), list(rivals.values()))

    followed = changed = 0
    entities = model.config.entity_names
    for row in asked[2] + asked[3]:
        if changed == EDITED:
            break
        *_, last, answer = row["path"]
        relation = row["relations"][-1]
        elsewhere = entities[(entities.index(answer) + 7) % len(entities)]
        if elsewhere in row["path"] or answers([row])[0] != [answer]:
            continue
        model.remove_edges([(last, relation, answer)])
        model.add_edges([(last, relation, elsewhere)])
        followed += answers([row])[0] == [elsewhere]
        changed += 1
        model.remove_edges([(last, relation, elsewhere)])
        model.add_edges([(last, relation, answer)])

    sizes = [sum(p.numel() for p in one.parameters()) for one in (model, rival)]
    claim.compare(
        "at three hops it answers at least 30 points more than a language model with as many parameters",
        accuracy[3] >= rivals[3] + 0.3 and sizes[1] >= sizes[0],
        one_hop=accuracy[1],
        two_hops=accuracy[2],
        three_hops=accuracy[3],
        language_model_one_hop=rivals[1],
        language_model_two_hops=rivals[2],
        language_model_three_hops=rivals[3],
        parameters=sizes[0],
        language_model_parameters=sizes[1],
    )
    share = right_paths / max(right_answers, 1)
    claim.compare(
        "the path it gives is the true one in at least 80 % of its right answers, though none was shown to it",
        share >= 0.8,
        true_paths=share,
    )
    claim.compare(
        "when the last edge of a path is led elsewhere, at least 80 % of its answers follow without training",
        followed >= 0.8 * changed,
        followed=followed / max(changed, 1),
        edges_changed=changed,
    )
    claim.finish()


if __name__ == "__main__":
    main()
