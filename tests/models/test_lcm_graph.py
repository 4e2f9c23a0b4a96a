"""The graph of a concept model: scores and links, editing, hops and their paths."""

import pytest
import torch
from concept_models import IDS, heard, tiny
from datasets import Dataset
from torch.testing import assert_close
from transformers import AutoModelForCausalLM, AutoModelForTableQuestionAnswering

import hf_zoo
from hf_zoo.modeling.lcm.hierarchy import Taxonomy
from hf_zoo.modeling.lcm.knowledge_graph import KnowledgeGraph
from hf_zoo.modeling.lcm.modeling_lcm import answer_loss
from hf_zoo.modeling.lcm.multi_hop import MultiHopReasoner, trace


def chain(names="abcdefgh", relation="next"):
    return [(head, relation, tail) for head, tail in zip(names, names[1:], strict=False)]


SMALL = {"num_linked": 1, "num_free_slots": 1, "level_sizes": [2], "taxonomy_relations": []}


# the graph


def test_a_fresh_graph_is_always_the_same():
    first, second = (hf_zoo.create_model("lcm-tiny", "feature-extraction").knowledge.edges for _ in range(2))
    assert torch.equal(first, second) and first.unique().numel() > 2


def test_scores_of_triples():
    torch.manual_seed(0)
    h, r, t = torch.randn(3, 4, 8, dtype=torch.double)
    config = hf_zoo.create_config("lcm-tiny")
    assert_close(KnowledgeGraph(config).score(h, r, t), (h * r * t).sum(-1))
    complex_graph = KnowledgeGraph(hf_zoo.create_config("lcm-tiny", graph_score="complex"))
    h, r, t = (torch.complex(*x.chunk(2, -1)) for x in (h, r, t))
    parts = [torch.cat((x.real, x.imag), -1) for x in (h, r, t)]
    assert_close(complex_graph.score(*parts), (h * r * t.conj()).sum(-1).real)


def shaken_graph(**fields):
    torch.manual_seed(0)
    graph = KnowledgeGraph(hf_zoo.create_config("lcm-tiny", **fields))
    for parameter in graph.parameters():
        torch.nn.init.normal_(parameter)
    graph.initialise()
    return graph


def test_concepts_are_what_all_layers_make_of_the_entities():
    graph = shaken_graph(num_graph_layers=2)
    once = graph.layers[0](graph.entities, graph.relations, graph.edges)
    assert_close(graph(), graph.layers[1](once, graph.relations, graph.edges))


@pytest.mark.parametrize("negatives", [4, 8])
def test_the_loss_of_a_graph_tells_tails_from_others(negatives):
    """Of edges drawn from all, by the same draws; where there are few entities, from all others."""
    graph = shaken_graph(
        num_entities=5, num_edges=9, num_linked=1, num_negatives=negatives, num_graph_samples=6, level_sizes=[]
    )
    concepts = graph()
    torch.manual_seed(1)
    found = graph.loss(concepts)
    torch.manual_seed(1)
    edges = graph.edges[:, torch.randint(9, (6,))].T.tolist()
    others = torch.randint(5, (6, 4)).tolist() if negatives == 4 else [range(5)] * 6
    losses = []
    for (head, relation, tail), drawn in zip(edges, others, strict=True):
        numbers = [tail, *(number for number in drawn if number != tail)]
        scores = (concepts[head] * graph.relations[relation] * concepts[numbers]).sum(-1)
        losses.append(-(scores / concepts.shape[1] ** 0.5).log_softmax(0)[0])
    assert_close(found, torch.stack(losses).mean())


COEFFICIENTS = {
    **{"graph_loss_coefficient": 0.3, "taxonomy_loss_coefficient": 0.5},
    **{"assignment_loss_coefficient": 0.7, "link_loss_coefficient": 1.1},
}


