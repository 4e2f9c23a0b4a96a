"""Attention against its equation in float64, and the sink three ways."""

import pytest
import torch
from torch.testing import assert_close
from transformers import AttentionInterface, PreTrainedConfig

from hf_zoo.modeling.layers.attention import Attention, ClippedAttention
from hf_zoo.modeling.layers.attention_sink import SinkAttention

B, T, D, H, G, K = 2, 7, 12, 6, 2, 4


def make(kind=Attention, backend="eager", **options):
    """A float64 layer with random weights, biases too."""
    torch.manual_seed(0)
    config = PreTrainedConfig()
    config._attn_implementation = backend
    layer = kind(config, 0, D, H, G, K, bias=True, **options).double().eval()
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter, std=0.7)
    return layer


def causal(num_queries=T, num_keys=T):
    """True where a query may look."""
    return torch.ones(num_queries, num_keys, dtype=torch.bool).tril(num_keys - num_queries)


def dense(layer, x, allowed, offset=None, clip=None):
    """The equation, head by head; `offset` (H) is added to the denominator."""
    q, k, v = (proj(x) for proj in (layer.q_proj, layer.k_proj, layer.v_proj))
    if clip is not None:
        q, k, v = (y.clamp(-clip, clip) for y in (q, k, v))
    heads = []
    for h in range(H):
        g = h // (H // G)
        q_h, k_g, v_g = (y[..., i * K : (i + 1) * K] for y, i in ((q, h), (k, g), (v, g)))
        scores = (q_h @ k_g.mT * layer.scaling).masked_fill(~allowed, -torch.inf)
        weights = scores.exp()
        total = weights.sum(-1, keepdim=True) + (0 if offset is None else offset[h])
        heads.append(weights / total @ v_g)
    return layer.o_proj(torch.cat(heads, dim=-1))


def mask_for(backend, allowed):
    """The mask in the form the backend wants."""
    if backend == "sdpa":
        return allowed[None, None]
    return torch.zeros(allowed.shape, dtype=torch.float64).masked_fill(~allowed, -torch.inf)[None, None]


@pytest.mark.parametrize("backend", ["eager", "sdpa"])
@pytest.mark.parametrize("scaling", [None, 0.1])
def test_grouped_queries_equal_the_equation(backend, scaling):
    layer, x = make(backend=backend, scaling=scaling), torch.randn(B, T, D, dtype=torch.float64)
    y, _ = layer(x, mask_for(backend, causal()))
    assert_close(y, dense(layer, x, causal()), atol=1e-12, rtol=1e-10)


