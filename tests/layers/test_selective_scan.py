import sys
from types import SimpleNamespace

import pytest
import torch
from torch.autograd import grad, gradcheck
from torch.autograd.graph import saved_tensors_hooks

from hf_zoo.modeling.layers import mamba_kernels
from hf_zoo.modeling.layers import selective_scan as module
from hf_zoo.modeling.layers.selective_scan import selective_scan

BATCH, T, E, N = 2, 13, 5, 3
EXACT = dict(rtol=1e-10, atol=1e-10)


def recurrence(u, dt, A, B, C, D=None, state=None, starts=None):
    h, y = torch.zeros(len(u), *A.shape, dtype=u.dtype) if state is None else state, []
    for t in range(u.shape[1]):
        decay = torch.exp(dt[:, t, :, None] * A)
        if starts is not None:
            decay = decay * ~starts[:, t, None, None]
        h = decay * h + (dt[:, t] * u[:, t])[..., None] * B[:, t, None]
        y.append((h * C[:, t, None]).sum(-1))
    y = torch.stack(y, dim=1)
    return (y if D is None else y + D * u), h


def inputs(batch=BATCH, T=T, E=E, N=N, dtype=torch.float64):
    torch.manual_seed(0)
    shapes = [(batch, T, E), (batch, T, E), (E, N), (batch, T, N), (batch, T, N), (E,), (batch, E, N)]
    u, dt, A, B, C, D, state = (torch.randn(*shape, dtype=dtype) for shape in shapes)
    return [x.requires_grad_() for x in (u, dt.abs(), -A.abs(), B, C, D, state)]


def some_starts(batch=BATCH, T=T):
    starts = torch.zeros(batch, T, dtype=torch.bool)
    starts[0, [0, 4, 5]] = starts[1, 9] = True
    return starts


@pytest.mark.parametrize("starts", [None, some_starts()], ids=["one document", "packed"])
@pytest.mark.parametrize("chunk_size", [1, 4, 13, 64])
def test_equals_the_recurrence_forward_and_backward(chunk_size, starts):
    args = inputs()
    got, expected = selective_scan(*args, starts, chunk_size), recurrence(*args, starts)
    torch.testing.assert_close(got, expected, **EXACT)
    weights = [torch.randn_like(x) for x in got]
    losses = (sum((x * w).sum() for x, w in zip(out, weights, strict=True)) for out in (got, expected))
    torch.testing.assert_close(*(grad(loss, args) for loss in losses), **EXACT)


@pytest.mark.parametrize("start", [True, False])
def test_one_token_equals_the_recurrence(start):
    args, starts = inputs(T=1), torch.tensor([[start], [False]])
    torch.testing.assert_close(selective_scan(*args, starts), recurrence(*args, starts), **EXACT)