def test_every_loss_of_concepts_has_its_weight():
    model = tiny(**COEFFICIENTS, taxonomy_relations=[2]).train()
    trunk, graph, labels = model.model, model.model.knowledge, IDS.clone()
    links, levels, outputs = heard(trunk.memory.linker), heard(trunk.memory.hierarchy), heard(trunk)
    mentions = torch.full_like(IDS, -1)
    mentions[0, 1], mentions[0, 5], labels[0, :4] = 7, 3, -100
    torch.manual_seed(1)
    shared = model(IDS, mention_ids=mentions, labels=labels, num_items_in_batch=16).loss
    concepts = graph()
    torch.manual_seed(1)
    side = 0.3 * graph.loss(concepts) + 0.7 * levels[0][1] + 1.1 * links[0].loss
    heads, kinds, tails = graph.edges
    side += 0.5 * trunk.taxonomy.loss(concepts, heads[kinds == 2], tails[kinds == 2])
    assert_close(outputs[0].concept_loss, side)
    alone = model.eval()(IDS, mention_ids=mentions, labels=labels).loss  # of 8 tokens
    assert_close(shared, alone / 2 + side / 2)

    model = tiny("graph-question-answering", **COEFFICIENTS).train()
    links, outputs = heard(model.linker), heard(model.model)
    said, labels = model(IDS, mention_ids=mentions, labels=torch.tensor([4])), torch.tensor([4])
    assert_close(said.loss, answer_loss(said.logits, labels) + 1.1 * links[0].loss + outputs[0].concept_loss)


@pytest.mark.parametrize("score", ["distmult", "complex"])
@pytest.mark.parametrize("negatives", [3, 64])
def test_links_of_a_graph_are_learnt(score, negatives):
    torch.manual_seed(0)
    config = hf_zoo.create_config(
        "lcm-tiny", graph_score=score, num_negatives=negatives, num_graph_samples=30, num_entities=20, num_edges=60
    )
    graph = KnowledgeGraph(config)
    for module in graph.modules():
        if hasattr(module, "initialise"):
            module.initialise()
    graph.edges = torch.stack((torch.arange(20), torch.arange(20) % 3, torch.arange(20).roll(7)))
    optimizer = torch.optim.Adam(graph.parameters(), lr=0.03)
    first = graph.loss(graph()).item()
    for _ in range(60):
        optimizer.zero_grad()
        graph.loss(graph()).backward()
        optimizer.step()
    assert graph.loss(graph()).item() < 0.3 * first


def test_siblings_lie_closer_than_others():
    """Boxes of what is of one kind, after learning what is a kind of what."""
    torch.manual_seed(0)
    taxonomy, concepts = Taxonomy(8), torch.nn.Parameter(torch.randn(15, 8))
    parents = torch.arange(12) % 3 + 12
    optimizer = torch.optim.Adam([concepts, *taxonomy.parameters()], lr=0.05)
    first = taxonomy.loss(concepts, torch.arange(12), parents).item()
    for _ in range(150):
        optimizer.zero_grad()
        loss = taxonomy.loss(concepts, torch.arange(12), parents)
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.2 * first
    low, high = taxonomy.boxes(concepts[:12])
    distances = torch.cdist((low + high) / 2, (low + high) / 2)
    siblings = (parents[:, None] == parents) & ~torch.eye(12, dtype=torch.bool)
    assert distances[siblings].mean() < 0.8 * distances[parents[:, None] != parents].mean()


def test_boxes_within_each_other():
    taxonomy = Taxonomy(2)
    low, high = taxonomy.boxes(torch.randn(50, 2) * 9)
    assert (low < high).all()
    taxonomy.boxes = lambda x: (x, x + 4)
    concepts = torch.tensor([[0.0, 0.0], [0.0, 0.0], [1.0, 1.0]])
    one = torch.tensor([0])
    assert_close(taxonomy.loss(concepts, one, one + 1), torch.zeros(()))  # nothing to tell it from
    side, shared = torch.nn.functional.softplus(torch.tensor([4.0, 3.0]))  # the third lies a unit further
    assert_close(taxonomy.loss(concepts, one, one + 2), (side / shared).log())
    both = taxonomy.loss(concepts, torch.tensor([0, 1]), torch.tensor([1, 2]))
    # right: 0 in 1, whole, and 1 in 2, in part; wrong: 0 in 2, in part; and 1 in 1, whole
    wrong = -(1 - shared / side).log() - torch.log(-torch.expm1(torch.tensor(-1e-6)))
    assert_close(both, (side / shared).log() / 2 + wrong / 2)


# editing


def relation_of(model, number):
    return model.graph.relations[number], model.graph.layers[0].coefficients[number]


