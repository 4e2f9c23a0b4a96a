"""Dropout by 16 random bits against what dropout promises."""

import pytest
import torch
from torch.nn import functional as F
from torch.testing import assert_close

from hf_zoo.modeling.layers import attention
from hf_zoo.modeling.layers.dropout import Dropout, dropped_softmax


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
def test_share_and_scale(rate):
    x = torch.ones(1001, 1003, requires_grad=True)  # no multiple of four
    torch.manual_seed(0)
    y = Dropout(rate)(x)
    assert_close((y == 0).float().mean().item(), rate, atol=2e-3, rtol=0)
    assert_close(y.mean().item(), 1.0, atol=1e-2, rtol=0)
    assert_close(y[y != 0].mean().item(), 1 / (1 - rate), atol=1e-3, rtol=1e-4)
    (gradient,) = torch.autograd.grad(y.sum(), x)
    assert_close(gradient, y.detach())


def test_neighbours_are_independent():
    """Four numbers share a draw of 64 bits."""
    torch.manual_seed(0)
    kept = Dropout(0.5)(torch.ones(400_000)).view(-1, 4) / 2 - 0.5
    covariance = kept.T @ kept / len(kept)
    assert_close(covariance, torch.eye(4) / 4, atol=3e-3, rtol=0)


def test_nothing_is_dropped_without_need():
    x = torch.randn(5)
    assert Dropout(0.5).eval()(x) is x
    assert Dropout(0.0)(x) is x


def test_the_same_seed_drops_the_same():
    x, dropout = torch.randn(3, 7), Dropout(0.5)
    runs = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        runs.append(dropout(x))
    assert torch.equal(runs[0], runs[1])
    assert not torch.equal(runs[0], runs[2])


def test_dropped_softmax_is_a_softmax_with_a_share_of_its_weights_gone():
    """Values and gradients against softmax, then a product with what was kept."""
    torch.manual_seed(0)
    scores = torch.randn(2, 3, 50, 61, dtype=torch.float64, requires_grad=True)
    scores.data[0, 0, 0, :60] = -torch.inf
    weights, factor = dropped_softmax(scores, 0.3)
    kept = (weights != 0).double()
    assert_close(kept[1].mean().item(), 0.7, atol=0.02, rtol=0)
    assert_close(factor, 1 / 0.7, atol=1e-4, rtol=0)
    expected = scores.softmax(-1) * kept
    assert_close(weights, expected, atol=1e-12, rtol=0)
    ahead = torch.randn_like(weights)
    ours, theirs = (torch.autograd.grad(y, scores, ahead)[0] for y in (weights, expected))
    assert_close(ours, theirs, atol=1e-12, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_dropped_softmax_without_dropout_is_softmax(dtype):
    scores = torch.randn(4, 9, dtype=dtype)
    weights, factor = dropped_softmax(scores, 0.0)
    assert factor == 1.0
    assert torch.equal(weights, scores.float().softmax(-1).to(dtype))


@pytest.mark.parametrize("of", [None, "texts", "heads", "all"])
@pytest.mark.parametrize("shape", [(5, 3), (2, 8)])  # cut by texts, by heads
def test_attention_with_dropout_in_pieces_is_attention(monkeypatch, shape, of):
    """At a rate that rounds to none, whatever the pieces, with a last one that is smaller."""
    monkeypatch.setattr(attention, "_SCORES_IN_CACHE", 2 * min(shape) * 7 * 9)
    torch.manual_seed(0)
    q = torch.randn(*shape, 7, 4, dtype=torch.float64)
    k, v = torch.randn(2, *shape, 9, 4, dtype=torch.float64)
    mask = None
    if of is not None:
        mask = torch.rand(shape[0] if of == "texts" else 1, shape[1] if of == "heads" else 1, 7, 9) < 0.7
        mask[..., 0] = True
    expected = F.scaled_dot_product_attention(q, k, v, mask)
    assert_close(attention.exact_attention(q, k, v, mask, dropout=1e-6), expected)
    if mask is not None:
        added = torch.zeros(mask.shape, dtype=q.dtype).masked_fill(~mask, -torch.inf)
        assert_close(attention.exact_attention(q, k, v, added, dropout=1e-6), expected)
