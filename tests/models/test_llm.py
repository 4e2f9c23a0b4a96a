"""What is special about the dense decoder: windows, positions, sinks and layouts."""

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.testing import assert_close
from transformers import GenerationConfig

import hf_zoo
from hf_zoo.modeling.llm.modeling_llm import ZooLlmForCausalLM

SIZES = {"vocab_size": 64, "hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 4}


def make(seed=0, **options):
    torch.manual_seed(seed)
    model = hf_zoo.create_model("llm-tiny", **{**SIZES, "num_hidden_layers": 2, **options}).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return model


def ids(rows=2, tokens=12):
    return torch.randint(1, 64, (rows, tokens), generator=torch.Generator().manual_seed(1))


def reach(model, tokens=12):
    """True where the output of a token (row) depends on the embedding of another (column)."""
    x = torch.randn(1, tokens, 32, requires_grad=True)
    hidden = model.model(inputs_embeds=x).last_hidden_state[0]
    rows = [torch.autograd.grad(hidden[t].sum(), x, retain_graph=True)[0][0].abs().amax(-1) for t in range(tokens)]
    return torch.stack(rows) > 0


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("backend", ["eager", "sdpa"])
def test_a_window_reaches_as_far_as_its_layers_let_it(layers, backend):
    window, distance = 4, torch.arange(12)[:, None] - torch.arange(12)[None]
    model = make(num_hidden_layers=layers, sliding_window=window)
    model.set_attn_implementation(backend)
    assert torch.equal(reach(model), (distance >= 0) & (distance <= layers * (window - 1)))


def test_layers_may_differ_in_kind():
    kinds = ["sliding_attention", "full_attention"]
    model = make(sliding_window=3, layer_types=kinds)
    assert torch.equal(reach(model), torch.ones(12, 12).tril().bool())
    cache = model(ids(1), use_cache=True).past_key_values
    assert [layer.keys.shape[2] for layer in cache.layers] == [2, 12]  # a window keeps all but the newest's own place


@pytest.mark.parametrize("positions", ["rotary", "none", "learned", "sinusoidal"])
@torch.no_grad()
def test_relative_positions_do_not_mind_a_shift(positions):
    model = make(positions=positions)
    where = torch.arange(12)[None]
    shifted = {"position_ids": where + 17}
    before, after = model(ids(), position_ids=where).logits, model(ids(), **shifted).logits
    if positions in ("rotary", "none"):
        assert_close(before, after, atol=1e-4, rtol=1e-3)
    else:
        assert (before - after).abs().max() > 1e-2


OPTIONS = {
    "post": {"block_layout": "post"},
    "parallel": {"block_layout": "parallel"},
    "output": {"block_layout": "output"},
    "alibi": {"positions": "alibi"},
    "alibi off by one": {"positions": "alibi", "attention_softmax": "off_by_one"},
    "learned": {"positions": "learned"},
    "sinusoidal": {"positions": "sinusoidal", "embedding_multiplier": 5.0},
    "off by one": {"attention_softmax": "off_by_one"},
    "offset": {"attention_softmax": "off_by_one", "softmax_offset": 3.0},
    "learned sink": {"attention_softmax": "learned_sink"},
    "window": {"sliding_window": 4},
    "window off by one": {"sliding_window": 4, "attention_softmax": "off_by_one"},
    "layer norm": {"norm": "layer_norm", "is_gated_mlp": False, "hidden_act": "gelu_new"},
    "no affine": {"norm": "layer_norm_without_affine", "clip_qkv": 0.5},
    "muP": {"embedding_multiplier": 14.6, "logit_multiplier": 0.14, "attention_scaling": 1 / 8},
    "bloom": {"positions": "alibi", "norm_embeddings": True, "attention_bias": True, "mlp_bias": True},
    "part of a head": {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 0.5}},
}


@pytest.mark.parametrize("name", OPTIONS)
@torch.no_grad()
def test_options_keep_the_promises_of_the_sweep(name):
    """Backends agree, padding changes nothing, cached steps are right, every option changes the function."""
    model, tokens = make(**OPTIONS[name]), ids()
    expected = model(tokens).logits
    if name != "learned":  # its table is drawn anew, so that a comparison would show nothing
        plain = make()
        plain.load_state_dict(model.state_dict(), strict=False)
        assert (plain(tokens).logits - expected).abs().max() > 1e-3
    pads, ones = torch.full((2, 3), 9), torch.ones_like(tokens)
    wide = {"input_ids": torch.cat((pads, tokens), 1), "attention_mask": torch.cat((pads * 0, ones), 1)}
    for backend in ("eager", "sdpa"):
        model.set_attn_implementation(backend)
        assert_close(model(tokens).logits, expected, atol=2e-5, rtol=1e-4)
        assert_close(model(**wide).logits[:, 3:], expected, atol=2e-5, rtol=1e-4)
        outputs, steps = model(tokens[:, :5], use_cache=True), []
        for t in range(5, 12):
            outputs = model(tokens[:, t : t + 1], past_key_values=outputs.past_key_values, use_cache=True)
            steps.append(outputs.logits)
        assert_close(torch.cat(steps, 1), expected[:, 5:], atol=2e-5, rtol=1e-4)
        options = {"max_new_tokens": 5, "do_sample": False, "eos_token_id": None, "pad_token_id": 0}
        static = model.generate(tokens, **options, cache_implementation="static", disable_compile=True)
        assert torch.equal(static, model.generate(tokens, **options, use_cache=False))


