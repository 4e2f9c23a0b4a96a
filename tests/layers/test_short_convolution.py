import sys
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from hf_zoo.modeling.layers import mamba_kernels
from hf_zoo.modeling.layers import short_convolution as module
from hf_zoo.modeling.layers.short_convolution import ShortConvolution

BATCH, T, E, K = 2, 11, 6, 4


def layer(bias=True):
    torch.manual_seed(0)
    conv = ShortConvolution(E, K, bias=bias).double()
    if bias:
        nn.init.normal_(conv.bias)
    return conv


def tokens(batch=BATCH, T=T):
    return torch.randn(batch, T, E, dtype=torch.float64, requires_grad=True)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("T", [1, 2, T])
def test_equals_conv1d_with_its_weights(T, bias):
    conv, x = layer(bias), tokens(T=T)
    reference = nn.Conv1d(E, E, K, groups=E, padding=K - 1, bias=bias).double()
    reference.load_state_dict(conv.state_dict())
    y, expected = conv(x)[0], reference(x.mT)[..., :T].mT
    torch.testing.assert_close(y, expected)
    grads = [
        torch.autograd.grad(out.square().sum(), [x, *m.parameters()]) for out, m in ((y, conv), (expected, reference))
    ]
    torch.testing.assert_close(*grads)


@pytest.mark.parametrize("sizes", [[1] * T, [2, 1, 8], [5, 6]])
def test_pieces_with_state_equal_the_whole(sizes):
    conv, x = layer(), tokens()
    whole, last = conv(x)
    state, parts = None, []
    for piece in x.split(sizes, dim=1):
        y, state = conv(piece, state=state)
        parts.append(y)
    torch.testing.assert_close((torch.cat(parts, dim=1), state), (whole, last))
    assert state.shape == (BATCH, E, K - 1)


@pytest.mark.parametrize("sizes", [[T], [1] * T, [5, 6]])
def test_no_tap_reaches_over_the_start_of_a_document(sizes):
    conv, x = layer(), tokens(batch=1)
    position_ids = torch.tensor([[0, 1, 2, 3, 0, 0, 1, 2, 3, 4, 5]])
    apart = torch.cat([conv(document)[0] for document in x.split([4, 1, 6], dim=1)], dim=1)
    state, parts = None, []
    for piece, positions in zip(x.split(sizes, dim=1), position_ids.split(sizes, dim=1), strict=True):
        y, state = conv(piece, state=state, position_ids=positions)
        parts.append(y)
    torch.testing.assert_close(torch.cat(parts, dim=1), apart)


@pytest.mark.parametrize("length", [0, 1, 2, 7])
@pytest.mark.parametrize("has_state", [True, False])
def test_right_padding_leaves_the_last_real_inputs(length, has_state):
    conv, x = layer(), tokens()
    state = torch.randn(BATCH, E, K - 1, dtype=torch.float64) if has_state else None
    mask = torch.ones(BATCH, T, dtype=torch.long)
    mask[0, length:] = 0
    y, last = conv(x, mask, state)
    short, short_last = conv(x[:1, :length], state=None if state is None else state[:1])
    full, full_last = conv(x[1:], state=None if state is None else state[1:])
    torch.testing.assert_close((y[:1, :length], y[1:]), (short, full))
    torch.testing.assert_close(last, torch.cat([short_last, full_last]))


def test_left_padding_changes_nothing():
    conv, x = layer(), tokens()
    mask = torch.ones(BATCH, T, dtype=torch.bool)
    mask[0, :5] = False
    y, last = conv(x, mask)
    short, short_last = conv(x[:1, 5:])
    torch.testing.assert_close((y[:1, 5:], last[:1]), (short, short_last))


def test_cuda_kernel_is_called_in_its_own_layout(monkeypatch):
    def kernel(x, weight, bias=None):
        assert (x.shape, weight.shape) == ((BATCH, E, T), (E, K))
        return F.conv1d(x, weight[:, None], bias, padding=K - 1, groups=E)[..., :T]

    conv, x = layer(), tokens()
    expected = conv(x)
    monkeypatch.setitem(sys.modules, "causal_conv1d", SimpleNamespace(causal_conv1d_fn=kernel))
    mamba_kernels._find.cache_clear()
    monkeypatch.setattr(module, "kernel_for", lambda x, package, name: mamba_kernels._find(package, name))
    torch.testing.assert_close(conv(x), expected)
    mamba_kernels._find.cache_clear()


def test_kernels_come_from_the_hub_where_no_package_is_installed(monkeypatch):
    fetched = []

    def get_kernel(repository):
        fetched.append(repository)
        return SimpleNamespace(causal_conv1d_fn="the kernel")

    monkeypatch.setitem(sys.modules, "causal_conv1d", None)  # importing it fails
    monkeypatch.setitem(sys.modules, "kernels", SimpleNamespace(get_kernel=get_kernel))
    mamba_kernels._find.cache_clear()
    assert mamba_kernels._find("causal_conv1d", "causal_conv1d_fn") == "the kernel"
    assert fetched == ["kernels-community/causal-conv1d"]
    monkeypatch.setitem(sys.modules, "kernels", None)
    mamba_kernels._find.cache_clear()
    assert mamba_kernels._find("causal_conv1d", "causal_conv1d_fn") is None
    mamba_kernels._find.cache_clear()
