"""Experts against a loop over tokens, through every function that multiplies."""

from types import SimpleNamespace

import pytest
import torch
from torch.testing import assert_close

from hf_zoo.modeling.layers.experts import GatedExperts, PlainExperts, sort_by_expert
from hf_zoo.modeling.layers.mixture_of_experts import MixtureOfExperts
from hf_zoo.modeling.layers.mlp import GatedMLP
from hf_zoo.modeling.layers.routers import ExpertChoiceRouter, MixtralRouter

D, F, E = 8, 16, 5  # grouped matrix products want rows of 16 bytes
FUNCTIONS = ("eager", "zoo_sorted", "grouped_mm", "batched_mm")


def make(kind=GatedExperts, function="zoo_sorted", dtype=torch.float64):
    torch.manual_seed(0)
    experts = kind(SimpleNamespace(_experts_implementation=function), D, F, E, "silu").to(dtype)
    experts.start(0.5)
    return experts


def pairs(rows, top_k=2):
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(rows, D, dtype=torch.float64, generator=generator)
    weights, chosen = torch.rand(rows, E, dtype=torch.float64, generator=generator).topk(top_k)
    return x, chosen, weights


def by_hand(experts, x, chosen, weights):
    """Token by token."""
    rows = []
    for t in range(len(x)):
        y = torch.zeros(D, dtype=x.dtype)
        for e, w in zip(chosen[t].tolist(), weights[t], strict=True):
            h = experts.up_weights[e] @ x[t]
            h = torch.nn.functional.silu(h[:F]) * h[F:] if len(h) == 2 * F else torch.nn.functional.silu(h)
            y = y + w * (experts.down_proj[e] @ h)
        rows.append(y)
    return torch.stack(rows)


@pytest.mark.parametrize("rows", [1, 3, 29])
@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize("kind", [PlainExperts, GatedExperts])
def test_all_functions_equal_a_loop_and_so_do_their_gradients(kind, function, rows):
    dtype = torch.float32 if function == "grouped_mm" else torch.float64  # which has no kernel for float64
    results = []
    for compute in (by_hand, lambda experts, *args: experts(*args)):
        experts = make(kind, function, dtype)
        x, chosen, weights = pairs(rows)
        x, weights = (y.to(dtype).requires_grad_() for y in (x, weights))
        y = compute(experts, x, chosen, weights)
        y.square().sum().backward()
        results.append([y, x.grad, weights.grad, experts.up_weights.grad, experts.down_proj.grad])
    # In float32, sums of products in another order
    tolerance = {"atol": 1e-4, "rtol": 1e-3} if dtype == torch.float32 else {"atol": 1e-12, "rtol": 1e-10}
    for expected, got in zip(*results, strict=True):
        assert_close(got, expected, **tolerance)


@pytest.mark.parametrize("rows", [1, 4, 29])
@torch.no_grad()
def test_few_pairs_are_not_sorted_and_give_the_same(rows):
    experts, inputs = make(), pairs(rows)
    assert_close(experts(*inputs), by_hand(experts, *inputs))


def test_each_pair_is_computed_once_and_experts_without_tokens_never():
    experts, rows = make(), []
    activate = experts.activate
    experts.activate = lambda x: rows.append(len(x)) or activate(x)
    for weights in experts.parameters():
        weights.data[[1, 2, 4]] = torch.nan
    x = torch.randn(20, D, dtype=torch.float64)
    chosen = torch.tensor([[0, 3], [3, 0]]).repeat(10, 1)
    assert experts(x, chosen, torch.ones(20, 2, dtype=torch.float64)).isfinite().all()
    assert sum(rows) == 40


def test_pairs_are_sorted_in_order_of_the_tokens():
    order, counts = sort_by_expert(torch.tensor([[1, 0], [0, 2], [1, 2]]), 3)
    assert order.tolist() == [1, 2, 0, 4, 3, 5]
    assert counts == [2, 2, 2]


@pytest.mark.parametrize("rows", [2, 30])
@torch.no_grad()
def test_experts_of_another_device_add_nothing(rows):
    experts, (x, chosen, weights) = make(), pairs(rows)
    elsewhere = chosen.clone()
    elsewhere[:, 1] = E
    assert_close(experts(x, elsewhere, weights), by_hand(experts, x, chosen[:, :1], weights[:, :1]))
    assert_close(experts(x, torch.full_like(chosen, E), weights), torch.zeros_like(x))


def test_down_projections_may_start_smaller():
    experts = make()
    experts.init_scale = 0.25
    experts.start(0.5)
    assert experts.down_proj.std().item() == pytest.approx(0.125, rel=0.1)
    assert experts.gate_up_proj.std().item() == pytest.approx(0.5, rel=0.1)


def test_without_routed_experts_the_shared_remain():
    torch.manual_seed(0)
    shared = GatedMLP(D, F, "silu").double()
    gate = MixtralRouter(D, E, 2).double()
    gate.start(1.0)
    layer, x = MixtureOfExperts(gate, make(), shared), torch.randn(2, 7, D, dtype=torch.float64)
    y, routing = layer(x)
    assert_close(y, by_hand(layer.experts, x.view(-1, D), *routing[2:4]).view_as(x) + shared(x))
    layer.experts.down_proj.data.zero_()
    assert torch.equal(layer(x)[0], shared(x))


@pytest.mark.parametrize("is_training", [True, False])
def test_where_experts_choose_results_return_to_their_tokens(is_training):
    torch.manual_seed(0)
    gate = ExpertChoiceRouter(D, E, 2).double().train(is_training)
    gate.start(1.0)
    layer, x = MixtureOfExperts(gate, make()), torch.randn(2, 7, D, dtype=torch.float64)
    y, routing = layer(x)
    expected = torch.zeros(14, D, dtype=torch.float64)
    for t, e, w in zip(routing.tokens, routing.experts[:, 0], routing.weights[:, 0], strict=True):
        expected[t] += by_hand(layer.experts, x.view(-1, D)[t][None], e.view(1, 1), w.view(1, 1))[0]
    assert_close(y.view(-1, D), expected)


@torch.no_grad()
def test_half_precision_stays_close():
    experts, (x, chosen, weights) = make(), pairs(29)
    exact = experts(x, chosen, weights)
    for dtype, autocast in ((torch.bfloat16, False), (torch.float32, True)):
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
            rough = make().to(dtype)(x.to(dtype), chosen, weights.float())
        assert rough.dtype == dtype
        assert (rough.double() - exact).abs().mean() < 0.03 * exact.abs().mean()
