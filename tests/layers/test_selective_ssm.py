import pytest
import torch
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint
from transformers import MambaConfig
from transformers.models.mamba.modeling_mamba import MambaMixer

from hf_zoo.modeling.layers.selective_ssm import SelectiveSSM

BATCH, T, D, N, K = 2, 12, 16, 4, 4


def layer(dtype=torch.float64, **kwargs):
    torch.manual_seed(0)
    mixer = SelectiveSSM(D, state_size=N, conv_kernel=K, **kwargs).to(dtype)
    with torch.no_grad():
        for parameter in mixer.parameters():  # so that nothing hides behind a weight of 0 or 1
            parameter.add_(torch.randn_like(parameter) * 0.2)
    return mixer


def tokens(batch=BATCH, T=T, dtype=torch.float64):
    return torch.randn(batch, T, D, dtype=dtype)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("conv_bias", [True, False])
def test_equals_transformers_with_the_same_weights(bias, conv_bias):
    mixer = layer(torch.float32, bias=bias, conv_bias=conv_bias)
    config = MambaConfig(hidden_size=D, state_size=N, conv_kernel=K, use_bias=bias, use_conv_bias=conv_bias)
    theirs = MambaMixer(config, layer_idx=0)
    theirs.load_state_dict(mixer.state_dict())
    x = tokens(dtype=torch.float32).requires_grad_()
    y, expected = mixer(x)[0], theirs(x)
    torch.testing.assert_close(y, expected)
    ours = dict(mixer.named_parameters())
    names = [name for name, _ in theirs.named_parameters()]
    got = torch.autograd.grad(y.square().sum(), [x, *(ours[name] for name in names)])
    wanted = torch.autograd.grad(expected.square().sum(), [x, *theirs.parameters()])
    # transformers sums the gradients of its sequential loop in another order
    torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("sizes", [[1] * T, [5, 1, 6]])
def test_pieces_with_state_equal_the_whole(sizes):
    mixer, x = layer(), tokens()
    whole, last = mixer(x)
    state, parts = None, []
    for piece in x.split(sizes, dim=1):
        y, state = mixer(piece, state=state)
        parts.append(y)
    torch.testing.assert_close((torch.cat(parts, dim=1), state), (whole, last))


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("junk", [0.0, 1e3])
def test_padding_touches_neither_answer_nor_state(side, junk):
    mixer, x = layer(bias=True), tokens()
    short = x[:1, 5:] if side == "left" else x[:1, :7]
    pads = torch.full((1, 5, D), junk, dtype=x.dtype)
    padded = torch.cat([pads, short] if side == "left" else [short, pads], dim=1)
    mask = torch.ones(BATCH, T, dtype=torch.long)
    real = slice(5, None) if side == "left" else slice(0, 7)
    mask[0] = 0
    mask[0, real] = 1
    y, (conv, ssm) = mixer(torch.cat([padded, x[1:]]), mask)
    expected, (conv_expected, ssm_expected) = mixer(short)
    torch.testing.assert_close((y[:1, real], conv[:1], ssm[:1]), (expected, conv_expected, ssm_expected))
    torch.testing.assert_close(y[1:], mixer(x[1:])[0])
    next_token = tokens(T=1)
    after = mixer(next_token, state=(conv, ssm))[0]
    torch.testing.assert_close(after[:1], mixer(next_token[:1], state=(conv_expected, ssm_expected))[0])


def test_a_row_that_is_all_padding_keeps_its_state():
    mixer = layer()
    _, state = mixer(tokens())
    for T in (1, 6):
        mask = torch.ones(BATCH, T)
        mask[0] = 0
        _, after = mixer(tokens(T=T), mask, state)
        for before, now in zip(state, after, strict=True):
            assert torch.equal(now[0], before[0])
            assert not torch.equal(now[1], before[1])


@pytest.mark.parametrize("sizes", [[T], [1] * T, [5, 7]])
def test_packed_documents_equal_documents_apart(sizes):
    mixer, x = layer(), tokens(batch=1)
    position_ids = torch.tensor([[0, 1, 2, 3, 0, 1, 2, 3, 4, 5, 6, 0]])
    apart = torch.cat([mixer(document)[0] for document in x.split([4, 7, 1], dim=1)], dim=1)
    state, parts = None, []
    for piece, positions in zip(x.split(sizes, dim=1), position_ids.split(sizes, dim=1), strict=True):
        y, state = mixer(piece, state=state, position_ids=positions)
        parts.append(y)
    torch.testing.assert_close(torch.cat(parts, dim=1), apart)


def test_padding_at_position_zero_starts_no_document():
    mixer, x = layer(), tokens(batch=1)
    mask = (torch.arange(T) < 8)[None]
    position_ids = torch.arange(T)[None] * mask
    torch.testing.assert_close(mixer(x, mask, position_ids=position_ids)[1], mixer(x[:, :8])[1])


def test_checkpointing_changes_no_gradient():
    mixer, x = layer(), tokens().requires_grad_()
    plain = torch.autograd.grad(mixer(x)[0].square().sum(), [x, *mixer.parameters()])
    again = checkpoint(lambda z: mixer(z)[0], x, use_reentrant=False)
    torch.testing.assert_close(torch.autograd.grad(again.square().sum(), [x, *mixer.parameters()]), plain)


def test_autocast_and_bfloat16_stay_close_and_keep_a_float32_state():
    mixer, x = layer(torch.float32), tokens(dtype=torch.float32)
    expected = mixer(x)[0]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed, (_, state) = mixer(x)
    assert state.dtype == torch.float32
    half, (_, state) = mixer.bfloat16()(x.bfloat16())
    assert (half.dtype, state.dtype) == (torch.bfloat16, torch.float32)
    for y in (mixed, half):  # bfloat16 has 8 bits, and the values pass through four products
        torch.testing.assert_close(y.float(), expected, rtol=0.1, atol=0.1 * expected.abs().max().item())


def test_initialisation_follows_the_authors():
    torch.manual_seed(0)
    mixer = SelectiveSSM(256, state_size=N, conv_kernel=K)
    torch.testing.assert_close(-torch.exp(mixer.A_log), -torch.arange(1.0, N + 1).expand(512, N))
    assert (mixer.D == 1).all()
    dt = F.softplus(mixer.dt_proj.bias)
    assert 1e-3 * 0.999 <= dt.min() < 2e-3
    assert 0.05 < dt.max() <= 0.1 * 1.001
    torch.testing.assert_close(dt.median(), torch.tensor(1e-2), rtol=0.2, atol=0.0)  # the middle of log-uniform steps
    assert 0.9 * 16**-0.5 < mixer.dt_proj.weight.abs().max() <= 16**-0.5


def test_initialisation_leaves_loaded_weights_alone():
    mixer = layer()
    before = {name: parameter.clone() for name, parameter in mixer.named_parameters()}
    for parameter in mixer.parameters():
        parameter._is_hf_initialized = True
    mixer.initialise()
    for name, parameter in mixer.named_parameters():
        assert torch.equal(parameter, before[name])


@pytest.mark.slow
def test_compiles_whole():
    mixer, x = layer(torch.float32), tokens(dtype=torch.float32).requires_grad_()
    mask = torch.ones(BATCH, T)
    mask[0, 8:] = 0
    compiled = torch.compile(mixer, fullgraph=True)
    got, expected = compiled(x, mask)[0], mixer(x, mask)[0]
    torch.testing.assert_close(got, expected)
    inputs = [x, *mixer.parameters()]
    got, expected = (torch.autograd.grad(y.square().sum(), inputs) for y in (got, expected))
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)  # fused sums take another order
