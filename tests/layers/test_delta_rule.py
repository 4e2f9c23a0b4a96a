import sys
from types import ModuleType

import pytest
import torch
from torch.autograd import grad, gradcheck
from torch.nn import functional as F

from hf_zoo.modeling.layers import delta_rule as module
from hf_zoo.modeling.layers import rwkv_kernels
from hf_zoo.modeling.layers.delta_rule import delta_rule

BATCH, T, H, K, V = 2, 13, 3, 4, 5
EXACT = dict(rtol=1e-9, atol=1e-10)


def recurrence(r, log_w, k, v, a, b, state=None, starts=None):
    S, y = r.new_zeros(len(r), H, K, V) if state is None else state, []
    for t in range(r.shape[1]):
        if starts is not None:
            S = S * ~starts[:, t, None, None, None]
        removed = torch.einsum("bhk,bhkv->bhv", a[:, t], S)
        S = S * log_w[:, t].exp()[..., None]
        S = S + torch.einsum("bhk,bhv->bhkv", b[:, t], removed) + torch.einsum("bhk,bhv->bhkv", k[:, t], v[:, t])
        y.append(torch.einsum("bhk,bhkv->bhv", r[:, t], S))
    return torch.stack(y, dim=1), S


def inputs(batch=BATCH, T=T, dtype=torch.float64):
    torch.manual_seed(0)
    r, k, decay, rate, kappa = (torch.randn(batch, T, H, K, dtype=dtype) for _ in range(5))
    kappa = F.normalize(kappa, dim=-1)
    v, state = torch.randn(batch, T, H, V, dtype=dtype), torch.randn(batch, H, K, V, dtype=dtype)
    args = (r, -0.6065 * decay.sigmoid(), k, v, -kappa, kappa * rate.sigmoid(), state)
    return [x.requires_grad_() for x in args]


