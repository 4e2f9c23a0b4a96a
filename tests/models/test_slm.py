"""What is special about small language models: mixtures of layers, shared and low-rank weights, two forms."""

import pytest
import torch
from safetensors import safe_open
from torch.testing import assert_close
from transformers import StaticCache

import hf_zoo
from hf_zoo.modeling.layers.low_rank import LowRankLinear
from hf_zoo.modeling.slm.configuration_slm import sharing_plan

KINDS = ("full_attention", "sliding_attention", "linear_attention", "conv")
MIXTURE = ["sliding_attention", "linear_attention", "conv", "full_attention"]
MODES = [
    {"sharing": "all"},
    {"sharing": "all", "num_layer_groups": 2},
    {"sharing": "all", "num_layer_groups": 2, "layers_per_group": 2},
    {"sharing": "attention"},
    {"sharing": "ffn", "num_layer_groups": 2},
    {"sharing": "cyclic", "num_layer_groups": 2},
]
OPTIONS = [
    *({"layer_types": [kind] * 4} for kind in KINDS),
    *({"feature_map": name} for name in ("relu", "relu2", "softmax", "taylor2", "favor")),
    {"feature_map": "identity", "linear_output": "rms_norm", "linear_decay": "retnet"},
    {"layer_types": ["linear_attention", "conv"] * 2, "feed_forward": "separable_conv"},
    {"layer_types": ["linear_attention"] * 4, "positions": "learned", "block_layout": "post", "norm": "layer_norm"},
    {"positions": "sinusoidal", "embedding_size": 24, "norm_embeddings": True, "feed_forward": "plain"},
    {"qk_norm": True},
    {"low_rank": {"q_proj": 4, "up_proj": 0.25}, "chunk_size_feed_forward": 5},
    *({"layer_types": ["sliding_attention"] * 4, **mode} for mode in MODES),
    {"layer_types": ["linear_attention", "conv"] * 2, "sharing": "cyclic", "num_layer_groups": 2},
]

# transformers has no static cache without attention layers: it could not tell how many tokens it holds
WITH_ATTENTION = [o for o in OPTIONS if any("attention" in k and k[0] != "l" for k in o.get("layer_types", MIXTURE))]


def make(task=None, **options):
    torch.manual_seed(0)
    sizes = {"vocab_size": 64, "hidden_size": 32, "intermediate_size": 48, "head_dim": 8, "num_hidden_layers": 4}
    options = {**sizes, "layer_types": MIXTURE, **options}
    model = hf_zoo.create_model("slm-tiny", task, **options).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return model


def ids(rows=2, tokens=19):
    return torch.randint(5, 64, (rows, tokens), generator=torch.Generator().manual_seed(1))


