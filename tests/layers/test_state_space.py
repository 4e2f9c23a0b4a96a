import math
from functools import partial

import pytest
import torch
from torch.testing import assert_close

from hf_zoo.modeling.layers.s4 import S4, DiagonalStateSpace, StateSpace, hippo_legs, long_convolution

BATCH, T, H, N = 2, 45, 3, 8
SPACES = {
    "dplr": StateSpace,
    **{f"diagonal-{s}": partial(DiagonalStateSpace, spectrum=s) for s in ("legs", "lin", "inv")},
}


@pytest.fixture(params=sorted(SPACES))
def space(request):
    torch.manual_seed(0)
    layer = SPACES[request.param](H, N).double()
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return layer


def pairs(z):
    """Both of each conjugate pair."""
    return torch.cat((z, z.conj()), dim=-1)


def dense(space):
    """Ā, B̄ and C of every channel as full complex matrices, from the definitions and a general inverse."""
    dt = space.log_dt.exp()[:, None, None]
    Λ = pairs(torch.complex(-space.A_log.exp(), space.A_imag))
    B, C = (pairs(torch.view_as_complex(z)) for z in (space.B, space.C))
    A, one = torch.diag_embed(Λ), torch.eye(N, dtype=torch.complex128)
    if isinstance(space, DiagonalStateSpace):
        discrete = torch.linalg.matrix_exp(dt * A)
        return discrete, torch.linalg.solve(A, (discrete - one) @ B[..., None])[..., 0], C
    P = pairs(torch.view_as_complex(space.P))
    A = A - P[..., :, None] * P[..., None, :].conj()
    left, right = one - dt / 2 * A, one + dt / 2 * A
    return torch.linalg.solve(left, right), torch.linalg.solve(left, dt * B[..., None])[..., 0], C


