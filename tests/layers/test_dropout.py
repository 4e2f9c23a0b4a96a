"""Dropout by 16 random bits against what dropout promises."""

import pytest
import torch
from torch.testing import assert_close

from hf_zoo.modeling.layers.dropout import Dropout, drop


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
    kept = drop(torch.ones(400_000), 0.5)[0].view(-1, 4) - 0.5
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
