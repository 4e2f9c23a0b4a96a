"""The time mixings of all generations: padding, packing and state, whatever block they stand in."""

from functools import partial

import pytest
import torch

from hf_zoo.modeling.layers.rwkv4_mixer import Rwkv4Mixer
from hf_zoo.modeling.layers.rwkv6_mixer import Rwkv5Mixer, Rwkv6Mixer
from hf_zoo.modeling.layers.rwkv7_mixer import Rwkv7Mixer

BATCH, T, D = 2, 12, 16
MIXERS = {
    "rwkv4": Rwkv4Mixer,
    "rwkv5": partial(Rwkv5Mixer, head_size=8),
    "rwkv6": partial(Rwkv6Mixer, head_size=8, shift_rank=4, decay_rank=4),
    "rwkv7": partial(Rwkv7Mixer, head_size=8, decay_rank=4, rate_rank=4, gate_rank=4),
}


@pytest.fixture(params=MIXERS)
def mixer(request):
    torch.manual_seed(0)
    mixer = MIXERS[request.param](D).double()
    with torch.no_grad():
        for parameter in mixer.parameters():  # so that nothing hides behind a weight of 0 or 1
            parameter.add_(torch.randn_like(parameter) * 0.3)
    return mixer


def tokens(batch=BATCH, T=T):
    return torch.randn(batch, T, D, dtype=torch.float64)


def memory(state):
    """What a state stands for: the sums of RWKV-4 may be written with any exponent."""
    window, memory = state
    is_sums = memory.ndim == 3
    return window, memory[:, :2] * memory[:, 2:].exp() if is_sums else memory


@pytest.mark.parametrize("sizes", [[1] * T, [5, 1, 6]])
def test_pieces_with_state_equal_the_whole(mixer, sizes):
    x = tokens()
    whole, last = mixer(x)
    state, parts = None, []
    for piece in x.split(sizes, dim=1):
        y, state = mixer(piece, state=state)
        parts.append(y)
    torch.testing.assert_close((torch.cat(parts, dim=1), memory(state)), (whole, memory(last)))


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_touches_neither_answer_nor_state(mixer, side):
    x = tokens()
    short = x[:1, 5:] if side == "left" else x[:1, :7]
    pads = torch.full((1, 5, D), 3.0, dtype=x.dtype)
    padded = torch.cat([pads, short] if side == "left" else [short, pads], dim=1)
    real = slice(5, None) if side == "left" else slice(0, 7)
    mask = torch.ones(BATCH, T, dtype=torch.long)
    mask[0] = 0
    mask[0, real] = 1
    y, state = mixer(torch.cat([padded, x[1:]]), mask)
    expected, expected_state = mixer(short)
    torch.testing.assert_close(y[:1, real], expected)
    torch.testing.assert_close([z[:1] for z in memory(state)], list(memory(expected_state)))
    torch.testing.assert_close(y[1:], mixer(x[1:])[0])


@pytest.mark.parametrize("sizes", [[T], [1] * T, [5, 7]])
def test_packed_documents_equal_documents_apart(mixer, sizes):
    x = tokens(batch=1)
    position_ids = torch.tensor([[0, 1, 2, 3, 0, 1, 2, 3, 4, 5, 6, 0]])
    apart = torch.cat([mixer(document)[0] for document in x.split([4, 7, 1], dim=1)], dim=1)
    state, parts = None, []
    for piece, positions in zip(x.split(sizes, dim=1), position_ids.split(sizes, dim=1), strict=True):
        y, state = mixer(piece, state=state, position_ids=positions)
        parts.append(y)
    torch.testing.assert_close(torch.cat(parts, dim=1), apart)


def test_loaded_weights_are_left_alone(mixer):
    before = {name: parameter.clone() for name, parameter in mixer.named_parameters()}
    for parameter in mixer.parameters():
        parameter._is_hf_initialized = True
    mixer.initialise()
    assert all(torch.equal(parameter, before[name]) for name, parameter in mixer.named_parameters())
