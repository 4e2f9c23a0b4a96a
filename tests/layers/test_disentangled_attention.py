"""Disentangled attention against its equation, written as loops over pairs of tokens, in float64."""

import math
from itertools import product

import pytest
import torch
from torch.testing import assert_close
from transformers import PreTrainedConfig

from hf_zoo.modeling.layers import disentangled_attention
from hf_zoo.modeling.layers.disentangled_attention import DisentangledAttention, RelativePositions, log_bucket

D, H, K = 12, 3, 4


def bucket(distance, num_buckets, max_distance):
    """The bucket of one distance, from the formula."""
    middle = num_buckets // 2
    if abs(distance) <= middle:
        return distance
    steps = math.log(abs(distance) / middle) / math.log((max_distance - 1) / middle) * (middle - 1)
    return int(math.copysign(math.ceil(steps) + middle, distance))


def delta(distance, table):
    """Which row a distance has."""
    if table.num_buckets:
        distance = bucket(distance, table.num_buckets, table.max_distance)
    return min(max(distance + table.span, 0), 2 * table.span - 1)


def reference(layer, x, table, query=None, p2c_index="code"):
    """A_ij term by term; y (B, T, D) and weights (B, H, T, T)."""
    rows = table.embedding.weight if table.norm is None else table.norm(table.embedding.weight)
    shared = layer.shares_projections
    q, k, v = layer.q_proj(x if query is None else query), layer.k_proj(x), layer.v_proj(x)
    kr = (layer.k_proj if shared else getattr(layer, "pos_k_proj", layer.k_proj))(rows)
    qr = (layer.q_proj if shared else getattr(layer, "pos_q_proj", layer.q_proj))(rows)
    B, T = x.shape[:2]
    scores = x.new_zeros(B, H, T, T)
    for b, h, i, j in product(range(B), range(H), range(T), range(T)):
        part = slice(h * K, (h + 1) * K)
        score = q[b, i, part] @ k[b, j, part]
        if "c2p" in layer.terms:
            score = score + q[b, i, part] @ kr[delta(i - j, table), part]
        if "p2c" in layer.terms:
            distance = i - j if p2c_index == "code" else j - i
            score = score + k[b, j, part] @ qr[delta(distance, table), part]
        scores[b, h, i, j] = score / math.sqrt((1 + len(layer.terms)) * K)
    weights = scores.softmax(-1)
    return layer.o_proj((weights @ v.unflatten(-1, (H, K)).transpose(1, 2)).transpose(1, 2).flatten(2)), weights


def make(backend="sdpa", num_buckets=0, max_distance=5, p2c_index="code", norm=False, **options):
    torch.manual_seed(0)
    config = PreTrainedConfig()
    config._attn_implementation = backend
    layer = DisentangledAttention(config, 0, D, H, **options).double()
    norm = torch.nn.LayerNorm(D) if norm else None
    return layer, RelativePositions(D, max_distance, num_buckets, p2c_index, norm).double()


VARIANTS = {
    "both terms": {},
    "c2p": {"terms": ("c2p",)},
    "p2c": {"terms": ("p2c",)},
    "paper's index": {"p2c_index": "paper"},
    "own projections": {"share_projections": False, "key_bias": False},
    "own projection to queries": {"share_projections": False, "terms": ("p2c",)},
    "buckets": {"num_buckets": 4, "max_distance": 9, "norm": True},
    "buckets, paper's index": {"num_buckets": 6, "max_distance": 64, "p2c_index": "paper"},
}


