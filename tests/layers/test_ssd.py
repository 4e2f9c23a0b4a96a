import pytest
import torch
from torch.nn import functional as F
from torch.testing import assert_close

from hf_zoo.modeling.layers import ssd_mixer
from hf_zoo.modeling.layers.norm import GatedRMSNorm
from hf_zoo.modeling.layers.ssd import ssd
from hf_zoo.modeling.layers.ssd_mixer import SSDMixer

BATCH, T, H, P, N = 2, 37, 4, 8, 6


def inputs(groups=2, tokens=T, dtype=torch.float64, seed=0):
    """x, dt, A, B, C, D."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)

    x, D = normal(BATCH, tokens, H, P), normal(H)
    dt, A = normal(BATCH, tokens, H).exp(), -normal(H).exp()
    return x, dt, A, normal(BATCH, tokens, groups, N), normal(BATCH, tokens, groups, N), D


def recurrence(x, dt, A, B, C, D, state, starts=None):
    """The equation, token by token."""
    B, C = (z.repeat_interleave(H // z.shape[2], dim=2) for z in (B, C))
    y = []
    for t in range(x.shape[1]):
        decay = torch.exp(dt[:, t] * A)
        if starts is not None:
            decay = decay * ~starts[:, t, None]
        written = torch.einsum("bh,bhp,bhn->bhpn", dt[:, t], x[:, t], B[:, t])
        state = decay[..., None, None] * state + written
        y.append(torch.einsum("bhpn,bhn->bhp", state, C[:, t]) + D[:, None] * x[:, t])
    return torch.stack(y, dim=1), state


@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize("chunk_size", [1, 5, 16, 64])
def test_equals_the_recurrence_and_its_gradients(groups, chunk_size):
    tensors = [z.requires_grad_() for z in (*inputs(groups), torch.randn(BATCH, H, P, N).double())]
    results = []
    for run in (lambda *z: ssd(*z, chunk_size=chunk_size), recurrence):
        y, state = run(*tensors)
        gradients = torch.autograd.grad(y.square().sum() + state.square().sum(), tensors)
        results.append((y, state, *gradients))
    assert_close(*results, atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize("tokens", [1, T])
def test_a_start_forgets_what_came_before(tokens):
    tensors, state = inputs(tokens=tokens), torch.randn(BATCH, H, P, N).double()
    starts = torch.zeros(BATCH, tokens, dtype=torch.bool)
    starts[0, [0, tokens // 2]] = True
    starts[1, tokens - 1] = True
    assert_close(ssd(*tensors, state, starts, chunk_size=8), recurrence(*tensors, state, starts))


@pytest.mark.parametrize("sizes", [[1] * T, [5, 1, 31]])
def test_pieces_with_state_equal_the_whole(sizes):
    x, dt, A, B, C, D = inputs()
    whole, last = ssd(x, dt, A, B, C, D)
    state, parts = None, []
    for piece in zip(*(z.split(sizes, dim=1) for z in (x, dt, B, C)), strict=True):
        x, dt, B, C = piece
        y, state = ssd(x, dt, A, B, C, D, state, chunk_size=7)
        parts.append(y)
    assert_close((torch.cat(parts, dim=1), state), (whole, last))


def test_a_step_of_zero_is_no_step():
    x, dt, A, B, C, D = inputs()
    dt[:, 10:20] = 0.0
    kept = [*range(10), *range(20, T)]
    without = ssd(*(z[:, kept] for z in (x, dt)), A, *(z[:, kept] for z in (B, C)), D)
    y, state = ssd(x, dt, A, B, C, D, chunk_size=8)
    assert_close((y[:, kept], state), without)


def test_single_precision_survives_a_token_that_forgets_everything():
    """Sums of decays in float32 would lose the small decays that come after a very large one."""
    x, dt, A, B, C, D = inputs(tokens=64)
    dt[:, 20] = 1e5
    state = torch.zeros(BATCH, H, P, N).double()
    exact, _ = recurrence(x, dt, A, B, C, D, state)
    single, _ = ssd(*(z.float() for z in (x, dt, A, B, C, D)))
    later = slice(21, None)
    reference, _ = recurrence(*(z.float() for z in (x, dt, A, B, C, D)), state.float())
    error = (reference[:, later] - exact[:, later]).abs().max()
    assert (single[:, later] - exact[:, later]).abs().max() < 10 * error


def test_half_precision_is_summed_in_single():
    x, dt, A, B, C, D = inputs(tokens=64, dtype=torch.bfloat16)
    y, state = ssd(x, dt, A, B, C, D)
    assert (y.dtype, state.dtype) == (torch.bfloat16, torch.float32)
    exact, last = ssd(*(z.double() for z in (x, dt, A, B, C, D)))
    assert_close(state.double(), last, atol=1e-4, rtol=1e-4)
    assert_close(y.double(), exact, atol=0.05, rtol=0.01)  # the rounding of bfloat16 on the way out


def test_shapes_that_do_not_agree_are_named():
    x, dt, A, B, C, D = inputs()
    with pytest.raises(ValueError, match=r"multiple of G.*\(2, 37, 4, 8\)"):
        ssd(x, dt[:, :5], A, B, C, D)
    with pytest.raises(ValueError, match="multiple of G"):
        ssd(x, dt, A, B[:, :, [0, 1, 0]], C[:, :, [0, 1, 0]], D)


def test_the_public_kernel_gets_what_it_expects(monkeypatch):
    """No accelerator here: a stand-in with the kernel's arguments answers by the recurrence."""
    from hf_zoo.modeling.layers import ssd as module

    def kernel(x, dt, A, B, C, chunk_size, D, initial_states, seq_idx, return_final_states):
        assert seq_idx.dtype == torch.int32 and return_final_states
        starts = torch.zeros_like(seq_idx, dtype=torch.bool)
        starts[:, 1:] = seq_idx[:, 1:] != seq_idx[:, :-1]
        return recurrence(x, dt, A, B, C, D, initial_states, starts)

    tensors, state = inputs(), torch.randn(BATCH, H, P, N).double()
    starts = torch.zeros(BATCH, T, dtype=torch.bool)
    starts[:, 9] = True
    expected = ssd(*tensors, state, starts)
    asked = []
    monkeypatch.setattr(module, "kernel_for", lambda x, *names: asked.append(names) or kernel)
    assert_close(ssd(*tensors, state, starts), expected)
    assert asked == [("mamba_ssm.ops.triton.ssd_combined", "mamba_chunk_scan_combined")]


