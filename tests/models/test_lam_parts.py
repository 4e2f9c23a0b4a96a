"""The binder, the world model and the losses of the large action model against plain loops."""

from types import SimpleNamespace

import pytest
import torch
from torch.nn import functional as F
from torch.testing import assert_close

import hf_zoo
from hf_zoo.modeling.lam.binder import AFTER, BEFORE, Binding, ParameterBinder
from hf_zoo.modeling.lam.configuration_lam import MODES
from hf_zoo.modeling.lam.losses_lam import binder_loss, planning_losses, tool_losses, weighted_sum
from hf_zoo.modeling.lam.policy import HierarchicalPolicy
from hf_zoo.modeling.lam.profile import Profile
from hf_zoo.modeling.lam.world_model import WorldModel

CLOSE = {"atol": 1e-6, "rtol": 1e-6}  # shares of words are of float32


def drawn(module):
    """Weights of float64, none of which is what it starts as."""
    torch.manual_seed(0)
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return module.double()


def draw(*shape):
    return torch.randn(*shape, dtype=torch.float64)


def unit(x):
    return x / x.norm()


def told(tower, words):
    """The vector of a text by its equation."""
    shares = torch.stack([tower.word_weight(unit(word))[0] for word in words]).softmax(0)
    return unit(tower.word_proj(sum(share * unit(word) for share, word in zip(shares, words, strict=True))))


@torch.no_grad()
def test_a_parameter_is_bound_as_its_equations_say():
    binder = drawn(ParameterBinder(6, 5, 4, list(MODES)))
    state, states, words = draw(2, 6), draw(2, 12, 6), draw(2, 12, 6)
    parameters, choices = draw(2, 3, 4, 6), draw(2, 3, 2, 3, 6)
    mask, parameters_mask, choices_mask = torch.ones(2, 12), torch.ones(2, 3, 4), torch.ones(2, 3, 2, 3)
    mask[0, 10:], parameters_mask[0, 1, 2:], choices_mask[1, 2, 1], choices_mask[0, 0, 0, 1:] = 0, 0, 0, 0
    types = torch.tensor([[0, 1, 3], [2, 5, 4]])
    found = binder(state, states, words, mask, parameters, parameters_mask, types, choices, choices_mask)
    scale, tower = binder.logit_scale.exp(), binder.tower
    for row, place in [(row, place) for row in range(2) for place in range(3)]:
        seen = int(mask[row].sum())
        d = told(tower, parameters[row, place, parameters_mask[row, place].bool()])
        u = binder.description(d) + binder.state(state[row]) + binder.place_embed.weight[place]
        u = binder.norm(u + binder.type_embed.weight[types[row, place]])
        assert_close(found.mode_logits[row, place], binder.mode(u), **CLOSE)
        assert_close(torch.stack((found.number, found.boolean_logits), -1)[row, place], binder.value(u), **CLOSE)

        queries = binder.span_query(u).view(2, 5)
        alike = [d @ unit(tower.word_proj(unit(words[row, t]))) for t in range(seen)]
        for side, logits in enumerate((found.start_logits, found.end_logits)):
            kernel = binder.near.weight[side, 0]
            for t in range(seen):
                key = binder.span_key(states[row, t]).view(2, 5)[side]
                around = [i for i in range(-BEFORE, AFTER + 1) if 0 <= t + i < seen]
                near = sum(kernel[BEFORE + i] * alike[t + i] for i in around)
                assert_close(logits[row, place, t], queries[side] @ key / 5**0.5 + scale * near, **CLOSE)
            assert (logits[row, place, seen:] < -1e4).all()

        shares = [binder.choice_focus(u) @ states[row, t] / 6**0.5 for t in range(seen)]
        shares = torch.stack(shares).softmax(0)
        query = unit(tower.word_proj(sum(shares[t] * unit(words[row, t]) for t in range(seen))))
        query = query + binder.choice_query(u)
        for choice in range(2):
            there = choices_mask[row, place, choice].bool()
            if there.any():
                expected = scale * (told(tower, choices[row, place, choice, there]) @ query)
                assert_close(found.choice_logits[row, place, choice], expected, **CLOSE)
            else:
                assert found.choice_logits[row, place, choice] < -1e4


