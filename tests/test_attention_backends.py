"""The backends beside `zoo_local` in transformers' own models, chosen by `attn_implementation`."""

import math

import pytest
import torch
from torch.nn import functional as F
from torch.testing import assert_close
from transformers import BertConfig, BertModel, LlamaConfig, LlamaForCausalLM, MistralConfig, MistralForCausalLM

import hf_zoo
from hf_zoo.modeling.layers.sparse_patterns import fixed_pattern, strided_pattern, union_sees

SIZES = {**{"vocab_size": 64, "hidden_size": 32, "intermediate_size": 48}, "num_hidden_layers": 2}
HEADS = {"num_attention_heads": 4, "num_key_value_heads": 2}
STRIDE, COLUMNS = 5, 2


def llama(attention="eager", **options):
    torch.manual_seed(0)
    config = LlamaConfig(**SIZES, **HEADS, sparse_stride=STRIDE, sparse_summary_size=COLUMNS, **options)
    model = LlamaForCausalLM._from_config(config, attn_implementation=attention).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3.0)  # so that softmax is far from a mean
    return model


def ids(tokens=23, rows=2):
    return torch.randint(1, 64, (rows, tokens), generator=torch.Generator().manual_seed(1))


def dense_mask(attention, T):
    """(1, H, T, T) of what the pattern shows; all earlier tokens for the others."""
    i, j = torch.arange(T)[:, None], torch.arange(T)
    if attention == "zoo_strided":
        pattern = strided_pattern(STRIDE, 4)
    elif attention == "zoo_fixed":
        pattern = fixed_pattern(STRIDE, COLUMNS, 4)
    else:
        return (j <= i).expand(1, 4, T, T)
    return torch.stack([union_sees(union, i, j) for union in pattern])[None]


def reference(attention, tokens, monkeypatch):
    """Logits of the model with dense attention under the pattern's mask, softmax written out."""
    from transformers.models.llama import modeling_llama

    def dense(module, q, k, v, mask, scaling, **kwargs):
        k, v = (z.repeat_interleave(2, dim=1) for z in (k, v))
        scores = (q @ k.mT * scaling).masked_fill(~dense_mask(attention, q.shape[2]), -torch.inf)
        if attention == "zoo_off_by_one":
            largest = scores.amax(-1, keepdim=True).clamp_min(0)
            weights = (scores - largest).exp()
            weights = weights / (weights.sum(-1, keepdim=True) + (-largest).exp())
        else:
            weights = F.softmax(scores, dim=-1)
        return (weights @ v).transpose(1, 2), None

    model = llama()
    with monkeypatch.context() as patch:
        patch.setattr(modeling_llama, "eager_attention_forward", dense)
        return model(tokens).logits


BACKENDS = ["zoo_blockwise", "zoo_strided", "zoo_fixed", "zoo_off_by_one"]


@pytest.mark.parametrize("attention", BACKENDS)
@torch.no_grad()
def test_equals_dense_attention_under_its_mask(attention, monkeypatch):
    expected = reference(attention, ids(), monkeypatch)
    assert_close(llama(attention)(ids()).logits, expected, atol=2e-4, rtol=1e-4)  # weights are three times as large


@pytest.mark.parametrize("attention", BACKENDS)
@torch.no_grad()
def test_decoding_and_padding_change_nothing(attention):
    model, tokens = llama(attention), ids()
    expected = model(tokens).logits
    outputs = model(tokens[:, :9], use_cache=True)
    logits = [outputs.logits]
    for part in tokens[:, 9:].split([1, 6, 1, 6], dim=1):
        outputs = model(part, past_key_values=outputs.past_key_values, use_cache=True)
        logits.append(outputs.logits)
    assert_close(torch.cat(logits, dim=1), expected, atol=2e-4, rtol=1e-4)

    pads = torch.ones(2, 4, dtype=torch.long)
    mask = torch.cat((0 * pads, torch.ones_like(tokens)), dim=1)
    wide = torch.cat((pads, tokens), dim=1)
    positions = (mask.cumsum(-1) - 1).clamp_min(0)
    padded = model(wide, attention_mask=mask, position_ids=positions).logits
    assert_close(padded[:, 4:], expected, atol=2e-4, rtol=1e-4)
    options = {"max_new_tokens": 6, "do_sample": False, "eos_token_id": None, "pad_token_id": 0}
    plain = model.generate(tokens, **options)[:, 23:]
    for cache in (None, "static"):
        kind = {} if cache is None else {"cache_implementation": cache, "disable_compile": True}
        assert torch.equal(model.generate(wide, attention_mask=mask, **options, **kind)[:, 27:], plain)


@pytest.mark.parametrize("attention", BACKENDS)
@torch.no_grad()
def test_packed_rows_do_not_see_each_other(attention):
    model, tokens = llama(attention), ids(rows=1)
    positions = torch.cat((torch.arange(9), torch.arange(14)))[None]
    apart = torch.cat([model(part).logits for part in tokens.split([9, 14], dim=1)], dim=1)
    packed = model(
        tokens, position_ids=positions, use_cache=False
    )  # with a cache, transformers takes no row for packed
    assert_close(packed.logits, apart, atol=2e-4, rtol=1e-4)


@pytest.mark.parametrize("attention", ["zoo_blockwise", "zoo_local"])
def test_exact_backends_have_the_gradients_of_sdpa(attention):
    gradients = []
    for name in (attention, "sdpa"):
        torch.manual_seed(0)
        config = MistralConfig(**SIZES, **HEADS, sliding_window=6 if attention == "zoo_local" else None)
        model = MistralForCausalLM._from_config(config, attn_implementation=name)
        model(ids(), labels=ids()).loss.backward()
        gradients.append([p.grad for p in model.parameters()])
    assert_close(*gradients)