def test_loading_from_facts_in_either_form():
    facts = chain()
    model, again = (tiny("feature-extraction", **SMALL) for _ in range(2))
    model.load_graph(facts)
    again.load_graph(Dataset.from_list([dict(zip(("head", "relation", "tail"), fact, strict=True)) for fact in facts]))
    assert model.config.entity_names == again.config.entity_names == list("abcdefgh")
    assert torch.equal(model.graph.edges, again.graph.edges)
    assert model.graph.edges.tolist() == [list(range(7)), [0] * 7, list(range(1, 8))]
    assert (model.config.num_entities, model.config.num_relations, model.config.num_edges) == (8, 1, 7)
    kept, relation, shares = (x.clone() for x in (model.graph.entities[3], *relation_of(model, 0)))
    model.load_graph([("d", "next", "z"), ("z", "back", "d"), ("d", "next", "z")], relation_names=["next", "back"])
    assert_close(model.graph.entities[0], kept)  # "d" keeps what it learnt, as "next" does
    assert_close(relation_of(model, 0), (relation, shares))
    for new in (model.graph.entities[1], *relation_of(model, 1)):
        assert new.abs().max() > 1e-3  # a start that can be learnt from
    assert model.graph.edges.tolist() == [[0, 1], [0, 1], [1, 0]]
    model(IDS)


def test_editing():
    model = tiny("feature-extraction", **SMALL)
    model.load_graph(chain())
    assert model.add_edges([("a", "next", "c"), ("a", "next", "b")]) == 1  # the other is known
    model.remove_edges([{"head": "b", "relation": "next", "tail": "c"}])
    names = model.config.entity_names
    facts = {(names[h], names[t]) for h, _, t in model.graph.edges.T.tolist()}
    assert facts == {(h, t) for h, _, t in chain()} - {("b", "c")} | {("a", "c")}
    model.add_entities(["new"])
    assert_close(model.graph.entities[8], model.graph.entities[:8].mean(0))
    before = model.graph()[8]
    model.add_edges([("a", "next", "new")])
    assert (model.graph()[8] - before).abs().max() > 1e-3  # its neighbourhood tells what it is
    assert model.mention_ids(["b", None, "new"]).tolist() == [[1, -1, 8]]


def test_unknown_names_are_told_with_the_nearest():
    model = tiny("feature-extraction", **SMALL)
    with pytest.raises(ValueError, match="no names yet"):
        model.add_edges([("a", "next", "b")])
    model.load_graph([("apple", "is a", "fruit"), ("pear", "is a", "fruit")])
    with pytest.raises(ValueError, match="no entity 'appel'. Did you mean 'apple'"):
        model.add_edges([("appel", "is a", "fruit")])
    with pytest.raises(ValueError, match="no relation 'isa'. Did you mean 'is a'"):
        model.remove_edges([("apple", "isa", "fruit")])
    with pytest.raises(ValueError, match="does not say that fruit is a apple"):
        model.remove_edges([("fruit", "is a", "apple")])
    with pytest.raises(ValueError, match="has an entity 'pear' already"):
        model.add_entities(["plum", "pear"])
    with pytest.raises(ValueError, match="'pear' stands twice"):
        model.load_graph([], entity_names=["pear", "pear"], relation_names=["is a"])
    with pytest.raises(ValueError, match="too small for num_linked=3"):
        tiny("feature-extraction", **{**SMALL, "num_linked": 3}).load_graph([("a", "r", "b")])


@pytest.mark.parametrize("task", ["causal-lm", "graph-question-answering"])
def test_an_edited_graph_is_saved(task, tmp_path):
    model = tiny(task, **SMALL)
    model.load_graph(chain())
    model.add_entities(["new"])
    model.add_edges([("a", "next", "new")])
    model.remove_edges([("c", "next", "d")])
    model.save_pretrained(tmp_path)
    auto = AutoModelForCausalLM if task == "causal-lm" else AutoModelForTableQuestionAnswering
    again = auto.from_pretrained(tmp_path)
    assert type(again) is type(model)
    assert torch.equal(again.graph.edges, model.graph.edges)
    assert again.config.entity_names == [*"abcdefgh", "new"]
    assert_close(again(IDS).logits, model(IDS).logits, atol=0, rtol=0)
    again.remove_edges([("a", "next", "new")])


