"""Chunked cross-attention against its equation, a token at a time; groups under padding, packing and a past."""

import pytest
import torch
from torch.testing import assert_close

from hf_zoo.modeling.layers.chunk_groups import ChunkGroups
from hf_zoo.modeling.layers.chunked_cross_attention import ChunkedCrossAttention, RotaryCrossAttention
from hf_zoo.modeling.layers.positions import rotary_angles

M, HEADS, HEAD_DIM, HIDDEN, MEMORY, NEIGHBOURS, LENGTH = 4, 2, 6, 10, 7, 2, 5


def turned(x, position):
    """R(position) x for one head's x (K,), pair by pair."""
    half = len(x) // 2
    y = x.clone()
    for i in range(half):
        angle = torch.tensor(position * 10000.0 ** (-2 * i / len(x)), dtype=x.dtype)
        y[i] = x[i] * angle.cos() - x[i + half] * angle.sin()
        y[i + half] = x[i + half] * angle.cos() + x[i] * angle.sin()
    return y


def attention_by_hand(layer, x, memory, query_position, key_positions):
    """One query x (D,) over memory (S, E) -> (D,)."""
    heads = []
    for h in range(HEADS):
        part = slice(h * HEAD_DIM, (h + 1) * HEAD_DIM)
        q = turned(layer.q_proj.weight[part] @ x, query_position)
        k = [turned(layer.k_proj.weight[part] @ e, j) for e, j in zip(memory, key_positions, strict=True)]
        weights = torch.stack([q @ key / HEAD_DIM**0.5 for key in k]).softmax(0)
        heads.append(weights @ (memory @ layer.v_proj.weight[part].T))
    return layer.o_proj.weight @ torch.cat(heads)


def chunked_by_hand(layer, x, memory):
    """x (T, D), memory: chunk number from 1 -> (k, r, E) or None -> (T, D)."""
    rows = []
    for t in range(len(x)):
        chunk = (t + 1) // M
        if memory.get(chunk) is None:
            rows.append(torch.zeros_like(x[t]))
            continue
        keys = memory[chunk].flatten(0, 1)
        places = [j for _ in range(len(memory[chunk])) for j in range(memory[chunk].shape[1])]
        # the chunk's last token stands at the place of the last token of a neighbour that is a chunk long
        rows.append(attention_by_hand(layer, x[t], keys, t - (chunk * M - 1) + M - 1, places))
    return torch.stack(rows)


def chunked(layer, x, positions, memory, real=None):
    """The layer on a batch without a past; memory (N, k, r, E)."""
    groups = ChunkGroups(positions, real, M, has_past=False)
    places = torch.arange(memory.shape[2]).repeat(memory.shape[1])[None]
    keys, values = layer.keys_values(memory.flatten(1, 2), rotary_angles(places, HEAD_DIM, x.dtype))
    return layer(x, keys, values, groups, rotary_angles(groups.offset + M - 1, HEAD_DIM, x.dtype), None)


@pytest.fixture
def layer():
    torch.manual_seed(0)
    return ChunkedCrossAttention(HIDDEN, MEMORY, HEADS, HEAD_DIM).double()


def test_cross_attention_is_the_equation():
    torch.manual_seed(0)
    layer = RotaryCrossAttention(HIDDEN, MEMORY, HEADS, HEAD_DIM).double()
    x, memory = torch.randn(1, 3, HIDDEN).double(), torch.randn(1, 5, MEMORY).double()
    rotary = [rotary_angles(torch.arange(n)[None], HEAD_DIM, torch.float64) for n in (3, 5)]
    mask = torch.tensor([[True, True, False, True, False]])
    got = layer(x, memory, *rotary, mask)
    for t in range(3):
        expected = attention_by_hand(layer, x[0, t], memory[0, mask[0]], t, [0, 1, 3])
        assert_close(got[0, t], expected, atol=1e-6, rtol=1e-6)  # angles are float32


