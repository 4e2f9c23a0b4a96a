"""The convolution beside the first layer of DeBERTa v2 against a loop over taps."""

import pytest
import torch
from torch.nn import functional as F
from torch.testing import assert_close

from hf_zoo.modeling.layers.token_convolution import TokenConvolution

D = 6


def reference(layer, x, y):
    """LayerNorm(y + tanh(conv(x))), tap by tap."""
    weight, bias = layer.conv.weight, layer.conv.bias
    T, taps, groups = x.shape[1], weight.shape[-1], layer.conv.groups
    rows = []
    for t in range(T):
        total = bias.expand(len(x), D)
        for tap in range(taps):
            s = t + tap - taps // 2
            if 0 <= s < T:
                parts = x[:, s].chunk(groups, dim=-1)
                kernels = weight[..., tap].chunk(groups, dim=0)
                total = total + torch.cat([p @ k.T for p, k in zip(parts, kernels, strict=True)], dim=-1)
        rows.append(total)
    return F.layer_norm(y + torch.stack(rows, 1).tanh(), (D,), layer.norm.weight, layer.norm.bias, 1e-7)


def make(kernel_size=3, groups=1):
    torch.manual_seed(0)
    return TokenConvolution(D, kernel_size, groups, "tanh", 1e-7).double()


@pytest.mark.parametrize("kernel_size, groups", [(1, 1), (3, 1), (5, 2), (3, 6)])
def test_equals_the_loop(kernel_size, groups):
    layer = make(kernel_size, groups)
    x, y = torch.randn(2, 2, 9, D, dtype=torch.float64)
    assert_close(layer(x, y), reference(layer, x, y))


@pytest.mark.parametrize("side", ["left", "right"])
@torch.no_grad()
def test_padding_is_not_seen(side):
    layer = make()
    x, y, junk = torch.randn(3, 2, 7, D, dtype=torch.float64)
    mask, order = torch.cat((torch.zeros(2, 7), torch.ones(2, 7)), 1), [junk, x]
    if side == "right":
        mask, order = mask.flip(1), [x, junk]
    wide = torch.cat(order, 1)
    got = layer(wide, torch.cat((y, y), 1), mask)
    assert_close(got[mask.bool()].view_as(x), layer(x, y))


@torch.no_grad()
def test_packed_documents_do_not_mix():
    layer = make()
    x, y = torch.randn(2, 1, 9, D, dtype=torch.float64)
    positions = torch.tensor([[0, 1, 2, 0, 1, 2, 3, 4, 0]])
    apart = [layer(x[:, a:b], y[:, a:b]) for a, b in ((0, 3), (3, 8), (8, 9))]
    assert_close(layer(x, y, None, positions), torch.cat(apart, 1))