def packed(T=T):
    starts = torch.zeros(BATCH, T, dtype=torch.bool)
    starts[0, [T // 3, T // 3 + 1]] = starts[1, [0, T - 1]] = True
    return starts


@pytest.mark.parametrize("starts", [None, packed()], ids=["one document", "packed"])
@pytest.mark.parametrize("chunk_size", [1, 4, 13, 32])
def test_equals_the_recurrence_forward_and_backward(chunk_size, starts):
    args = inputs()
    got, expected = delta_rule(*args, starts, chunk_size), recurrence(*args, starts)
    torch.testing.assert_close(got, expected, **EXACT)
    weights = [torch.randn_like(x) for x in got]
    losses = (sum((x * w).sum() for x, w in zip(out, weights, strict=True)) for out in (got, expected))
    torch.testing.assert_close(*(grad(loss, args) for loss in losses), **EXACT)


@pytest.mark.parametrize("start", [True, False])
def test_one_token_equals_the_recurrence(start):
    args, starts = inputs(T=1), torch.tensor([[start], [False]])
    torch.testing.assert_close(delta_rule(*args, starts), recurrence(*args, starts), **EXACT)


def test_gradcheck():
    assert gradcheck(lambda *args: delta_rule(*args, packed(5), chunk_size=3), inputs(T=5))


def test_without_a_state_it_starts_empty():
    args = inputs()[:-1]
    torch.testing.assert_close(delta_rule(*args), recurrence(*args), **EXACT)


@pytest.mark.parametrize("T", [1, T])
def test_a_token_of_zeros_leaves_the_state(T):
    r, log_w, k, v, a, b, state = inputs(T=T)
    torch.testing.assert_close(delta_rule(r, log_w * 0, k * 0, v, a, b * 0, state)[1], state, rtol=0, atol=0)


def test_a_value_replaces_the_one_before_under_its_key():
    """With a rate of 1 and no decay, reading a key gives the value that was written last, and others stay."""
    key = F.one_hot(torch.tensor([0, 1, 0]), K).double()[None, :, None].expand(1, 3, H, K)
    v = torch.randn(1, 3, H, V, dtype=torch.float64)
    _, state = delta_rule(key, torch.zeros_like(key), key, v, -key, key)
    torch.testing.assert_close(state[0, :, 0], v[0, 2])
    torch.testing.assert_close(state[0, :, 1], v[0, 1])
    _, added = delta_rule(key, torch.zeros_like(key), key, v, -key, key * 0)
    torch.testing.assert_close(added[0, :, 0], v[0, 0] + v[0, 2])


@pytest.mark.parametrize("cut", [1, 5, 12])
def test_two_calls_equal_one(cut):
    *args, state = inputs()
    whole, last = delta_rule(*args, state, chunk_size=4)
    parts = []
    for tokens in (slice(0, cut), slice(cut, None)):
        y, state = delta_rule(*(x[:, tokens] for x in args), state, chunk_size=4)
        parts.append(y)
    torch.testing.assert_close((torch.cat(parts, dim=1), state), (whole, last), **EXACT)


@pytest.mark.parametrize("chunk_size", [16, 32, 64])
def test_the_fastest_decay_stays_exact_in_float32(chunk_size):
    args = inputs(T=130)
    args[1] = torch.full_like(args[1], -0.6066).requires_grad_()
    single = [x.detach().float().requires_grad_() for x in args]
    got, expected = delta_rule(*single, chunk_size=chunk_size), recurrence(*args)
    assert got[0].dtype == torch.float32
    torch.testing.assert_close([x.double() for x in got], list(expected), rtol=1e-4, atol=1e-4)
    grads = (grad(y.square().sum() + s.sum(), x) for (y, s), x in ((got, single), (expected, args)))
    torch.testing.assert_close(*([g.double() for g in gs] for gs in grads), rtol=1e-3, atol=2e-3)  # sums of 130 terms


def test_half_precision_computes_in_float32():
    args = inputs(dtype=torch.float32, T=40)
    half = [x.detach().bfloat16() for x in args]
    y, state = delta_rule(*half)
    expected_y, expected_state = delta_rule(*(x.float() for x in half))
    assert (y.dtype, state.dtype) == (torch.bfloat16, torch.float32)
    assert torch.equal(y, expected_y.bfloat16())
    assert torch.equal(state, expected_state)


@pytest.mark.parametrize("T", [1, 20])
def test_autocast_changes_nothing(T):
    args = inputs(dtype=torch.float32, T=T)
    expected = delta_rule(*args, chunk_size=8)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = delta_rule(*args, chunk_size=8)
    assert all(torch.equal(x, z) for x, z in zip(got, expected, strict=True))
    grads = (grad(y.sum() + s.sum(), args) for y, s in (got, expected))
    assert all(torch.equal(x, z) for x, z in zip(*grads, strict=True))


def test_the_kernel_is_called_in_its_own_layout(monkeypatch):
    def chunk_rwkv7(r, w, k, v, a, b, scale, initial_state, output_final_state):
        assert r.shape == w.shape == k.shape == a.shape == b.shape == (BATCH, T, H, K)
        assert (w <= 0).all()
        assert scale == 1.0
        assert output_final_state
        return recurrence(r, w, k, v, a, b, initial_state)

    args = inputs()
    expected = delta_rule(*args)
    kernels = ModuleType("fla.ops.rwkv7")
    kernels.chunk_rwkv7 = chunk_rwkv7
    monkeypatch.setitem(sys.modules, "fla", ModuleType("fla"))
    monkeypatch.setitem(sys.modules, "fla.ops", ModuleType("fla.ops"))
    monkeypatch.setitem(sys.modules, "fla.ops.rwkv7", kernels)
    rwkv_kernels._find.cache_clear()
    assert rwkv_kernels.kernel_for(args[0], "rwkv7", "chunk_rwkv7") is None  # on a CPU
    monkeypatch.setattr(module, "kernel_for", lambda x, where, name: rwkv_kernels._find(where, name))
    monkeypatch.setattr(module, "_solve", None)  # would fail if it were used
    torch.testing.assert_close(delta_rule(*args), expected, **EXACT)
    rwkv_kernels._find.cache_clear()
    monkeypatch.delitem(sys.modules, "fla.ops.rwkv7")
    monkeypatch.delitem(sys.modules, "fla.ops")
    monkeypatch.delitem(sys.modules, "fla")
    assert rwkv_kernels._find("rwkv7", "no_such_kernel") is None
    rwkv_kernels._find.cache_clear()


@pytest.mark.slow
def test_compiles_whole():
    args = inputs(dtype=torch.float32, T=40)
    compiled = torch.compile(lambda *a: delta_rule(*a, chunk_size=16), fullgraph=True)
    got, expected = compiled(*args), delta_rule(*args, chunk_size=16)
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)  # fused sums take another order
    losses = (y.sum() + s.sum() for y, s in (got, expected))
    torch.testing.assert_close(*(grad(loss, args) for loss in losses), rtol=1e-3, atol=1e-3)
