"""What is special about Mamba: a state of fixed size, a float32 residual, its own initialisation."""

import math

import pytest
import torch
from torch.testing import assert_close

import hf_zoo


def make(**options):
    torch.manual_seed(0)
    return hf_zoo.create_model("mamba-tiny", **{"vocab_size": 64, "hidden_size": 32, **options}).eval()


def ids(rows=2, tokens=12):
    return torch.randint(1, 64, (rows, tokens), generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def test_the_state_does_not_grow():
    model, sizes = make(), []
    for tokens in (5, 50):
        cache = model(ids(tokens=tokens), use_cache=True).past_key_values
        assert cache.get_seq_length() == tokens
        layers = cache.layers
        sizes.append(sum(s.numel() for layer in layers for s in (layer.conv_states[0], layer.recurrent_states[0])))
    batch, layers, channels, state_size, kernel = 2, 2, 64, 16, 4
    assert sizes == [batch * layers * channels * (state_size + kernel - 1)] * 2


def test_memory_starts_as_published():
    model = make(num_hidden_layers=1, hidden_size=256)
    mixer = model.model.layers[0].mixer
    assert_close(mixer.A_log, torch.arange(1, 17).log().expand(512, 16))
    assert torch.equal(mixer.D, torch.ones(512))
    dt = torch.nn.functional.softplus(mixer.dt_proj.bias)
    assert 1e-3 * 0.99 <= dt.min() and dt.max() <= 0.1 * 1.01
    assert dt.log().mean().item() == pytest.approx((math.log(1e-3) + math.log(0.1)) / 2, abs=0.3)
    assert mixer.dt_proj.weight.abs().max() <= 16**-0.5


def test_output_projections_may_start_small():
    plain, small = make(), make(scale_residual_init=True)
    ratio = small.model.layers[0].mixer.out_proj.weight.std() / plain.model.layers[0].mixer.out_proj.weight.std()
    assert ratio.item() == pytest.approx(2**-0.5, rel=0.05)


def test_loaded_projections_are_not_made_smaller(tmp_path):
    model = make(scale_residual_init=True)
    model.save_pretrained(tmp_path)
    again = type(model).from_pretrained(tmp_path)
    assert torch.equal(again.model.layers[1].mixer.out_proj.weight, model.model.layers[1].mixer.out_proj.weight)


def test_what_must_be_exact_stays_in_float32(tmp_path):
    make().save_pretrained(tmp_path)
    model = type(make()).from_pretrained(tmp_path, dtype=torch.bfloat16)
    mixer = model.model.layers[0].mixer
    assert (mixer.A_log.dtype, mixer.D.dtype) == (torch.float32, torch.float32)
    assert mixer.in_proj.weight.dtype == torch.bfloat16
    residual = model(ids(), output_hidden_states=True).hidden_states[1]
    assert residual.dtype == torch.float32
    assert model(ids()).logits.dtype == torch.bfloat16


@torch.no_grad()
def test_a_long_prompt_may_be_read_in_parts():
    model, tokens = make(), ids(tokens=30)
    outputs, parts = None, []
    for part in tokens.split(11, dim=1):
        past = None if outputs is None else outputs.past_key_values
        outputs = model(part, past_key_values=past, use_cache=True)
        parts.append(outputs.logits)
    assert_close(torch.cat(parts, dim=1), model(tokens).logits, atol=2e-5, rtol=1e-4)


def test_assisted_generation_is_refused():
    model = make()
    with pytest.raises(ValueError, match="(?i)stateful"):
        model.generate(ids(1), prompt_lookup_num_tokens=3, max_new_tokens=4)


@pytest.mark.parametrize("field", ["expand", "conv_kernel", "state_size", "time_step_rank"])
def test_sizes_below_one_are_named(field):
    with pytest.raises(ValueError, match=field):
        hf_zoo.create_config("mamba-tiny", **{field: 0})
