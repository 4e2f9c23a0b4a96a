"""Gated biases against the equation and against WavLM's attention; convolutional positions; acoustic tokenizers."""

import pytest
import torch
from torch.nn import functional as F
from torch.testing import assert_close
from transformers import PreTrainedConfig
from transformers.models.wavlm.modeling_wavlm import WavLMAttention, WavLMPositionalConvEmbedding

from hf_zoo.modeling.layers.acoustic_tokenizer import NormalisedCodebook, RandomProjectionTokenizer
from hf_zoo.modeling.layers.convolutional_positions import ConvolutionalPositions
from hf_zoo.modeling.layers.gated_relative_bias import GatedBiasAttention
from hf_zoo.modeling.layers.relative_bias import RelativePositionBias

D, H, T = 24, 3, 37


def attention(gate_input="query", backend="eager"):
    config = PreTrainedConfig()
    config._attn_implementation = backend
    layer = GatedBiasAttention(config, 0, D, H, gate_input)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.normal_(std=0.4, generator=generator)
    return layer.double().eval()


def table():
    bias = RelativePositionBias(32, H, 20, False, 0.5)
    torch.nn.init.normal_(bias.weight, std=0.7, generator=torch.Generator().manual_seed(2))
    return bias.double()


def tokens(rows=2, length=T):
    return torch.randn(rows, length, D, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@pytest.mark.parametrize("gate_input", ["query", "hidden"])
@pytest.mark.parametrize("backend", ["eager", "sdpa"])
@torch.no_grad()
def test_it_is_its_equation(gate_input, backend):
    layer, x, bias = attention(gate_input, backend), tokens(), table()(T, T)
    y = torch.zeros_like(x)
    for b in range(2):
        q, k, v = (p(x[b]) for p in (layer.q_proj, layer.k_proj, layer.v_proj))
        for h in range(H):
            part = slice(8 * h, 8 * h + 8)
            source = (q if gate_input == "query" else x[b])[:, part]
            eight = layer.gate(source)
            u, r = eight[:, :4].sum(-1).sigmoid(), eight[:, 4:].sum(-1).sigmoid()
            opened = u * (r * layer.gate_constant[h] - 1) + 2
            scores = q[:, part] @ k[:, part].T / 8**0.5 + opened[:, None] * bias[0, h]
            y[b, :, part] = scores.softmax(-1) @ v[:, part]
    assert_close(layer(x, bias)[0], layer.o_proj(y))


@torch.no_grad()
def test_it_is_the_attention_of_wavlm():
    theirs = WavLMAttention(D, H, num_buckets=32, max_distance=20).double().eval()
    generator = torch.Generator().manual_seed(4)
    for parameter in theirs.parameters():
        parameter.normal_(std=0.4, generator=generator)
    ours, bias = attention("hidden"), table()
    names = {
        "q_proj": "q_proj",
        "k_proj": "k_proj",
        "v_proj": "v_proj",
        "o_proj": "out_proj",
        "gate": "gru_rel_pos_linear",
    }
    for own, name in names.items():
        getattr(ours, own).load_state_dict(getattr(theirs, name).state_dict())
    ours.gate_constant.copy_(theirs.gru_rel_pos_const.flatten())
    bias.weight.copy_(theirs.rel_attn_embed.weight)
    x = tokens()
    expected, _, distances = theirs(x)
    assert_close(bias(T, T)[0], distances[:H])
    assert_close(ours(x, bias(T, T))[0], expected)
    mask = torch.ones(2, T, dtype=torch.long)
    mask[1, 20:] = 0
    expected = theirs(x, attention_mask=mask)[0]
    got = ours(x, bias(T, T), ~mask[:, None, None].bool())[0]
    assert_close(got[mask.bool()], expected[mask.bool()])
    ours.gate.weight[5].mul_(1.1)  # each part of the gate is read
    assert (ours(x, bias(T, T))[0] - theirs(x)[0]).abs().max() > 1e-4


@torch.no_grad()
def test_without_gates_the_bias_knows_nothing_of_the_query():
    layer = attention()
    q = torch.randn(2, H, T, 8, dtype=torch.float64)
    assert layer.openness(q).std() > 0.05
    layer.gate.weight.zero_()
    assert_close(layer.openness(q), layer.openness(torch.zeros_like(q)))


@pytest.mark.parametrize("backend", ["eager", "sdpa"])
@torch.no_grad()
def test_hidden_keys_are_not_seen(backend):
    layer, x, bias = attention(backend=backend), tokens(), table()
    hidden = (torch.arange(T) >= 30).expand(2, 1, 1, -1)
    assert_close(layer(x, bias(T, T), hidden)[0][:, :30], layer(x[:, :30], bias(30, 30))[0])


def test_gradients_reach_gates_and_biases():
    layer, bias = attention(), table()
    x = tokens(1, 5).requires_grad_()
    assert torch.autograd.gradcheck(lambda x, d: layer(x, d)[0], (x, bias(5, 5).detach().requires_grad_()))
    layer(x, bias(5, 5))[0].square().sum().backward()
    assert all(p.grad.abs().max() > 0 for n, p in layer.named_parameters() if n != "k_proj.bias")
    assert bias.weight.grad.abs().max() > 0


class Settings:
    """What WavLM's layer reads."""

    hidden_size, num_conv_pos_embeddings, num_conv_pos_embedding_groups, feat_extract_activation = D, 6, 3, "gelu"


@pytest.mark.parametrize("taps", [6, 7])
@torch.no_grad()
def test_positions_are_those_of_wavlm(taps):
    settings = Settings()
    settings.num_conv_pos_embeddings = taps
    theirs = WavLMPositionalConvEmbedding(settings).double()
    ours = ConvolutionalPositions(D, taps, 3).double()
    for parameter in theirs.parameters():
        parameter.normal_()
    weights = theirs.conv.parametrizations.weight
    ours.length.copy_(weights.original0.flatten())
    ours.direction.copy_(weights.original1)
    ours.bias.copy_(theirs.conv.bias)
    assert_close(ours(tokens()), theirs(tokens()))


@torch.no_grad()
def test_fresh_positions_have_the_length_of_their_direction():
    layer = ConvolutionalPositions(D, 6, 3)
    layer.initialise()
    assert_close(layer.length, layer.direction.norm(dim=(0, 1)))


def test_random_labels_are_the_nearest_code_and_the_same_everywhere():
    layers = [RandomProjectionTokenizer(10, 7, 4) for _ in range(2)]
    for layer in layers:
        layer.initialise()
    patches = torch.randn(3, 50, 10)
    labels = layers[0](patches)
    assert torch.equal(labels, layers[1](patches)) and len(labels.unique()) > 3
    x = (patches[2, 3] - patches[2, 3].mean()) / patches[2, 3].std(unbiased=False)
    x = F.normalize(x @ layers[0].projection, dim=-1)
    distances = (F.normalize(layers[0].codebook, dim=-1) - x).norm(dim=-1)
    assert labels[2, 3] == distances.argmin()
    assert torch.equal(labels, layers[0](patches * 3 + 1))


def test_the_codebook_is_nearest_and_passes_gradients():
    codebook = NormalisedCodebook(7, 4).double()
    codebook.initialise()
    x = torch.randn(2, 5, 4, dtype=torch.float64, requires_grad=True)
    codes, labels, errors = codebook(x)
    directions = F.normalize(codebook.weight, dim=-1)
    for b in range(2):
        for t in range(5):
            e = F.normalize(x[b, t], dim=-1)
            distances = (directions - e).square().sum(-1)
            assert labels[b, t] == distances.argmin()
            assert_close(codes[b, t], directions[labels[b, t]])
            assert_close(errors[b, t], 2 * distances.min())
    weights = torch.randn_like(codes)
    (codes * weights).sum().backward()
    through = torch.autograd.grad((F.normalize(x, dim=-1) * weights).sum(), x)[0]
    assert_close(x.grad, through)
    assert codebook.weight.grad is None or codebook.weight.grad.abs().max() == 0
    codebook(x)[2].sum().backward()
    assert codebook.weight.grad.abs().max() > 0


@torch.no_grad()
def test_codes_are_spread_by_k_means():
    """Vectors near four directions, themselves near each other, where evenly spread codes are mostly far off."""
    torch.manual_seed(0)
    centres = F.normalize(torch.ones(16) + torch.randn(4, 16) * 0.3, dim=-1).double()
    members = torch.arange(80) % 4
    x = 3 * (centres[members] + torch.randn(80, 16, dtype=torch.float64) * 0.01)
    codebook = NormalisedCodebook(16, 16).double()
    codebook.initialise()
    before = codebook(x)
    codebook.spread(x, rounds=0)
    chosen, start = codebook(x), codebook.weight.clone()
    codebook.spread(x, rounds=1)
    for code in range(16):  # one round is the direction of the mean of those that chose it
        mean = F.normalize(F.normalize(x, dim=-1)[chosen[1] == code].mean(0), dim=-1)
        assert_close(codebook.weight[code], mean, atol=1e-6, rtol=1e-6)
        assert (F.normalize(x, dim=-1) @ start[code]).max() > 1 - 1e-6  # a start is one of the vectors
    codebook.spread(x)
    after = codebook(x)
    assert before[1].unique().numel() < 8 and after[1].unique().numel() > 12
    assert after[2].mean() < chosen[2].mean() < before[2].mean() / 10
    with pytest.raises(ValueError, match="16 codes cannot be spread over 15 vectors"):
        codebook.spread(x[:15])
