"""Latent attention against its equations head by head, and the absorbed form against the plain one."""

import peft
import pytest
import torch
from torch import nn
from torch.testing import assert_close
from transformers import PreTrainedConfig

from hf_zoo.modeling.layers.latent_attention import LatentAttention, LatentSizes, deinterleave, is_plain, yarn_scaling

D, H, B = 20, 3, 2
C, N, R, V = 10, 6, 4, 8


def make(q_lora_rank=7, backend="eager", seed=0, **options):
    torch.manual_seed(seed)
    config = PreTrainedConfig()
    config._attn_implementation = backend
    layer = LatentAttention(config, 0, D, H, LatentSizes(C, q_lora_rank, N, R, V), **options).double().eval()
    for parameter in layer.parameters():
        nn.init.normal_(parameter, std=0.5)
    return layer


def hidden(tokens, seed=1):
    return torch.randn(B, tokens, D, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def angles(tokens, start=0):
    """cos and sin in the form of `RotaryPositions`, of positions from `start` on."""
    turn = torch.arange(start, start + tokens, dtype=torch.float64)[:, None] * torch.tensor([1.0, 0.1]).double()
    cos, sin = torch.cat((turn.cos(), turn.cos()), -1), torch.cat((-turn.sin(), turn.sin()), -1)
    return cos.expand(B, -1, -1), sin.expand(B, -1, -1)


def causal(queries, keys):
    seen = torch.ones(queries, keys).tril(keys - queries).bool()
    return torch.zeros(1, 1, queries, keys, dtype=torch.float64).masked_fill(~seen, -torch.inf)


def rms(x, weight):
    return x / (x.square().mean() + 1e-6).sqrt() * weight


def turned(x, position):
    """RoPE as complex numbers, of pairs of neighbours."""
    pairs = torch.view_as_complex(x.view(2, 2))
    turn = torch.polar(torch.ones(2).double(), position * torch.tensor([1.0, 0.1]).double())
    return torch.view_as_real(pairs * turn).flatten()


def by_hand(layer, x):
    """Token by token and head by head."""
    rows = []
    for row in x:
        out = []
        latents, ropes = [], []
        for t, h in enumerate(row):
            raw = layer.kv_a_proj_with_mqa.weight @ h
            latents.append(rms(raw[:C], layer.kv_a_layernorm.weight))
            ropes.append(turned(raw[C:], t))
            q = layer.q_proj.weight @ h if layer.sizes.q_lora_rank is None else None
            if q is None:
                q = layer.q_b_proj.weight @ rms(layer.q_a_proj.weight @ h, layer.q_a_layernorm.weight)
            heads = []
            for head in range(H):
                mine = q[head * (N + R) : (head + 1) * (N + R)]
                up = layer.kv_b_proj.weight[head * (N + V) : (head + 1) * (N + V)]
                scores = [
                    mine[:N] @ (up[:N] @ latent) + turned(mine[N:], t) @ rope
                    for latent, rope in zip(latents, ropes, strict=True)
                ]
                weights = (torch.stack(scores) * layer.scaling).softmax(0)
                heads.append(sum(w * (up[N:] @ latent) for w, latent in zip(weights, latents, strict=True)))
            out.append(layer.o_proj.weight @ torch.cat(heads))
        rows.append(torch.stack(out))
    return torch.stack(rows)


@pytest.mark.parametrize("q_lora_rank", [7, None])
@pytest.mark.parametrize("backend", ["eager", "sdpa"])
def test_the_layer_equals_its_equations_and_so_do_its_gradients(backend, q_lora_rank):
    layer, results = make(q_lora_rank, backend), []
    for compute in (by_hand, lambda layer, x: layer(x, causal(9, 9), position_embeddings=angles(9))[0]):
        layer.zero_grad()
        x = hidden(9).requires_grad_()
        y = compute(layer, x)
        y.square().sum().backward()
        results.append([y, x.grad, *(p.grad.clone() for p in layer.parameters())])
    for expected, got in zip(*results, strict=True):
        assert_close(got, expected, atol=1e-10, rtol=1e-9)


class Cache:
    """Keeps what it is given, as a cache's layer does."""

    def __init__(self):
        self.kept = None

    def __call__(self, *new):
        self.kept = (
            new if self.kept is None else tuple(torch.cat(pair, 2) for pair in zip(self.kept, new, strict=True))
        )
        return self.kept


def in_steps(layer, x, sizes, masks=None):
    """The row in pieces through a cache; y and the cache."""
    cache, parts, start = Cache(), [], 0
    for size in sizes:
        mask = None if size == 1 else causal(size, start + size)
        if masks is not None:
            mask = masks[:, :, start : start + size, : start + size]
        part = layer(x[:, start : start + size], mask, cache, angles(size, start))[0]
        parts.append(part)
        start += size
    return torch.cat(parts, 1), cache


@pytest.mark.parametrize("backend", ["eager", "sdpa"])
@pytest.mark.parametrize("sizes", [(5, 1, 1, 1, 1), (8, 1), (1,) * 9, (6, 2, 1)])
@torch.no_grad()
def test_the_absorbed_form_equals_the_plain_one(backend, sizes, monkeypatch):
    layer, x, absorbed = make(backend=backend), hidden(9), []
    compute = layer.attend_absorbed
    monkeypatch.setattr(layer, "attend_absorbed", lambda *args: absorbed.append(1) or compute(*args))
    expected = layer(x, causal(9, 9), position_embeddings=angles(9))[0]
    assert not absorbed
    y, cache = in_steps(layer, x, sizes)
    assert absorbed
    assert_close(y, expected, atol=1e-10, rtol=1e-10)
    assert [tuple(part.shape) for part in cache.kept] == [(B, 1, 9, C), (B, 1, 9, R)]  # C + R numbers a token


@pytest.mark.parametrize("is_boolean", [False, True])
@torch.no_grad()
def test_masks_hold_in_the_absorbed_form(is_boolean):
    """A row with two pads at its start."""
    layer, x = make(), hidden(9)
    mask = causal(9, 9).expand(B, -1, -1, -1).clone()
    mask[0, :, 2:, :2] = -torch.inf
    expected = layer(x, mask, position_embeddings=angles(9))[0]
    y, _ = in_steps(layer, x, (4, 1, 1, 1, 1, 1), mask == 0 if is_boolean else mask)
    if is_boolean:  # the plain form of the first part, in eager, wants numbers
        layer.config._attn_implementation = "sdpa"
        y, _ = in_steps(layer, x, (4, 1, 1, 1, 1, 1), mask == 0)
    assert_close(y[:, 4:], expected[:, 4:], atol=1e-10, rtol=1e-10)


@torch.no_grad()
def test_weights_are_those_of_the_plain_form():
    layer, x = make(), hidden(9)
    expected = layer(x, causal(9, 9), position_embeddings=angles(9))[1]
    cache = Cache()
    layer(x[:, :8], causal(8, 8), cache, angles(8))
    weights = layer(x[:, 8:], None, cache, angles(1, 8))[1]
    assert_close(weights, expected[:, :, 8:])


def test_the_absorbed_form_is_for_reading_alone():
    layer = make()
    assert not layer.should_absorb(1, 9, None)  # gradients are wanted
    with torch.no_grad():
        assert layer.should_absorb(1, 9, None)
        assert not layer.should_absorb(9, 9, None)  # a prompt
        assert not layer.should_absorb(2, 9, None)  # no mask says who sees whom
        assert not layer.train().should_absorb(1, 9, None)
        layer.eval().config._attn_implementation = "flash_attention_2"
        assert not layer.should_absorb(1, 9, None)


def test_only_a_bare_matrix_is_absorbed():
    linear = nn.Linear(3, 3, bias=False)
    assert is_plain(linear)
    handle = linear.register_forward_hook(lambda *_: None)
    assert not is_plain(linear)
    handle.remove()
    assert is_plain(linear)
    linear.forward = linear.forward
    assert not is_plain(linear)
    assert not is_plain(nn.utils.parametrizations.weight_norm(nn.Linear(3, 3)))


@torch.no_grad()
def test_adapters_of_the_absorbed_matrix_count():
    """Unmerged, merged and unloaded: decoding equals reading the row at once."""
    layer, x = make(), hidden(9)
    bare = layer(x, causal(9, 9), position_embeddings=angles(9))[0]
    wrapped = peft.LoraModel(layer, peft.LoraConfig(r=2, target_modules=["kv_b_proj"]), "default").double().eval()
    for name, parameter in wrapped.named_parameters():
        if "lora_B" in name:
            parameter.normal_()
    tuned = layer(x, causal(9, 9), position_embeddings=angles(9))[0]
    assert (tuned - bare).abs().max() > 0.1
    assert_close(in_steps(layer, x, (5, 1, 1, 1, 1))[0], tuned, atol=1e-10, rtol=1e-10)
    layer.kv_b_proj.merge()
    assert_close(in_steps(layer, x, (5, 1, 1, 1, 1))[0], tuned, atol=1e-10, rtol=1e-10)
    layer = wrapped.merge_and_unload()
    assert is_plain(layer.kv_b_proj)
    assert_close(in_steps(layer, x, (5, 1, 1, 1, 1))[0], tuned, atol=1e-10, rtol=1e-10)


@torch.no_grad()
def test_keys_and_values_of_all_heads_have_the_rank_of_the_latent():
    layer = make()
    latent = torch.randn(1, 1, 200, C, dtype=torch.float64)
    k, v = layer.expand(latent, torch.zeros(1, 1, 200, R, dtype=torch.float64))
    both = torch.cat((k[0, ..., :N], v[0]), -1).transpose(0, 1).flatten(1)  # (200, H (N + V))
    assert both.shape[1] == H * (N + V) > C
    assert torch.linalg.matrix_rank(both) == C


@torch.no_grad()
def test_the_rotary_rows_alone_know_positions():
    """Without turning, tokens before the last may be swapped; and the other rows do not see the turn."""
    layer, x = make(), hidden(9)
    swapped = x.clone()
    swapped[:, [2, 5]] = x[:, [5, 2]]
    still = angles(1)[0].expand(-1, 9, -1), torch.zeros(B, 9, R, dtype=torch.float64)
    assert_close(*(layer(y, causal(9, 9), position_embeddings=still)[0][:, -1] for y in (x, swapped)))
    apart = [layer(y, causal(9, 9), position_embeddings=angles(9))[0][:, -1] for y in (x, swapped)]
    assert (apart[0] - apart[1]).abs().max() > 1e-3
    layer.kv_a_proj_with_mqa.weight[C:] = 0
    assert_close(*(layer(y, causal(9, 9), position_embeddings=angles(9))[0][:, -1] for y in (x, swapped)))


def test_halves_and_pairs_are_one_rotation_of_reordered_weights():
    pairs, halves = make(), make(is_interleaved=False)
    with torch.no_grad():
        order = deinterleave(torch.arange(R))
        assert order.tolist() == [0, 2, 1, 3]
        halves.kv_a_proj_with_mqa.weight[C:] = pairs.kv_a_proj_with_mqa.weight[C:][order]
        q = halves.q_b_proj.weight.view(H, N + R, -1)
        q[:, N:] = pairs.q_b_proj.weight.view(H, N + R, -1)[:, N:][:, order]
    x = hidden(9)
    assert_close(*(layer(x, causal(9, 9), position_embeddings=angles(9))[0] for layer in (pairs, halves)))


def test_stretched_contexts_sharpen_the_scores():
    assert yarn_scaling({"rope_type": "default", "rope_theta": 1e4}) == 1.0
    assert yarn_scaling({"rope_type": "yarn", "factor": 40.0}) == 1.0
    assert yarn_scaling({"rope_type": "yarn", "factor": 0.5, "mscale_all_dim": 1.0}) == 1.0
    stretched = yarn_scaling({"rope_type": "yarn", "factor": 40.0, "mscale_all_dim": 0.707})
    assert stretched == pytest.approx(1.5896, abs=1e-4)  # (1 + 0.0707 ln 40)^2
