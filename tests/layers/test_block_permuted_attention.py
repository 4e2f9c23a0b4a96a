"""Attention of blocks to blocks against dense attention under the mask of the formula, in float64, gradients too."""

import pytest
import torch
from torch.testing import assert_close

from hf_zoo.modeling.layers import block_permuted_attention as module
from hf_zoo.modeling.layers.block_permuted_attention import BlockedRows, block_permuted_attention, default_shifts
from hf_zoo.modeling.layers.documents import Documents

HEADS = 4


def dense_mask(num_tokens, num_blocks, shifts):
    """(H, T, T), true where a token sees another: blocks listed one by one, as even as they can be."""
    n = min(num_blocks, num_tokens)
    blocks = [[t for t in range(num_tokens) if t * n // num_tokens == i] for i in range(n)]
    assert max(map(len, blocks)) - min(map(len, blocks)) <= 1
    seen = torch.zeros(len(shifts), num_tokens, num_tokens, dtype=torch.bool)
    for h, shift in enumerate(shifts):
        for i, block in enumerate(blocks):
            for t in block:
                seen[h, t, blocks[(i + shift) % n]] = True
    return seen


def dense(q, k, v, num_blocks, shifts, scaling=None):
    scores = q @ k.mT * (q.shape[-1] ** -0.5 if scaling is None else scaling)
    weights = scores.masked_fill(~dense_mask(q.shape[2], num_blocks, shifts), -torch.inf).softmax(-1)
    return (weights @ v).transpose(1, 2)


def vectors(tokens, rows=2):
    torch.manual_seed(tokens)
    return [torch.randn(rows, HEADS, tokens, 5, dtype=torch.float64, requires_grad=True) for _ in range(3)]


def rows_of(tokens, num_blocks, documents=None, rows=2):
    return BlockedRows((rows, tokens), torch.device("cpu"), num_blocks, documents)


@pytest.mark.parametrize("num_blocks, shifts", [(2, [0, 0, 1, 1]), (3, [2, 0, 1, 1]), (5, [4, 3, 0, 1])])
@pytest.mark.parametrize("num_tokens", [1, 2, 4, 12, 13, 14, 30])
def test_blocks_equal_the_dense_mask(num_tokens, num_blocks, shifts):
    q, k, v = vectors(num_tokens)
    got = block_permuted_attention(q, k, v, shifts, rows_of(num_tokens, num_blocks), scaling=0.7)
    expected = dense(q, k, v, num_blocks, shifts, scaling=0.7)
    assert_close(got, expected)
    direction = torch.randn_like(got)
    assert_close(
        torch.autograd.grad((got * direction).sum(), (q, k, v)),
        torch.autograd.grad((expected * direction).sum(), (q, k, v)),
    )


def test_padding_and_packing_give_the_answer_of_each_text_alone():
    """Padding on both sides and between tokens, texts shorter than the number of blocks, a row of padding alone."""
    shifts, num_blocks = [0, 1, 2, 1], 3
    mask = torch.zeros(5, 17, dtype=torch.long)
    mask[0, :11] = mask[1, 3:] = mask[2, 5:7] = mask[3, ::2] = 1
    q, k, v = vectors(17, rows=5)
    rows = rows_of(17, num_blocks, Documents(mask, None, (5, 17)), rows=5)
    got = block_permuted_attention(q, k, v, shifts, rows)
    for row, real in enumerate(mask.bool()):
        if real.any():
            alone = dense(*(z[row : row + 1, :, real] for z in (q, k, v)), num_blocks, shifts)
            assert_close(got[row : row + 1, real], alone)
        assert not got[row, ~real].any()
    gradients = torch.autograd.grad(got.square().sum(), (q, k, v))
    for gradient in gradients:
        assert gradient.isfinite().all() and not gradient.transpose(1, 2)[mask == 0].any()

    lengths = (4, 9, 1, 3)
    positions = torch.cat([torch.arange(n) for n in lengths])[None]
    packed = rows_of(17, num_blocks, Documents(None, positions, (1, 17)), rows=1)
    q, k, v = (z[:1] for z in (q, k, v))
    parts = zip(*(z.split(lengths, dim=2) for z in (q, k, v)), strict=True)
    expected = torch.cat([dense(*part, num_blocks, shifts) for part in parts], dim=1)
    assert_close(block_permuted_attention(q, k, v, shifts, packed), expected)


@pytest.mark.parametrize("num_tokens", [48, 47])
def test_a_head_has_one_nth_of_the_scores(num_tokens, monkeypatch):
    scores = []
    plain = module.exact_attention

    def counting(q, k, *args, **kwargs):
        scores.append(q.shape[0] * q.shape[1] * q.shape[2] * k.shape[2])
        return plain(q, k, *args, **kwargs)

    monkeypatch.setattr(module, "exact_attention", counting)
    block_permuted_attention(*vectors(num_tokens), [0, 1, 2, 3], rows_of(num_tokens, 4))
    assert scores == [2 * HEADS * 48 * 48 / 4]


def test_dropout_is_on_the_weights():
    q, k, _ = vectors(600)
    ones = torch.ones_like(q)
    y = block_permuted_attention(q, k, ones, [0, 1, 1, 0], rows_of(600, 2), dropout=0.3)
    assert abs(y.mean() - 1) < 0.02 and y.std() > 0.01


def test_shifts_that_follow_from_the_number_of_heads():
    assert default_shifts(12, 2) == [0] * 10 + [1] * 2  # 10:2 and 8:2:2 as published
    assert default_shifts(12, 3) == [0] * 8 + [1] * 2 + [2] * 2
    assert default_shifts(4, 3) == [0, 0, 1, 2]
    assert default_shifts(3, 5) == [0, 1, 2]
    assert default_shifts(8, 1) == [0] * 8
