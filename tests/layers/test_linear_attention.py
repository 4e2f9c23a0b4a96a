"""Linear attention in chunks equals its recurrence and its quadratic form: feature maps, decay, sides, documents."""

import math

import pytest
import torch
from torch.testing import assert_close

from hf_zoo.modeling.layers import linear_attention as module
from hf_zoo.modeling.layers.feature_maps import RandomFeatures, make_feature_map
from hf_zoo.modeling.layers.linear_attention import (
    LinearAttention,
    bidirectional_linear_attention,
    causal_linear_attention,
)

B, T, H, K, D = 2, 37, 3, 4, 10
MAPS = ("elu1", "relu", "relu2", "identity", "softmax", "taylor2", "favor")


def tensors(tokens=T, seed=0):
    """q, k (B, H, T, m) and v (B, H, T, V), with gradients."""
    generator = torch.Generator().manual_seed(seed)
    sizes = (5, 5, 6)
    return [torch.randn(B, H, tokens, n, generator=generator, dtype=torch.float64).requires_grad_() for n in sizes]


def rates():
    """log γ (H) of RetNet's first heads, made faster so that 37 tokens show it."""
    return torch.tensor([math.log1p(-(2.0 ** (-1 - h))) for h in range(H)], dtype=torch.float64)


def recurrence(q, k, v, state=None, log_decay=None, mask=None, documents=None):
    """Token by token; a pad leaves the state alone, a new document empties it."""
    state = torch.zeros(B, H, q.shape[-1], v.shape[-1], dtype=q.dtype) if state is None else state
    gamma = torch.ones(H, dtype=q.dtype) if log_decay is None else log_decay.exp()
    last, outputs = torch.zeros(B, dtype=torch.long), []
    for t in range(q.shape[2]):
        real = torch.ones(B, dtype=q.dtype) if mask is None else mask[:, t].to(q.dtype)
        if documents is not None:
            state = state * (documents[:, t] == last)[:, None, None, None]
            last = documents[:, t]
        fade = gamma[None] ** real[:, None]
        added = k[:, :, t, :, None] * v[:, :, t, None]
        state = state * fade[..., None, None] + added * real[:, None, None, None]
        outputs.append((q[:, :, t, None] @ state)[:, :, 0])
    return torch.stack(outputs, dim=2), state


def masked(k, mask):
    return k * mask[:, None, :, None]


@pytest.mark.parametrize("chunk", [1, 7, 16, T, 100])
@pytest.mark.parametrize("has_decay", [False, True])
def test_chunks_equal_the_recurrence(chunk, has_decay):
    q, k, v = tensors()
    state = torch.randn(B, H, 5, 6, dtype=torch.float64, requires_grad=True)
    decay = rates() if has_decay else None
    weights = torch.randn(B, H, T, 6, dtype=torch.float64)
    results = []
    for run in (recurrence, lambda *a: causal_linear_attention(*a, chunk_size=chunk)):
        y, last = run(q, k, v, state, decay)
        results.append((y, last, *torch.autograd.grad((y * weights).sum() + last.square().sum(), (q, k, v, state))))
    for expected, got in zip(*results, strict=True):
        assert_close(got, expected, atol=1e-10, rtol=1e-10)


@pytest.mark.parametrize("has_decay", [False, True])
def test_chunks_equal_the_quadratic_form(has_decay):
    q, k, v = tensors()
    i, j = torch.arange(T)[:, None], torch.arange(T)
    decay = rates() if has_decay else torch.zeros(H, dtype=torch.float64)
    weights = (decay[:, None, None] * (i - j).clamp_min(0)).exp() * (i >= j)
    y, _ = causal_linear_attention(q, k, v, None, rates() if has_decay else None, chunk_size=8)
    assert_close(y, (q @ k.mT * weights) @ v, atol=1e-10, rtol=1e-10)


@pytest.mark.parametrize("has_decay", [False, True])
def test_both_sides_equal_the_quadratic_form(has_decay):
    q, k, v = tensors()
    distance = (torch.arange(T)[:, None] - torch.arange(T)).abs()
    decay = rates() if has_decay else torch.zeros(H, dtype=torch.float64)
    expected = (q @ k.mT * (decay[:, None, None] * distance).exp()) @ v
    got = bidirectional_linear_attention(q, k, v, rates() if has_decay else None, chunk_size=8)
    assert_close(got, expected, atol=1e-10, rtol=1e-10)


@pytest.mark.parametrize("has_decay", [False, True])
@pytest.mark.parametrize("is_causal", [False, True])
def test_documents_do_not_see_each_other(has_decay, is_causal):
    q, k, v = tensors()
    decay = rates() if has_decay else None
    lengths = ((9, 1, 27), (16, 20, 1))
    documents = torch.stack([torch.arange(1, 4).repeat_interleave(torch.tensor(n)) for n in lengths])
    run = causal_linear_attention if is_causal else bidirectional_linear_attention
    arguments = (None, decay, None, documents) if is_causal else (decay, None, documents)
    got = run(q, k, v, *arguments, chunk_size=8)
    got, last = got if is_causal else (got, None)
    for row in range(B):
        for d in (1, 2, 3):
            part = [x[row : row + 1, :, documents[row] == d] for x in (q, k, v)]
            arguments = (None, decay) if is_causal else (decay,)
            alone = run(*part, *arguments, chunk_size=8)
            alone, state = alone if is_causal else (alone, None)
            assert_close(got[row : row + 1, :, documents[row] == d], alone, atol=1e-10, rtol=1e-10)
        if is_causal:
            assert_close(last[row : row + 1], state, atol=1e-10, rtol=1e-10)


