"""Convolutions without norms against the equations, and the variance that they are made to keep."""

import pytest
import torch
from torch.nn import functional as F
from torch.testing import assert_close

from hf_zoo.modeling.layers.dropout import drop_rows
from hf_zoo.modeling.layers.scaled_convolution import ScaledConv2d, SqueezeExcite, scaled_gelu


def make(*args, **options):
    torch.manual_seed(0)
    conv = ScaledConv2d(*args, **options).double()
    conv.initialise()
    for parameter in (conv.gain, conv.bias):
        parameter.data.normal_(1.0, 0.5)
    return conv


@pytest.mark.parametrize("size, stride, groups, eps", [(3, 1, 1, 1e-4), (3, 2, 2, 0.3), (1, 1, 1, 1e-4)])
def test_weights_are_standardised_with_their_gradients(size, stride, groups, eps):
    conv = make(4, 6, size, stride, groups, eps=eps)
    channels = []
    for weight, gain in zip(conv.weight, conv.gain, strict=True):
        mean = weight.sum() / weight.numel()
        variance = (weight - mean).square().sum() / weight.numel()
        channels.append(gain * (weight - mean) / (weight.numel() * variance + eps).sqrt())
    expected = torch.stack(channels)
    assert_close(conv.standardised(), expected)
    assert_close(expected.sum((1, 2, 3)), torch.zeros(6, dtype=torch.float64), atol=1e-12, rtol=0)
    x = torch.randn(2, 4, 7, 5, dtype=torch.float64)
    plain = F.conv2d(x, expected, conv.bias, stride, size // 2, groups=groups)
    assert_close(conv(x), plain)
    wanted = (conv.weight, conv.gain, conv.bias)
    for ours, theirs in zip(*(torch.autograd.grad(y.square().sum(), wanted) for y in (conv(x), plain)), strict=True):
        assert_close(ours, theirs)


def test_the_scale_of_weights_does_not_matter():
    conv, x = make(4, 6, 3), torch.randn(2, 4, 7, 5, dtype=torch.float64)
    before = conv(x)
    conv.weight.data *= 10
    assert_close(conv(x), before, atol=1e-3, rtol=1e-3)  # up to eps


def test_the_activation_keeps_variance():
    x = torch.randn(2_000_000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert abs(scaled_gelu(x).var() - 1) < 5e-3
    assert_close(scaled_gelu(x, 0.5), 0.5 * scaled_gelu(x))


def test_a_convolution_keeps_variance_and_takes_away_the_mean():
    torch.manual_seed(0)
    conv = ScaledConv2d(256, 256, 3)
    conv.initialise()
    y = conv(scaled_gelu(torch.randn(4, 256, 16, 16)))[..., 1:-1, 1:-1]  # the border sees zeros
    assert abs(y.var() - 1) < 0.05
    assert y.mean().abs() < 0.02


def test_squeeze_excite_is_the_equation():
    torch.manual_seed(0)
    layer, x = SqueezeExcite(6, 3).double(), torch.randn(2, 6, 4, 5, dtype=torch.float64)
    rows = []
    for image in x:
        mean = torch.stack([channel.mean() for channel in image])
        hidden = (layer.squeeze.weight @ mean + layer.squeeze.bias).clamp_min(0)
        scale = 2 / (1 + torch.exp(-(layer.excite.weight @ hidden + layer.excite.bias)))
        rows.append(torch.stack([s * channel for s, channel in zip(scale, image, strict=True)]))
    assert_close(layer(x), torch.stack(rows))


def test_whole_rows_are_dropped_and_the_mean_stays():
    torch.manual_seed(0)
    y = drop_rows(torch.ones(20_000, 3, 2), 0.3)
    assert y.unique().tolist() == pytest.approx([0.0, 1 / 0.7])
    assert torch.equal(y.amin((1, 2)), y.amax((1, 2)))
    assert abs(y.mean() - 1) < 0.02