@pytest.mark.parametrize("groups", [1, 3])
def test_the_norm_gates_and_normalises_each_group(groups):
    norm = GatedRMSNorm(12, 1e-5, groups).double()
    torch.nn.init.normal_(norm.weight)
    x, z = torch.randn(2, 3, 5, 12).double()
    parts = (x * z * torch.sigmoid(z)).unflatten(-1, (groups, -1))
    expected = parts / (parts.square().mean(-1, keepdim=True) + 1e-5).sqrt()
    assert_close(norm(x, z), expected.flatten(-2) * norm.weight)


def mixer(**options):
    torch.manual_seed(0)
    layer = SSDMixer(16, num_heads=4, head_dim=8, state_size=6, num_groups=2, **options).double()
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    return layer


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_touches_neither_answer_nor_state(side):
    layer, x = mixer(bias=True), torch.randn(2, 12, 16).double()
    real = slice(5, None) if side == "left" else slice(0, 7)
    mask = torch.zeros(2, 12)
    mask[:, real] = 1
    y, state = layer(x, mask)
    expected, last = layer(x[:, real])
    assert_close((y[:, real], state), (expected, last))
    token = torch.randn(2, 1, 16).double()
    assert_close(layer(token, state=state), layer(token, state=last))


def test_documents_in_a_row_do_not_see_each_other():
    layer, x = mixer(), torch.randn(1, 12, 16).double()
    positions = torch.cat((torch.arange(5), torch.arange(7)))[None]
    apart = [layer(part)[0] for part in x.split([5, 7], dim=1)]
    assert_close(layer(x, position_ids=positions)[0], torch.cat(apart, dim=1))


def test_steps_are_held_within_their_limits(monkeypatch):
    layer, seen = mixer(dt_limit=(0.1, 0.2)), {}
    monkeypatch.setattr(ssd_mixer, "ssd", lambda x, dt, *rest: (seen.update(dt=dt), ssd(x, dt, *rest))[1])
    layer(torch.randn(2, 12, 16).double())
    assert (seen["dt"].min().item(), seen["dt"].max().item()) == (0.1, 0.2)
    assert seen["dt"].shape == (2, 12, 4)  # one decay a head


def test_starts_as_published():
    torch.manual_seed(0)
    layer = SSDMixer(64, num_heads=512, head_dim=1, state_size=4)
    A, dt = layer.A_log.exp(), F.softplus(layer.dt_bias)
    assert 1 <= A.min() < 1.5 and 15.5 < A.max() <= 16
    assert 1e-3 * 0.99 <= dt.min() < 2e-3 and 0.05 < dt.max() <= 0.1 * 1.01
    assert torch.equal(layer.D, torch.ones(512))