@pytest.mark.parametrize("has_decay", [False, True])
def test_a_state_is_left_behind_by_the_first_new_document(has_decay):
    q, k, v = tensors()
    state = torch.randn(B, H, 5, 6, dtype=torch.float64)
    documents = torch.zeros(B, T, dtype=torch.long)
    documents[0, 11:] = 1
    documents[1] = 1
    decay = rates() if has_decay else None
    expected = recurrence(q, k, v, state, decay, None, documents)
    got = causal_linear_attention(q, k, v, state, decay, None, documents, chunk_size=8)
    for a, b in zip(got, expected, strict=True):
        assert_close(a, b, atol=1e-10, rtol=1e-10)


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_neither_writes_nor_fades(side):
    q, k, v = tensors()
    mask = torch.ones(B, T, dtype=torch.float64)
    mask[0, : 6 if side == "left" else None] = 0 if side == "left" else 1
    if side == "right":
        mask[0, -6:] = 0
    state = torch.randn(B, H, 5, 6, dtype=torch.float64)
    expected = recurrence(q, k, v, state, rates(), mask)
    got = causal_linear_attention(q, masked(k, mask), v, state, rates(), mask, chunk_size=8)
    for a, b in zip(got, expected, strict=True):
        assert_close(a, b, atol=1e-10, rtol=1e-10)


def layer(name="elu1", is_causal=True, **options):
    torch.manual_seed(0)
    options = {"has_denominator": name != "identity", "chunk_size": 5, **options}
    made = LinearAttention(D, H, K, make_feature_map(name, K), is_causal=is_causal, **options).double()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return made


def x(tokens=T):
    return torch.randn(B, tokens, D, generator=torch.Generator().manual_seed(3), dtype=torch.float64)


