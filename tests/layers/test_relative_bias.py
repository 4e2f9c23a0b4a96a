"""Biases by distance against the published equation, one pair of tokens at a time."""

import math

import pytest
import torch
from torch.testing import assert_close

from hf_zoo.modeling.layers.relative_bias import RelativePositionBias, relative_buckets


def bucket(r, num_buckets, max_distance, is_causal):
    """The equation of the file, for one distance r = key - query."""
    upper = 0
    if is_causal:
        n = max(-r, 0)
    else:
        num_buckets //= 2
        n, upper = abs(r), num_buckets * (r > 0)
    if n < num_buckets // 2:
        return upper + n
    share = math.log(2 * n / num_buckets) / math.log(2 * max_distance / num_buckets)
    # a hair more than the value, which rounds down in exact powers
    return upper + min(num_buckets - 1, num_buckets // 2 + math.floor(share * num_buckets / 2 + 1e-6))


@pytest.mark.parametrize("is_causal", [True, False])
@pytest.mark.parametrize("sizes", [(32, 128), (8, 9), (16, 1000)])
def test_buckets_follow_the_equation(is_causal, sizes):
    distances = torch.arange(-1500, 1501)
    got = relative_buckets(distances, *sizes, is_causal)
    assert got.tolist() == [bucket(int(r), *sizes, is_causal) for r in distances]
    assert set(got[distances <= 0].tolist() if is_causal else got.tolist()) == set(range(sizes[0])) - (
        set() if is_causal else {sizes[0] // 2}  # distance 0 is of the lower half
    )


def make(is_causal):
    layer = RelativePositionBias(8, 3, 20, is_causal, initial_std=0.5).double()
    torch.manual_seed(0)
    torch.nn.init.normal_(layer.weight)
    return layer


@pytest.mark.parametrize("is_causal", [True, False])
@pytest.mark.parametrize("sizes", [(1, 1, 0), (1, 9, 8), (5, 5, 0), (4, 30, 26), (7, 40, 3)])
def test_biases_are_those_of_every_pair(is_causal, sizes):
    num_queries, num_keys, num_seen = sizes
    layer = make(is_causal)
    got = layer(*sizes)
    assert got.shape == (1, 3, num_queries, num_keys)
    for i in range(num_queries):
        for j in range(num_keys):
            assert_close(got[0, :, i, j], layer.weight[bucket(j - i - num_seen, 8, 20, is_causal)])
    assert_close(layer(num_queries, num_keys, torch.tensor(num_seen)), got)


@pytest.mark.parametrize("num_seen", [0, 6])
def test_gradients_are_those_of_every_pair(num_seen):
    layer, keys = make(False), 5 + num_seen
    weight = torch.randn(1, 3, 5, keys, dtype=torch.double, generator=torch.Generator().manual_seed(1))
    (got,) = torch.autograd.grad((layer(5, keys, num_seen) * weight).sum(), layer.weight)
    rows = torch.tensor([[bucket(j - i - num_seen, 8, 20, False) for j in range(keys)] for i in range(5)])
    dense = layer.weight[rows].permute(2, 0, 1)[None]
    (expected,) = torch.autograd.grad((dense * weight).sum(), layer.weight)
    assert_close(got, expected)


def test_a_shift_of_both_changes_nothing():
    layer = make(True)
    assert_close(layer(3, 10, 7), layer(10, 10)[:, :, 7:])
    assert_close(layer(12, 12)[:, :, 5:, 5:], layer(7, 7))
