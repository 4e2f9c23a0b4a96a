"""Tokens and patches that look at each other, and Fourier positions: against the equations, in float64."""

import math

import pytest
import torch
from torch.nn import functional as F
from torch.testing import assert_close
from transformers import PreTrainedConfig

from hf_zoo.modeling.layers.fourier_positions import FourierPositions
from hf_zoo.modeling.layers.two_way_attention import InnerAttention, TwoWayBlock

SIZE, HEADS, TOKENS, PATCHES = 12, 3, 4, 7


def config(backend="sdpa"):
    config = PreTrainedConfig()
    config._attn_implementation = backend
    return config


def drawn(module):
    torch.manual_seed(0)
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return module.double()


def attend(module, queries, keys, values):
    """One set of tokens (T, D), head by head."""
    q, k, v = module.q_proj(queries), module.k_proj(keys), module.v_proj(values)
    width = q.shape[-1] // HEADS
    heads = []
    for h in range(HEADS):
        part = slice(h * width, (h + 1) * width)
        heads.append((q[:, part] @ k[:, part].T / math.sqrt(width)).softmax(-1) @ v[:, part])
    return module.o_proj(torch.cat(heads, -1))


@pytest.mark.parametrize("backend", ["eager", "sdpa"])
@pytest.mark.parametrize("layer_idx", [0, 1])
@pytest.mark.parametrize("shared", [True, False])
def test_the_four_steps(backend, layer_idx, shared):
    block = drawn(TwoWayBlock(config(backend), layer_idx, SIZE, HEADS, 20, 2, 1e-5))
    tokens, first = torch.randn(2, 2, 3, TOKENS, SIZE, dtype=torch.float64)
    patches = torch.randn(2, 1 if shared else 3, PATCHES, SIZE, dtype=torch.float64)
    positions = torch.randn(PATCHES, SIZE, dtype=torch.float64)
    got_tokens, got_patches = block(tokens, patches, first, positions)
    assert got_patches.shape == (2, 3, PATCHES, SIZE)
    for b in range(2):
        for p in range(3):
            t, t0, x = tokens[b, p], first[b, p], patches[b, 0 if shared else p]
            if layer_idx == 0:
                t = attend(block.self_attn, t, t, t)
            else:
                t = t + attend(block.self_attn, t + t0, t + t0, t)
            t = block.self_norm(t)
            t = block.token_norm(t + attend(block.token_attn, t + t0, x + positions, x))
            t = block.mlp_norm(t + block.mlp.down_proj(F.relu(block.mlp.up_proj(t))))
            x = block.patch_norm(x + attend(block.patch_attn, x + positions, t + t0, t))
            assert_close(got_tokens[b, p], t)
            assert_close(got_patches[b, p], x)


def test_gradients_of_shared_patches_are_sums():
    module = drawn(InnerAttention(config(), 0, SIZE, 6, HEADS))
    queries = torch.randn(1, 3, TOKENS, SIZE, dtype=torch.float64)
    patches = torch.randn(1, 1, PATCHES, SIZE, dtype=torch.float64, requires_grad=True)
    (together,) = torch.autograd.grad(module(queries, patches, patches).square().sum(), patches)
    (apart,) = torch.autograd.grad(
        sum(attend(module, queries[0, p], patches[0, 0], patches[0, 0]).square().sum() for p in range(3)), patches
    )
    assert_close(together, apart)


def test_sines_and_cosines_of_directions():
    layer = FourierPositions(8).double()
    points = torch.rand(3, 2, dtype=torch.float64)
    for got, (x, y) in zip(layer(points), points, strict=True):
        angles = [
            2 * math.pi * ((2 * x - 1) * layer.directions[0, f] + (2 * y - 1) * layer.directions[1, f])
            for f in range(4)
        ]
        expected = [f(a) for f in (torch.sin, torch.cos) for a in angles]
        assert_close(got, torch.stack(expected))
    assert_close(layer.of_grid(4)[1, 2], layer(torch.tensor([2.5 / 4, 1.5 / 4])))
    assert torch.equal(layer.directions, FourierPositions(8).double().directions)


def test_half_precision_keeps_pixels_apart():
    layer = FourierPositions(16)
    points = torch.tensor([[500.5 / 1024, 0.5], [501.5 / 1024, 0.5]])
    exact, rough = layer(points), layer.bfloat16()(points)
    assert rough.dtype == torch.bfloat16
    assert (exact - rough.float()).abs().max() < 0.1 < (exact[0] - layer.float()(points * 2)[0]).abs().max()
    assert not torch.equal(rough[0], rough[1])