def test_the_world_model_is_its_equations():
    world = drawn(WorldModel(6, 5, 4))
    x, act, acts = draw(2, 6), draw(2, 4), draw(2, 3, 4)
    norm = lambda y: F.layer_norm(y, (5,), world.norm.weight, world.norm.bias)  # noqa: E731
    s = norm(world.from_state(x))
    assert_close(world.start(x), s)
    found = world(s, act)
    y = world.up(torch.cat((s, act), -1))
    after = norm(s + world.down(y / (1 + (-y).exp())))
    assert_close(found.state, after)
    assert_close(torch.stack((found.reward, found.done_logits), -1), world.outcome(after))
    scores, value = world.judge(s, acts, torch.tensor([[1, 1, 1], [1, 0, 1]]).bool())
    query = world.act_query(s)
    expected = torch.stack([acts[row] @ query[row] for row in range(2)]) / 2
    assert scores[1, 1] < -1e4
    expected[1, 1] = scores[1, 1]
    assert_close(scores, expected)
    assert_close(value, world.value(s)[:, 0])


def test_gradients_into_states_are_halved_at_each_step():
    world = drawn(WorldModel(6, 5, 4))
    acts, exists = world.acts(draw(1, 2, 4))
    x, taken, nothing = draw(1, 6).requires_grad_(), torch.tensor([[0, 1]]), torch.zeros(1, 3, 5).double()
    values, rewards = draw(1, 3), draw(1, 2)
    latent = world.start(x)
    loss = world.unrolled_loss(latent, acts, exists, taken, nothing, values, rewards, torch.zeros(1, 2).double())
    halved, s, total = [], latent, torch.zeros(())
    for k in range(3):
        if k:
            s, reward, ends = world(s, acts[:, taken[0, k - 1]])
            total = total + ((reward - rewards[:, k - 1]) ** 2 + F.softplus(ends)) / 2**k
        total = total + (world.value(s)[:, 0] - values[:, k]) ** 2 / 4 / 2**k
        halved.append(total)
    (found,) = torch.autograd.grad(loss, x, retain_graph=True)
    (expected,) = torch.autograd.grad(halved[-1].sum() / 3, x)
    assert_close(found, expected)


def test_the_policy_of_options_is_its_equations():
    policy = drawn(HierarchicalPolicy(6, 3, 4))
    h, option = draw(2, 6), torch.tensor([2, 0])
    assert_close(policy.option_logits(h), policy.option_query(h) @ policy.options.weight.T / 2)
    kinds, ending, value = policy(h, option)
    x = torch.cat((h, policy.options.weight[option]), -1)
    hidden = policy.hidden(x)
    assert_close(kinds, policy.kind(hidden / (1 + (-hidden).exp())))
    assert_close(ending, policy.ending(x)[:, 0])
    assert_close(value, policy.value(x)[:, 0])


@torch.no_grad()
def test_a_profile_is_its_equation():
    profile = drawn(Profile(6, 3, 2))
    words, mask, values = draw(2, 5, 6), torch.ones(2, 5), draw(2, 2)
    mask[0, 3:] = 0
    found = profile(words, mask, values)
    for row in range(2):
        seen = int(mask[row].sum())
        added = profile.from_values(values[row]).view(3, 6)
        for i in range(3):
            shares = [profile.probes.weight[i] @ unit(words[row, t]) for t in range(seen)]
            mean = torch.stack(shares).softmax(0) @ words[row, :seen]
            assert_close(found[row, i], profile.from_words(mean) + added[i], **CLOSE)


# losses


def cross_entropy(logits, labels):
    """A mean over what has a label, by a loop."""
    pairs = [(x, int(y)) for x, y in zip(logits.flatten(0, -2), labels.flatten(), strict=True) if y >= 0]
    return torch.stack([-x.log_softmax(-1)[y] for x, y in pairs]).mean()


def test_losses_of_arguments_are_means_over_what_is_labelled():
    torch.manual_seed(0)
    modes, starts, ends, choices = (torch.randn(2, 3, n) for n in (5, 7, 7, 4))
    number, boolean = torch.randn(2, 2, 3).unbind()
    labels = [torch.randint(4, (2, 3)) for _ in range(4)]
    for place, y in enumerate(labels):
        y.view(-1)[place] = -100
    numbers = torch.tensor([[1.5, float("nan"), float("nan")], [float("nan"), -2.0, 0.0]])
    truths = torch.tensor([[-100, 1, 0], [-100, -100, 1]])
    binding = Binding(modes, starts, ends, choices, number, boolean)
    expected = sum(cross_entropy(x, y) for x, y in zip((modes, starts, ends, choices), labels, strict=True))
    is_number = numbers.isfinite()
    expected = expected + (number[is_number] - numbers[is_number]).square().mean()
    p = boolean.sigmoid()[truths >= 0]
    y = truths[truths >= 0]
    expected = expected - torch.where(y == 1, p, 1 - p).log().mean()
    assert_close(binder_loss(binding, *labels, numbers, truths), expected)


