"""`zoo_local` in transformers' own models, chosen by `attn_implementation`."""

import pytest
import torch
from torch.testing import assert_close
from transformers import Gemma3ForCausalLM, Gemma3TextConfig, MistralConfig, MistralForCausalLM, StaticCache
from transformers.masking_utils import create_causal_mask, create_sliding_window_causal_mask

from hf_zoo.modeling.attention_interface import local_attention_forward, register_attentions

SIZES = {
    **{"vocab_size": 64, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "head_dim": 8},
    **{"num_attention_heads": 4, "num_key_value_heads": 2, "sliding_window": 5, "pad_token_id": 0},
}


def pair(**options):
    """The same Mistral under sdpa and under zoo_local."""
    models = []
    for backend in ("sdpa", "zoo_local"):
        torch.manual_seed(0)
        config = MistralConfig(**{**SIZES, **options}, attn_implementation=backend)
        models.append(MistralForCausalLM(config).double().eval())
    return models


def ids(tokens=23, rows=2):
    return torch.randint(1, 64, (rows, tokens), generator=torch.Generator().manual_seed(1))


def padding(side, tokens=23):
    mask = torch.ones(2, tokens, dtype=torch.long)
    mask[0, slice(0, 7) if side == "left" else slice(-7, None)] = 0
    return mask


@pytest.mark.parametrize("side", [None, "left", "right"])
@pytest.mark.parametrize("tokens", [4, 5, 23])
def test_logits_and_gradients_are_those_of_sdpa(side, tokens):
    mask = padding(side, 23)[:, :tokens] if side else torch.ones(2, tokens, dtype=torch.long)
    mask[:, -1] = 1  # a row of nothing but padding has no answer
    results = []
    for model in pair():
        logits = model(ids(tokens), attention_mask=mask).logits[mask.bool()]
        logits.square().mean().backward()
        results.append([logits, *(p.grad for p in model.parameters())])
    for expected, got in zip(*results, strict=True):
        assert_close(got, expected)


@pytest.mark.parametrize("side", [None, "left"])
@torch.no_grad()
def test_cached_steps_are_those_of_sdpa(side):
    mask = padding(side) if side else torch.ones(2, 23, dtype=torch.long)
    results = []
    for model in pair():
        cache, parts = None, []
        for start, end in ((0, 9), (9, 10), (10, 11), (11, 20), (20, 23)):
            outputs = model(ids()[:, start:end], attention_mask=mask[:, :end], past_key_values=cache, use_cache=True)
            cache = outputs.past_key_values
            parts.append(outputs.logits)
        results.append(torch.cat(parts, dim=1)[mask.bool()])
    assert_close(results[1], results[0])


@pytest.mark.parametrize("prompt", [3, 12])
@pytest.mark.parametrize("implementation", ["dynamic", "static"])
@torch.no_grad()
def test_generation_is_that_of_sdpa(prompt, implementation):
    mask = torch.ones(2, prompt, dtype=torch.long)
    mask[0, 0] = 0
    options = {"max_new_tokens": 8, "do_sample": False, "eos_token_id": None, "disable_compile": True}
    rows = [
        model.generate(ids(prompt), attention_mask=mask, cache_implementation=implementation, **options)
        for model in pair()
    ]
    assert torch.equal(*rows)


@pytest.mark.parametrize("window", [12, 40])
@torch.no_grad()
def test_a_static_cache_with_room_is_read_right(window):
    sdpa, local = pair(sliding_window=window)
    results = []
    for model in (sdpa, local):
        cache = StaticCache(config=model.config, max_cache_len=30)
        first = model(ids()[:, :6], past_key_values=cache, use_cache=True).logits
        results.append(torch.cat((first, model(ids()[:, 6:], past_key_values=cache, use_cache=True).logits), dim=1))
    assert_close(results[1], results[0])


@torch.no_grad()
def test_packed_documents_are_those_of_sdpa():
    positions = torch.cat((torch.arange(9), torch.arange(1), torch.arange(13)))[None].expand(2, -1)
    sdpa, local = (model(ids(), position_ids=positions).logits for model in pair())
    assert_close(local, sdpa)
    assert (sdpa - pair()[0](ids()).logits).abs().max() > 1e-3


@torch.no_grad()
def test_layers_without_a_window_run_as_under_sdpa():
    sizes = {**SIZES, "layer_types": ["sliding_attention", "full_attention"]}
    logits = []
    for backend in ("sdpa", "zoo_local"):
        torch.manual_seed(0)
        model = Gemma3ForCausalLM(Gemma3TextConfig(**sizes, attn_implementation=backend)).double().eval()
        logits.append(model(ids(), attention_mask=padding("left")).logits[padding("left").bool()])
    assert_close(logits[1], logits[0])


def test_masks_do_not_grow_with_the_square():
    _, local = pair()
    x = torch.empty(2, 23, 0)
    arguments = {"config": local.config, "inputs_embeds": x, "past_key_values": None}
    assert create_sliding_window_causal_mask(attention_mask=torch.ones(2, 23), **arguments) is None
    mask = create_sliding_window_causal_mask(attention_mask=padding("left"), **arguments)
    assert torch.equal(mask, padding("left"))
    assert create_causal_mask(attention_mask=padding("left"), **arguments).shape == (2, 1, 23, 23)


@pytest.mark.parametrize("option", ["position_bias", "softcap", "s_aux"])
def test_options_that_blocks_do_not_know_are_refused(option):
    module = pair()[1].model.layers[0].self_attn
    q = torch.randn(1, 4, 6, 8)
    with pytest.raises(ValueError, match=option):
        local_attention_forward(module, q, q, q, None, sliding_window=3, **{option: torch.ones(1)})


def test_registering_again_changes_nothing():
    from transformers import AttentionInterface

    before = dict(AttentionInterface._global_mapping)
    register_attentions()
    assert AttentionInterface._global_mapping == before
