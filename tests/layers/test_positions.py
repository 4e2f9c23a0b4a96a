"""Positions against their equations."""

import math

import pytest
import torch
from torch.testing import assert_close
from transformers import LlamaConfig
from transformers.models.bloom.modeling_bloom import build_alibi_tensor
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding, apply_rotary_pos_emb

from hf_zoo.modeling.layers.positions import (
    LearnedPositions,
    RotaryPositions,
    SinusoidalPositions,
    alibi_bias,
    alibi_slopes,
    rotate,
)


def rotary(head_dim=8, **parameters):
    parameters = {"rope_type": "default", "rope_theta": 100.0, **parameters}
    return LlamaConfig(head_dim=head_dim, rope_parameters=parameters, max_position_embeddings=32)


def test_rotation_turns_pairs_by_position_times_frequency():
    config, x = rotary(), torch.randn(2, 3, 5, 8, dtype=torch.float64)
    positions = torch.tensor([[0, 1, 2, 9, 4], [3, 3, 0, 1, 7]])
    cos, sin = (y.double() for y in RotaryPositions(config)(torch.empty(0), positions))
    turned = rotate(x, cos, sin)
    for b, t, i in [(0, 3, 0), (0, 3, 2), (1, 4, 3), (1, 2, 1)]:
        angle = positions[b, t].item() * 100.0 ** (-2 * i / 8)
        pair = torch.complex(x[b, :, t, i], x[b, :, t, i + 4]) * complex(math.cos(angle), math.sin(angle))
        assert_close(turned[b, :, t, i], pair.real, atol=1e-6, rtol=1e-6)
        assert_close(turned[b, :, t, i + 4], pair.imag, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize(
    "parameters",
    [
        {},
        {"rope_type": "linear", "factor": 4.0},
        {"rope_type": "dynamic", "factor": 2.0},
        {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16},
    ],
    ids=lambda p: p.get("rope_type", "default"),
)
def test_every_scaling_equals_upstream(parameters):
    config, q = rotary(**parameters), torch.randn(2, 3, 50, 8)
    positions = torch.arange(50)[None].expand(2, -1)
    expected, _ = apply_rotary_pos_emb(q, q, *LlamaRotaryEmbedding(config)(q, positions))
    assert_close(rotate(q, *RotaryPositions(config)(q, positions)), expected)


def test_scores_depend_on_the_distance_alone():
    config = rotary()
    q, k = torch.randn(1, 1, 6, 8), torch.randn(1, 1, 6, 8)
    rotary_positions, positions = RotaryPositions(config), torch.arange(6)[None]
    scores = []
    for shift in (0, 17):
        cos, sin = rotary_positions(q, positions + shift)
        scores.append(rotate(q, cos, sin) @ rotate(k, cos, sin).mT)
    assert_close(*scores, atol=1e-5, rtol=1e-4)


def test_part_of_a_head_may_turn():
    config, x = rotary(partial_rotary_factor=0.25), torch.randn(1, 2, 5, 8)
    turned = rotate(x, *RotaryPositions(config)(x, torch.arange(5)[None]))
    assert torch.equal(turned[..., 2:], x[..., 2:])
    assert not torch.equal(turned[..., :2], x[..., :2])


def test_sinusoids_are_interleaved():
    table = SinusoidalPositions(6)(torch.arange(9)[None])[0]
    for p, i in [(0, 0), (3, 0), (8, 1), (5, 2)]:
        angle = p * 10000 ** (-2 * i / 6)
        assert_close(table[p, 2 * i : 2 * i + 2], torch.tensor([math.sin(angle), math.cos(angle)]))
    assert SinusoidalPositions(5)(torch.arange(2)[None]).shape == (1, 2, 5)


@pytest.mark.parametrize("num_heads", [1, 4, 6, 8, 12, 40])
def test_slopes_equal_upstream(num_heads):
    expected = build_alibi_tensor(torch.ones(1, 2), num_heads, torch.float32).view(num_heads, 2)[:, 1]
    assert_close(alibi_slopes(num_heads), expected)


def test_bias_falls_with_distance():
    bias = alibi_bias(2, torch.tensor([[2, 3]]), torch.tensor([[0, 1, 2, 3]]))
    assert bias.shape == (1, 2, 2, 4)
    assert_close(bias[0, 0, 1], -(2.0**-4) * torch.tensor([3.0, 2.0, 1.0, 0.0]))


def test_positions_beyond_the_table_are_named():
    with pytest.raises(ValueError, match="position 8 .*max_position_embeddings=8"):
        LearnedPositions(8, 4)(torch.arange(9)[None])
