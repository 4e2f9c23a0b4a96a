"""zoo_lcm beside zoo_llm with the same decoder: what concepts cost, and how hops grow with the number of edges.

Sentences are 16 tokens long; the graph has 1,024 entities and 8,192 edges, and entities are found by the model. Then
next-concept prediction: a step of regression beside the decoder alone on the same vectors, and concepts that are
generated with a cache beside reading the whole text for each.

    python benchmarks/lcm.py
"""

import argparse
import logging
import time

import torch
from paired import growth, report, speed_up

import hf_zoo
from hf_zoo.modeling.lcm.multi_hop import MultiHopReasoner

SIZES = {
    **{"vocab_size": 2048, "hidden_size": 256, "intermediate_size": 768, "num_hidden_layers": 6},
    **{"num_attention_heads": 8, "num_key_value_heads": 8, "max_position_embeddings": 4096},
}
CONCEPTS = {
    **{"cross_every": 3, "concept_size": 128, "num_entities": 1024, "num_relations": 16, "num_edges": 8192},
    **{"num_linked": 4, "num_free_slots": 4, "level_sizes": [8], "taxonomy_relations": []},
}
SENTENCE = 16
VECTOR, NEW_CONCEPTS = 256, 8  # size of a sentence's vector, and how many are generated


def tokens(length):
    """A row in which every 16th token ends a sentence."""
    ids = torch.randint(6, SIZES["vocab_size"], (1, length), generator=torch.Generator().manual_seed(0))
    ids[:, SENTENCE - 1 :: SENTENCE] = 5
    return ids


def train_step(model, length):
    """Forward and backward."""
    ids = tokens(length)

    def run():
        model.train()
        model.zero_grad()
        model(ids, labels=ids).loss.backward()

    return run


def decode(model, ends):
    """64 single tokens after a prompt of 64, with sentences that end on the way or without."""
    ids = tokens(128)
    if not ends:
        ids[:, 64:] = ids[:, 64:].clamp_min(6)

    @torch.no_grad()
    def run():
        model.eval()
        cache = model(ids[:, :64], use_cache=True).past_key_values
        for t in range(64, 128):
            model(ids[:, t : t + 1], past_key_values=cache, use_cache=True)

    return run


def hops(edges, size=64, entities=4096, rows=16):
    """Three hops of 16 questions, forward and backward."""
    reasoner = MultiHopReasoner(size, 3)
    reasoner.gru.initialise()
    concepts, relations = torch.randn(entities, size, requires_grad=True), torch.randn(16, size)
    drawn = torch.stack([torch.randint(limit, (edges,)) for limit in (entities, 16, entities)])
    query, start = torch.randn(rows, size), torch.eye(entities)[:rows]

    def run():
        reasoner(query, start, concepts, relations, drawn).readout.sum().backward()

    return run


def predictor(head):
    """A concept predictor with the same decoder, which never takes a concept for the end of a text."""
    sizes = {name: size for name, size in SIZES.items() if name != "vocab_size"}
    fields = {"concept_head": head, "sentence_size": VECTOR, "stop_similarity": 1.1}
    return hf_zoo.create_model("concept-predictor-tiny", **sizes, **fields)


def regression_step(model, count):
    """Forward and backward."""
    concepts = torch.randn(1, count, VECTOR)

    def run():
        model.train()
        model.zero_grad()
        model(concepts=concepts, labels=concepts).loss.backward()

    return run


def decoder_step(trunk, count):
    """The same of the decoder alone."""
    x = torch.randn(1, count, SIZES["hidden_size"])

    def run():
        trunk.train()
        trunk.zero_grad()
        trunk(inputs_embeds=x).last_hidden_state.square().mean().backward()

    return run


def generate(model, count, is_cached):
    """New concepts after a text of some, with a cache or each from the whole text."""
    concepts = torch.randn(1, count, VECTOR)

    def run():
        model.eval()
        if is_cached:
            return model.generate(concepts, max_new_concepts=NEW_CONCEPTS).concepts
        text = concepts
        for _ in range(NEW_CONCEPTS):
            text = torch.cat((text, model.generate(text, max_new_concepts=1).concepts), dim=1)
        return text

    return run


def fastest(work, repeats):
    """Seconds."""
    work()
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        work()
        times.append(time.perf_counter() - started)
    return min(times)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lengths", type=int, nargs="+", default=[256, 512, 1024])
    parser.add_argument("--edges", type=int, nargs="+", default=[8192, 16384, 32768, 65536, 131072])
    parser.add_argument("--pairs", type=int, default=7)
    args = parser.parse_args()
    logging.getLogger("transformers").setLevel(logging.ERROR)
    torch.manual_seed(0)
    dense, model = hf_zoo.create_model("llm-tiny", **SIZES), hf_zoo.create_model("lcm-tiny", **SIZES, **CONCEPTS)

    rows = []
    for length in args.lengths:
        ratio, _, _ = speed_up(train_step(model, length), train_step(dense, length), args.pairs)
        rows.append({"work": f"training step, {length} tokens", "beside": "zoo_llm", "time against it": 1 / ratio})
    for name, ends in (("a sentence ends every 16 tokens", True), ("no sentence ends", False)):
        ratio, _, _ = speed_up(decode(model, ends), decode(dense, ends), args.pairs)
        rows.append({"work": f"64 single tokens after 64, {name}", "beside": "zoo_llm", "time against it": 1 / ratio})
    trunk, regression = hf_zoo.create_model("llm-tiny", "feature-extraction", **SIZES), predictor("regression")
    for count in args.lengths:
        ratio, _, _ = speed_up(regression_step(regression, count), decoder_step(trunk, count), args.pairs)
        work = f"training step of regression, {count} concepts"
        rows.append({"work": work, "beside": "zoo_llm without a head, inputs_embeds", "time against it": 1 / ratio})
    for head in ("regression", "two_tower"):
        model, count = predictor(head), args.lengths[-1]
        ratio, _, _ = speed_up(generate(model, count, True), generate(model, count, False), args.pairs)
        work = f"{NEW_CONCEPTS} concepts after {count}, {head}, cached"
        rows.append({"work": work, "beside": "each from the whole text", "time against it": 1 / ratio})
    power = growth(args.edges, [fastest(hops(edges), args.pairs) for edges in args.edges])
    note = (
        f"three hops, forward and backward, grow as edges^{power:.2f} from {args.edges[0]} to {args.edges[-1]} edges"
    )
    report("lcm", rows, f"median of paired runs; {note}")


if __name__ == "__main__":
    hf_zoo.register()
    main()
