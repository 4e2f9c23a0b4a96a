"""Cutting rows into segments, summaries and their writing back, against loops over tokens."""

import math

import pytest
import torch
from torch.testing import assert_close

from hf_zoo.modeling.layers.segments import (
    POOLINGS,
    SUMMARIES,
    SegmentPooler,
    Segments,
    cut,
    num_windows,
    summarise,
    write_back,
)

CPU = torch.device("cpu")


def windows_of(length, size, stride):
    """Places of each window in a document, by walking on until its end is covered."""
    windows, start = [], 0
    while True:
        windows.append([start + k for k in range(size) if start + k < length])
        if start + size >= length:
            return windows
        start += stride


def check(segments, documents, size, stride):
    """Every window holds what a loop says; each token is brought back from the window whose middle is nearest."""
    tokens = segments.lay_out(torch.arange(60).view(2, 30)) if segments.source is not None else None
    for n, (start, length) in enumerate(documents):
        expected = windows_of(length, size, stride)
        for s in range(segments.shape[1]):
            places = expected[s] if s < len(expected) else []
            real = segments.mask[n, s].nonzero().flatten().tolist()
            assert real == list(range(len(places)))
            got = tokens.view(segments.shape)[n, s, : len(places)].tolist()
            assert got == [start + p for p in places]
        for p in range(length):
            n_back, s, k = (int(i) for i in torch.unravel_index(segments.place.flatten()[start + p], segments.shape))
            assert (n_back, s * stride + k) == (n, p)
            distance = [abs(p - w * stride - (size - 1) / 2) for w, x in enumerate(expected) if p in x]
            assert abs(p - s * stride - (size - 1) / 2) == min(distance)


@pytest.mark.parametrize(("size", "stride"), [(7, 7), (7, 3), (7, 6), (8, 4), (5, 1), (1, 1), (29, 10)])
@pytest.mark.parametrize("left", [0, 3])
def test_rows_are_covered(size, stride, left):
    mask = torch.ones(2, 30).long()
    mask[0, :left] = 0
    mask[1, 23:] = 0
    segments = cut(2, 30, size, stride, mask, None, CPU)
    documents = [(left, 30 - left), (30, 23)]
    if segments.source is None:
        assert (size, stride) == (1, 1)
        assert torch.equal(segments.mask.flatten(1), mask.bool())
        return
    check(segments, documents, size, stride)
    x = torch.randn(2, 30, 4)
    assert torch.equal(segments.bring_back(segments.lay_out(x))[mask.bool()], x[mask.bool()])


@pytest.mark.parametrize(("size", "stride"), [(7, 7), (7, 3), (6, 5)])
def test_packed_documents_are_cut_alone(size, stride):
    starts = torch.zeros(2, 30, dtype=torch.bool)
    starts[0, [0, 11, 12]] = True
    starts[1, [0, 20]] = True
    segments = cut(2, 30, size, stride, None, starts, CPU)
    check(segments, [(0, 11), (11, 1), (12, 18), (30, 20), (50, 10)], size, stride)
    assert segments.first_document.tolist() == [0, 3]


def test_even_rows_are_not_moved():
    for tokens, size in ((30, 10), (5, 10), (10, 10)):
        segments = cut(3, tokens, size, min(size, tokens), None, None, CPU)
        assert (segments.mask, segments.source, segments.place) == (None, None, None)
        assert math.prod(segments.shape[1:]) == tokens
    right = torch.ones(3, 30).long()
    right[1, 12:] = 0
    segments = cut(3, 30, 10, 10, right, None, CPU)
    assert segments.source is None
    assert torch.equal(segments.mask.flatten(1), right.bool())


def test_holes_in_a_row_stay_where_they_are():
    mask = torch.ones(1, 12).long()
    mask[0, [0, 5, 6]] = 0
    segments = cut(1, 12, 4, 4, mask, None, CPU)
    assert segments.mask.int().tolist() == [[[1, 1, 1, 1], [0, 0, 1, 1], [1, 1, 1, 0]]]


def test_rows_of_padding_are_one_empty_segment():
    mask = torch.ones(2, 12).long()
    mask[1] = 0
    segments = cut(2, 12, 5, 5, mask, None, CPU)
    assert segments.is_real.tolist() == [[True] * 3, [False] * 3]


def test_count_of_windows():
    for length in range(1, 40):
        for size, stride in ((5, 5), (5, 2), (7, 6), (50, 30)):
            assert num_windows(torch.tensor(length), size, stride) == len(windows_of(length, size, stride))


def masked():
    mask = torch.ones(2, 3, 4, dtype=torch.bool)
    mask[0, 0, :2] = mask[0, 2, 3:] = mask[1, 1] = False
    return Segments((2, 3, 4), mask)


@pytest.mark.parametrize("segments", [Segments((2, 3, 4)), masked()], ids=["full", "masked"])
@pytest.mark.parametrize("kind", SUMMARIES)
def test_summaries_and_writing_back(segments, kind):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 12, 5, generator=generator, dtype=torch.float64, requires_grad=True)
    after = torch.randn(2, 3, 5, generator=generator, dtype=torch.float64, requires_grad=True)
    g = summarise(x, segments, kind)
    y = write_back(x, g, after, segments, kind)
    parts, written = x.view(2, 3, 4, 5), y.view(2, 3, 4, 5)
    for n in range(2):
        for s in range(3):
            real = list(range(4)) if segments.mask is None else segments.mask[n, s].nonzero().flatten().tolist()
            if not real:
                continue
            expected = parts[n, s, real[0]] if kind == "first" else sum(parts[n, s, k] for k in real) / len(real)
            assert_close(g[n, s], expected)
            for k in real:
                if kind == "mean":
                    assert_close(written[n, s, k], parts[n, s, k] + after[n, s] - g[n, s])
                else:
                    assert_close(written[n, s, k], after[n, s] if k == real[0] else parts[n, s, k])
    again = summarise(y, segments, kind)
    real = torch.ones(2, 3, dtype=torch.bool) if segments.mask is None else segments.is_real
    assert_close(again[real], after[real])
    assert torch.autograd.gradcheck(
        lambda a, b: write_back(a, summarise(a, segments, kind), b, segments, kind), (x, after)
    )


@pytest.mark.parametrize("kind", POOLINGS)
def test_pooling_sees_real_segments_alone(kind):
    torch.manual_seed(0)
    pooler = SegmentPooler(6, kind).double()
    g = torch.randn(3, 4, 6, dtype=torch.float64, requires_grad=True)
    mask = torch.tensor([[1, 1, 1, 1], [0, 1, 0, 1], [0, 0, 0, 0]]).bool()
    got = pooler.pool(g, mask)
    for n, row in enumerate(mask[:2]):
        rows = g[n][row]
        if kind == "attentive":
            expected = (rows @ pooler.attention.weight[0]).softmax(0) @ rows
        else:
            expected = {"first": rows[0], "mean": rows.mean(0), "max": rows.amax(0)}[kind]
        assert_close(got[n], expected)
    assert pooler(g, mask).isfinite().all()
    assert_close(pooler(g[:1], None), pooler(g[:1], mask[:1]))
    pooler(g, mask)[:2].sum().backward()
    assert g.grad.isfinite().all() and not g.grad[1, [0, 2]].any()