@pytest.mark.parametrize("name", MAPS)
@pytest.mark.parametrize("is_causal", [True, False])
@torch.no_grad()
def test_the_layer_is_a_weighted_mean_of_values(name, is_causal):
    made = layer(name, is_causal)
    q, k, v = (p(x()).unflatten(-1, (H, K)).transpose(1, 2) for p in (made.q_proj, made.k_proj, made.v_proj))
    weights = made.feature_map(q, is_query=True) @ made.feature_map(k, is_query=False).mT
    weights = weights.tril() if is_causal else weights
    y = weights @ v
    if made.head_norm is None:
        y = y / (weights.sum(-1, keepdim=True) + made.eps)
    else:
        y = made.head_norm(y)
    assert_close(made(x())[0], made.o_proj(y.transpose(1, 2).flatten(2)), atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize("name", MAPS)
@pytest.mark.parametrize("has_decay", [False, True])
@torch.no_grad()
def test_the_state_carries_over(name, has_decay):
    made = layer(name, has_decay=has_decay)
    whole, last = made(x())
    state, parts = None, []
    for part in x().split([13, 1, 1, 22], dim=1):
        y, state = made(part, state=state)
        parts.append(y)
    assert_close(torch.cat(parts, dim=1), whole, atol=1e-9, rtol=1e-9)
    assert_close(state[1], last[1], atol=1e-9, rtol=1e-9)
    assert state[0] is None


@pytest.mark.parametrize("name", MAPS)
@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("is_causal", [True, False])
@torch.no_grad()
def test_padding_changes_nothing(name, side, is_causal):
    made = layer(name, is_causal, has_decay=name == "relu")
    pads, ones = torch.zeros(B, 4), torch.ones(B, T)
    noise = torch.randn(B, 4, D, dtype=torch.float64)
    pieces = (noise, x()) if side == "left" else (x(), noise)
    mask = torch.cat((pads, ones) if side == "left" else (ones, pads), dim=1).long()
    expected, state = made(x())
    got, padded_state = made(torch.cat(pieces, dim=1), mask)
    assert_close(got[mask.bool()].view_as(expected), expected, atol=1e-9, rtol=1e-9)
    if is_causal:
        assert_close(padded_state[1], state[1], atol=1e-9, rtol=1e-9)


@torch.no_grad()
def test_equal_values_come_out_as_they_are():
    made = layer()
    made.v_proj.weight.zero_()
    made.v_proj.bias = torch.nn.Parameter(torch.randn(H * K, dtype=torch.float64))
    expected = made.o_proj(made.v_proj.bias).expand(B, T, -1)
    assert_close(made(x())[0], expected, atol=1e-5, rtol=1e-5)  # eps in the denominator


def test_sums_are_in_float32_under_half_precision():
    made = layer().to(torch.bfloat16)
    assert made(x().to(torch.bfloat16))[1][1].dtype == torch.float32
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y, (_, state) = layer().float()(x().float())
    assert state.dtype == torch.float32
    assert y.dtype == torch.bfloat16


# feature maps


def test_taylor_features_are_exp_to_second_order():
    q, k = torch.randn(2, 7, K, dtype=torch.float64)
    phi = make_feature_map("taylor2", K)
    s = q @ k.T / math.sqrt(K)
    assert_close(phi(q, is_query=True) @ phi(k, is_query=False).T, 1 + s + s**2 / 2)


def test_random_features_are_exp_on_average():
    torch.manual_seed(0)
    q, k = 0.6 * torch.randn(2, 5, 16, dtype=torch.float64)
    phi = RandomFeatures(16, 20_000).double()
    weights = phi(q, is_query=True) @ phi(k, is_query=False).T
    exact = (q @ k.T / 4).exp()
    assert_close(weights / weights.sum(-1, keepdim=True), exact / exact.sum(-1, keepdim=True), atol=0.02, rtol=0.05)


def test_random_features_are_orthogonal_in_blocks():
    torch.manual_seed(0)
    rows = RandomFeatures(8, 20).projection
    assert rows.shape == (20, 8)
    for block in rows.split(8):
        gram = block @ block.T
        assert_close(gram, gram.diag().diag(), atol=1e-5, rtol=0)
    lengths = RandomFeatures(8, 4000).projection.square().sum(-1)
    assert lengths.mean().item() == pytest.approx(8, rel=0.1)  # chi-square with 8 degrees of freedom
    assert lengths.var().item() == pytest.approx(16, rel=0.2)


def test_random_features_do_not_overflow():
    q = 100 * torch.randn(2, 3, 64)
    for is_query in (True, False):
        assert RandomFeatures(64)(q, is_query).isfinite().all()


# the kernel of flash-linear-attention


@pytest.mark.parametrize("has_decay", [False, True])
@torch.no_grad()
def test_the_kernel_is_called_as_documented(has_decay, monkeypatch):
    def fake(q, k, v, g=None, scale=None, initial_state=None, output_final_state=False):
        """`fla.ops.simple_gla.chunk_simple_gla`: (B, T, H, K), log decays (B, T, H) of each token."""
        assert scale == 1.0 and output_final_state
        state, outputs = initial_state, []
        for t in range(q.shape[1]):
            if g is not None:
                state = state * g[:, t].exp()[..., None, None]
            state = state + k[:, t, :, :, None] * v[:, t, :, None]
            outputs.append((q[:, t, :, None] @ state)[:, :, 0])
        return torch.stack(outputs, dim=1), state

    asked = []
    made, mask = layer(has_decay=has_decay), torch.ones(B, T, dtype=torch.long)
    mask[1, -5:] = 0
    expected = made(x(), mask)
    monkeypatch.setattr(module, "kernel_for", lambda _, package, name: asked.append((package, name)) or fake)
    got = made(x(), mask)
    assert asked == [("fla.ops.simple_gla", "chunk_simple_gla")]
    assert_close(got[0][mask.bool()], expected[0][mask.bool()], atol=1e-9, rtol=1e-9)
    assert_close(got[1][1], expected[1][1], atol=1e-9, rtol=1e-9)


def test_time_grows_with_length_and_not_its_square():
    """Operations, not seconds: what the chunks multiply."""
    from torch.utils.flop_counter import FlopCounterMode

    counts = []
    for tokens in (1024, 8192):
        q, k, v = (torch.randn(1, 1, tokens, 16) for _ in range(3))
        with FlopCounterMode(display=False) as counter:
            causal_linear_attention(q, k, v)
        counts.append(counter.get_total_flops())
    assert counts[1] == pytest.approx(8 * counts[0], rel=0.05)


def test_norms_of_queries_and_keys_come_before_the_feature_map():
    from hf_zoo.modeling.layers.norm import RMSNorm

    torch.manual_seed(0)
    norms = [RMSNorm(4).double() for _ in range(2)]
    for norm in norms:
        torch.nn.init.normal_(norm.weight)
    layer = LinearAttention(
        12, 3, 4, make_feature_map("elu1", 4), is_causal=True, chunk_size=3, q_norm=norms[0], k_norm=norms[1]
    ).double()
    x = torch.randn(2, 7, 12, dtype=torch.float64)
    q, k, v = (p(x).unflatten(-1, (3, 4)) for p in (layer.q_proj, layer.k_proj, layer.v_proj))
    q, k = (
        z / (z.square().mean(-1, keepdim=True) + 1e-6).sqrt() * n.weight for z, n in zip((q, k), norms, strict=True)
    )
    q, k = (torch.where(z > 0, z + 1, z.exp()) for z in (q, k))
    weights = torch.einsum("bihk,bjhk->bhij", q, k).tril()
    weights = weights / (weights.sum(-1, keepdim=True) + 1e-6)
    expected = layer.o_proj(torch.einsum("bhij,bjhv->bihv", weights, v).flatten(2))
    assert_close(layer(x)[0], expected)
