"""Tokens of films, maps and series against plain loops; attention with a key and a value more against torch's."""

import pytest
import torch
from torch import nn
from torch.testing import assert_close
from transformers import PreTrainedConfig

from hf_zoo.modeling.layers.bias_key_attention import BiasKeyAttention
from hf_zoo.modeling.layers.signal_tokens import MapEmbedding, SignalTokens, TubeEmbedding, WindowEmbedding


def drawn(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_tubes_run_through_all_frames():
    layer, film = TubeEmbedding(3, 5, 2, 4).double(), drawn(2, 3, 2, 8, 12)
    got = layer(film)
    assert got.shape == (2, 6, 5)
    piece = film[1, :, :, 4:8, 8:12]  # second row, third column
    assert_close(got[1, 5], (layer.weight * piece).sum((1, 2, 3, 4)))
    image = drawn(2, 3, 8, 12)
    assert_close(layer(image), layer(torch.stack((image, image), 2)))


@pytest.mark.parametrize(("height", "width", "stride", "pieces"), [(128, 204, 10, 12 * 19), (32, 32, 16, 4)])
def test_maps_are_cut_with_their_stride(height, width, stride, pieces):
    layer, one = MapEmbedding(1, 3, 16, stride).double(), drawn(1, 1, height, width)
    got = layer(one)
    assert got.shape == (1, pieces, 3)
    columns = (width - 16) // stride + 1
    piece = one[0, :, stride : stride + 16, :16]
    assert_close(got[0, columns], (layer.weight * piece).sum((1, 2, 3)))


def test_windows_hold_all_channels():
    layer, series = WindowEmbedding(6, 5, 8).double(), drawn(2, 6, 44)
    got = layer(series)
    assert got.shape == (2, 5, 5)
    assert_close(got[1, 3], layer.weight @ series[1, :, 24:32].flatten())


def test_tokens_have_a_class_and_places():
    tokens = SignalTokens(WindowEmbedding(2, 4, 4), 3, 4, nn.LayerNorm(4)).double()
    tokens.initialise()
    series = drawn(2, 2, 12)
    got = tokens(series)
    assert_close(got[:, 0], (tokens.cls_token + tokens.positions[0]).expand(2, -1))
    assert_close(got[:, 1:], tokens.norm(tokens.patch_embed(series)) + tokens.positions[1:])
    assert tokens.cls_token.abs().max() > 0 and tokens.positions.std() > 0.01


@pytest.mark.parametrize("backend", ["eager", "sdpa"])
def test_it_is_torchs_attention_with_bias_kv(backend):
    config = PreTrainedConfig()
    config._attn_implementation = backend
    ours = BiasKeyAttention(config, 0, 12, 3).double()
    theirs = nn.MultiheadAttention(12, 3, add_bias_kv=True, batch_first=True).double()
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.normal_()
        for name, weight, bias in zip(
            ("q_proj", "k_proj", "v_proj"), theirs.in_proj_weight.chunk(3), theirs.in_proj_bias.chunk(3), strict=True
        ):
            getattr(ours, name).weight.copy_(weight)
            getattr(ours, name).bias.copy_(bias)
        ours.o_proj.load_state_dict(theirs.out_proj.state_dict())
        ours.bias_k.copy_(theirs.bias_k.flatten())
        ours.bias_v.copy_(theirs.bias_v.flatten())
    x = drawn(2, 7, 12)
    expected = theirs(x, x, x, need_weights=False)[0]
    assert_close(ours(x)[0], expected)
    (ours(x)[0] * drawn(2, 7, 12)).sum().backward()
    assert ours.bias_k.grad.abs().max() > 0 and ours.bias_v.grad.abs().max() > 0