def close(got, expected):
    assert_close(got, expected, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@torch.no_grad()
def test_cached_steps_and_padding_on_the_left(options):
    model, tokens = make(**options), ids()
    expected = model(tokens).logits
    wide = torch.cat((torch.full((2, 3), 4), tokens), dim=1)
    mask = (torch.arange(22) >= 3).long().expand(2, -1)
    close(model(wide, attention_mask=mask).logits[:, 3:], expected)
    outputs, parts = None, []
    for start, end in ((0, 11), (11, 12), (12, 13), (13, 22)):
        past = None if outputs is None else outputs.past_key_values
        outputs = model(wide[:, start:end], attention_mask=mask[:, :end], past_key_values=past, use_cache=True)
        parts.append(outputs.logits)
    close(torch.cat(parts, dim=1)[:, 3:], expected)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@torch.no_grad()
def test_generation_is_greedy_whatever_the_cache(options):
    model, tokens = make(**options), ids(tokens=4)
    arguments = {"max_new_tokens": 6, "do_sample": False, "eos_token_id": None, "pad_token_id": 0}
    expected = model.generate(tokens, **arguments, use_cache=False)
    assert torch.equal(model.generate(tokens, **arguments), expected)
    static = model.generate(tokens, **arguments, cache_implementation="static", disable_compile=True)
    assert torch.equal(static, expected)


@pytest.mark.parametrize("options", WITH_ATTENTION, ids=str)
@torch.no_grad()
def test_generation_after_padding_with_a_static_cache(options):
    arguments = {"max_new_tokens": 4, "do_sample": False, "eos_token_id": None, "pad_token_id": 0}
    tokens = ids(tokens=9)
    for window in (6, 30):  # one that the prompt fills, one that it does not
        model = make(**options, sliding_window=window)
        expected = model.generate(tokens, **arguments, use_cache=False)
        wide = torch.cat((torch.full((2, 3), 4), tokens), dim=1)
        mask = (torch.arange(12) >= 3).long().expand(2, -1)
        cache = StaticCache(config=model.config, max_cache_len=20)
        got = model.generate(wide, attention_mask=mask, past_key_values=cache, **arguments, disable_compile=True)
        assert torch.equal(got[:, 3:], expected)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@torch.no_grad()
def test_an_encoder_sees_both_sides_of_its_document(options):
    model, tokens = make("masked-lm", **options), ids()
    changed = tokens.clone()
    changed[:, -1] = 5 + (changed[:, -1] == 5)
    if "conv" not in options.get("layer_types", ()):
        assert (model(tokens).logits[:, 14] - model(changed).logits[:, 14]).abs().max() > 1e-6
    positions = torch.cat((torch.arange(8), torch.arange(11)))[None].expand(2, -1)
    apart = [model(part).logits for part in tokens.split([8, 11], dim=1)]
    close(model(tokens, position_ids=positions).logits, torch.cat(apart, dim=1))
    wide = torch.cat((tokens, torch.full((2, 3), 4)), dim=1)
    mask = (torch.arange(22) < 19).long().expand(2, -1)
    close(model(wide, attention_mask=mask).logits[:, :19], model(tokens).logits)


@pytest.mark.parametrize("is_causal", [True, False])
def test_a_window_is_as_wide_as_it_says(is_causal):
    options = {"num_hidden_layers": 1, "layer_types": ["sliding_attention"], "sliding_window": 4}
    model = make("feature-extraction", is_causal=is_causal, **options)
    x = torch.randn(1, 15, 32, requires_grad=True)
    (gradient,) = torch.autograd.grad(model(inputs_embeds=x).last_hidden_state[0, 7].sum(), x)
    seen = gradient[0].abs().amax(-1).nonzero().flatten().tolist()
    assert seen == list(range(4, 8 if is_causal else 11))


def test_convolutions_reach_as_far_as_their_kernels():
    model = make("feature-extraction", num_hidden_layers=3, layer_types=["conv"] * 3, conv_kernel=3)
    x = torch.randn(1, 15, 32, requires_grad=True)
    (gradient,) = torch.autograd.grad(model(inputs_embeds=x).last_hidden_state[0, 12].sum(), x)
    assert gradient[0].abs().amax(-1).nonzero().flatten().tolist() == list(range(12 - 3 * 2, 13))


@pytest.mark.parametrize("feature_map, features", [("elu1", 8), ("taylor2", 1 + 8 + 64), ("favor", 20)])
@torch.no_grad()
def test_the_state_does_not_grow(feature_map, features):
    model = make(layer_types=["linear_attention"] * 4, feature_map=feature_map, num_features=20)
    for tokens in (5, 50):
        cache = model(ids(tokens=tokens), use_cache=True).past_key_values
        assert cache.get_seq_length() == tokens
        for layer in cache.layers:
            assert layer.recurrent_states[0].shape == (2, 4, features, 8 + 1)
            assert layer.recurrent_states[0].dtype == torch.float32


@torch.no_grad()
def test_a_window_bounds_the_cache():
    model = make(layer_types=["sliding_attention"] * 4)
    cache = model(ids(tokens=19), use_cache=True).past_key_values
    assert [layer.keys.shape[2] for layer in cache.layers] == [5] * 4


def test_states_cannot_be_rolled_back_and_keys_can():
    with pytest.raises(ValueError, match="(?i)stateful"):
        make().generate(ids(1), prompt_lookup_num_tokens=3, max_new_tokens=4)
    model = make(layer_types=["full_attention"] * 4)
    options = {"max_new_tokens": 6, "do_sample": False, "eos_token_id": None}
    assert torch.equal(
        model.generate(ids(1), prompt_lookup_num_tokens=3, **options), model.generate(ids(1), **options)
    )


# sharing


@pytest.mark.parametrize(
    ("options", "plan"),
    [
        ({}, "00 11 22 33"),
        ({"sharing": "all"}, "00 00 00 00"),
        ({"sharing": "all", "num_layer_groups": 2}, "00 00 11 11"),
        ({"sharing": "all", "num_layer_groups": 2, "layers_per_group": 2}, "00 11 22 33"),
        ({"sharing": "all", "layers_per_group": 2}, "00 11 00 11"),
        ({"sharing": "attention"}, "00 01 02 03"),
        ({"sharing": "ffn"}, "00 10 20 30"),
        ({"sharing": "ffn", "num_layer_groups": 2}, "00 10 22 32"),
        ({"sharing": "cyclic", "num_layer_groups": 2}, "00 11 00 11"),
        ({"sharing": "cyclic", "num_layer_groups": 3}, "00 11 22 00"),
    ],
    ids=str,
)
def test_who_shares_with_whom(options, plan):
    config = hf_zoo.create_config("slm-tiny", num_hidden_layers=4, layer_types=["full_attention"] * 4, **options)
    assert " ".join(f"{mixer}{ffn}" for mixer, ffn in sharing_plan(config)) == plan


@pytest.mark.parametrize("mode", MODES, ids=str)
def test_each_shared_weight_exists_once(mode, tmp_path):
    model = make(layer_types=["full_attention"] * 4, **mode)
    plan = sharing_plan(model.config)
    mixers, ffns = ({pair[i] for pair in plan} for i in (0, 1))
    names = [name for name, _ in model.named_parameters()]
    assert len({p.data_ptr() for p in model.parameters()}) == len(names)
    assert sum("q_proj" in name for name in names) == len(mixers)
    assert sum("up_proj" in name for name in names) == len(ffns)
    model.save_pretrained(tmp_path)
    with safe_open(tmp_path / "model.safetensors", "pt") as file:
        assert sum("q_proj" in name for name in file.keys()) == len(mixers)


def test_depth_costs_no_weights_when_all_is_shared():
    counts = {
        make(num_hidden_layers=n, layer_types=["full_attention"] * n, sharing="all").num_parameters() for n in (2, 12)
    }
    assert len(counts) == 1


@pytest.mark.parametrize("mode", MODES, ids=str)
def test_gradients_of_shared_weights_are_summed_over_layers(mode):
    """An unshared model with the same weights in every place: the sum of its gradients."""
    shared = make(layer_types=["full_attention"] * 4, **mode)
    plain = make(layer_types=["full_attention"] * 4)
    weights = shared.state_dict()
    plan = sharing_plan(shared.config)

    def owner(name):
        parts = name.split(".")
        if "layers" not in parts:
            return name
        mixer, ffn = plan[int(parts[2])]
        parts[2] = str(ffn if parts[3].startswith("mlp") else mixer)
        return ".".join(parts)

    plain.load_state_dict({name: weights[owner(name)] for name in plain.state_dict()})
    losses = [model(ids(), labels=ids()).loss for model in (shared, plain)]
    assert_close(*losses)
    for loss in losses:
        loss.backward()
    sums = {}
    for name, parameter in plain.named_parameters():
        sums[owner(name)] = sums.get(owner(name), 0) + parameter.grad
    for name, parameter in shared.named_parameters():
        assert_close(parameter.grad, sums[name], atol=1e-6, rtol=1e-4)


@torch.no_grad()
def test_layers_that_share_have_caches_of_their_own():
    model = make(layer_types=["linear_attention"] * 4, sharing="all")
    cache = model(ids(), use_cache=True).past_key_values
    states = [layer.recurrent_states[0] for layer in cache.layers]
    assert len(states) == 4
    assert all((a - b).abs().max() > 1e-3 for a, b in zip(states, states[1:], strict=False))


@pytest.mark.parametrize("task", ["causal-lm", "masked-lm"])
@pytest.mark.parametrize("mode", MODES, ids=str)
def test_checkpointing_works_with_shared_layers(task, mode):
    gradients = []
    for is_on in (False, True):
        model = make(task, layer_types=["full_attention"] * 4, **mode).train()
        if is_on:
            model.gradient_checkpointing_enable()
        model(ids(), labels=ids()).loss.backward()
        gradients.append([p.grad for p in model.parameters()])
    for plain, checkpointed in zip(*gradients, strict=True):
        assert torch.equal(plain, checkpointed)


# decoder and encoder


def test_heads_choose_the_form_and_leave_the_config_alone():
    config = hf_zoo.create_config("slm-tiny")
    assert config.is_causal
    model = make("masked-lm")
    assert not model.config.is_causal and not model.model.config.is_causal
    assert make("causal-lm", is_causal=False).config.is_causal
    assert make("sequence-classification", is_causal=False).model.pooler is not None
    assert make("sequence-classification").model.pooler is None
    assert make("token-classification", is_causal=False).model.pooler is None


def test_a_preset_of_albert_comes_as_a_masked_lm():
    with torch.device("meta"):
        model = hf_zoo.create_model("albert-base-v2")
    assert type(model).__name__ == "ZooSlmForMaskedLM"
    assert model.lm_head.weight.shape == (30000, 128)


@torch.no_grad()
def test_sentences_are_told_apart_where_there_is_an_embedding():
    types = torch.zeros_like(ids())
    types[:, 9:] = 1
    model = make("masked-lm", type_vocab_size=2)
    assert (model(ids(), token_type_ids=types).logits - model(ids()).logits).abs().max() > 1e-3
    assert torch.equal(model(ids(), token_type_ids=torch.zeros_like(ids())).logits, model(ids()).logits)
    with pytest.raises(ValueError, match="type_vocab_size"):
        make("masked-lm")(ids(), token_type_ids=types)


@torch.no_grad()
def test_feed_forward_in_parts_changes_nothing():
    layers = {"layer_types": ["full_attention"] * 4}
    close(make(**layers, chunk_size_feed_forward=4)(ids()).logits, make(**layers)(ids()).logits)


# low rank


def test_low_rank_is_where_the_config_says():
    model = make(low_rank={"q_proj": 4, "down_proj": 0.5}, layer_types=["full_attention"] * 4)
    ranks = {n.rpartition(".")[2]: m.rank for n, m in model.named_modules() if isinstance(m, LowRankLinear)}
    assert ranks == {"q_proj": 4, "down_proj": 16}
    assert torch.linalg.matrix_rank(model.model.layers[2].self_attn.q_proj.dense().weight) == 4


def test_lora_trains_beside_low_rank():
    import peft

    model = make(low_rank={"q_proj": 4})
    before = model(ids()).logits
    wrapped = peft.get_peft_model(model, hf_zoo.lora_config(model, r=2))
    assert_close(wrapped(ids()).logits, before)
    wrapped(ids(), labels=ids()).loss.backward()
    assert all(p.grad.abs().max() > 0 for n, p in wrapped.named_parameters() if "lora_B" in n)


# what a config may not say


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"layer_types": ["chunked_attention"] * 4}, "layer_types may hold.*'chunked_attention'"),
        ({"sliding_window": None}, "sliding_window must be set"),
        ({"conv_kernel": 0}, "conv_kernel must be at least 1, got 0"),
        ({"feature_map": "identity"}, "linear_output='rms_norm'"),
        ({"feed_forward": "separable_conv"}, "feed_forward='separable_conv' keeps a state"),
        ({"sharing": "all"}, "'sliding_attention' and a 'linear_attention' layer share"),
        ({"num_layer_groups": 2}, "num_layer_groups=2 needs a sharing"),
        ({"layers_per_group": 2}, "layers_per_group=2 needs sharing='all'"),
        ({"sharing": "all", "layers_per_group": 3}, "4 is not a multiple of 3"),
        ({"sharing": "cyclic", "num_layer_groups": 5}, "num_layer_groups=5 is more"),
        ({"low_rank": {"q_porj": 4}}, "low_rank may name q_proj.*'q_porj'"),
        ({"low_rank": {"q_proj": 32}}, r"low_rank\['q_proj'\]=32 is rank 32; from 1 to 31"),
        ({"low_rank": {"q_proj": 0.9}}, r"low_rank\['q_proj'\]=0.9 is rank 58; from 1 to 31"),
        ({"low_rank": {"q_proj": 0}}, "rank 0"),
        ({"hidden_act": "swoosh"}, "hidden_act 'swoosh'"),
        ({"head_dim": 7}, "head_dim must be even"),
        ({"num_key_value_heads": 3}, "4 is not a multiple of 3"),
    ],
)
def test_what_does_not_fit_is_named(options, complaint):
    with pytest.raises(ValueError, match=complaint):
        hf_zoo.create_config("slm-tiny", **{"num_hidden_layers": 4, "layer_types": MIXTURE, **options})
