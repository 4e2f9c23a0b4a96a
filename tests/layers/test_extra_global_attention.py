"""Global tokens beside blocks against dense attention under the mask of the formula, in float64, gradients too."""

import pytest
import torch
from torch.testing import assert_close

from hf_zoo.modeling.layers import extra_global_attention as module
from hf_zoo.modeling.layers.documents import Documents
from hf_zoo.modeling.layers.extra_global_attention import (
    ExtraGlobalAttention,
    TextBesideGlobals,
    near_and_random_blocks,
)

HEADS, SIZE, GLOBALS = 3, 4, 2


def dense_mask(num_tokens, num_random, seed):
    """(H, g + T, g + T), true where a token sees another, written from the sets of the paper; global tokens first."""
    n = -(-num_tokens // SIZE)
    seen = torch.zeros(HEADS, n, n, dtype=torch.bool)
    if num_tokens <= (3 + 2 * num_random) * SIZE:
        seen[:] = True
    else:
        drawn = near_and_random_blocks(n, HEADS, num_random, seed)[..., 3:]
        for h in range(HEADS):
            for i in range(n):
                blocks = {j for j in (i - 1, i, i + 1) if 0 <= j < n} | set(drawn[h, i].tolist())
                assert len(blocks) == num_random + 3 - (i == 0) - (i == n - 1)
                seen[h, i, sorted(blocks)] = True
    whole = torch.ones(HEADS, GLOBALS + num_tokens, GLOBALS + num_tokens, dtype=torch.bool)
    text = seen.repeat_interleave(SIZE, 1).repeat_interleave(SIZE, 2)[:, :num_tokens, :num_tokens]
    whole[:, GLOBALS:, GLOBALS:] = text
    return whole


def dense(layer, beside, x, num_random):
    """beside (M, g, D) and x (M, T, D) -> of both alike."""
    z = torch.cat((beside, x), dim=1)
    q, k, v = (p(z).unflatten(-1, (HEADS, -1)).transpose(1, 2) for p in (layer.q_proj, layer.k_proj, layer.v_proj))
    scores = q @ k.mT / q.shape[-1] ** 0.5
    weights = scores.masked_fill(~dense_mask(x.shape[1], num_random, 3), -torch.inf).softmax(-1)
    y = layer.o_proj((weights @ v).transpose(1, 2).flatten(2))
    return y[:, :GLOBALS], y[:, GLOBALS:]


def run(layer, beside, x, num_random, documents=None):
    text = TextBesideGlobals(x.shape[:2], x.device, SIZE, num_random, documents)
    y = layer(torch.cat((beside.flatten(0, 1), x.flatten(0, 1)))[None], text)[0][0]
    count = beside.shape[:2].numel()
    return y[:count].view(beside.shape), y[count:].view(x.shape)


def make(num_random):
    torch.manual_seed(0)
    return ExtraGlobalAttention(12, HEADS, num_random, 3, num_globals=GLOBALS).double()


def vectors(*shape):
    return torch.randn(*shape, 12, dtype=torch.float64, requires_grad=True)


@pytest.mark.parametrize("num_random", [0, 1, 3])
@pytest.mark.parametrize("num_tokens", [1, 5, 12, 13, 20, 21, 36, 37, 61])
def test_blocks_equal_the_dense_mask(num_tokens, num_random):
    layer, beside, x = make(num_random), vectors(2, GLOBALS), vectors(2, num_tokens)
    got, expected = run(layer, beside, x, num_random), dense(layer, beside, x, num_random)
    assert_close(got, expected)
    directions, inputs = [torch.randn_like(y) for y in got], [beside, x, *layer.parameters()]
    gradients = [
        torch.autograd.grad(sum((y * d).sum() for y, d in zip(ys, directions, strict=True)), inputs)
        for ys in (got, expected)
    ]
    assert_close(*gradients)


def test_padding_and_packing_give_the_answer_of_each_text_alone():
    """Long and short texts side by side, padding on both sides, a row of padding alone."""
    layer, mask = make(1), torch.zeros(5, 50, dtype=torch.long)
    mask[0, :45] = mask[1, 30:] = mask[2, 7:28] = mask[3, ::2] = 1
    beside, x = vectors(5, GLOBALS), vectors(5, 50)
    got_beside, got = run(layer, beside, x, 1, Documents(mask, None, (5, 50)))
    for row, real in enumerate(mask.bool()):
        if real.any():
            expected = dense(layer, beside[row : row + 1], x[row : row + 1, real], 1)
            assert_close((got_beside[row : row + 1], got[row : row + 1, real]), expected)
    gradients = torch.autograd.grad(got[mask.bool()].square().sum() + got_beside.sum(), (beside, x))
    assert all(g.isfinite().all() for g in gradients) and not gradients[1][mask == 0].any()

    lengths = (33, 4, 13)
    positions = torch.cat([torch.arange(n) for n in lengths])[None]
    documents = Documents(None, positions, (1, 50))
    beside, x = beside[:3], x[:1]
    got_beside, got = run(layer, beside, x, 1, documents)
    parts = zip(beside.split(1), x.split(lengths, dim=1), strict=True)
    of_globals, of_texts = zip(*(dense(layer, *part, 1) for part in parts), strict=True)
    assert_close((got_beside, got), (torch.cat(of_globals), torch.cat(of_texts, dim=1)))


def test_the_cost_is_that_of_the_pattern(monkeypatch):
    scores, plain = [], module.exact_attention

    def counting(q, k, *args):
        scores.append(q.shape[:-1].numel() * k.shape[-2])
        return plain(q, k, *args)

    monkeypatch.setattr(module, "exact_attention", counting)
    run(make(1), vectors(1, GLOBALS), vectors(1, 160), 1)
    assert scores == [HEADS * GLOBALS * (GLOBALS + 160), HEADS * 160 * (4 * SIZE + GLOBALS)]


def test_dropout_acts_in_training_alone():
    layer, beside, x = make(1), vectors(1, GLOBALS), vectors(1, 50)
    layer.dropout = 0.5
    assert (run(layer.train(), beside, x, 1)[1] - run(layer, beside, x, 1)[1]).abs().max() > 1e-3
    assert torch.equal(run(layer.eval(), beside, x, 1)[1], run(layer, beside, x, 1)[1])
