"""What is special about Longformer: which tokens are global by config, argument and task; upstream's answers."""

import pytest
import torch
import transformers
from torch.testing import assert_close

import hf_zoo
from hf_zoo.registry import ARCHITECTURES

SIZES = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}


def make(task="feature-extraction", **options):
    torch.manual_seed(0)
    options = {**SIZES, "vocab_size": 64, "attention_window": 4, "max_position_embeddings": 130, **options}
    model = hf_zoo.create_model("longformer-tiny", task, **options).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return model


def ids(tokens, rows=1):
    return torch.randint(5, 60, (rows, tokens), generator=torch.Generator().manual_seed(1))


def reached(model, tokens, **inputs):
    """(T, T), true where a token's output depends on another's embedding."""
    x = torch.randn(1, tokens, 32, dtype=torch.float64, requires_grad=True)
    hidden = model.double()(inputs_embeds=x, **inputs).last_hidden_state[0]
    rows = [torch.autograd.grad(h.sum() + h[0], x, retain_graph=True)[0][0].abs().amax(-1) > 0 for h in hidden]
    return torch.stack(rows)


def test_two_layers_reach_everything_through_a_global_token():
    first = torch.zeros(1, 30)
    first[0, 0] = 1
    assert reached(make(), 30, global_attention_mask=first).all()
    near = (torch.arange(30)[:, None] - torch.arange(30)).abs()
    assert torch.equal(reached(make(), 30), near <= 4)
    assert torch.equal(reached(make(attention_window=[2, 6]), 30), near <= 4)


@torch.no_grad()
def test_config_and_argument_name_the_same_tokens():
    model, tokens = make(), ids(30)
    tokens[0, 11] = tokens[0, 20] = 61
    mask = torch.zeros_like(tokens)
    mask[0, [0, 3, 11, 20]] = 1
    expected = model(tokens, global_attention_mask=mask).last_hidden_state
    named = make(global_positions=[0, 3], global_token_ids=[61])
    assert_close(named(tokens).last_hidden_state, expected)
    assert (model(tokens).last_hidden_state - expected).abs().max() > 1e-3
    none = torch.zeros_like(tokens)  # an argument overrules the config
    assert_close(named(tokens, global_attention_mask=none).last_hidden_state, model(tokens).last_hidden_state)


@torch.no_grad()
def test_positions_are_counted_in_the_text_and_not_in_the_row():
    model, tokens = make(global_positions=[0, 9]), ids(30)
    expected = model(tokens).last_hidden_state[0]
    wide = torch.cat((torch.full((1, 5), 7), tokens, torch.full((1, 2), 7)), dim=1)
    mask = torch.zeros_like(wide)
    mask[:, 5:-2] = 1
    assert_close(model(wide, attention_mask=mask).last_hidden_state[0, 5:-2], expected)
    everywhere = torch.ones_like(wide)  # padding is not global, whoever says so
    everywhere[:, 5:-2] = model.globals_of_config(torch.arange(30)[None], None)
    got = model(wide, attention_mask=mask, global_attention_mask=everywhere).last_hidden_state
    assert_close(got[0, 5:-2], expected)


@pytest.mark.parametrize(
    ("task", "chosen"),
    [
        ("sequence-classification", [0]),
        ("question-answering", [0, 1, 2, 3, 4, 5]),
        ("multiple-choice", list(range(8, 20))),
        ("token-classification", []),
        ("masked-lm", []),
    ],
)
@torch.no_grad()
def test_what_a_task_makes_global(task, chosen):
    model, tokens = make(task), ids(20)
    tokens[0, [6, 7, 19]] = 2
    mask = torch.zeros_like(tokens)
    mask[0, chosen] = 1
    if task == "multiple-choice":
        tokens, mask = tokens[:, None], mask[:, None]
    assert torch.equal(model(tokens)[0], model(tokens, global_attention_mask=mask)[0])
    other = mask.roll(3, -1) if chosen else 1 - mask
    assert (model(tokens)[0] - model(tokens, global_attention_mask=other)[0]).abs().max() > 1e-5


@torch.no_grad()
def test_a_text_without_separator_has_its_first_token_global():
    model, tokens = make("question-answering"), ids(20)
    first = torch.zeros_like(tokens)
    first[0, 0] = 1
    assert_close(model(tokens).start_logits, model(tokens, global_attention_mask=first).start_logits)


