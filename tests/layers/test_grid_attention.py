"""Attention on a grid: against the equation term by term, with gradients; windows; empty patches."""

import pytest
import torch
from torch.testing import assert_close
from transformers import PreTrainedConfig

from hf_zoo.modeling.layers import grid_attention
from hf_zoo.modeling.layers.grid_attention import (
    GridAttention,
    attention_by_rows,
    axis_terms,
    cut_windows,
    join_windows,
)

SIDE, HEADS, SIZE = 5, 2, 6


def layer(window=0, bias=True, backend="sdpa", side=SIDE):
    config = PreTrainedConfig()
    config._attn_implementation = backend
    torch.manual_seed(0)
    module = GridAttention(config, 0, HEADS * SIZE, HEADS, side, window, bias).double()
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return module


def dense(module, x):
    """The equation for one grid (S, S, D) -> (S, S, D), pair by pair."""
    side = len(x)
    qkv = module.qkv_proj(x).view(side, side, 3, HEADS, SIZE)
    outputs = []
    for h in range(HEADS):
        q, k, v = (qkv[:, :, i, h] for i in range(3))
        rows = []
        for i in range(side):
            for j in range(side):
                scores = [
                    q[i, j] @ k[m, n] / SIZE**0.5
                    + q[i, j] @ module.rel_pos_h[i - m + side - 1]
                    + q[i, j] @ module.rel_pos_w[j - n + side - 1]
                    for m in range(side)
                    for n in range(side)
                ]
                rows.append(torch.stack(scores).softmax(-1) @ v.reshape(-1, SIZE))
        outputs.append(torch.stack(rows).view(side, side, SIZE))
    return module.o_proj(torch.cat(outputs, -1))


@pytest.mark.parametrize("backend", ["eager", "sdpa"])
@pytest.mark.parametrize("bias", [True, False])
def test_the_equation_with_gradients(backend, bias):
    module = layer(bias=bias, backend=backend)
    x = torch.randn(2, SIDE, SIDE, HEADS * SIZE, dtype=torch.float64, requires_grad=True)
    weights = torch.randn(2, SIDE, SIDE, HEADS * SIZE, dtype=torch.float64)
    expected = torch.stack([dense(module, row) for row in x])
    got, probabilities = module(x)
    assert_close(got, expected)
    if backend == "eager":
        assert_close(probabilities.sum(-1), torch.ones(2, HEADS, SIDE**2, dtype=torch.float64))
    leaves = [x, *module.parameters()]
    for a, b in zip(*(torch.autograd.grad((y * weights).sum(), leaves) for y in (got, expected)), strict=True):
        assert_close(a, b)


@pytest.mark.parametrize("block", [1, 60, 250, 400, 1300, 10**6])
@torch.no_grad()
def test_pieces_of_any_size_give_the_same(block, monkeypatch):
    module = layer()
    x = torch.randn(3, SIDE, SIDE, HEADS * SIZE, dtype=torch.float64)
    with torch.enable_grad():
        expected = module(x)[0].detach()
    monkeypatch.setattr(grid_attention, "_BLOCK", block)
    calls = []

    def counted(*args):
        calls.append(args)
        return attention_by_rows(*args)

    monkeypatch.setattr(grid_attention, "attention_by_rows", counted)
    assert_close(module(x)[0], expected)
    assert calls  # where no gradient is asked for, there are pieces


@pytest.mark.parametrize("window", [2, 3, 5])
@pytest.mark.parametrize("with_gradient", [True, False])
def test_windows_are_grids_of_their_own(window, with_gradient):
    """Each window alone, filled with patches of zeros, gives what it gives among the others."""
    module = layer(window)
    x = torch.randn(2, SIDE, SIDE, HEADS * SIZE, dtype=torch.float64, requires_grad=with_gradient)
    with torch.set_grad_enabled(with_gradient):
        got = module(x)[0]
    full = -(-SIDE // window) * window
    filled = torch.zeros(2, full, full, HEADS * SIZE, dtype=torch.float64)
    filled[:, :SIDE, :SIDE] = x.detach()
    expected = torch.empty_like(filled)
    for b in range(2):
        for i in range(0, full, window):
            for j in range(0, full, window):
                part = (b, slice(i, i + window), slice(j, j + window))
                expected[part] = dense(module, filled[part]).detach()
    assert_close(got.detach(), expected[:, :SIDE, :SIDE])


def test_gradients_reach_what_empty_patches_are_made_of():
    module = layer(3)
    x = torch.randn(1, SIDE, SIDE, HEADS * SIZE, dtype=torch.float64)
    filled = torch.nn.functional.pad(x, (0, 0, 0, 1, 0, 1))
    pieces = cut_windows(filled, 3)
    expected = torch.stack([dense(module, piece) for piece in pieces])
    expected = join_windows(expected, SIDE, SIDE)
    for a, b in zip(
        *(torch.autograd.grad(y.square().sum(), list(module.parameters())) for y in (module(x)[0], expected)),
        strict=True,
    ):
        assert_close(a, b)


def test_windows_of_the_published_grid():
    """64 patches a side are filled up to 70, which makes 25 windows of 14 x 14."""
    x = torch.arange(70 * 70).view(1, 70, 70, 1)
    windows = cut_windows(x, 14)
    assert windows.shape == (25, 14, 14, 1)
    assert windows[6, 3, 2] == (14 + 3) * 70 + 14 + 2  # the second window of the second row
    assert_close(join_windows(windows, 64, 64), x[:, :64, :64])


def test_terms_by_axis():
    q = torch.randn(2, HEADS, SIDE**2, SIZE, dtype=torch.float64)
    tables = torch.randn(2, 2 * SIDE - 1, SIZE, dtype=torch.float64)
    by_row, by_column = axis_terms(q, *tables)
    assert_close(by_row[1, 0, 3, 1, 4], q[1, 0, 3 * SIDE + 1] @ tables[0, 3 - 4 + SIDE - 1])
    assert_close(by_column[0, 1, 3, 1, 4], q[0, 1, 3 * SIDE + 1] @ tables[1, 1 - 4 + SIDE - 1])


def test_no_images_give_no_outputs():
    x = torch.zeros(0, SIDE, SIDE, HEADS * SIZE, dtype=torch.float64)
    with torch.no_grad():
        assert layer(3)(x)[0].shape == x.shape
    assert layer()(x)[0].shape == x.shape