# hops


def solve(num_hops, steps):
    """Share of held-out 2-hop questions about a random graph answered right, learnt from answers alone."""
    torch.manual_seed(0)
    names = [f"e{i}" for i in range(30)]
    order = {r: torch.randperm(30).tolist() for r in ("r0", "r1", "r2")}
    facts = [(names[i], r, names[t]) for r, to in order.items() for i, t in enumerate(to)]
    model = hf_zoo.create_model("lcm-tiny", "graph-question-answering", num_hops=num_hops, **SMALL)
    model.load_graph(facts, names, list(order))
    questions = [(i, a, b) for i in range(30) for a in range(3) for b in range(3)]
    ids = torch.tensor([[10 + b, 20 + a, 30 + i] for i, a, b in questions])
    mentions = torch.tensor([[-1, -1, i] for i, _, _ in questions])
    maps = [order[r] for r in ("r0", "r1", "r2")]
    labels = torch.tensor([maps[b][maps[a][i]] for i, a, b in questions])
    held_out = torch.tensor([(i + 3 * a + b) % 5 == 0 for i, a, b in questions])
    optimizer = torch.optim.Adam(model.parameters(), lr=6e-3)
    for _ in range(steps):
        optimizer.zero_grad()
        model.train()(ids[~held_out], mention_ids=mentions[~held_out], labels=labels[~held_out]).loss.backward()
        optimizer.step()
    outputs = model.eval()(ids[held_out], mention_ids=mentions[held_out])
    right = (outputs.logits.argmax(-1) == labels[held_out]).float().mean().item()
    wanted = [[a, b] for (_, a, b), out in zip(questions, held_out.tolist(), strict=True) if out]
    return right, (outputs.paths[:, :2, 0] == torch.tensor(wanted)).all(-1).float().mean().item()


def test_two_hops_need_two_hops():
    right, paths = solve(2, 70)
    assert right > 0.9 and paths > 0.9
    assert solve(1, 40)[0] < 0.3


def test_hops_are_their_equations():
    torch.manual_seed(0)
    reasoner = MultiHopReasoner(4, 3).double()
    for parameter in reasoner.parameters():
        torch.nn.init.normal_(parameter)
    concepts, relations, q = (torch.randn(n, 4, dtype=torch.float64) for n in (6, 3, 1))
    edges = torch.stack((torch.randint(6, (20,)), torch.randint(3, (20,)), torch.randint(6, (20,))))
    p = start = torch.eye(6, dtype=torch.float64)[:1]
    hops = reasoner(q, start, concepts, relations, edges)
    halting = []
    for hop in range(3):
        alpha = (8 * torch.tanh(reasoner.relation_proj(q) @ relations.T / 8)).softmax(-1)
        p_next = torch.zeros_like(p)
        for head, relation, tail in edges.T.tolist():
            p_next[0, tail] += p[0, head] * alpha[0, relation]
        p = p_next / p_next.sum()
        q = torch.nn.GRUCell.forward(reasoner.gru, p @ concepts, q)
        halting.append(reasoner.halt(q)[0, 0])
        assert_close(hops.relations[:, hop], alpha)
        assert_close(hops.entities[:, hop], p)
    weights = torch.stack(halting).softmax(0)
    assert_close(hops.halting[0], weights)
    assert_close(hops.answer[0], weights @ hops.entities[0])
    assert_close(hops.readout, hops.answer @ concepts)


class Fixed(MultiHopReasoner):
    """Follows the relations that the query names, one number a hop, whatever it learnt."""

    def __init__(self, choices, halting):
        super().__init__(4, len(choices))
        self.choices, self.weights = choices, halting

    def reason(self, start, edges):
        scores = iter(torch.nn.functional.one_hot(torch.tensor(self.choices), 4).double() * 100)
        self.relation_proj.forward = lambda query: next(scores)[None]
        halting = iter(torch.tensor(self.weights).double())
        self.halt.forward = lambda query: next(halting).view(1, 1)
        concepts = torch.eye(6, 4).double()
        return self.double()(torch.zeros(1, 4).double(), start, concepts, torch.eye(4).double(), edges)


