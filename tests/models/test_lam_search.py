"""Tree search: PUCT, backup and scaling against a tree of Python objects, whole trees, ends, seeds, environments."""

import math

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from hf_zoo.modeling.lam.search import (
    CopiedEnvironments,
    Judged,
    Path,
    SearchOptions,
    Step,
    Tree,
    dirichlet,
    tree_search,
    visit_policy,
)


class Numbers:
    """States are numbers; an act multiplies, and everything that is said of a state is a function of it."""

    acts = 3

    def judge(self, states):
        x = states.double()
        logits = torch.stack([torch.sin(x * (a + 1) * 1.7) for a in range(self.acts)], dim=-1)
        return Judged(logits, torch.cos(x * 0.9))

    def step(self, states, acts):
        after = (states * 3 + acts + 1) % 101
        return Step(after, torch.sin(after * 0.37), after % 7 == 3, self.judge(after))


class Node:
    def __init__(self, state, judged, is_end=False):
        self.state, self.is_end = state, is_end
        self.prior = judged.logits.double().softmax(-1)[0].tolist()
        self.value = float(judged.value)
        self.children, self.visits, self.total, self.reward = {}, [0] * 3, [0.0] * 3, [0.0] * 3


def by_hand(model, state, options):
    """The search of one tree, written down as the equations say it."""
    root = Node(state, model.judge(state[None]))
    least, most = math.inf, -math.inf
    for _ in range(options.simulations):
        node, path = root, []
        while True:
            seen = sum(node.visits)
            c = options.c1 + math.log((seen + options.c2 + 1) / options.c2)
            scores = []
            for a in range(3):
                q = 0.0
                if node.visits[a]:
                    q = node.total[a] / node.visits[a]
                    q = (q - least) / (most - least) if most > least else 0.0
                scores.append(q + c * node.prior[a] * math.sqrt(max(seen, 1)) / (1 + node.visits[a]))
            act = scores.index(max(scores))
            path.append((node, act))
            if act not in node.children:
                step = model.step(node.state[None], torch.tensor([act]))
                leaf = Node(step.state[0], step.judged, bool(step.done))
                node.children[act], node.reward[act] = leaf, float(step.reward)
                found = 0.0 if leaf.is_end else leaf.value
                break
            node = node.children[act]
            if node.is_end:
                found = 0.0
                break
        for node, act in reversed(path):
            found = node.reward[act] + options.discount * found
            node.visits[act] += 1
            node.total[act] += found
            mean = node.total[act] / node.visits[act]
            least, most = min(least, mean), max(most, mean)
    return root


@pytest.mark.parametrize("simulations", [1, 2, 7, 60])
def test_search_is_what_the_equations_say(simulations):
    model, options = Numbers(), SearchOptions(simulations=simulations, discount=0.9)
    states = torch.tensor([2, 5, 11, 40])
    found = tree_search(model, states, options)
    for row, state in enumerate(states):
        root = by_hand(model, state, options)
        assert found.visits[row].tolist() == root.visits
        means = [t / max(n, 1) for t, n in zip(root.total, root.visits, strict=True)]
        assert_close(found.returns[row].double(), torch.tensor(means, dtype=torch.float64), atol=1e-5, rtol=1e-5)
        assert_close(found.value[row].item(), sum(root.total) / simulations, atol=1e-5, rtol=1e-5)


def test_trees_do_not_see_each_other():
    model, options = Numbers(), SearchOptions(simulations=30)
    states = torch.arange(4, 24)
    together = tree_search(model, states, options)
    for row in range(len(states)):
        alone = tree_search(model, states[row : row + 1], options)
        assert torch.equal(alone.visits[0], together.visits[row])


def test_a_path_adds_discounted_rewards_to_all_its_acts():
    tree = Tree(3, Judged(torch.zeros(1, 2), torch.zeros(1)), torch.zeros(1))
    tree.reward[0, 0, 1], tree.reward[0, 1, 0] = 0.5, 0.25
    root, child, yes = np.array([0]), np.array([1]), np.array([True])
    tree.back_up(Path([(root, child, yes), (child, root, yes)], child, root), np.array([2.0]), 0.9)
    assert math.isclose(tree.total[0, 1, 0], 0.25 + 0.9 * 2.0)
    assert math.isclose(tree.total[0, 0, 1], 0.5 + 0.9 * (0.25 + 0.9 * 2.0))
    assert math.isclose(tree.least[0], 2.05)
    assert math.isclose(tree.most[0], 0.5 + 0.9 * 2.05)