def test_one_key_value_head_serves_its_group_alone():
    layer, x = make(), torch.randn(B, T, D, dtype=torch.float64)
    layer.o_proj = torch.nn.Identity()
    before, _ = layer(x)
    with torch.no_grad():
        layer.k_proj.weight[:K] += 1.0  # key-value head 0
    after, _ = layer(x)
    changed = (before - after).abs().amax((0, 1)).view(H, K).amax(-1) > 0
    assert changed.tolist() == [True] * (H // G) + [False] * (H - H // G)


def test_a_cache_sees_the_key_value_heads_alone():
    layer, seen = make(), {}

    def remember(k, v):
        seen.update(k=k, v=v)
        return k, v

    layer(torch.randn(B, T, D, dtype=torch.float64), remember=remember)
    assert seen["k"].shape == seen["v"].shape == (B, G, T, K)


def test_clipping_clamps_after_the_projection():
    layer, x = make(ClippedAttention, clip=0.3), torch.randn(B, T, D, dtype=torch.float64)
    y, _ = layer(x, mask_for("eager", causal()))
    assert_close(y, dense(layer, x, causal(), clip=0.3), atol=1e-12, rtol=1e-10)


def test_dropout_acts_in_training_alone():
    layer, x = make(dropout=0.5), torch.randn(B, T, D, dtype=torch.float64)
    assert torch.equal(layer(x)[0], layer(x)[0])
    layer.train()
    assert not torch.equal(layer(x)[0], layer(x)[0])


# softmax-off-by-one


def flash_like(module, q, k, v, mask, scaling, dropout=0.0, s_aux=None, **kwargs):
    """What flash kernels promise: causality from the last key on, a mask (B, S), and the log-sum-exp.

    Sinks are applied to the log-sum-exp: o * sigmoid(lse - s)."""
    k, v = (y.repeat_interleave(H // G, dim=1) for y in (k, v))
    allowed = causal(q.shape[2], k.shape[2])[None, None]
    if mask is not None:
        allowed = allowed & mask[:, None, None].bool()
    scores = (q @ k.mT * scaling).masked_fill(~allowed, -torch.inf)
    y = scores.softmax(-1) @ v
    if s_aux is not None:
        y = y * torch.sigmoid(scores.logsumexp(-1, keepdim=True) - s_aux[:, None, None])
    return y.transpose(1, 2), None


AttentionInterface.register("flash_like", flash_like)
SINKS = {
    "off by one": ({}, torch.ones(H, dtype=torch.float64)),
    "offset 2.5": ({"offset": 2.5}, torch.full((H,), 2.5, dtype=torch.float64)),
    "learned": ({"is_learned": True}, None),
}


@pytest.mark.parametrize("backend", ["eager", "sdpa", "flash_like"])
@pytest.mark.parametrize("sink", SINKS)
def test_sink_adds_to_the_denominator(backend, sink):
    options, offset = SINKS[sink]
    layer, x = make(SinkAttention, backend, **options), torch.randn(B, T, D, dtype=torch.float64)
    expected = dense(layer, x, causal(), layer.sink.exp() if offset is None else offset)
    mask = None if backend == "flash_like" else mask_for(backend, causal())
    assert_close(layer(x, mask)[0], expected, atol=1e-12, rtol=1e-9)
    assert_close(layer(x, None)[0], expected, atol=1e-12, rtol=1e-9)  # a causal layer without a mask


@pytest.mark.parametrize("backend", ["eager", "sdpa", "flash_like"])
def test_sink_with_fewer_queries_than_keys(backend):
    """As in generation: the new queries are the last of the keys."""
    layer, x = make(SinkAttention, backend), torch.randn(B, T, D, dtype=torch.float64)
    k, v = (layer._split_heads(proj(x)) for proj in (layer.k_proj, layer.v_proj))
    for n in (1, 3):
        mask = None if n == 1 or backend == "flash_like" else mask_for(backend, causal(n, T))
        y, _ = layer(x[:, -n:], mask, remember=lambda *_: (k, v))
        expected = dense(layer, x, causal(), torch.ones(H))[:, -n:]
        assert_close(y, expected, atol=1e-12, rtol=1e-9)


@pytest.mark.parametrize("backend", ["eager", "sdpa"])
def test_hopeless_scores_attend_to_nothing(backend):
    layer = make(SinkAttention, backend)
    q = torch.full((1, H, T, K), -3.2, dtype=torch.float64)
    k, v = torch.full((1, G, T, K), 6.25, dtype=torch.float64), torch.ones(1, G, T, K, dtype=torch.float64)
    y, weights = layer.attend(q, k, v, mask_for(backend, causal()))  # every score is -40
    assert y.norm() < 1e-15 * 1e3
    if weights is not None:
        assert weights.sum(-1).max() < 1e-15
    ordinary, _ = make(Attention, backend).attend(q, k, v, mask_for(backend, causal()))
    assert_close(ordinary, torch.ones_like(ordinary))


def test_large_scores_make_it_ordinary_softmax():
    layer, plain = make(SinkAttention), make(Attention)
    q = torch.full((1, H, T, K), 5.0, dtype=torch.float64)
    k, v = (torch.rand(1, G, T, K, dtype=torch.float64) + 2 for _ in range(2))
    mask = mask_for("eager", causal())
    assert_close(layer.attend(q, k, v, mask)[0], plain.attend(q, k, v, mask)[0], atol=1e-6, rtol=0)


@pytest.mark.parametrize("backend", ["eager", "sdpa"])
def test_half_precision_stays_finite(backend):
    layer = make(SinkAttention, backend).half()
    q, k = torch.full((1, H, 1, K), 174.0).half(), torch.full((1, G, 3, K), 174.0).half()  # scores of 6e4
    y, _ = layer.attend(q, k, torch.ones(1, G, 3, K).half(), None)
    assert y.isfinite().all()


def test_rows_that_see_nothing_are_zero():
    layer, x = make(SinkAttention, "sdpa"), torch.randn(B, T, D, dtype=torch.float64)
    layer.o_proj = torch.nn.Identity()
    y, _ = layer(x, torch.zeros(1, 1, T, T, dtype=torch.bool))
    assert torch.equal(y, torch.zeros_like(y))


def test_sink_gradients():
    layer = make(SinkAttention, is_learned=True)
    x = torch.randn(1, 4, D, dtype=torch.float64, requires_grad=True)
    parameters = tuple(layer.parameters())
    assert torch.autograd.gradcheck(lambda x, *_: layer(x, mask_for("eager", causal(4, 4)))[0], (x, *parameters))


def test_flash_with_a_window_is_refused():
    layer, x = make(SinkAttention, "flash_like"), torch.randn(B, T, D, dtype=torch.float64)
    with pytest.raises(ValueError, match="sliding window"):
        layer(x, None, sliding_window=3)