def test_paths_are_traced_back_from_the_answer():
    #                 0 -r0-> 1 -r1-> 2 -r2-> 3,  and 0 -r1-> 4
    edges = torch.tensor([[0, 1, 2, 0], [0, 1, 2, 1], [1, 2, 3, 4]])
    start = torch.eye(6).double()[:1]
    hops = Fixed([0, 1, 2], [0.0, 30.0, 0.0]).reason(start, edges)
    path, first = trace(hops, start, edges)
    assert path.tolist() == [[[0, 1], [1, 2], [-1, -1]]] and first.tolist() == [0]
    assert hops.answer.argmax() == 2
    assert_close(hops.readout, torch.eye(6, 4).double()[2:3], atol=1e-9, rtol=0)
    fewer = edges[:, [0, 2, 3]]  # without 1 -> 2 nothing is left after the first hop
    assert not Fixed([0, 1, 2], [0.0, 30.0, 0.0]).reason(start, fewer).entities[0, 1:].any()


def test_an_edge_flips_the_answer_without_training():
    """A model that follows "next" twice is asked the same before and after an edge is led elsewhere."""
    model = tiny("graph-question-answering", **SMALL, num_hops=2)
    model.load_graph([*chain(), ("a", "other", "h")])
    with torch.no_grad():  # the relation that is asked for, whatever the question
        model.reasoner.relation_proj.weight.zero_()
        model.reasoner.halt.weight.zero_()
    mentions = torch.full_like(IDS, -1)
    mentions[0, -1] = model.entity_id("a")

    def answers():
        outputs = model(IDS, mention_ids=mentions)
        return outputs, {model.config.entity_names[i] for i in (outputs.logits[0] > -20).nonzero()[:, 0]}

    outputs, found = answers()
    assert found == {"b", "h", "c"}
    model.remove_edges([("b", "next", "c")])
    assert answers()[1] == {"b", "h"}
    model.add_edges([("b", "next", "f")])
    outputs, found = answers()
    assert found == {"b", "h", "f"}
    model.remove_edges([("a", "other", "h")])
    outputs, _ = answers()
    assert (
        model.path_of(outputs) == ["a", "next", "b", "next", "f"][: 2 * int((outputs.paths[0, :, 0] >= 0).sum()) + 1]
    )


def test_direct_edges_are_hidden_from_their_question_in_training():
    """As if each had a graph without them; others see them, and so does who asks afterwards."""
    facts = [*chain("abcd"), ("a", "skip", "c"), ("b", "skip", "d"), ("a", "skip", "d"), ("a", "skip", "b")]
    mentions = torch.full((2, IDS.shape[1]), -1)
    mentions[:, -1] = torch.tensor([0, 1])
    answers = torch.tensor([[2, 3], [3, -100]])  # c and d for a question about a, d for one about b

    def logits(facts, is_training, **options):
        model = tiny("graph-question-answering", 0.0, num_hops=2, num_graph_layers=0, **SMALL, **options)
        model.load_graph(facts, "abcd", ["next", "skip"])
        return model.train(is_training)(IDS.repeat(2, 1), mention_ids=mentions, labels=answers).logits

    hidden = logits(facts, True, hide_direct_edges=True)
    without = [("a", "skip", "c"), ("a", "skip", "d")], [("b", "skip", "d")]
    for row, gone in enumerate(without):
        assert_close(hidden[row], logits([fact for fact in facts if fact not in gone], True)[row])
    assert_close(logits(facts, False, hide_direct_edges=True), logits(facts, False))
    assert (logits(facts, True) - hidden).abs().amax(-1).min() > 0.01


def test_several_right_answers():
    logits = torch.tensor([[0.5, 0.3, 0.2], [0.1, 0.8, 0.1]]).log()
    assert_close(answer_loss(logits, torch.tensor([0, 1])), -torch.tensor([0.5, 0.8]).log().mean())
    several = torch.tensor([[0, 2], [1, -100]])
    assert_close(answer_loss(logits, several), -torch.tensor([0.7, 0.8]).log().mean())


def test_a_question_that_mentions_nothing_is_answered_by_nothing():
    model = tiny("graph-question-answering")
    logits = model(IDS, mention_ids=torch.full_like(IDS, -1)).logits
    assert logits.isfinite().all() and logits.max() < -20
