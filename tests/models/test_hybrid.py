"""What is special about the hybrid: every part in any layer, one cache for all, a dense decoder made one."""

import pytest
import torch
from torch.testing import assert_close

import hf_zoo
from hf_zoo.modeling.hybrid.parts import ATTENTION, CHANNEL_MIXERS, MIXERS
from hf_zoo.registry import ARCHITECTURES

SIZES = {**{"vocab_size": 64, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}, "sliding_window": 4}
OPTIONS = {
    "mamba2": {"head_dim": 8, "state_size": 8},
    "s4": {"state_size": 4},
    "rwkv6": {"head_size": 8, "shift_rank": 4, "decay_rank": 4},
    "rwkv7": {"head_size": 8, "decay_rank": 4, "rate_rank": 4, "gate_rank": 4},
    "latent_attention": {"latent_dim": 8},
    "mla": {
        **{"kv_lora_rank": 8, "q_lora_rank": 12, "qk_nope_head_dim": 8, "qk_rope_head_dim": 4, "v_head_dim": 8},
    },
    "sparse_attention": {"stride": 3, "summary_size": 1},
    "moe": {"num_experts": 4},
}
PAIRS = [
    *((mixer, "mlp") for mixer in (*ATTENTION, *MIXERS)),
    *((mixer, mlp) for mixer in ("full_attention", "sliding_attention", "mamba") for mlp in (*CHANNEL_MIXERS, "none")),
]


def make(mixers, mlps=("mlp", "mlp"), **options):
    torch.manual_seed(0)
    used = {kind: fields for kind, fields in OPTIONS.items() if kind in {*mixers, *mlps}}
    fields = {"layer_types": list(mixers), "mlp_types": list(mlps), "options": used, **SIZES, **options}
    model = hf_zoo.create_model("hybrid-tiny", **fields).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    return model