@pytest.mark.parametrize("num_tokens", [3, 4, 5, 8, 11, 15])
def test_chunked_cross_attention_is_the_equation(layer, num_tokens):
    x = torch.randn(1, num_tokens, HIDDEN, dtype=torch.float64, requires_grad=True)
    memory = torch.randn(num_tokens // M, NEIGHBOURS, LENGTH, MEMORY, dtype=torch.float64, requires_grad=True)
    got = chunked(layer, x, torch.arange(num_tokens)[None], memory)
    expected = chunked_by_hand(layer, x[0], {u + 1: memory[u] for u in range(len(memory))})[None]
    assert_close(got, expected, atol=1e-6, rtol=1e-6)
    weight = torch.randn_like(got)
    inputs = [x, *([memory] if len(memory) else []), *(layer.parameters() if len(memory) else [])]
    if len(memory):
        for ours, theirs in zip(
            torch.autograd.grad((got * weight).sum(), inputs),
            torch.autograd.grad((expected * weight).sum(), inputs),
            strict=True,
        ):
            assert_close(ours, theirs, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_on_one_row_shifts_nothing(layer, side):
    x, memory = torch.randn(2, 11, HIDDEN).double(), torch.randn(3, NEIGHBOURS, LENGTH, MEMORY).double()
    real = torch.ones(2, 11, dtype=torch.bool)
    gone = slice(0, 4) if side == "left" else slice(7, 11)
    real[1, gone] = False
    positions = (real.cumsum(1) - 1).clamp_min(0)
    got = chunked(layer, x, positions, memory, real)  # 2 chunks of the first row, 1 of the second
    assert_close(got[0], chunked_by_hand(layer, x[0], {1: memory[0], 2: memory[1]}), atol=1e-6, rtol=1e-6)
    assert_close(got[1, real[1]], chunked_by_hand(layer, x[1, real[1]], {1: memory[2]}), atol=1e-6, rtol=1e-6)
    assert not got[1, gone].any()


def test_packed_documents_count_their_own_chunks(layer):
    x, memory = torch.randn(1, 16, HIDDEN).double(), torch.randn(3, NEIGHBOURS, LENGTH, MEMORY).double()
    got = chunked(layer, x, torch.cat((torch.arange(6), torch.arange(10)))[None], memory)
    apart = [
        chunked_by_hand(layer, x[0, :6], {1: memory[0]}),
        chunked_by_hand(layer, x[0, 6:], {1: memory[1], 2: memory[2]}),
    ]
    assert_close(got[0], torch.cat(apart), atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("sizes", [(5, 1, 1, 1, 8), (1,) * 16, (3, 13), (16,), (7, 2, 7)])
def test_chunks_are_found_across_calls(sizes):
    """The tokens of each chunk, in whatever pieces the text comes, in rows that are at different places."""
    text = torch.arange(16).repeat(2, 1) + torch.tensor([[0], [100]])
    starts = torch.tensor([0, 2])  # the second row begins with two tokens of padding
    before, found, first, state = None, {0: [], 1: []}, 0, False
    for size in sizes:
        ids = text[:, first : first + size]
        positions = torch.arange(first, first + size)[None] - starts[:, None]
        groups = ChunkGroups(positions.clamp_min(0), positions >= 0, M, has_past=state)
        chunks, before = groups.chunks(ids, before)
        for row, chunk in zip(groups.row.tolist(), chunks, strict=True):
            found[row].append(chunk.tolist())
        assert groups.counts.tolist() == [sum(r == row for r in groups.row.tolist()) for row in range(2)]
        first, state = first + size, True
    assert found[0] == text[0].view(-1, M).tolist()
    assert found[1] == text[1, 2:14].view(-1, M).tolist()


def test_a_token_alone_is_in_the_group_of_the_past_or_of_the_chunk_it_completes():
    groups = ChunkGroups(torch.tensor([[5], [7], [1]]), None, M, has_past=True)
    assert groups.group.tolist() == [[0], [3], [-1]]  # groups 0 to 2 are the past of the rows
    assert groups.last.tolist() == [0, 3, 2]
    groups.hide(torch.tensor([True, True, True, False]))
    assert groups.group.tolist() == [[0], [-1], [-1]]
