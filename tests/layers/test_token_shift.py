import pytest
import torch

from hf_zoo.modeling.layers.rwkv_channel_mix import ChannelMix, GatedChannelMix, Rwkv4ChannelMix
from hf_zoo.modeling.layers.token_shift import depth_ratios, document_starts, token_shift

BATCH, T, D = 2, 7, 4


def tokens(batch=BATCH, T=T):
    torch.manual_seed(0)
    return torch.randn(batch, T, D, dtype=torch.float64)


def test_gives_the_token_before():
    x = tokens()
    previous, window = token_shift(x)
    assert torch.equal(previous[:, 1:], x[:, :-1])
    assert not previous[:, 0].any()
    assert torch.equal(window[..., 0], x[:, -1])
    assert torch.equal(token_shift(x, window=window)[0][:, 0], x[:, -1])


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_is_no_token(side):
    x, mask = tokens(), torch.ones(BATCH, T, dtype=torch.long)
    real = slice(3, None) if side == "left" else slice(0, 4)
    mask[0] = 0
    mask[0, real] = 1
    previous, window = token_shift(x, mask)
    expected, expected_window = token_shift(x[:1, real])
    torch.testing.assert_close((previous[:1, real], window[:1]), (expected, expected_window))
    torch.testing.assert_close((previous[1:], window[1:]), token_shift(x[1:]))


def test_a_row_that_is_all_padding_keeps_its_window():
    x, mask = tokens(), torch.zeros(BATCH, T)
    window = torch.randn(BATCH, D, 1, dtype=x.dtype)
    assert torch.equal(token_shift(x, mask, window)[1], window)


def test_documents_do_not_reach_over_their_start():
    x, position_ids = tokens(batch=1), torch.tensor([[0, 1, 2, 0, 1, 0, 1]])
    apart = torch.cat([token_shift(part)[0] for part in x.split([3, 2, 2], dim=1)], dim=1)
    assert torch.equal(token_shift(x, position_ids=position_ids)[0], apart)
    assert document_starts(position_ids, None).tolist() == [[True, False, False, True, False, True, False]]
    mask = torch.tensor([[1, 1, 1, 1, 1, 0, 0]])
    assert document_starts(position_ids, mask)[0, 5].item() is False


def test_one_layer_has_a_depth():
    assert depth_ratios(0, 1) == (0.0, 1.0)
    assert depth_ratios(3, 4) == (1.0, 0.25)


def mixers():
    torch.manual_seed(0)
    for kind in (ChannelMix, GatedChannelMix, Rwkv4ChannelMix):
        mixer = kind(D, 6, layer_idx=1, num_layers=3).double()
        with torch.no_grad():
            for parameter in mixer.parameters():
                parameter.add_(torch.randn_like(parameter) * 0.5)
        yield mixer


def test_channel_mixing_is_its_equation():
    x = tokens()
    before = torch.cat((torch.zeros_like(x[:, :1]), x[:, :-1]), dim=1)
    plain, gated, fourth = mixers()

    def hidden(mixer, x_k):
        return torch.relu(x_k @ mixer.up_proj.weight.T).square() @ mixer.down_proj.weight.T

    expected = hidden(plain, x + (before - x) * plain.mix_k)
    torch.testing.assert_close(plain(x)[0], expected)
    gate = torch.sigmoid((x + (before - x) * gated.mix_r) @ gated.gate_proj.weight.T)
    torch.testing.assert_close(gated(x)[0], gate * hidden(gated, x + (before - x) * gated.mix_k))
    gate = torch.sigmoid((fourth.mix_r * x + (1 - fourth.mix_r) * before) @ fourth.gate_proj.weight.T)
    x_k = fourth.mix_k * x + (1 - fourth.mix_k) * before
    torch.testing.assert_close(fourth(x)[0], gate * hidden(fourth, x_k))


def test_channel_mixing_reaches_one_token_back():
    x = tokens(batch=1).requires_grad_()
    for mixer in mixers():
        reached = torch.autograd.grad(mixer(x)[0][0, 4].sum(), x)[0][0].abs().sum(-1) > 0
        assert reached.tolist() == [False, False, False, True, True, False, False]


@pytest.mark.parametrize("sizes", [[1] * T, [3, 4]])
def test_pieces_with_state_equal_the_whole(sizes):
    x = tokens()
    for mixer in mixers():
        state, parts = None, []
        for piece in x.split(sizes, dim=1):
            y, state = mixer(piece, state=state)
            parts.append(y)
        torch.testing.assert_close(torch.cat(parts, dim=1), mixer(x)[0])


def test_branches_start_as_zero():
    for kind in (ChannelMix, GatedChannelMix, Rwkv4ChannelMix):
        assert not kind(D, 8)(tokens().float())[0].any()
    assert torch.equal(Rwkv4ChannelMix(D, 8, 1, 2).mix_k, (torch.arange(D) / D) ** 0.5)
    torch.testing.assert_close(ChannelMix(D, 8, 1, 2).mix_k, 1 - (torch.arange(D) / D) ** 0.0625)
