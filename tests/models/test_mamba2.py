"""What is special about Mamba-2: one decay a head, a large state of fixed size, groups that share B and C."""

import pytest
import torch
from torch.testing import assert_close

import hf_zoo


def make(**options):
    torch.manual_seed(0)
    return hf_zoo.create_model("mamba2-tiny", **{"vocab_size": 64, "hidden_size": 32, **options}).eval()


def ids(rows=2, tokens=12):
    return torch.randint(1, 64, (rows, tokens), generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def test_the_state_does_not_grow():
    model, sizes = make(num_groups=2), []
    for tokens in (5, 50):
        layers = model(ids(tokens=tokens), use_cache=True).past_key_values.layers
        sizes.append(sum(s.numel() for layer in layers for s in (layer.conv_states[0], layer.recurrent_states[0])))
    batch, layers, channels, state_size, kernel, groups = 2, 2, 64, 32, 4, 2
    per_row = channels * state_size + (channels + 2 * groups * state_size) * (kernel - 1)
    assert sizes == [batch * layers * per_row] * 2


@torch.no_grad()
def test_a_long_prompt_may_be_read_in_parts():
    model, tokens = make(), ids(tokens=30)
    outputs, parts = None, []
    for part in tokens.split(11, dim=1):
        past = None if outputs is None else outputs.past_key_values
        outputs = model(part, past_key_values=past, use_cache=True)
        parts.append(outputs.logits)
    assert_close(torch.cat(parts, dim=1), model(tokens).logits, atol=2e-5, rtol=1e-4)


def test_what_must_be_exact_stays_in_float32(tmp_path):
    make().save_pretrained(tmp_path)
    model = type(make()).from_pretrained(tmp_path, dtype=torch.bfloat16)
    mixer = model.model.layers[0].mixer
    assert {p.dtype for p in (mixer.A_log, mixer.D, mixer.dt_bias)} == {torch.float32}
    assert mixer.in_proj.weight.dtype == torch.bfloat16
    assert model(ids(), output_hidden_states=True).hidden_states[1].dtype == torch.float32
    assert model(ids()).logits.dtype == torch.bfloat16


def test_output_projections_may_start_small():
    plain, small = make(), make(scale_residual_init=True)
    ratio = small.model.layers[0].mixer.out_proj.weight.std() / plain.model.layers[0].mixer.out_proj.weight.std()
    assert ratio.item() == pytest.approx(2**-0.5, rel=0.05)


@pytest.mark.parametrize(
    "options, named",
    [
        ({"num_groups": 3}, "num_groups=3"),
        ({"head_dim": 24}, "head_dim, got 24"),
        ({"conv_kernel": 0}, "conv_kernel must be at least 1"),
        ({"time_step_limit": (0.5, 0.1)}, "time_step_limit"),
    ],
)
def test_sizes_that_do_not_fit_are_named(options, named):
    with pytest.raises(ValueError, match=named):
        make(**options)
