"""Gated attention to media against a loop over heads and tokens."""

import pytest
import torch
from torch.nn import functional as F
from torch.testing import assert_close

from hf_zoo.modeling.layers.gated_cross_attention import GatedCrossAttention


def make(is_open=True, sizes=(12, 7, 3, 5)):
    torch.manual_seed(0)
    layer = GatedCrossAttention(*sizes).double()
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.normal_(0, 0.4)
        if not is_open:
            layer.attention_gate.zero_()
            layer.mlp_gate.zero_()
    return layer


def batch(tokens=5, media=6):
    torch.manual_seed(1)
    seen = torch.rand(2, tokens, media) < 0.6
    seen[0, :2] = False  # nothing comes before the first tokens
    return torch.randn(2, tokens, 12).double(), torch.randn(2, media, 7).double(), seen


def by_loop(layer, x, context, seen):
    rows = []
    for b in range(len(x)):
        tokens = []
        for t in range(x.shape[1]):
            query = layer.q_proj.weight @ layer.mixer_norm(x[b, t])
            heads = []
            for h in range(3):
                part = slice(5 * h, 5 * h + 5)
                which = [s for s in range(context.shape[1]) if seen[b, t, s]]
                if not which:
                    heads.append(torch.zeros(5).double())
                    continue
                keys = torch.stack([(layer.k_proj.weight @ context[b, s])[part] for s in which])
                values = torch.stack([(layer.v_proj.weight @ context[b, s])[part] for s in which])
                heads.append(torch.softmax(keys @ query[part] / 5**0.5, 0) @ values)
            y = x[b, t] + torch.tanh(layer.attention_gate) * (layer.o_proj.weight @ torch.cat(heads))
            hidden = F.gelu(layer.mlp.up_proj.weight @ layer.mlp_norm(y))
            tokens.append(y + torch.tanh(layer.mlp_gate) * (layer.mlp.down_proj.weight @ hidden))
        rows.append(torch.stack(tokens))
    return torch.stack(rows)


def test_it_is_its_equation_with_gradients():
    layer, (x, context, seen) = make(), batch()
    x.requires_grad_(), context.requires_grad_()
    weights = [x, context, *layer.parameters()]
    got = layer(x, *layer.project_context(context), seen)
    expected = by_loop(layer, x, context, seen)
    assert_close(got, expected)
    grads = [torch.autograd.grad(y.square().sum(), weights) for y in (got, expected)]
    for mine, theirs in zip(*grads, strict=True):
        assert_close(mine, theirs)


def test_closed_gates_change_nothing_and_learn():
    layer, (x, context, seen) = make(is_open=False), batch()
    y = layer(x, *layer.project_context(context), seen)
    assert torch.equal(y, x)
    y.square().sum().backward()
    assert layer.attention_gate.grad.abs() > 0 and layer.mlp_gate.grad.abs() > 0


@torch.no_grad()
def test_tokens_without_media_get_nothing_from_them():
    layer, (x, context, seen) = make(), batch()
    y = layer(x, *layer.project_context(context), seen)
    other = layer(x, *layer.project_context(context + 1), seen)
    assert torch.equal(y[0, :2], other[0, :2])
    assert (y[0, 2:] - other[0, 2:]).abs().max() > 1e-3


@torch.no_grad()
def test_no_media_are_as_media_that_nobody_may_see():
    layer, (x, context, seen) = make(), batch()
    assert_close(layer(x), layer(x, *layer.project_context(context), torch.zeros_like(seen)))


@torch.no_grad()
def test_fresh_gates_are_closed():
    layer = make()
    layer.initialise()
    assert layer.attention_gate.item() == layer.mlp_gate.item() == 0.0


@pytest.mark.parametrize("tokens", [1, 3])
@torch.no_grad()
def test_tokens_do_not_see_each_other(tokens):
    layer, (x, context, seen) = make(), batch()
    keys = layer.project_context(context)
    assert_close(layer(x[:, :tokens], *keys, seen[:, :tokens]), layer(x, *keys, seen)[:, :tokens])
