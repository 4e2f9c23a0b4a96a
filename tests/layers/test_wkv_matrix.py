import sys
from types import ModuleType

import pytest
import torch
from torch.autograd import grad, gradcheck

from hf_zoo.modeling.layers import rwkv_kernels
from hf_zoo.modeling.layers import wkv_matrix as module
from hf_zoo.modeling.layers.wkv_matrix import wkv_matrix

BATCH, T, H, K, V = 2, 13, 3, 4, 5
EXACT = dict(rtol=1e-9, atol=1e-10)


def recurrence(r, log_w, k, v, u, state=None, starts=None):
    S, y = r.new_zeros(len(r), H, K, V) if state is None else state, []
    for t in range(r.shape[1]):
        if starts is not None:
            S = S * ~starts[:, t, None, None, None]
        new = torch.einsum("bhk,bhv->bhkv", k[:, t], v[:, t])
        y.append(torch.einsum("bhk,bhkv->bhv", r[:, t], S + u[..., None] * new))
        S = S * log_w[:, t].exp()[..., None] + new
    return torch.stack(y, dim=1), S


def inputs(batch=BATCH, T=T, dtype=torch.float64):
    torch.manual_seed(0)
    r, k, decay = (torch.randn(batch, T, H, K, dtype=dtype) for _ in range(3))
    v, u = torch.randn(batch, T, H, V, dtype=dtype), torch.randn(H, K, dtype=dtype)
    state = torch.randn(batch, H, K, V, dtype=dtype)
    return [x.requires_grad_() for x in (r, -decay.exp(), k, v, u, state)]


def packed(T=T):
    starts = torch.zeros(BATCH, T, dtype=torch.bool)
    starts[0, [T // 3, T // 3 + 1]] = starts[1, [0, T - 1]] = True
    return starts


@pytest.mark.parametrize("starts", [None, packed()], ids=["one document", "packed"])
@pytest.mark.parametrize("chunk_size", [1, 4, 13, 32])
def test_equals_the_recurrence_forward_and_backward(chunk_size, starts):
    args = inputs()
    got, expected = wkv_matrix(*args, starts, chunk_size), recurrence(*args, starts)
    torch.testing.assert_close(got, expected, **EXACT)
    weights = [torch.randn_like(x) for x in got]
    losses = (sum((x * w).sum() for x, w in zip(out, weights, strict=True)) for out in (got, expected))
    torch.testing.assert_close(*(grad(loss, args) for loss in losses), **EXACT)


@pytest.mark.parametrize("start", [True, False])
def test_one_token_equals_the_recurrence(start):
    args, starts = inputs(T=1), torch.tensor([[start], [False]])
    torch.testing.assert_close(wkv_matrix(*args, starts), recurrence(*args, starts), **EXACT)


def test_gradcheck():
    assert gradcheck(lambda *args: wkv_matrix(*args, packed(5), chunk_size=3), inputs(T=5))


@pytest.mark.parametrize("log_w", [-1e-6, -5.0, -80.0, -1e30])
def test_any_decay_is_right_in_float32(log_w):
    """Between tokens that forget nothing, one that forgets as much as is asked for."""
    args = inputs(T=40)
    decays = torch.full_like(args[1], -0.01)
    decays[:, ::7] = log_w
    args[1] = decays.requires_grad_()
    single = [x.detach().float().requires_grad_() for x in args]
    got, expected = wkv_matrix(*single), recurrence(*args)
    torch.testing.assert_close([x.double() for x in got], list(expected), rtol=1e-4, atol=1e-4)
    grads = (grad(y.square().sum() + s.sum(), x) for (y, s), x in ((got, single), (expected, args)))
    torch.testing.assert_close(*([g.double() for g in gs] for gs in grads), rtol=1e-3, atol=2e-3)  # sums of 40 terms


def test_gradients_are_finite_where_every_token_forgets_all():
    args = [x.detach().float().requires_grad_() for x in inputs(T=40)]
    args[1] = torch.full_like(args[1], -30.0).requires_grad_()
    y, state = wkv_matrix(*args)
    assert all(g.isfinite().all() for g in grad(y.sum() + state.sum(), args))


@pytest.mark.parametrize("T", [1, T])
def test_a_token_of_zeros_leaves_the_state(T):
    r, log_w, k, v, u, state = inputs(T=T)
    assert torch.equal(wkv_matrix(r, log_w * 0, k * 0, v, u, state)[1], state)


def test_values_under_one_key_add_up():
    key = torch.zeros(1, 2, H, K, dtype=torch.float64)
    key[..., 0] = 1
    v = torch.randn(1, 2, H, V, dtype=torch.float64)
    _, state = wkv_matrix(key, torch.zeros_like(key), key, v, torch.zeros(H, K))
    torch.testing.assert_close(state[0, :, 0], v[0].sum(0))


@pytest.mark.parametrize("cut", [1, 5, 12])
def test_two_calls_equal_one(cut):
    r, log_w, k, v, u, state = inputs()
    whole, last = wkv_matrix(r, log_w, k, v, u, state, chunk_size=4)
    parts = []
    for tokens in (slice(0, cut), slice(cut, None)):
        y, state = wkv_matrix(*(x[:, tokens] for x in (r, log_w, k, v)), u, state, chunk_size=4)
        parts.append(y)
    torch.testing.assert_close((torch.cat(parts, dim=1), state), (whole, last), **EXACT)


def test_half_precision_computes_in_float32():
    r, log_w, k, v, u, state = inputs(dtype=torch.float32, T=40)
    half = [x.detach().bfloat16() for x in (r, log_w, k, v)]
    y, last = wkv_matrix(*half, u, state)
    expected_y, expected_last = wkv_matrix(*(x.float() for x in half), u, state)
    assert (y.dtype, last.dtype) == (torch.bfloat16, torch.float32)
    assert torch.equal(y, expected_y.bfloat16())
    assert torch.equal(last, expected_last)


@pytest.mark.parametrize("T", [1, 20])
def test_autocast_changes_nothing(T):
    args = inputs(dtype=torch.float32, T=T)
    expected = wkv_matrix(*args)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = wkv_matrix(*args)
    assert all(torch.equal(x, z) for x, z in zip(got, expected, strict=True))


def test_the_kernel_is_called_in_its_own_layout(monkeypatch):
    def chunk_rwkv6(r, k, v, w, u, scale, initial_state, output_final_state):
        assert r.shape == k.shape == w.shape == (BATCH, T, H, K)
        assert u.shape == (H, K)
        assert scale == 1.0
        assert output_final_state
        return recurrence(r, w, k, v, u, initial_state)

    args = inputs()
    expected = wkv_matrix(*args)
    kernels = ModuleType("fla.ops.rwkv6")
    kernels.chunk_rwkv6 = chunk_rwkv6
    for name, value in {"fla": ModuleType("fla"), "fla.ops": ModuleType("fla.ops"), "fla.ops.rwkv6": kernels}.items():
        monkeypatch.setitem(sys.modules, name, value)
    rwkv_kernels._find.cache_clear()
    monkeypatch.setattr(module, "kernel_for", lambda x, where, name: rwkv_kernels._find(where, name))
    monkeypatch.setattr(module, "_solve", None)  # would fail if it were used
    torch.testing.assert_close(wkv_matrix(*args), expected, **EXACT)
    rwkv_kernels._find.cache_clear()