@pytest.mark.parametrize("T", [1, 3, 7])
def test_gradcheck(T):
    starts = torch.zeros(BATCH, T, dtype=torch.bool)
    starts[1, T // 2] = True
    assert gradcheck(lambda *args: selective_scan(*args, starts, chunk_size=3), inputs(T=T))


def test_only_the_state_or_only_y_is_used():
    args = inputs()
    for which in (0, 1):
        wanted = args[:4] + args[6:]  # C and D do not reach the state
        got, expected = (f(*args)[which].sum() for f in (selective_scan, recurrence))
        torch.testing.assert_close(grad(got, wanted), grad(expected, wanted), **EXACT)


def test_second_derivatives_are_refused():
    args = inputs()
    (gradient,) = grad(selective_scan(*args)[0].square().sum(), args[0], create_graph=True)
    with pytest.raises(RuntimeError):
        grad(gradient.sum(), args[1])


def test_documents_in_a_row_equal_documents_apart():
    u, dt, A, B, C, D, _ = inputs(batch=1)
    starts = torch.zeros(1, T, dtype=torch.bool)
    starts[0, [0, 6]] = True
    y, state = selective_scan(u, dt, A, B, C, D, starts=starts, chunk_size=4)
    first, _ = selective_scan(u[:, :6], dt[:, :6], A, B[:, :6], C[:, :6], D)
    second, last = selective_scan(u[:, 6:], dt[:, 6:], A, B[:, 6:], C[:, 6:], D)
    torch.testing.assert_close((y, state), (torch.cat([first, second], dim=1), last), **EXACT)


@pytest.mark.parametrize("cut", [1, 5, 12])
def test_two_calls_equal_one(cut):
    u, dt, A, B, C, D, state = inputs()
    whole, last = selective_scan(u, dt, A, B, C, D, state, chunk_size=4)
    parts = []
    for tokens in (slice(0, cut), slice(cut, None)):
        y, state = selective_scan(u[:, tokens], dt[:, tokens], A, B[:, tokens], C[:, tokens], D, state, chunk_size=4)
        parts.append(y)
    torch.testing.assert_close((torch.cat(parts, dim=1), state), (whole, last), **EXACT)


@pytest.mark.parametrize("T", [1, T])
def test_a_step_of_zero_keeps_the_state_and_a_long_one_forgets_it(T):
    u, dt, A, B, C, D, state = inputs(T=T)
    assert torch.equal(selective_scan(u, dt * 0, A, B, C, D, state)[1], state)
    kept, forgotten = (selective_scan(u, dt * 0 + 1e6, A, B, C, D, s) for s in (state, None))
    torch.testing.assert_close(kept, forgotten)


def test_no_tokens():
    u, dt, A, B, C, D, state = inputs()
    y, last = selective_scan(u[:, :0], dt[:, :0], A, B[:, :0], C[:, :0], D, state)
    assert y.shape == (BATCH, 0, E)
    assert torch.equal(last, state)


def test_shapes_that_disagree_are_refused():
    u, dt, A, B, C, *_ = inputs()
    for bad in (
        [u, dt[:, 1:], A, B, C],
        [u, dt, A.t(), B, C],
        [u, dt, A, B[..., 1:], C],
        [u, dt, A, B[:, 1:], C[:, 1:]],
    ):
        with pytest.raises(ValueError, match="must be"):
            selective_scan(*bad)


def test_half_precision_computes_in_float32():
    args = inputs(dtype=torch.float32, T=40)
    half = [x.detach().bfloat16() for x in args]
    y, state = selective_scan(*half, chunk_size=16)
    expected_y, expected_state = selective_scan(*(x.float() for x in half), chunk_size=16)
    assert (y.dtype, state.dtype) == (torch.bfloat16, torch.float32)
    assert torch.equal(y, expected_y.bfloat16())
    assert torch.equal(state, expected_state)


@pytest.mark.parametrize("T", [1, 20])
def test_autocast_changes_nothing(T):
    args = inputs(dtype=torch.float32, T=T)

    def run():
        y, state = selective_scan(*args, chunk_size=8)
        return y, state, *grad(y.sum() + state.sum(), args)

    expected = run()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = run()
    for x, z in zip(got, expected, strict=True):
        assert torch.equal(x, z)


def test_keeps_no_state_per_token():
    args, sizes = inputs(T=128, E=16, N=16), []
    with saved_tensors_hooks(lambda x: sizes.append(x.numel()) or x, lambda x: x):
        selective_scan(*args)
    assert sizes
    assert max(sizes) <= BATCH * 128 * 16  # the size of an input, a 16th of all states


def test_meta_device_gives_shapes():
    y, state = selective_scan(*(x.to("meta") for x in inputs()), chunk_size=4)
    assert y.shape == (BATCH, T, E)
    assert state.shape == (BATCH, E, N)


def test_operator_declares_what_it_does():
    u, dt, A, B, C, _, state = inputs(T=7)
    torch.library.opcheck(module._scan, (u, dt, A, B, C, state, some_starts(T=13)[:, :7], 3))


def test_cuda_kernel_is_called_in_its_own_layout(monkeypatch):
    def kernel(u, delta, A, B, C, D=None, return_last_state=False):
        assert u.shape == delta.shape == (BATCH, E, T)
        assert B.shape == C.shape == (BATCH, N, T)
        assert return_last_state
        y, state = recurrence(u.mT, delta.mT, A, B.mT, C.mT, D)
        return y.mT, state

    args = inputs()
    expected = selective_scan(*args[:6])
    monkeypatch.setitem(sys.modules, "mamba_ssm", SimpleNamespace(selective_scan_fn=kernel))
    mamba_kernels._find.cache_clear()
    assert mamba_kernels.kernel_for(args[0], "mamba_ssm", "selective_scan_fn") is None  # on a CPU
    monkeypatch.setattr(module, "kernel_for", lambda x, package, name: mamba_kernels._find(package, name))
    torch.testing.assert_close(selective_scan(*args[:6]), expected, **EXACT)
    mamba_kernels._find.cache_clear()


@pytest.mark.slow
def test_compiles_whole():
    args = inputs(dtype=torch.float32, T=40)
    compiled = torch.compile(lambda *a: selective_scan(*a, chunk_size=16), fullgraph=True)
    got, expected = compiled(*args), selective_scan(*args, chunk_size=16)
    torch.testing.assert_close(got, expected)
    torch.testing.assert_close(*(grad(y.sum() + s.sum(), args) for y, s in (got, expected)))