LAYOUTS = {
    "pre": lambda x, n1, a, n2, f: (h := x + a(n1(x))) + f(n2(h)),
    "post": lambda x, n1, a, n2, f: n2((h := n1(x + a(x))) + f(h)),
    "parallel": lambda x, n1, a, n2, f: x + a(n1(x)) + f(n1(x)),
    "output": lambda x, n1, a, n2, f: (h := x + n1(a(x))) + n2(f(h)),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@torch.no_grad()
def test_blocks_equal_their_equations(layout):
    block = make(block_layout=layout, positions="none").double().model.layers[0]
    x = torch.randn(2, 5, 32, dtype=torch.float64)
    parts = (block.mixer_norm, lambda y: block.self_attn(y)[0], block.mlp_norm, block.mlp)
    assert_close(block(x, None), LAYOUTS[layout](x, *parts), atol=1e-12, rtol=1e-10)


def test_long_inputs_meet_the_table_or_pass():
    model = make(positions="learned", max_position_embeddings=8)
    with pytest.raises(ValueError, match="max_position_embeddings=8"):
        model(ids())
    assert make(positions="rotary", max_position_embeddings=8)(ids()).logits.isfinite().all()


def test_residual_projections_may_start_small():
    model = hf_zoo.create_model("llm-tiny", scale_residual_init=True, num_hidden_layers=8, hidden_size=128)
    small = model.model.layers[3].mlp.down_proj.weight.std().item()
    assert small == pytest.approx(0.02 / 4, rel=0.1)
    assert model.model.layers[3].mlp.up_proj.weight.std().item() == pytest.approx(0.02, rel=0.1)


def test_z_loss_is_added():
    tokens = ids()
    plain, with_z = (make(z_loss_coefficient=c)(tokens, labels=tokens).loss for c in (0.0, 1e-2))
    assert with_z > plain


@pytest.mark.parametrize(
    "options, field",
    [
        ({"hidden_size": 30}, "hidden_size must be a multiple of num_attention_heads"),
        ({"num_key_value_heads": 3}, "num_attention_heads must be a multiple of num_key_value_heads"),
        ({"hidden_act": "gleu"}, "hidden_act 'gleu'"),
        ({"layer_types": ["sliding_attention"] * 2}, "sliding_window must be set"),
        ({"layer_types": ["linear_attention"] * 2}, "layer_types"),
        ({"layer_types": ["full_attention"]}, "num_hidden_layers"),
        ({"block_layout": "sideways"}, "block_layout"),
        ({"softmax_offset": 0.0}, "softmax_offset"),
        ({"residual_dropout": 1.5}, "residual_dropout"),
        ({"rope_parameters": {"rope_type": "spiral", "rope_theta": 1.0}}, "rope_type 'spiral'"),
        ({"vocab_size": "many"}, "vocab_size"),
    ],
)
def test_numbers_that_do_not_fit_are_named(options, field):
    with pytest.raises(ValueError, match=field):
        hf_zoo.create_config("llm-tiny", **{**SIZES, **options})


def test_a_checkpoint_without_its_head_is_an_error(tmp_path):
    make().save_pretrained(tmp_path)
    path = tmp_path / "model.safetensors"
    save_file({n: w for n, w in load_file(path).items() if n != "lm_head.weight"}, path, metadata={"format": "pt"})
    with pytest.raises(ValueError, match="lacks 1 weights of ZooLlmForCausalLM, the first being 'lm_head.weight'"):
        ZooLlmForCausalLM.from_pretrained(tmp_path)
    hf_zoo.create_model("llm-tiny", "token-classification").from_pretrained(tmp_path)  # a new head is no loss


def test_logits_of_chosen_positions_alone():
    model, tokens = make(), ids()
    whole = model(tokens).logits
    assert_close(model(tokens, logits_to_keep=2).logits, whole[:, -2:])
    assert_close(model(tokens, logits_to_keep=torch.tensor([1, 5])).logits, whole[:, [1, 5]])
    assert isinstance(model, ZooLlmForCausalLM)


@pytest.mark.slow
@pytest.mark.parametrize("options", [{}, {"positions": "alibi"}, {"sliding_window": 4}], ids=str)
@torch.no_grad()
def test_flex_attention_agrees(options):
    model, tokens = make(**options), ids()
    expected = model(tokens).logits
    model.set_attn_implementation("flex_attention")
    assert_close(model(tokens).logits, expected, atol=2e-5, rtol=1e-4)


@pytest.mark.slow
@torch.no_grad()
def test_paged_generation_agrees():
    model, tokens = make(), ids()
    options = GenerationConfig(max_new_tokens=5, do_sample=False, eos_token_id=63, pad_token_id=0)
    expected = model.generate(tokens, generation_config=options)[:, 12:]
    model.set_attn_implementation("paged|sdpa")
    answers = model.generate_batch(tokens.tolist(), generation_config=options)
    assert [answers[f"req_{row}"].generated_tokens for row in range(2)] == expected.tolist()
