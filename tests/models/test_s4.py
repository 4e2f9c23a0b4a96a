"""What is special about S4: a convolution in training, a recurrence in decoding, a state of fixed size."""

import pytest
import torch
from torch.testing import assert_close

import hf_zoo


def make(**options):
    torch.manual_seed(0)
    return hf_zoo.create_model("s4-tiny", **{"vocab_size": 64, "hidden_size": 32, **options}).eval()


def ids(rows=2, tokens=12):
    return torch.randint(1, 64, (rows, tokens), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("state_space", ["dplr", "diagonal"])
@torch.no_grad()
def test_both_kinds_decode_what_they_were_trained_for(state_space):
    model, tokens = make(state_space=state_space), ids(tokens=30)
    outputs, steps = None, []
    for token in tokens.split(1, dim=1):
        past = None if outputs is None else outputs.past_key_values
        outputs = model(token, past_key_values=past, use_cache=True)
        steps.append(outputs.logits)
    assert_close(torch.cat(steps, dim=1), model(tokens, use_cache=False).logits, atol=2e-5, rtol=1e-4)


@torch.no_grad()
def test_the_state_does_not_grow():
    model, sizes = make(), []
    for tokens in (5, 50):
        layers = model(ids(tokens=tokens), use_cache=True).past_key_values.layers
        sizes.append(sum(layer.recurrent_states[0].numel() for layer in layers))
    batch, layers, channels, state_size = 2, 2, 32, 16
    assert sizes == [batch * layers * channels * state_size] * 2


@torch.no_grad()
def test_what_it_remembers_does_not_depend_on_the_token():
    """Time-invariance: a text shifted by some tokens of nothing gives the same answers, shifted."""
    model = make(num_hidden_layers=1)
    embeds = torch.randn(1, 12, 32)
    nothing = torch.zeros(1, 5, 32)
    shifted = model(inputs_embeds=torch.cat((nothing, embeds), dim=1)).logits[:, 5:]
    assert_close(shifted, model(inputs_embeds=embeds).logits, atol=2e-5, rtol=1e-4)


def test_the_state_space_stays_in_float32(tmp_path):
    make().save_pretrained(tmp_path)
    model = type(make()).from_pretrained(tmp_path, dtype=torch.bfloat16)
    mixer = model.model.layers[0].mixer
    assert {p.dtype for p in mixer.ssm.parameters()} == {torch.float32}
    assert mixer.out_proj.weight.dtype == torch.bfloat16
    assert model(ids()).logits.dtype == torch.bfloat16


def test_diagonal_spaces_have_no_low_rank_part():
    names = dict(make(state_space="diagonal").named_parameters())
    assert not [name for name in names if name.endswith(".P")]
    assert "model.layers.0.mixer.ssm.P" in dict(make().named_parameters())


@pytest.mark.parametrize(
    "options, named",
    [
        ({"state_size": 7}, "state_size must be even"),
        ({"spectrum": "inv"}, "state_space='diagonal'"),
        ({"dt_min": 0.2}, "dt_min must be above 0 and below dt_max"),
        ({"state_space": "diag"}, "diagonal"),
    ],
)
def test_options_that_do_not_fit_are_named(options, named):
    with pytest.raises(ValueError, match=named):
        make(**options)