def recurrence(space, u):
    """x_t = Ā x_{t-1} + B̄ u_t, y_t = C x_t, token by token."""
    A, B, C = dense(space)
    x, y = torch.zeros(len(u), H, N, dtype=torch.complex128), []
    for t in range(u.shape[1]):
        x = torch.einsum("hmn,bhn->bhm", A, x) + B * u[:, t, :, None]
        y.append((C * x).sum(-1).real)
    return torch.stack(y, dim=1), x[..., : N // 2]


@pytest.mark.parametrize("state_size", [2, 8, 64])
def test_hippo_is_diagonal_plus_low_rank(state_size):
    """The eigenvalues of A are -1, -2, ..., and the map from u to any linear reading is that of HiPPO."""
    n = torch.arange(state_size).double()
    root = (2 * n + 1).sqrt()
    A = -torch.outer(root, root).tril(-1) - torch.diag(n + 1)
    Λ, P, B = (pairs(z) for z in hippo_legs(state_size))
    found = torch.diag(Λ) - torch.outer(P, P.conj())
    z = 0.3 + 2j  # B* (z - A)^-1 B does not depend on the basis, for a unitary one
    one = torch.eye(state_size, dtype=torch.complex128)
    expected = root @ torch.linalg.solve(z * one - A, root + 0j).real
    got = B.conj() @ torch.linalg.solve(z * one - found, B)
    assert_close(got.real, expected)
    assert (Λ.real == -0.5).all()


def test_step_is_the_discretised_equation(space):
    u = torch.randn(BATCH, T, H).double()
    expected, last = recurrence(space, u)
    x, y = torch.zeros(BATCH, H, N // 2, dtype=torch.complex128), []
    for t in range(T):
        x = space.step(x, u[:, t])
        y.append(space.read(x))
    assert_close((torch.stack(y, dim=1), x), (expected, last))


@pytest.mark.parametrize("tokens", [1, 2, 45, 64])
def test_convolution_equals_the_recurrence(space, tokens):
    u = torch.randn(BATCH, tokens, H).double()
    expected, last = recurrence(space, u)
    assert_close(long_convolution(u, space.kernel(tokens)), expected)
    assert_close(space.carry(u, None), last)


def test_the_kernel_is_that_of_the_generating_function(space):
    """The papers' way: Σ_l K_l z^l = C (1 - Ā^L z^L)(1 - Ā z)^-1 B̄ at the roots of unity, then an inverse FFT."""
    A, B, C = dense(space)
    L, one = 32, torch.eye(N, dtype=torch.complex128)
    z = torch.exp(-2j * math.pi * torch.arange(L).double() / L)
    truncated = torch.einsum("hm,hmn->hn", C, one - torch.linalg.matrix_power(A, L))
    resolvent = torch.linalg.solve(one - A[:, None] * z[:, None, None], B[:, None, :, None])[..., 0]
    generating = (truncated[:, None] * resolvent).sum(-1)
    assert_close(space.kernel(L), torch.fft.ifft(generating).real)


def test_gradients_are_those_of_the_recurrence(space):
    u = torch.randn(BATCH, 19, H).double().requires_grad_()
    learnt = [p for n, p in space.named_parameters() if n != "D"]
    results = []
    for y in (long_convolution(u, space.kernel(19)), recurrence(space, u)[0]):
        results.append(torch.autograd.grad(y.square().sum(), [u, *learnt]))
    assert_close(*results)


def test_single_precision_is_enough(space):
    u = torch.randn(BATCH, 256, H)
    exact = long_convolution(u.double(), space.kernel(256))
    assert_close(long_convolution(u, space.float().kernel(256)).double(), exact, atol=1e-4, rtol=1e-4)


def mixer(space):
    torch.manual_seed(1)
    return S4(space, H).double()


@pytest.mark.parametrize("sizes", [[1] * 12, [5, 1, 6], [7, 5]])
def test_pieces_with_state_equal_the_whole(space, sizes):
    layer, x = mixer(space), torch.randn(BATCH, 12, H).double()
    whole, last = layer(x)
    state, parts = None, []
    for piece in x.split(sizes, dim=1):
        y, state = layer(piece, state=state)
        parts.append(y)
    assert_close((torch.cat(parts, dim=1), state), (whole, last))


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_touches_neither_answer_nor_state(space, side):
    layer, x = mixer(space), torch.randn(BATCH, 12, H).double()
    real = slice(5, None) if side == "left" else slice(0, 7)
    mask = torch.ones(BATCH, 12)
    mask[0] = 0
    mask[0, real] = 1
    y, (_, state) = layer(x, mask)
    expected, (_, last) = layer(x[:1, real])
    assert_close((y[:1, real], state[:1]), (expected, last))
    expected, (_, last) = layer(x[1:])
    assert_close((y[1:], state[1:]), (expected, last))


def test_rows_of_different_lengths_go_on_from_a_state(space):
    layer, x = mixer(space), torch.randn(BATCH, 12, H).double()
    _, before = layer(torch.randn(BATCH, 6, H).double())
    mask = torch.ones(BATCH, 12)
    mask[0, 7:] = 0
    y, (_, state) = layer(x, mask, before)
    expected, (_, last) = layer(x[:1, :7], state=(None, before[1][:1]))
    assert_close((y[:1, :7], state[:1]), (expected, last))
    for row, tokens in ((0, torch.zeros(1)), (1, torch.ones(1))):  # one padding token, one real one
        _, (_, after) = layer(x[row : row + 1, :1], tokens[None], (None, state[row : row + 1]))
        assert torch.equal(after, state[row : row + 1]) == (row == 0)


def test_a_row_that_is_all_padding_has_an_empty_state(space):
    layer, x = mixer(space), torch.randn(BATCH, 12, H).double()
    _, (_, state) = layer(x, torch.stack((torch.zeros(12), torch.ones(12))))
    assert not state[0].any() and state[1].any()


def test_documents_in_a_row_do_not_see_each_other(space):
    layer, x = mixer(space), torch.randn(2, 12, H).double()
    positions = torch.stack((torch.cat((torch.arange(5), torch.arange(7))), torch.arange(12)))
    y, (_, state) = layer(x, position_ids=positions)
    first, second, whole = layer(x[:1, :5]), layer(x[:1, 5:]), layer(x[1:])
    assert_close(y, torch.cat((torch.cat((first[0], second[0]), dim=1), whole[0])))
    assert_close(state, torch.cat((second[1][1], whole[1][1])))


def test_a_state_that_nobody_wants_is_not_computed(space, monkeypatch):
    layer, x = mixer(space), torch.randn(BATCH, 12, H).double()
    expected, _ = layer(x)
    monkeypatch.setattr(type(space), "carry", None)
    y, (_, state) = layer(x, keep_state=False)
    assert state is None
    assert torch.equal(y, expected)


def test_steps_and_spectra_start_as_published():
    torch.manual_seed(0)
    space = StateSpace(512, 4, dt_min=1e-3, dt_max=0.1)
    dt = space.log_dt.exp()
    assert 1e-3 * 0.99 <= dt.min() < 2e-3 and 0.05 < dt.max() <= 0.1 * 1.01
    n = torch.arange(4)
    lin, inv = (DiagonalStateSpace(1, 8, spectrum=spectrum).A_imag[0] for spectrum in ("lin", "inv"))
    assert_close(lin, math.pi * n.float())
    assert_close(inv, (8 / math.pi * (8 / (2 * n + 1) - 1)).float())
