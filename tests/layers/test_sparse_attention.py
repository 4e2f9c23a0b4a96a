import math

import pytest
import torch
from torch.nn import functional as F
from torch.testing import assert_close
from torch.utils._python_dispatch import TorchDispatchMode

from hf_zoo.modeling.layers.sparse_attention import (
    SparseAttention,
    block_sparse_attention,
    find_real,
    gathered_sparse_attention,
    text_sparse_attention,
)
from hf_zoo.modeling.layers.sparse_patterns import fixed_pattern, strided_pattern, union_sees

B, H, K, STRIDE, COLUMNS = 2, 4, 8, 6, 2
HEADS = ["merged", "interleaved", "split"]
PATTERNS = {
    **{f"strided-{heads}-{n}": strided_pattern(STRIDE, H, heads, n) for heads in HEADS for n in (0, 1)},
    **{
        f"fixed-{heads}-{n}-{groups}": fixed_pattern(STRIDE, COLUMNS, H, heads, n, groups)
        for heads in HEADS
        for n in (0, 1)
        for groups in (1, 2)
    },
}


@pytest.fixture(params=sorted(PATTERNS))
def pattern(request):
    return PATTERNS[request.param]


def formula(kind, part, i, j, group=0):
    """The sets of section 4.2, for j <= i, in plain numbers."""
    if kind == "strided":
        return i - j <= STRIDE if part == 1 else (i - j) % STRIDE == 0
    end = STRIDE - group * COLUMNS
    return i // STRIDE == j // STRIDE if part == 1 else end - COLUMNS <= j % STRIDE < end


def dense_mask(pattern, T):
    i, j = torch.arange(T)[:, None], torch.arange(T)
    return torch.stack([union_sees(union, i, j) for union in pattern])


def dense(q, k, v, pattern, scaling=0.3):
    mask = dense_mask(pattern, k.shape[2])[:, -q.shape[2] :]
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scaling)


def qkv(T, seed=0, rows=B):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(3, rows, H, T, K, generator=generator, dtype=torch.float64).unbind()


@pytest.mark.parametrize("kind", ["strided", "fixed"])
@pytest.mark.parametrize("groups", [1, 2])
def test_patterns_are_those_of_the_paper(kind, groups):
    T = 25

    def pattern(heads, layer):
        if kind == "strided":
            return strided_pattern(STRIDE, H, heads, layer)
        return fixed_pattern(STRIDE, COLUMNS, H, heads, layer, groups)

    def expected(head, parts):
        """A token sees itself even where a set leaves it out."""
        sees = lambda i, j: j <= i and (i == j or any(formula(kind, n, i, j, head % groups) for n in parts))  # noqa: E731
        return torch.tensor([[sees(i, j) for j in range(T)] for i in range(T)])

    parts = {
        ("merged", 0): [(1, 2)] * H,
        ("interleaved", 0): [(1,)] * H,
        ("interleaved", 1): [(2,)] * H,
        ("split", 0): [(1,)] * 2 + [(2,)] * 2,
    }
    for (heads, layer), by_head in parts.items():
        wanted = torch.stack([expected(head, own) for head, own in enumerate(by_head)])
        assert torch.equal(dense_mask(pattern(heads, layer), T), wanted), heads


@pytest.mark.parametrize("T", [1, 3, STRIDE, STRIDE + 1, 23, 36])
def test_blocks_equal_the_dense_mask(pattern, T):
    q, k, v = qkv(T)
    assert_close(block_sparse_attention(q, k, v, pattern, 0.3), dense(q, k, v, pattern))


def test_gradients_equal_those_of_the_dense_mask(pattern):
    tensors = [z.requires_grad_() for z in qkv(23)]
    results = []
    for y in (block_sparse_attention(*tensors, pattern, 0.3), dense(*tensors, pattern)):
        results.append(torch.autograd.grad((y * y.detach().cos()).sum(), tensors))
    assert_close(*results)


@pytest.mark.parametrize("count", [1, 2, 9])
def test_tokens_after_a_past_read_what_they_see(pattern, count):
    q, k, v = qkv(29)
    positions = torch.arange(29 - count, 29).expand(B, -1)
    got = gathered_sparse_attention(q[:, :, -count:], k, v, pattern, positions, None, 0.3)
    assert_close(got, dense(q[:, :, -count:], k, v, pattern))


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_changes_nothing(pattern, side):
    """Positions count real tokens, so padding moves no block; what it holds is never seen."""
    q, k, v = qkv(23)
    real = slice(7, None) if side == "left" else slice(0, 16)
    mask = torch.ones(B, 23)
    mask[0] = 0
    mask[0, real] = 1
    y = text_sparse_attention(q, k, v, pattern, mask, None, 0.3)
    own = [z[:1, :, real] for z in (q, k, v)]
    assert_close(y[:1, :, real], dense(*own, pattern))
    assert_close(y[1:], dense(q[1:], k[1:], v[1:], pattern))
    last = 22 if side == "left" else 15  # one more token, as in decoding
    positions = torch.tensor([[15], [last]])
    step = torch.stack((q[0, :, last], q[1, :, last]))[:, :, None]
    got = gathered_sparse_attention(step, k, v, pattern, positions, find_real(mask), 0.3)
    assert_close(got[:1, :, 0], dense(*own, pattern)[:, :, -1])
    assert_close(got[1:, :, 0], dense(q[1:], k[1:], v[1:], pattern)[:, :, last])


