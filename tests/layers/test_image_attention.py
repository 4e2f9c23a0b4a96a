"""Attention and pooling of vision towers against plain loops."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.testing import assert_close
from transformers import PreTrainedConfig

from hf_zoo.modeling.layers.attention_pooling import AttentionPooling
from hf_zoo.modeling.layers.image_attention import QKV_BIASES, ImageAttention

D, H = 12, 3


def config(backend="eager"):
    config = PreTrainedConfig()
    config._attn_implementation = backend
    return config


def randomised(layer):
    torch.manual_seed(0)
    layer = layer.double()
    for parameter in layer.parameters():
        parameter.data.normal_(std=0.5)
    return layer


def plain(layer, x):
    """One head and one query at a time."""
    q, k, v = (getattr(layer, f"{name}_proj")(x) for name in "qkv")
    rows = []
    for b in range(len(x)):
        for t in range(x.shape[1]):
            heads = []
            for h in range(H):
                part = slice(h * D // H, (h + 1) * D // H)
                query, keys = q[b, t, part], k[b, :, part]
                if layer.q_norm is not None:
                    query, keys = layer.q_norm(query), layer.k_norm(keys)
                heads.append(F.softmax(keys @ query / (D // H) ** 0.5, dim=0) @ v[b, :, part])
            rows.append(layer.o_proj(torch.cat(heads)))
    return torch.stack(rows).view_as(x)


@pytest.mark.parametrize("backend", ["eager", "sdpa"])
@pytest.mark.parametrize("qk_norm", [False, True])
@pytest.mark.parametrize("qkv_bias", QKV_BIASES)
def test_it_is_the_equation_with_its_gradients(qkv_bias, qk_norm, backend):
    norms = {"q_norm": nn.LayerNorm(D // H), "k_norm": nn.LayerNorm(D // H)} if qk_norm else {}
    layer = randomised(ImageAttention(config(backend), 0, D, H, qkv_bias, **norms))
    x = torch.randn(2, 5, D, dtype=torch.float64, requires_grad=True)
    got, expected = layer(x)[0], plain(layer, x)
    assert_close(got, expected)
    wanted = [x, *layer.parameters()]
    for ours, theirs in zip(*(torch.autograd.grad(y.square().sum(), wanted) for y in (got, expected)), strict=True):
        assert_close(ours, theirs, atol=1e-10, rtol=1e-6)


@pytest.mark.parametrize("qkv_bias, names", [("all", "qkvo"), ("qv", "qvo"), ("none", "o")])
def test_biases_are_where_they_are_asked_for(qkv_bias, names):
    layer = ImageAttention(config(), 0, D, H, qkv_bias)
    assert "".join(n for n in "qkvo" if getattr(layer, f"{n}_proj").bias is not None) == names


def test_norms_make_scores_blind_to_the_scale_of_keys():
    layer = randomised(
        ImageAttention(config(), 0, D, H, "none", q_norm=nn.LayerNorm(D // H), k_norm=nn.LayerNorm(D // H))
    )
    x = torch.randn(1, 4, D, dtype=torch.float64)
    before = layer(x)[1]
    layer.k_proj.weight.data *= 5
    assert_close(layer(x)[1], before, atol=1e-5, rtol=1e-4)  # up to the eps of the norm


def test_pooling_is_the_equation():
    layer = randomised(AttentionPooling(D, H, 20, "gelu", 1e-6))
    x = torch.randn(2, 5, D, dtype=torch.float64)
    query, keys, values = layer.q_proj(layer.probe), layer.k_proj(x), layer.v_proj(x)
    rows = []
    for b in range(2):
        heads = []
        for h in range(H):
            part = slice(h * D // H, (h + 1) * D // H)
            weights = F.softmax(keys[b, :, part] @ query[part] / (D // H) ** 0.5, dim=0)
            heads.append(weights @ values[b, :, part])
        y = layer.o_proj(torch.cat(heads))
        rows.append(y + layer.mlp.down_proj(F.gelu(layer.mlp.up_proj(layer.norm(y)))))
    assert_close(layer(x), torch.stack(rows))


def test_pooling_leaves_padding_out():
    layer = randomised(AttentionPooling(D, H, 20, "gelu", 1e-6))
    x = torch.randn(2, 5, D, dtype=torch.float64)
    mask = torch.tensor([[1, 1, 1, 0, 0], [0, 0, 1, 1, 1]])
    assert_close(layer(x, mask), torch.cat((layer(x[:1, :3]), layer(x[1:, 2:]))))


def test_pooling_knows_no_order():
    layer = randomised(AttentionPooling(D, H, 20, "gelu", 1e-6))
    x = torch.randn(2, 5, D, dtype=torch.float64)
    assert_close(layer(x.flip(1)), layer(x))