@pytest.mark.parametrize("block", [1, 3, 64])
@pytest.mark.parametrize("backend", ["sdpa", "eager"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_equals_the_equation(variant, backend, block, monkeypatch):
    """Outputs and gradients, for blocks that divide the text, that do not, and that hold all of it."""
    monkeypatch.setattr(disentangled_attention, "BLOCK", block)
    layer, table = make(backend, **VARIANTS[variant])
    x = torch.randn(2, 7, D, dtype=torch.float64, requires_grad=True)
    inputs = [x, *layer.parameters(), *table.parameters()]
    index = VARIANTS[variant].get("p2c_index", "code")
    expected, expected_weights = reference(layer, x, table, p2c_index=index)
    got, weights = layer(x, None, *table(7))
    assert_close(got, expected)
    if backend == "eager":
        assert_close(weights, expected_weights)
    probe = torch.randn_like(got)
    wanted = torch.autograd.grad(expected, inputs, probe, allow_unused=True)
    found = torch.autograd.grad(got, inputs, probe, allow_unused=True)
    for ours, theirs in zip(found, wanted, strict=True):
        assert_close(torch.zeros(()) if ours is None else ours, torch.zeros(()) if theirs is None else theirs)
    with torch.no_grad():
        assert_close(layer(x, None, *table(7))[0], expected)


@pytest.mark.parametrize("tokens", [1, 2, 5, 6, 13])
@torch.no_grad()
def test_any_length(tokens):
    """Shorter and longer than the table, and one token alone."""
    layer, table = make(num_buckets=6, max_distance=8)
    x = torch.randn(2, tokens, D, dtype=torch.float64)
    assert_close(layer(x, None, *table(tokens))[0], reference(layer, x, table)[0])


@torch.no_grad()
def test_queries_of_another_source():
    layer, table = make()
    x, query = torch.randn(2, 2, 6, D, dtype=torch.float64)
    assert_close(layer(x, None, *table(6), query=query)[0], reference(layer, x, table, query)[0])


@pytest.mark.parametrize("has_gradient", [False, True])
@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_is_not_seen(side, has_gradient):
    layer, table = make()
    x = torch.randn(2, 6, D, dtype=torch.float64)
    junk = torch.randn(2, 3, D, dtype=torch.float64)
    real = torch.cat((torch.zeros(2, 3), torch.ones(2, 6)), 1).bool()
    wide = torch.cat((junk, x), 1)
    if side == "right":
        wide, real = torch.cat((x, junk), 1), real.flip(1)
    with torch.set_grad_enabled(has_gradient):
        expected = layer(x, None, *table(6))[0]
        got = layer(wide, real[:, None, None].expand(-1, 1, 9, -1), *table(9))[0]
    assert_close(got[real].view_as(expected), expected)


def test_buckets_are_those_of_the_formula():
    distances = torch.arange(-700, 701)
    got = log_bucket(distances, 256, 512)
    assert_close(got, torch.tensor([bucket(int(d), 256, 512) for d in distances]))
    assert got[700 - 128 : 700 + 129].tolist() == list(range(-128, 129))
    assert int(log_bucket(torch.tensor(511), 256, 512)) == 255
    assert torch.equal(got, -got.flip(0))
    assert (got.diff() >= 0).all()


@torch.no_grad()
def test_zero_content_leaves_distance_alone():
    """With q, k projections of content zero but for biases, weights depend on i - j only."""
    layer, table = make("eager", max_distance=20, share_projections=False)
    layer.q_proj.weight.zero_()
    layer.k_proj.weight.zero_()
    _, weights = layer(torch.randn(1, 9, D, dtype=torch.float64), None, *table(9))
    scores = weights.log()
    for i, j in product(range(8), range(8)):
        step = scores[0, :, i + 1, j + 1] - scores[0, :, i, j]
        base = scores[0, :, i + 1, i + 1] - scores[0, :, i, i]
        assert_close(step, base)  # the same normaliser for a whole row
    assert (scores[0, 0, 4] - scores[0, 0, 4, 4]).abs().max() > 1e-3


@torch.no_grad()
def test_without_positions_tokens_may_change_places():
    layer, table = make()
    x, order = torch.randn(1, 9, D, dtype=torch.float64), torch.randperm(9)
    assert (layer(x[:, order], None, *table(9))[0] - layer(x, None, *table(9))[0][:, order]).abs().max() > 1e-3
    bare, _ = make(terms=())
    assert_close(bare(x[:, order])[0], bare(x)[0][:, order])
    layer.k_proj.bias.zero_()
    layer.q_proj.bias.zero_()
    table.embedding.weight.zero_()
    assert_close(layer(x[:, order], None, *table(9))[0], layer(x, None, *table(9))[0][:, order])


def test_dropout_on_weights_keeps_their_mean():
    layer, table = make(dropout=0.4)
    x = torch.randn(1, 5, D, dtype=torch.float64)
    expected = layer.eval()(x, None, *table(5))[0]
    layer.train()
    torch.manual_seed(0)
    runs = torch.stack([layer(x, None, *table(5))[0] for _ in range(3000)])
    assert runs.std(0).min() > 1e-3
    assert_close(runs.mean(0), expected, atol=0.03, rtol=0)