def ids(rows=2, tokens=12):
    return torch.randint(1, 64, (rows, tokens), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("mixer, mlp", PAIRS)
@torch.no_grad()
def test_every_part_works_beside_attention(mixer, mlp):
    """Decoding, left padding, packed rows, a static cache."""
    model, tokens = make((mixer, "full_attention"), (mlp, "mlp")), ids()
    expected = model(tokens).logits
    outputs = model(tokens[:, :5], use_cache=True)
    logits = [outputs.logits]
    for part in tokens[:, 5:].split([1, 1, 3, 2], dim=1):
        outputs = model(part, past_key_values=outputs.past_key_values, use_cache=True)
        logits.append(outputs.logits)
    assert_close(torch.cat(logits, dim=1), expected, atol=2e-5, rtol=1e-4)

    pads = torch.full((2, 3), 5)
    mask = torch.cat((torch.zeros_like(pads), torch.ones_like(tokens)), dim=1)
    padded = model(torch.cat((pads, tokens), dim=1), attention_mask=mask).logits
    assert_close(padded[:, 3:], expected, atol=2e-5, rtol=1e-4)

    positions = torch.cat((torch.arange(5), torch.arange(7)))[None].expand(2, -1)
    apart = torch.cat([model(part).logits for part in tokens.split([5, 7], dim=1)], dim=1)
    assert_close(model(tokens, position_ids=positions).logits, apart, atol=2e-5, rtol=1e-4)

    options = {"max_new_tokens": 5, "do_sample": False, "eos_token_id": None, "pad_token_id": 0}
    prompt = {"input_ids": torch.cat((pads, tokens), dim=1), "attention_mask": mask}
    dynamic = model.generate(**prompt, **options)
    static = model.generate(**prompt, **options, cache_implementation="static", disable_compile=True)
    assert torch.equal(static, dynamic)
    assert torch.equal(dynamic, model.generate(**prompt, **options, use_cache=False))


@pytest.mark.parametrize("mixer, mlp", PAIRS)
def test_every_part_learns_and_comes_back(mixer, mlp, tmp_path):
    model = make((mixer, mixer), (mlp, mlp)).train()
    model(ids(), labels=ids()).loss.backward()
    silent = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert silent == []
    model.save_pretrained(tmp_path)
    again = type(model).from_pretrained(tmp_path)
    assert again.config.mixer_types == [mixer] * 2
    assert torch.equal(again(ids()).logits, model.eval()(ids()).logits)


@torch.no_grad()
def test_the_cache_of_attention_grows_and_that_of_states_does_not():
    model, sizes = make(("mamba", "full_attention")), []
    for tokens in (5, 50):
        layers = model(ids(tokens=tokens), use_cache=True).past_key_values.layers
        sizes.append((layers[0].recurrent_states[0].numel(), layers[1].keys.numel()))
    assert sizes[0][0] == sizes[1][0]
    assert sizes[1][1] == 10 * sizes[0][1]


def test_kinds_of_layers_are_named_for_caches_too():
    config = make(
        ("mamba", "full_attention", "sliding_attention"), ("mlp", "rwkv7", "conv"), num_hidden_layers=3
    ).config
    assert config.mixer_types == ["mamba", "full_attention", "sliding_attention"]
    assert config.layer_types == ["linear_attention", "hybrid", "hybrid_sliding"]
    assert config.number_of_conv_states == 2


def test_attention_knows_its_layer_and_the_config_of_the_whole():
    """Backends read both from the module."""
    model = make(("mamba", "latent_attention"))
    attention = model.model.layers[1].self_attn
    assert attention.layer_idx == 1
    assert attention.config is model.config


def test_experts_are_balanced_as_in_their_own_architecture():
    model = make(("mamba", "full_attention"), ("moe", "mlp")).train()
    outputs = model(ids(), labels=ids())
    assert outputs.aux_loss > 0
    assert model.config.router_aux_loss_coef == 0.02
    assert_close(outputs.loss, model.eval()(ids(), labels=ids()).loss + 0.02 * outputs.aux_loss)


@pytest.mark.parametrize("layout", ["pre", "post", "parallel", "output"])
@torch.no_grad()
def test_a_dense_decoder_becomes_a_hybrid_that_equals_it(layout):
    torch.manual_seed(0)
    sizes = {**SIZES, "sliding_window": None, "num_hidden_layers": 3}
    dense = hf_zoo.create_model("llm-tiny", **sizes, block_layout=layout).eval()
    hybrid = hf_zoo.as_hybrid(dense, {})
    assert torch.equal(hybrid(ids()).logits, dense(ids()).logits)


@torch.no_grad()
def test_a_folder_of_a_dense_decoder_opens_with_some_layers_replaced(tmp_path):
    from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    sizes = {"vocab_size": 64, "hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 4}
    LlamaForCausalLM(LlamaConfig(**sizes, num_hidden_layers=3)).save_pretrained(tmp_path / "llama")
    dense = ARCHITECTURES["zoo_llm"].model_class().from_pretrained(tmp_path / "llama")
    replaced = {1: "mamba2", 2: ("full_attention", "moe")}
    options = {"mamba2": {"head_dim": 8, "state_size": 8}, "moe": {"num_experts": 4}}
    hybrid = hf_zoo.as_hybrid(str(tmp_path / "llama"), replaced, options=options)
    assert hybrid.config.mixer_types == ["full_attention", "mamba2", "full_attention"]
    assert hybrid.config.mlp_types == ["mlp", "mlp", "moe"]
    kept, old = hybrid.state_dict(), dense.state_dict()
    for name in old:
        gone = name.startswith(("model.layers.1.self_attn", "model.layers.2.mlp."))
        assert (name in kept) != gone
        if not gone:
            assert torch.equal(kept[name], old[name]), name
    hybrid.save_pretrained(tmp_path / "hybrid")
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "hybrid").eval()
    assert torch.equal(again(ids()).logits, hybrid.eval()(ids()).logits)


def test_another_kind_of_attention_starts_anew_though_names_are_alike():
    torch.manual_seed(0)
    dense = hf_zoo.create_model("llm-tiny", **{**SIZES, "sliding_window": None, "num_key_value_heads": 4})
    hybrid = hf_zoo.as_hybrid(dense, {1: "sparse_attention"})
    old, new = (model.model.layers[1].self_attn.q_proj.weight for model in (dense, hybrid))
    assert old.shape == new.shape
    assert not torch.equal(old, new)


def test_a_replaced_layer_learns_while_the_others_stay():
    """As in distillation: what is new is trained, what was kept is frozen if asked for."""
    torch.manual_seed(0)
    dense = hf_zoo.create_model("llm-tiny", **{**SIZES, "sliding_window": None, "num_hidden_layers": 3})
    hybrid = hf_zoo.as_hybrid(dense, {1: "mamba"}, train_only_new=True)
    learnt = {name for name, p in hybrid.named_parameters() if p.requires_grad}
    assert learnt and all(name.startswith("model.layers.1.mixer.") for name in learnt)


@pytest.mark.parametrize(
    "options, named",
    [
        ({"layer_types": ["mamba3", "mamba"]}, "'mamba3'; did you mean 'mamba"),
        ({"mlp_types": ["mpl", "mlp"]}, "did you mean 'mlp'"),
        ({"layer_types": ["mamba"]}, "layer_types must name one part for each of the num_hidden_layers=2, got 1"),
        ({"mlp_types": ["mlp"] * 3}, "mlp_types must name one part"),
        ({"options": {"mamba": {"state_sise": 4}}}, "no field 'state_sise'; did you mean 'state_size'"),
        ({"options": {"mamba": {"conv_kernel": 0}}}, "conv_kernel must be at least 1"),
        ({"options": {"s4": {}}}, "no layer has that part"),
        ({"mlp_types": ["none", "mlp"], "block_layout": "post"}, "needs block_layout='pre'"),
    ],
)
def test_options_that_do_not_fit_are_named(options, named):
    fields = {
        "layer_types": ["mamba", "full_attention"],
        "mlp_types": ["mlp", "mlp"],
        "options": {},
        **SIZES,
        **options,
    }
    with pytest.raises(ValueError, match=named):
        hf_zoo.create_config("hybrid-tiny", **fields)


def test_layers_that_cannot_be_replaced_are_named():
    dense = hf_zoo.create_model("llm-tiny")
    with pytest.raises(ValueError, match="layer 9.*has 2 layers"):
        hf_zoo.as_hybrid(dense, {9: "mamba"})
    with pytest.raises(ValueError, match="zoo_mamba.*zoo_llm"):
        hf_zoo.as_hybrid(hf_zoo.create_model("mamba-tiny"), {})
