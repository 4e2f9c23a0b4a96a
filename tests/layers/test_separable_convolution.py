"""The separable convolution against its equation: both sides, padding, documents, and a step at a time."""

import pytest
import torch
from torch.nn import functional as F
from torch.testing import assert_close

from hf_zoo.modeling.layers.separable_convolution import SeparableConvolution

B, T, D, E = 2, 17, 6, 8


def layer(kernel=4, is_causal=True):
    torch.manual_seed(0)
    made = SeparableConvolution(D, E, kernel, is_causal).double()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return made


def x(tokens=T):
    return torch.randn(B, tokens, D, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def reference(made, x):
    """torch's own grouped convolution."""
    kernel = made.conv1d.weight.shape[-1]
    ahead = 0 if made.is_causal else (kernel - 1) // 2
    a, b = made.in_proj(x).chunk(2, dim=-1)
    u = F.pad((a * torch.sigmoid(b)).mT, (kernel - 1 - ahead, ahead))
    y = F.conv1d(u, made.conv1d.weight, made.conv1d.bias, groups=E).mT
    return made.out_proj(F.silu(made.conv_norm(y)))


@pytest.mark.parametrize("kernel", [1, 2, 3, 4, 7])
@pytest.mark.parametrize("is_causal", [True, False])
def test_equals_the_grouped_convolution(kernel, is_causal):
    made, inputs = layer(kernel, is_causal), x().requires_grad_()
    got, expected = made(inputs)[0], reference(made, inputs)
    assert_close(got, expected)
    parameters = (inputs, *made.parameters())
    grads = (torch.autograd.grad(y.square().sum(), parameters) for y in (got, expected))
    for a, b in zip(*grads, strict=True):
        assert_close(a, b)


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("is_causal", [True, False])
def test_padding_changes_nothing(side, is_causal):
    made, noise = layer(is_causal=is_causal), torch.randn(B, 5, D, dtype=torch.float64)
    pieces = ((noise, 0), (x(), 1)) if side == "left" else ((x(), 1), (noise, 0))
    mask = torch.cat([torch.full(piece.shape[:2], value) for piece, value in pieces], dim=1)
    expected, state = made(x())
    got, padded_state = made(torch.cat([piece for piece, _ in pieces], dim=1), mask)
    assert_close(got[mask.bool()].view_as(expected), expected)
    if is_causal:
        assert_close(padded_state[0], state[0])


@pytest.mark.parametrize("is_causal", [True, False])
def test_padding_may_be_anywhere(is_causal):
    made = layer(is_causal=is_causal)
    past = made(x(5))[1] if is_causal else None
    real = torch.randperm(T + 6, generator=torch.Generator().manual_seed(0))[:T].sort().values
    mask = torch.zeros(B, T + 6, dtype=torch.long).index_fill_(1, real, 1)
    wide = torch.randn(B, T + 6, D, dtype=torch.float64).index_copy_(1, real, x())
    positions = torch.arange(T + 6)[None] % 9
    for position_ids in (None, positions):
        narrow = None if position_ids is None else position_ids[:, real].expand(B, -1)
        expected, state = made(x(), None, past, narrow)
        got, padded_state = made(wide, mask, past, position_ids)
        assert_close(got[:, real], expected)
        if is_causal:
            assert_close(padded_state[0], state[0])


@pytest.mark.parametrize("is_causal", [True, False])
def test_documents_do_not_see_each_other(is_causal):
    made = layer(5, is_causal)
    positions = torch.cat((torch.arange(6), torch.arange(2), torch.arange(9)))[None].expand(B, -1)
    apart = [made(part)[0] for part in x().split([6, 2, 9], dim=1)]
    assert_close(made(x(), position_ids=positions)[0], torch.cat(apart, dim=1))


def test_the_state_carries_over():
    made, state, parts = layer(), None, []
    for part in x().split([5, 1, 1, 10], dim=1):
        y, state = made(part, state=state)
        parts.append(y)
    assert_close(torch.cat(parts, dim=1), made(x())[0])
    assert state[0].shape == (B, E, 3) and state[1] is None


def test_channels_are_apart_until_the_last_projection():
    made = layer()
    with torch.no_grad():
        made.in_proj.weight.zero_()
        made.in_proj.weight[2, 0] = made.in_proj.weight[E + 2, 0] = 1  # only channel 2 hears input 0
    u = F.glu(made.in_proj(x()), dim=-1).requires_grad_()
    (gradient,) = torch.autograd.grad(made.conv1d(u)[0][..., 2].sum(), u)
    assert (gradient.abs().amax((0, 1)) > 0).nonzero().flatten().tolist() == [2]