def test_scores_are_puct():
    tree = Tree(2, Judged(torch.tensor([[0.2, 0.7, 0.1]]).log(), torch.zeros(1)), torch.zeros(1))
    tree.visits[0, 0], tree.total[0, 0] = [3.0, 1.0, 0.0], [6.0, 0.5, 0.0]
    tree.least[0], tree.most[0] = 0.5, 2.5
    c = 1.25 + math.log((4 + 19652 + 1) / 19652)
    expected = [0.75 + c * 0.2 * 2 / 4, 0.0 + c * 0.7 * 2 / 2, 0.0 + c * 0.1 * 2 / 1]
    np.testing.assert_allclose(tree.scores(np.array([0]), SearchOptions())[0], expected, rtol=1e-6)


def test_a_first_good_value_does_not_stop_the_search():
    class Alike(Numbers):
        def judge(self, states):
            return Judged(torch.zeros(len(states), 3), torch.full((len(states),), 5.0))

        def step(self, states, acts):
            none = torch.zeros(len(states))
            return Step(states, none, none.bool(), self.judge(states))

    found = tree_search(Alike(), torch.arange(2), SearchOptions(simulations=9, discount=1.0))
    assert found.visits.tolist() == [[3, 3, 3]] * 2


def test_what_may_not_be_done_is_never_tried():
    class Barred(Numbers):
        def judge(self, states):
            logits, value = super().judge(states)
            logits[:, 1] = -1e9
            return Judged(logits, value)

    options = SearchOptions(simulations=25, noise=0.5)
    found = tree_search(Barred(), torch.arange(5), options, torch.Generator().manual_seed(0))
    assert not found.visits[:, 1].any()
    assert (found.visits.sum(-1) == 25).all()


def test_the_same_seed_is_the_same_search():
    options = SearchOptions(simulations=20, noise=0.25)

    def visits(seed):
        return tree_search(Numbers(), torch.arange(6), options, torch.Generator().manual_seed(seed)).visits

    assert torch.equal(visits(1), visits(1))
    assert not torch.equal(visits(1), visits(2))


def test_a_prior_of_noise_alone_forgets_what_was_likely():
    class Flat(Numbers):
        def judge(self, states):
            logits, value = super().judge(states)
            return Judged(0 * logits, value)

        def step(self, states, acts):
            return Numbers().step(states, acts)

    options = SearchOptions(simulations=20, noise=1.0)
    likely, flat = (
        tree_search(model, torch.arange(6), options, torch.Generator().manual_seed(1)) for model in (Numbers(), Flat())
    )
    assert torch.equal(likely.visits, flat.visits)


def test_noise_is_a_dirichlet_of_its_concentration():
    draws = dirichlet(torch.ones(40_000, 4, dtype=torch.bool), 0.3, torch.Generator().manual_seed(0))
    assert_close(draws.sum(-1), torch.ones(40_000))
    assert_close(draws.mean(0), torch.full((4,), 0.25), atol=0.01, rtol=0)
    variance = 0.25 * 0.75 / (4 * 0.3 + 1)
    assert_close(draws.var(0), torch.full((4,), variance), atol=0.005, rtol=0)


def test_temperature():
    visits = torch.tensor([[1.0, 4.0, 4.0, 0.0]])
    assert_close(visit_policy(visits, 1.0), visits / 9)
    assert_close(visit_policy(visits, 0.5), visits**2 / 33)
    assert visit_policy(visits, 0.0).tolist() == [[0, 1, 0, 0]]
    assert visit_policy(torch.tensor([[1e30, 1.0]]), 0.01).isfinite().all()


class Corridor:
    """A reward stands at the end of a corridor, behind a policy that would rather turn around."""

    def __init__(self, place=0):
        self.place = place

    def clone(self):
        return Corridor(self.place)

    def step(self, act):
        self.place = max(self.place + (1 if act == 1 else -1), 0)
        return float(self.place == 3), self.place == 3


def test_search_of_copies_finds_what_the_policy_would_not():
    def judge(environments):
        rows = len(environments)
        return Judged(torch.tensor([[1.0, 0.0]]).expand(rows, -1), torch.zeros(rows))

    games = CopiedEnvironments([Corridor(), Corridor(1)], judge)
    few = tree_search(games, games.roots, SearchOptions(simulations=2, temperature=0.0))
    assert few.policy.argmax(-1).tolist() == [0, 0]  # what the policy would do
    games = CopiedEnvironments([Corridor(), Corridor(1)], judge)
    found = tree_search(games, games.roots, SearchOptions(simulations=300, temperature=0.0, discount=0.8))
    assert found.policy.argmax(-1).tolist() == [1, 1]
    assert [game.place for game in games.kept[:2]] == [0, 1]  # those that were given were not moved


def test_options_that_make_no_sense_are_named():
    for wrong in ({"simulations": 0}, {"noise": 1.5}, {"temperature": -1.0}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            SearchOptions(**wrong)
