"""Attention of blocks against dense attention under the mask of the formula, in float64, gradients too."""

import pytest
import torch
from torch.nn import functional as F
from torch.testing import assert_close

from hf_zoo.modeling.layers.documents import Documents
from hf_zoo.modeling.layers.random_block_attention import (
    BlockedText,
    RandomBlockAttention,
    random_blocks,
)

HEADS, SIZE = 3, 4


def dense_mask(num_tokens, num_random, seed):
    """(H, T, T), true where a token sees another, written from the sets of the paper."""
    n = -(-num_tokens // SIZE)
    if n <= 5 + 2 * num_random:
        return torch.ones(HEADS, num_tokens, num_tokens, dtype=torch.bool)
    drawn = random_blocks(n, HEADS, num_random, seed)
    seen = torch.zeros(HEADS, n, n, dtype=torch.bool)
    for h in range(HEADS):
        for i in range(n):
            blocks = {0, n - 1, i - 1, i, i + 1} if 0 < i < n - 1 else set(range(n))
            if 0 < i < n - 1:
                blocks |= set(drawn[h, i - 1].tolist())
            seen[h, i, sorted(blocks)] = True
    return seen.repeat_interleave(SIZE, 1).repeat_interleave(SIZE, 2)[:, :num_tokens, :num_tokens]


def dense(layer, x, num_random, seed):
    q, k, v = (p(x).unflatten(-1, (HEADS, -1)).transpose(1, 2) for p in (layer.q_proj, layer.k_proj, layer.v_proj))
    scores = q @ k.mT / q.shape[-1] ** 0.5
    weights = scores.masked_fill(~dense_mask(x.shape[1], num_random, seed), -torch.inf).softmax(-1)
    return layer.o_proj((weights @ v).transpose(1, 2).flatten(2))


def make(num_random, seed=3):
    torch.manual_seed(0)
    return RandomBlockAttention(12, HEADS, num_random, seed).double()


def text(x, num_random, documents=None):
    return BlockedText(x.shape[:2], x.device, SIZE, num_random, documents)


@pytest.mark.parametrize("num_random", [0, 1, 3])
@pytest.mark.parametrize("num_tokens", [1, 5, 20, 24, 27, 47, 48, 61])
def test_blocks_equal_the_dense_mask(num_tokens, num_random):
    layer, x = make(num_random), torch.randn(2, num_tokens, 12, dtype=torch.float64, requires_grad=True)
    got, expected = layer(x, text(x, num_random))[0], dense(layer, x, num_random, seed=3)
    assert_close(got, expected)
    direction = torch.randn_like(got)
    inputs = [x, *layer.parameters()]
    assert_close(
        torch.autograd.grad((got * direction).sum(), inputs), torch.autograd.grad((expected * direction).sum(), inputs)
    )


def test_packed_documents_are_texts_of_their_own():
    layer, lengths = make(1), (45, 7, 38)
    x = torch.randn(1, sum(lengths), 12, dtype=torch.float64)
    positions = torch.cat([torch.arange(n) for n in lengths])[None]
    got = layer(x, text(x, 1, Documents(None, positions, x.shape[:2])))[0]
    expected = torch.cat([dense(layer, part, 1, seed=3) for part in x.split(lengths, dim=1)], dim=1)
    assert_close(got, expected)


@pytest.mark.parametrize("num_blocks, num_random", [(8, 1), (12, 3), (64, 3), (9, 2)])
def test_random_blocks_are_distinct_and_seen_in_no_other_way(num_blocks, num_random):
    drawn = random_blocks(num_blocks, 5, num_random, 0)
    assert drawn.shape == (5, num_blocks - 2, num_random)
    for i, rows in enumerate(drawn.transpose(0, 1).tolist(), start=1):
        for blocks in rows:
            assert len(set(blocks)) == num_random
            assert not set(blocks) & {0, i - 1, i, i + 1, num_blocks - 1}
            assert 0 <= min(blocks) and max(blocks) < num_blocks


def test_the_draw_depends_on_seed_head_and_length_alone():
    again = random_blocks(30, 4, 2, 7)
    random_blocks.cache_clear()
    torch.manual_seed(99)
    assert torch.equal(random_blocks(30, 4, 2, 7), again)
    assert not torch.equal(random_blocks(30, 4, 2, 8), again)
    assert len({str(head.tolist()) for head in again}) == 4
    counts = torch.bincount(random_blocks(40, 50, 3, 0).flatten(), minlength=40)[1:-1]
    assert counts.min() > 0.5 * counts.float().mean()  # every block is somebody's


def test_no_work_grows_with_the_square():
    """Numbers in the largest tensor that the forward pass saves."""
    largest = {}
    for num_tokens in (512, 1024):
        layer, x, saved = make(1), torch.randn(1, num_tokens, 12, dtype=torch.float64), []
        with torch.autograd.graph.saved_tensors_hooks(
            lambda t, saved=saved: saved.append(t.numel()) or t, lambda t: t
        ):
            layer(x, text(x, 1))
        largest[num_tokens] = max(saved)
    assert largest[1024] <= 2.1 * largest[512]


def test_dropout_acts_in_training_alone():
    layer, x = make(1), torch.randn(1, 50, 12, dtype=torch.float64)
    layer.dropout = 0.5
    assert (layer.train()(x, text(x, 1))[0] - layer(x, text(x, 1))[0]).abs().max() > 1e-3
    assert torch.equal(layer.eval()(x, text(x, 1))[0], layer(x, text(x, 1))[0])


def test_dense_attention_is_the_limit_of_many_blocks():
    layer, x = make(4), torch.randn(1, 13 * SIZE, 12, dtype=torch.float64)
    q, k, v = (p(x).unflatten(-1, (HEADS, -1)).transpose(1, 2) for p in (layer.q_proj, layer.k_proj, layer.v_proj))
    whole = layer.o_proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
    assert_close(layer(x, text(x, 4))[0], whole)