@pytest.mark.parametrize("tokens", [3, 16, 37])
@torch.no_grad()
def test_upstream_gives_the_same_with_global_tokens(tokens, tmp_path):
    """Rows with different numbers of them, padding at the end, lengths that are no multiple of the window."""
    torch.manual_seed(0)
    options = {"attention_window": [8, 4], "max_position_embeddings": 60, "pad_token_id": 1}
    upstream = transformers.LongformerForMaskedLM(transformers.LongformerConfig(**SIZES, **options, vocab_size=64))
    for parameter in upstream.parameters():
        parameter.normal_(0, 0.15)
    upstream.tie_weights()
    upstream.eval().save_pretrained(tmp_path)
    model = ARCHITECTURES["zoo_longformer"].model_class("masked-lm").from_pretrained(tmp_path).eval()
    batch, mask, is_global = ids(tokens, rows=3), torch.ones(3, tokens).long(), torch.zeros(3, tokens).long()
    mask[1, tokens // 2 + 1 :] = 0
    batch = batch.masked_fill(mask == 0, 1)
    is_global[0, 0] = is_global[1, :2] = 1
    is_global[0, tokens // 2 :: 5] = 1
    inputs = {"attention_mask": mask, "global_attention_mask": is_global}
    got, expected = (m(batch, **inputs).logits[mask.bool()] for m in (model, upstream))
    assert_close(got, expected, atol=2e-5, rtol=1e-4)


@torch.no_grad()
def test_wrapped_projections_are_run_as_they_are():
    """An adapter on the keys and values of global tokens is not passed by."""
    from peft import LoraConfig, get_peft_model

    model, tokens = make(global_positions=[0]), ids(20)
    adapted = get_peft_model(model, LoraConfig(target_modules=["k_global_proj", "v_global_proj"]))
    before = adapted(tokens).last_hidden_state
    for name, parameter in adapted.named_parameters():
        if "lora_" in name:
            parameter.add_(0.3)
    after = adapted(tokens).last_hidden_state
    assert (after - before).abs().max() > 1e-3
    assert_close(adapted.merge_and_unload()(tokens).last_hidden_state, after, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"attention_window": 5}, "attention_window must be even and at least 2.*got 5"),
        ({"attention_window": [4, 4, 4]}, "attention_window must be one value or one for each.*=2 layers, got 3"),
        ({"attention_dilation": [[1, 2], 1]}, r"attention_dilation of a layer.*=4 heads, got \[1, 2\]"),
        ({"attention_dilation": 0}, "attention_dilation"),
        ({"global_positions": [-1]}, r"global_positions are counted from 0, got \[-1\]"),
        ({"position_offset": 130}, "position_offset must be a row of the table.*129, got 130"),
    ],
)
def test_sizes_that_cannot_be_are_named(options, complaint):
    with pytest.raises(ValueError, match=complaint):
        make(**options)


@pytest.mark.slow
@pytest.mark.parametrize("options", [{}, {"attention_dilation": [[1, 2], [2, 1]]}], ids=["window", "dilated heads"])
@torch.no_grad()
def test_flex_attention_agrees(options):
    model, tokens = make(num_attention_heads=2, **options), ids(45, rows=2)
    mask = torch.ones_like(tokens)
    mask[1, 30:] = 0
    inputs = {"attention_mask": mask, "global_attention_mask": (torch.arange(45) % 20 == 0).long().expand(2, -1)}
    expected = model(tokens, **inputs).last_hidden_state
    model.set_attn_implementation("flex_attention")
    torch.compiler.reset()  # for sizes that change, torch's C++ kernel of FlexAttention does not compile
    assert_close(model(tokens, **inputs).last_hidden_state[mask.bool()], expected[mask.bool()], atol=2e-5, rtol=1e-4)


def test_flex_attention_refuses_dropout():
    model = make(attention_dropout=0.1)
    model.set_attn_implementation("flex_attention")
    with pytest.raises(ValueError, match="does not support `dropout`"):
        model.train()(ids(20))


def test_the_causal_window_of_zoo_slm_is_the_left_half_of_this_one():
    """What the README says of the model that writes: w to both sides is w / 2 + 1 there, in one layer and in two."""
    for layers in (1, 2):
        options = {"layer_types": ["sliding_attention"] * layers, "sliding_window": 4 // 2 + 1, "vocab_size": 64}
        causal = hf_zoo.create_model(
            "slm-tiny", "feature-extraction", **options, **SIZES | {"num_hidden_layers": layers}
        )
        both_sides = reached(make(num_hidden_layers=layers), 30)
        assert torch.equal(reached(causal.eval(), 30), both_sides.tril())
