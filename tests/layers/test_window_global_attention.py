"""Windows and global tokens against dense attention with both sets of projections, in float64, gradients too."""

import pytest
import torch
from torch.testing import assert_close

from hf_zoo.modeling.layers.attention import exact_attention
from hf_zoo.modeling.layers.window_global_attention import WindowedText, WindowGlobalAttention, absorbed_attention

HEADS, HIDDEN = 3, 12


def make(window, dilations=(1, 1, 1)):
    torch.manual_seed(0)
    return WindowGlobalAttention(HIDDEN, HEADS, window, list(dilations)).double()


def dense(layer, x, is_global=None, documents=None):
    """Row by row, head by head, from the definition."""
    B, T, _ = x.shape
    is_global = torch.zeros(B, T, dtype=torch.bool) if is_global is None else is_global
    documents = torch.zeros(B, T, dtype=torch.long) if documents is None else documents.expand(B, T)
    names = ("q_proj", "k_proj", "v_proj", "q_global_proj", "k_global_proj", "v_global_proj")
    q, k, v, qg, kg, vg = (getattr(layer, name)(x).unflatten(-1, (HEADS, -1)) for name in names)
    scale, rows = (HIDDEN // HEADS) ** -0.5, []
    gap = {h: d for d, heads in layer.heads_by_dilation.items() for h in heads}
    for b in range(B):
        for i in range(T):
            heads = []
            for h in range(HEADS):
                same = [j for j in range(T) if documents[b, j] == documents[b, i]]
                if is_global[b, i]:
                    own_q, own_k, own_v, seen = qg, kg, vg, same
                else:
                    own_q, own_k, own_v = q, k, v
                    d, r = gap[h], layer.one_side
                    near = {j for j in same if abs(i - j) <= r * d and (i - j) % d == 0}
                    seen = sorted(near | {j for j in same if is_global[b, j]})
                weights = (own_k[b, seen, h] @ own_q[b, i, h] * scale).softmax(-1)
                heads.append(weights @ own_v[b, seen, h])
            rows.append(torch.cat(heads))
    return layer.o_proj(torch.stack(rows).view(B, T, -1))


def check(layer, x, is_global=None, documents=None):
    x = x.requires_grad_()
    got = layer(x, WindowedText(x.shape[:2], x.device, documents, is_global))[0]
    expected = dense(layer, x, is_global, documents)
    assert_close(got, expected)
    direction, inputs = torch.randn_like(got), [x, *layer.parameters()]
    ours, theirs = (torch.autograd.grad((y * direction).sum(), inputs, allow_unused=True) for y in (got, expected))
    for a, b in zip(ours, theirs, strict=True):
        assert_close(torch.zeros(()) if a is None else a, torch.zeros(()) if b is None else b, check_dtype=False)


def some_globals(rows, tokens):
    """Different numbers of global tokens in each row, none in the last."""
    is_global = torch.rand(rows, tokens, generator=torch.Generator().manual_seed(4)) < 0.15
    is_global[0, 0] = True
    is_global[-1] = False
    return is_global


def randn(rows, tokens):
    return torch.randn(rows, tokens, HIDDEN, dtype=torch.float64, generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize("window", [2, 6, 40, 400])
@pytest.mark.parametrize("tokens", [1, 7, 33, 50])
def test_blocks_equal_the_definition(window, tokens):
    check(make(window), randn(2, tokens))
    check(make(window), randn(3, tokens), some_globals(3, tokens))


@pytest.mark.parametrize("dilations", [(1, 2, 5), (3, 3, 3), (2, 1, 2)])
def test_dilations_of_heads(dilations):
    check(make(4, dilations), randn(2, 29))
    check(make(6, dilations), randn(3, 31), some_globals(3, 31))


@pytest.mark.parametrize("dilations", [(1, 1, 1), (1, 2, 3)])
def test_documents_and_padding_do_not_see_each_other(dilations):
    documents = torch.tensor([[0] * 3 + [1] * 20 + [0] * 8, [1] * 11 + [2] * 20])
    is_global = some_globals(2, 31)
    is_global[1, [0, 12, 30]] = True
    check(make(6, dilations), randn(2, 31), is_global & (documents > 0), documents)
    check(make(6, dilations), randn(2, 31), None, documents)


def test_blocks_of_any_length_give_the_same(monkeypatch):
    from hf_zoo.modeling.layers import window_global_attention as module

    layer, x, is_global = make(20), randn(3, 90), some_globals(3, 90)
    expected = layer(x, WindowedText(x.shape[:2], x.device, None, is_global))[0]
    for least, most in ((1, 1), (7, 7), (64, 64), (200, 200)):
        monkeypatch.setattr(module, "_LEAST_QUERIES", least)
        monkeypatch.setattr(module, "_MOST_QUERIES", most)
        assert_close(layer(x, WindowedText(x.shape[:2], x.device, None, is_global))[0], expected)


def test_a_token_sees_its_window_and_global_tokens_alone():
    layer, x = make(6), randn(1, 40).requires_grad_()
    is_global = torch.zeros(1, 40, dtype=torch.bool)
    is_global[0, 5] = True
    y = layer(x, WindowedText((1, 40), x.device, None, is_global))[0][0]
    for i in range(40):
        seen = torch.autograd.grad(y[i].sum(), x, retain_graph=True)[0][0].abs().amax(-1) > 0
        expected = [j for j in range(40) if abs(i - j) <= 3 or j == 5 or i == 5]
        assert seen.nonzero()[:, 0].tolist() == expected


def test_projections_of_global_tokens_learn_only_from_them():
    layer, x = make(6), randn(1, 20)
    layer(x, WindowedText((1, 20), x.device))[0].sum().backward()
    assert layer.q_global_proj.weight.grad is None
    is_global = torch.zeros(1, 20, dtype=torch.bool)
    is_global[0, 3] = True
    layer(x, WindowedText((1, 20), x.device, None, is_global))[0].square().sum().backward()
    for name in ("q_global_proj", "k_global_proj", "v_global_proj"):
        assert getattr(layer, name).weight.grad.abs().max() > 1e-6


def test_no_work_grows_with_the_square():
    """Numbers in the largest tensor that the forward pass saves."""
    largest = {}
    for tokens in (512, 1024):
        layer, x, saved = make(16), randn(1, tokens), []
        is_global = torch.zeros(1, tokens, dtype=torch.bool)
        is_global[0, :2] = True
        with torch.autograd.graph.saved_tensors_hooks(
            lambda t, saved=saved: saved.append(t.numel()) or t, lambda t: t
        ):
            layer(x, WindowedText((1, tokens), x.device, None, is_global))
        largest[tokens] = max(saved)
    assert largest[1024] <= 2.1 * largest[512]


def test_dropout_acts_in_training_alone():
    layer, x = make(6), randn(1, 20)
    layer.dropout = 0.5
    text = WindowedText((1, 20), x.device)
    assert (layer.train()(x, text)[0] - layer(x, text)[0]).abs().max() > 1e-3
    assert torch.equal(layer.eval()(x, text)[0], layer(x, text)[0])


@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_absorbed_projections_equal_keys_and_values(dropout):
    layer, x = make(6), randn(2, 20)
    q = torch.randn(2, HEADS, 2, 4, dtype=torch.float64)
    mask = torch.rand(2, 1, 2, 20) < 0.7
    k, v = (p(x).unflatten(-1, (HEADS, -1)).transpose(1, 2) for p in (layer.k_global_proj, layer.v_global_proj))
    torch.manual_seed(5)
    expected = exact_attention(q, k, v, mask, dropout)
    torch.manual_seed(5)
    assert_close(absorbed_attention(q, x, layer.k_global_proj, layer.v_global_proj, mask, dropout), expected)