def test_losses_of_planning_are_means_over_what_is_labelled():
    torch.manual_seed(0)
    found = {"option_logits": torch.randn(3, 4), "kind_logits": torch.randn(3, 4)}
    found |= {"ending_logits": torch.randn(3), "value": torch.randn(3)}
    options, kinds, endings = torch.tensor([[1, -100, 3], [-100, 0, 2], [1, -100, 0]])
    losses = planning_losses(found, options, kinds, endings, torch.tensor([0.5, float("nan"), -1.0]))
    p = found["ending_logits"].sigmoid()
    assert_close(losses["option"], cross_entropy(found["option_logits"], options))
    assert_close(losses["kind"], cross_entropy(found["kind_logits"], kinds))
    assert_close(losses["ending"], -(p[0].log() + (1 - p[2]).log()) / 2)
    assert_close(losses["value"], ((found["value"][0] - 0.5) ** 2 + (found["value"][2] + 1) ** 2) / 2)


def test_losses_of_tools_compare_with_all_others_of_the_batch():
    """One tool stands in two rows and one does not exist; the third row needs none, and of the fourth nobody knows."""
    torch.manual_seed(0)
    vectors = F.normalize(torch.randn(4, 2, 5), dim=-1)
    vectors[1, 0] = vectors[0, 1]
    vectors[2, 1] = 0.0  # a tool that does not exist
    found = {"tool_logits": torch.randn(4, 3), "tool_query": torch.randn(4, 5), "tool_vectors": vectors}
    labels = torch.tensor([1, 0, 2, -100])
    losses = tool_losses(found, lambda query, tools: 3 * query @ tools.T, labels)
    assert_close(losses["pointer"], cross_entropy(found["tool_logits"], labels))
    scores = 3 * found["tool_query"] @ vectors.flatten(0, 1).T
    first = scores[0, [1, 0, 3, 4, 6, 7]].log_softmax(-1)[0]  # without 2, which is the same, and 5, which is none
    second = scores[1, [2, 0, 3, 4, 6, 7]].log_softmax(-1)[0]
    assert_close(losses["retrieval"], -(first + second) / 2)


def test_losses_are_added_with_their_weights():
    weights = {"pointer_weight": 2.0, "span_weight": 3.0, "subgoal_weight": 5.0, "value_weight": 7.0}
    names = ("pointer", "retrieval", "binding", "option", "kind", "ending", "value", "search", "distilled", "language")
    factors = (2, 2, 3, 5, 5, 5, 7, 1, 1, 1)
    for name, factor in zip(names, factors, strict=True):
        found = weighted_sum({name: torch.tensor(1.5)}, SimpleNamespace(**weights), None, None)
        assert found == 1.5 * factor, name
    losses = dict.fromkeys(names, torch.tensor(1.0))
    assert weighted_sum(losses, SimpleNamespace(**weights), None, None) == sum(factors)
    assert weighted_sum({}, SimpleNamespace(**weights), None, None) is None


def test_tools_that_do_not_exist_have_no_part_in_what_a_search_teaches():
    torch.manual_seed(0)
    model = hf_zoo.create_model("lam-tiny").eval()
    given = {"input_ids": torch.randint(5, 500, (1, 6)), "act_positions": torch.tensor([5])}
    tools, visits = torch.randint(5, 500, (1, 3, 4)), torch.tensor([[[0.5, 0.2, 0.1, 0.1, 0.1, 0.0]] * 2])
    given |= {"search_values": torch.tensor([[0.3, 0.1]]), "search_acts": torch.tensor([[1]])}
    given |= {"search_rewards": torch.tensor([[0.2]]), "search_done": torch.tensor([[0.0]])}
    few = model(**given, tool_ids=tools, search_visits=visits).losses
    wide, mask = F.pad(tools, (0, 0, 0, 2)), F.pad(torch.ones_like(tools), (0, 0, 0, 2))
    visits = torch.cat((F.pad(visits[..., :3], (0, 2)), visits[..., 3:]), -1)
    many = model(**given, tool_ids=wide, tool_mask=mask, search_visits=visits).losses
    assert_close(many, few)


@pytest.mark.parametrize("label", [-100, 2])
def test_an_option_without_label_is_the_best(label):
    torch.manual_seed(0)
    model = hf_zoo.create_model("lam-tiny").eval()
    inputs = {"input_ids": torch.randint(5, 500, (1, 6)), "act_positions": torch.tensor([5])}
    found = model(**inputs, option_labels=torch.tensor([label]))
    option = found.option_logits.argmax(-1) if label < 0 else torch.tensor([label])
    assert_close(found.value, model(**inputs, options=option).value)
    others = (number for number in range(model.config.num_subgoals) if number != int(option))
    assert all(model(**inputs, options=torch.tensor([number])).value != found.value for number in others)
