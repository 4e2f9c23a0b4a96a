"""Attention to a context against the equation, one query and head at a time."""

import pytest
import torch
from torch.testing import assert_close
from transformers import PreTrainedConfig

from hf_zoo.modeling.layers.cross_attention import CrossAttention


def make(backend, **options):
    torch.manual_seed(0)
    config = PreTrainedConfig()
    config._attn_implementation = backend
    return CrossAttention(config, 0, 12, 4, 2, 5, is_causal=False, **options).double()


@pytest.mark.parametrize("backend", ["eager", "sdpa"])
@pytest.mark.parametrize("options", [{}, {"scaling": 1.0, "bias": True}])
def test_the_equation(backend, options):
    layer = make(backend, **options)
    x, context = torch.randn(2, 3, 12).double(), torch.randn(2, 7, 12).double()
    real = torch.ones(2, 7, dtype=torch.bool)
    real[0, 4:] = False
    mask = real[:, None, None]
    if backend == "eager":
        mask = torch.zeros(2, 1, 1, 7).double().masked_fill(~mask, torch.finfo(torch.double).min)
    inputs = (x.requires_grad_(), context.requires_grad_())
    got = layer(x, *layer.project_context(context), mask)[0]

    rows, scaling = [], options.get("scaling", 5**-0.5)
    for b in range(2):
        seen = context[b, real[b]]
        for t in range(3):
            heads = []
            for h in range(4):
                q = layer.q_proj(x[b, t])[h * 5 : h * 5 + 5]
                group = slice(h // 2 * 5, h // 2 * 5 + 5)
                weights = torch.softmax(layer.k_proj(seen)[:, group] @ q * scaling, dim=0)
                heads.append(weights @ layer.v_proj(seen)[:, group])
            rows.append(layer.o_proj(torch.cat(heads)))
    expected = torch.stack(rows).view(2, 3, 12)
    assert_close(got, expected)
    weight = torch.randn_like(expected)
    for a, b in zip(*(torch.autograd.grad((y * weight).sum(), inputs) for y in (got, expected)), strict=True):
        assert_close(a, b)


def test_without_scaling_keys_twice_as_long_are_scores_twice_as_large():
    layer = make("eager", scaling=1.0)
    x, context = torch.randn(1, 3, 12).double(), torch.randn(1, 7, 12).double()
    k, v = layer.project_context(context)
    once, twice = (layer(x, key, v)[1].log() for key in (k, 2 * k))
    assert_close(twice - twice[..., :1], 2 * (once - once[..., :1]))