@torch.no_grad()
def test_both_sides_block_by_block():
    torch.manual_seed(0)
    config = BertConfig(**SIZES, num_attention_heads=4, attention_probs_dropout_prob=0.0)
    mask = torch.ones(2, 23, dtype=torch.long)
    mask[0, 15:] = 0
    outputs = []
    for attention in ("eager", "zoo_blockwise"):
        torch.manual_seed(0)
        model = BertModel._from_config(config, attn_implementation=attention).eval()
        outputs.append(model(ids(), attention_mask=mask).last_hidden_state[mask.bool()])
    assert_close(*outputs)


@torch.no_grad()
def test_what_a_backend_cannot_do_is_named():
    config = BertConfig(**SIZES, num_attention_heads=4)
    model = BertModel._from_config(config, attn_implementation="zoo_strided").eval()
    with pytest.raises(ValueError, match="zoo_strided is for causal attention"):
        model(ids())


def test_blockwise_attention_drops_weights_in_training_alone():
    model = llama("zoo_blockwise", attention_dropout=0.5).train()
    first, second = (model(ids()).logits for _ in range(2))
    assert (first - second).abs().max() > 1e-3
    model.eval()
    assert_close(model(ids()).logits, model(ids()).logits)


def test_dropout_under_sdpa_goes_by_blocks_on_a_cpu():
    """Torch's own kernel with dropout would hold all scores."""
    from hf_zoo.modeling.layers import attention

    torch.manual_seed(0)
    model = hf_zoo.create_model("mlm-tiny", hidden_dropout=0.0, attention_dropout=0.3).train()
    mask = torch.ones_like(ids())
    mask[0, -3:] = 0
    with pytest.MonkeyPatch.context() as patch:
        calls = []
        patch.setattr(attention, "_MANY_SCORES", 1)
        real = attention.blockwise_attention
        patch.setattr(attention, "blockwise_attention", lambda *a, **k: calls.append(k["dropout"]) or real(*a, **k))
        outputs = [model(ids(), attention_mask=mask, labels=ids()).loss for _ in range(2)]
        assert calls == [0.3] * 4 and outputs[0] != outputs[1]
        outputs[0].backward()
        model.eval()(ids())
        assert len(calls) == 4


@torch.no_grad()
def test_a_head_may_attend_to_nothing():
    """With all scores far below zero the output vanishes, where softmax would still make a mean."""
    from hf_zoo.modeling.attention_interface import off_by_one_forward

    class Module(torch.nn.Module):
        is_causal, num_key_value_groups = True, 1

    q, k, v = torch.ones(1, 1, 4, 16), -torch.ones(1, 1, 4, 16), torch.ones(1, 1, 4, 16)
    y, _ = off_by_one_forward(Module(), q, k, v, None, scaling=2.5)
    assert y.abs().max() < 4 * math.exp(-39)


@pytest.mark.parametrize("shifts", [None, [2, 0, 1, 1]])
@torch.no_grad()
def test_blocks_in_transformers_and_in_the_zoo_are_the_same(shifts, tmp_path):
    """One BERT with the backend, opened as `zoo_mlm` with blocks; padded and packed rows too."""
    from hf_zoo.registry import ARCHITECTURES

    options = {"num_attention_blocks": 3, "head_shifts": shifts}
    torch.manual_seed(0)
    upstream = BertModel._from_config(
        BertConfig(**SIZES, **options, num_attention_heads=4), attn_implementation="zoo_block_permuted"
    ).eval()
    for parameter in upstream.parameters():
        parameter.mul_(3.0)
    upstream.save_pretrained(tmp_path)
    model_class = ARCHITECTURES["zoo_mlm"].model_class("feature-extraction")
    model = model_class.from_pretrained(tmp_path).eval()
    mask = torch.ones(2, 23, dtype=torch.long)
    mask[0, 15:] = 0
    expected = upstream(ids(), attention_mask=mask).last_hidden_state[mask.bool()]
    assert_close(model(ids(), attention_mask=mask).last_hidden_state[mask.bool()], expected, atol=2e-5, rtol=1e-4)
    alone = upstream(ids()[:1, :15]).last_hidden_state[0]
    assert_close(expected[:15], alone, atol=2e-5, rtol=1e-4)
    full = {"num_attention_blocks": 1, "head_shifts": None}
    full = model_class(type(model.config)(**{**model.config.to_dict(), **full})).eval()
    full.load_state_dict(model.state_dict())
    assert (full(ids()).last_hidden_state - model(ids()).last_hidden_state).abs().max() > 0.1

    positions = torch.cat((torch.arange(9), torch.arange(14)))[None]
    options = {"is_causal": False, "layer_types": ["full_attention"] * 2, "vocab_size": 64}
    encoder = hf_zoo.create_model("slm-tiny", "feature-extraction", **options).eval()
    encoder.set_attn_implementation("zoo_block_permuted")  # the backend, where rows can be packed
    for packing in (model, encoder):
        parts = ids(rows=1).split([9, 14], dim=1)
        apart = torch.cat([packing(part).last_hidden_state for part in parts], dim=1)
        packed = packing(ids(rows=1), position_ids=positions).last_hidden_state
        assert_close(packed, apart, atol=2e-5, rtol=1e-4)


@torch.no_grad()
def test_blocks_are_for_encoders():
    with pytest.raises(ValueError, match="zoo_block_permuted is for encoders"):
        llama("zoo_block_permuted")(ids())
