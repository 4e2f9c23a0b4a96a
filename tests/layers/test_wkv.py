import pytest
import torch
from torch.autograd import grad, gradcheck
from torch.autograd.graph import saved_tensors_hooks

from hf_zoo.modeling.layers import wkv as module
from hf_zoo.modeling.layers.wkv import wkv

BATCH, T, D = 2, 13, 5
EXACT = dict(rtol=1e-9, atol=1e-10)


def average(w, u, k, v, state=None, mask=None, starts=None):
    """The definition, token by token, with plain sums of exponentials."""
    zeros = torch.zeros_like(k[:, 0])
    a, b = (zeros, zeros) if state is None else (state[:, 0] * state[:, 2].exp(), state[:, 1] * state[:, 2].exp())
    y = []
    for t in range(k.shape[1]):
        real = 1.0 if mask is None else mask[:, t, None].to(k.dtype)
        if starts is not None:
            a, b = a * ~starts[:, t, None], b * ~starts[:, t, None]
        now = torch.exp(u + k[:, t])
        y.append((a + now * v[:, t]) / (b + now))
        decay, key = torch.exp(w * real), torch.exp(k[:, t]) * real
        a, b = decay * a + key * v[:, t], decay * b + key
    return torch.stack(y, dim=1), torch.stack((a, b), dim=1)


def sums(state):
    """The two sums that a state stands for, whatever its exponent."""
    return state[:, :2] * state[:, 2:].exp()


def inputs(batch=BATCH, T=T, D=D, dtype=torch.float64):
    torch.manual_seed(0)
    w, u = -torch.rand(D, dtype=dtype) * 2, torch.randn(D, dtype=dtype)
    k, v, state = (torch.randn(*shape, dtype=dtype) for shape in [(batch, T, D), (batch, T, D), (batch, 3, D)])
    state[:, 1].abs_()  # a sum of weights is positive
    return [x.requires_grad_() for x in (w, u, k, v, state)]


def padded(T=T):
    mask = torch.ones(BATCH, T)
    mask[0, T - T // 3 :] = 0
    return mask, None


def packed(T=T):
    starts = torch.zeros(BATCH, T, dtype=torch.bool)
    starts[0, [T // 3, T // 3 + 1]] = starts[1, [0, T - 1]] = True
    return None, starts


@pytest.mark.parametrize("chunk_size", [1, 4, 13, 64, None])
@pytest.mark.parametrize("kind", ["plain", "padded", "packed"])
def test_equals_the_definition_forward_and_backward(chunk_size, kind):
    args = inputs()
    mask, starts = {"plain": (None, None), "padded": padded(), "packed": packed()}[kind]
    y, state = wkv(*args, mask, starts, chunk_size)
    expected_y, expected_sums = average(*args, mask, starts)
    real = slice(None) if mask is None else mask.bool()
    torch.testing.assert_close(y[real], expected_y[real], **EXACT)
    torch.testing.assert_close(sums(state), expected_sums, **EXACT)
    weights = torch.randn_like(y), torch.randn_like(expected_sums)
    losses = [
        (out * weights[0])[real].sum() + (s * weights[1]).sum()
        for out, s in ((y, sums(state)), (expected_y, expected_sums))
    ]
    torch.testing.assert_close(*(grad(loss, args) for loss in losses), **EXACT)


@pytest.mark.parametrize("start", [True, False])
def test_one_token_equals_the_definition(start):
    args, starts = inputs(T=1), torch.tensor([[start], [False]])
    y, state = wkv(*args, starts=starts)
    expected_y, expected_sums = average(*args, starts=starts)
    torch.testing.assert_close((y, sums(state)), (expected_y, expected_sums), **EXACT)


@pytest.mark.parametrize("T", [2, 7])
def test_gradcheck(T):
    _, starts = packed(T)
    assert gradcheck(lambda *args: sums(wkv(*args, starts=starts, chunk_size=3)[1]), inputs(T=T))
    assert gradcheck(lambda *args: wkv(*args, starts=starts, chunk_size=3)[0], inputs(T=T))


def test_is_an_average_of_the_values_so_far():
    w, u, k, v, _ = inputs(T=40)
    y, _ = wkv(w, u, k * 5, v)
    assert (y <= v.cummax(1).values + 1e-9).all()
    assert (y >= v.cummin(1).values - 1e-9).all()


def test_influence_decays_exponentially():
    """With equal keys, what a value adds to a later average falls by e^w a token (before it is normalised)."""
    w, u, _, v, _ = inputs(batch=1, T=12)
    k = torch.zeros_like(v)
    y, _ = wkv(w, u, k, v)
    weights = torch.stack([grad(y[0, 11].sum(), v, retain_graph=True)[0][0, t] for t in range(11)])
    torch.testing.assert_close(weights[:-1], weights[1:] * w.exp(), **EXACT)


@pytest.mark.parametrize("cut", [1, 5, 12])
def test_two_calls_equal_one(cut):
    w, u, k, v, state = inputs()
    whole, last = wkv(w, u, k, v, state)
    parts = []
    for tokens in (slice(0, cut), slice(cut, None)):
        y, state = wkv(w, u, k[:, tokens], v[:, tokens], state)
        parts.append(y)
    torch.testing.assert_close((torch.cat(parts, dim=1), sums(state)), (whole, sums(last)), **EXACT)


@pytest.mark.parametrize("scale", [100.0, 1e4])
def test_large_keys_stay_finite(scale):
    w, u, k, v, _ = inputs(dtype=torch.float32, T=50)
    k = (k.detach() * scale).requires_grad_()
    y, state = wkv(w * 20, u, k, v)
    grads = grad(y.sum() + state[:, 0].sum(), (w, u, k, v))
    assert all(x.isfinite().all() for x in (y, state, *grads))
    torch.testing.assert_close(y.double(), wkv(*(x.double() for x in (w * 20, u, k, v)))[0], rtol=1e-4, atol=1e-5)


def test_a_row_that_is_all_padding_keeps_its_state():
    *args, state = inputs()
    mask = torch.ones(BATCH, T)
    mask[0] = 0
    after = wkv(*args, state, mask)[1]
    assert torch.equal(after[0], state[0])
    assert not torch.equal(after[1], state[1])


def test_half_precision_computes_in_float32():
    w, u, k, v, _ = inputs(dtype=torch.float32, T=40)
    half = [k.detach().bfloat16(), v.detach().bfloat16()]
    y, state = wkv(w, u, *half)
    expected_y, expected_state = wkv(w, u, *(x.float() for x in half))
    assert (y.dtype, state.dtype) == (torch.bfloat16, torch.float32)
    assert torch.equal(y, expected_y.bfloat16())
    assert torch.equal(state, expected_state)


def test_memory_grows_with_the_length_alone():
    args, sizes = inputs(T=400, D=8), []
    with saved_tensors_hooks(lambda x: sizes.append(x.numel()) or x, lambda x: x):
        wkv(*args)
    assert sum(sizes) < 9 * BATCH * 421 * 8  # k, v, y, Z, two sums and their exponent, and change


def test_no_tokens_and_the_meta_device():
    w, u, k, v, state = inputs()
    y, last = wkv(w, u, k[:, :0], v[:, :0], state)
    assert y.shape == (BATCH, 0, D)
    torch.testing.assert_close(sums(last), sums(state))
    y, last = wkv(*(x.to("meta") for x in (w, u, k, v, state)))
    assert (y.shape, last.shape) == (v.shape, state.shape)


def test_operator_declares_what_it_does():
    *args, state = inputs(T=7)
    torch.library.opcheck(module._wkv, (*args, state, None, packed(7)[1], 3))
