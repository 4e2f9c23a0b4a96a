"""Attention in blocks equals dense attention under a window: values, gradients, padding, documents, caches."""

import pytest
import torch
from torch.nn import functional as F
from torch.testing import assert_close

from hf_zoo.modeling.layers.local_attention import local_attention

B, H, G, K = 2, 4, 2, 8


def tensors(tokens, past=0):
    generator = torch.Generator().manual_seed(tokens)
    shapes = ((B, H, tokens, K), (B, G, past + tokens, K), (B, G, past + tokens, K))
    return [torch.randn(s, generator=generator, dtype=torch.float64).requires_grad_() for s in shapes]


def dense(q, k, v, window, documents=None, is_causal=True, scaling=None):
    """One T x S matrix."""
    k, v = (x.repeat_interleave(H // G, dim=1) for x in (k, v))
    i = torch.arange(q.shape[2])[:, None] + k.shape[2] - q.shape[2]
    j = torch.arange(k.shape[2])
    mask = (j > i - window) & (j <= i if is_causal else j < i + window)
    if documents is not None:
        mask = mask & (documents[:, -q.shape[2] :, None] == documents[:, None])[:, None]
    return F.scaled_dot_product_attention(q, k, v, mask, scale=scaling).transpose(1, 2)


def check(got, expected, inputs):
    assert_close(got, expected, atol=1e-10, rtol=1e-10)
    weights = torch.randn(expected.shape, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    for a, b in zip(*(torch.autograd.grad((y * weights).sum(), inputs) for y in (got, expected)), strict=True):
        assert_close(a, b, atol=1e-10, rtol=1e-10)


@pytest.mark.parametrize("tokens", [1, 4, 5, 6, 11, 20, 37])
@pytest.mark.parametrize("window", [1, 2, 5, 40])
@pytest.mark.parametrize("is_causal", [True, False])
def test_equals_dense_attention(tokens, window, is_causal):
    inputs = tensors(tokens)
    check(local_attention(*inputs, window, is_causal=is_causal), dense(*inputs, window, None, is_causal), inputs)


@pytest.mark.parametrize("tokens", [1, 3, 6, 17])
@pytest.mark.parametrize("past", [1, 3, 4, 9])
@pytest.mark.parametrize("has_padding", [False, True])
def test_goes_on_from_keys_of_the_past(tokens, past, has_padding):
    inputs, window = tensors(tokens, past), 5
    documents = None
    if has_padding:
        documents = torch.ones(B, past + tokens, dtype=torch.long)
        documents[0, :past] = 0
    check(local_attention(*inputs, window, documents), dense(*inputs, window, documents), inputs)


@pytest.mark.parametrize("tokens", [4, 12, 23])
@pytest.mark.parametrize("is_causal", [True, False])
def test_documents_and_padding_are_apart(tokens, is_causal):
    inputs, window = tensors(tokens), 5
    documents = torch.ones(B, tokens, dtype=torch.long)
    documents[0, :2] = documents[1, -3:] = 0
    documents[0, tokens // 2 :] = 2
    got = local_attention(*inputs, window, documents, is_causal=is_causal)
    check(got, dense(*inputs, window, documents, is_causal), inputs)


@pytest.mark.parametrize("tokens", [4, 23])
def test_one_row_of_documents_serves_all(tokens):
    inputs = tensors(tokens)
    documents = (torch.arange(tokens) // 7)[None]
    expected = local_attention(*inputs, 5, documents.expand(B, -1))
    assert torch.equal(local_attention(*inputs, 5, documents), expected)


def test_scores_are_scaled_as_asked():
    inputs = tensors(23)
    assert_close(local_attention(*inputs, 5, scaling=0.1), dense(*inputs, 5, scaling=0.1))


def test_dropout_drops():
    torch.manual_seed(0)
    q, k, v = tensors(23)
    y = local_attention(q, k, torch.ones_like(v), 5, dropout=0.5)
    assert y.mean().item() == pytest.approx(1, abs=0.1)
    assert (y - 1).abs().max() > 0.1


@pytest.mark.parametrize("has_documents", [False, True])
def test_no_tensor_is_as_large_as_all_pairs(has_documents):
    """The largest tensor that any operation makes, as a multiple of T."""
    from torch.utils._python_dispatch import TorchDispatchMode

    class Largest(TorchDispatchMode):
        size = 0

        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            result = function(*args, **(kwargs or {}))
            for tensor in result if isinstance(result, tuple | list) else (result,):
                if isinstance(tensor, torch.Tensor):
                    self.size = max(self.size, tensor.numel())
            return result

    tokens, window = 2048, 16
    q, k, v = (torch.randn(1, 2, tokens, K) for _ in range(3))
    documents = torch.ones(1, tokens, dtype=torch.long) if has_documents else None
    with Largest() as largest:
        local_attention(q, k, v, window, documents)
    assert largest.size <= tokens * 2 * max(2 * window, 2 * K)