def test_documents_in_a_row_do_not_see_each_other(pattern):
    q, k, v = qkv(23, rows=1)
    positions = torch.cat((torch.arange(9), torch.arange(14)))[None]
    y = text_sparse_attention(q, k, v, pattern, None, positions, 0.3)
    apart = [dense(*(z[:, :, part] for z in (q, k, v)), pattern) for part in (slice(0, 9), slice(9, 23))]
    assert_close(y, torch.cat(apart, dim=2))


class Largest(TorchDispatchMode):
    """Remembers the largest tensor that any operation made."""

    numel = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for z in result if isinstance(result, tuple | list) else (result,):
            if isinstance(z, torch.Tensor):
                self.numel = max(self.numel, z.untyped_storage().nbytes() // z.element_size())
        return result


@pytest.mark.parametrize("heads", HEADS)
@pytest.mark.parametrize("kind", ["strided", "fixed"])
def test_nothing_grows_with_the_square_of_the_length(kind, heads):
    """The largest tensor, forward or backward, grows by about 2^1.5 when T doubles and the stride follows."""
    sizes = []
    for T in (512, 2048):
        stride = int(math.sqrt(T / 2))
        make = strided_pattern if kind == "strided" else lambda *a: fixed_pattern(a[0], 2, *a[1:])
        q, k, v = (torch.randn(1, 2, T, 4, requires_grad=True) for _ in range(3))
        with Largest() as largest:
            block_sparse_attention(q, k, v, make(stride, 2, heads, 1), 0.5).sum().backward()
        assert largest.numel < T * T / 2
        sizes.append(largest.numel)
    assert sizes[1] / sizes[0] <= 4**1.6


def test_seen_keys_grow_as_the_power_of_one_and_a_half():
    counts = []
    for T in (64, 256, 1024):
        stride = int(math.sqrt(T))
        pattern = strided_pattern(stride, 1)
        counts.append(float(dense_mask(pattern, T).sum()))
        assert dense_mask(pattern, T).sum(-1).max() <= stride + 1 + T // stride
    for few, many in zip(counts, counts[1:], strict=False):
        assert 1.4 < math.log(many / few, 4) < 1.6


@pytest.mark.parametrize("kind", ["strided", "fixed"])
def test_any_token_is_two_layers_away(kind):
    patterns = (f"{kind}-interleaved-{n}" + ("-1" if kind == "fixed" else "") for n in (0, 1))
    first, second = (dense_mask(PATTERNS[name], 30)[0].double() for name in patterns)
    assert torch.equal((second @ first) > 0, torch.ones(30, 30).tril().bool())


def test_queries_and_values_may_differ_in_size():
    torch.manual_seed(0)
    layer = SparseAttention(24, PATTERNS["strided-merged-0"], qk_head_dim=3, v_head_dim=6).double()
    x = torch.randn(2, 23, 24, dtype=torch.float64)
    q, k, v = (p(x).unflatten(-1, (H, -1)).transpose(1, 2) for p in (layer.q_proj, layer.k_proj, layer.v_proj))
    expected = layer.o_proj(dense(q, k, v, layer.pattern, 3**-0.5).transpose(1, 2).flatten(2))
    assert_close(layer(x), expected)


def test_dropout_keeps_the_size_of_what_is_seen():
    torch.manual_seed(0)
    q, k, _ = qkv(60)
    got = block_sparse_attention(q, k, torch.ones_like(k), PATTERNS["strided-merged-0"], 0.3, dropout=0.5)
    assert_close(got.mean().item(), 1.0, atol=0.1, rtol=0)
    assert got.std() > 0.1


def test_dropout_is_only_in_training():
    layer = SparseAttention(24, PATTERNS["strided-merged-0"], 3, 6, dropout=0.5)
    x = torch.randn(2, 23, 24)
    assert not torch.equal(layer(x), layer(x))
    layer.eval()
    assert torch.equal(layer(x), layer(x))
