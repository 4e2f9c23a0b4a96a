"""What all generations of RWKV promise, each of which transformers' RWKV breaks; and what is special to one."""

import math

import pytest
import torch
from torch.testing import assert_close
from transformers import RwkvConfig, RwkvForCausalLM

import hf_zoo
from hf_zoo.modeling.layers import rwkv7_mixer
from hf_zoo.modeling.layers.rwkv7_mixer import Rwkv7Mixer
from hf_zoo.registry import ARCHITECTURES

GENERATIONS = ["rwkv4-tiny", "rwkv6-tiny", "rwkv5", "rwkv7-tiny"]


def make(name, **options):
    """A small model in evaluation mode, with weights far from zero."""
    if name == "rwkv5":
        name, options = "rwkv6-tiny", {"is_data_dependent": False, **options}
    torch.manual_seed(0)
    model = hf_zoo.create_model(name, **{"vocab_size": 64, "hidden_size": 32, **options}).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return model


def ids(rows=2, tokens=12):
    return torch.randint(1, 64, (rows, tokens), generator=torch.Generator().manual_seed(1))


@pytest.fixture(params=GENERATIONS)
def name(request):
    return request.param


@torch.no_grad()
def test_cached_decoding_of_a_batch_is_right(name):
    model, tokens = make(name), ids(rows=3)
    outputs, steps = None, []
    for token in tokens.split(1, dim=1):
        past = None if outputs is None else outputs.past_key_values
        outputs = model(token, past_key_values=past, use_cache=True)
        assert outputs.logits.shape == (3, 1, 64)
        steps.append(outputs.logits)
    assert_close(torch.cat(steps, dim=1), model(tokens).logits, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("side", ["left", "right"])
@torch.no_grad()
def test_padding_does_not_reach_the_answer(name, side):
    model, tokens = make(name), ids(rows=1)
    pads = ids(rows=1, tokens=5)
    zeros, ones = torch.zeros_like(pads), torch.ones_like(tokens)
    parts = ((pads, tokens), (zeros, ones)) if side == "left" else ((tokens, pads), (ones, zeros))
    wide, mask = (torch.cat(part, dim=1) for part in parts)
    got = model(wide, attention_mask=mask).logits[mask.bool()]
    assert_close(got, model(tokens).logits[0], atol=2e-5, rtol=1e-4)


@torch.no_grad()
def test_packed_documents_start_anew(name):
    model, tokens = make(name), ids(rows=1)
    position_ids = torch.cat((torch.arange(7), torch.arange(5)))[None]
    packed = model(tokens, position_ids=position_ids).logits
    apart = [model(part).logits for part in (tokens[:, :7], tokens[:, 7:])]
    assert_close(packed, torch.cat(apart, dim=1), atol=2e-5, rtol=1e-4)


@torch.no_grad()
def test_saving_after_an_evaluation_changes_nothing(name, tmp_path):
    model = make(name, num_hidden_layers=7)  # transformers halves its weights from the sixth layer on
    before = {key: value.clone() for key, value in model.train().state_dict().items()}
    logits = model.eval()(ids()).logits
    model.save_pretrained(tmp_path)
    again = type(model).from_pretrained(tmp_path)
    for state in (model.state_dict(), again.state_dict()):
        assert all(torch.equal(state[key], value) for key, value in before.items())
    assert torch.equal(again.eval()(ids()).logits, logits)


@torch.no_grad()
def test_adapters_are_the_same_in_training_and_evaluation(name):
    import peft

    wrapped = peft.get_peft_model(make(name, num_hidden_layers=7), peft.LoraConfig(r=4))
    for key, parameter in wrapped.named_parameters():
        if "lora_B" in key:
            parameter.normal_(0, 0.1)
    evaluated = wrapped.eval()(ids()).logits
    assert_close(wrapped.train()(ids()).logits, evaluated)
    assert_close(wrapped.merge_and_unload().eval()(ids()).logits, evaluated, atol=2e-5, rtol=1e-4)


def test_one_layer_is_enough(name):
    model = make(name, num_hidden_layers=1).train()
    loss = model(ids(), labels=ids()).loss
    loss.backward()
    assert loss.isfinite()
    fresh = hf_zoo.create_model("rwkv6-tiny" if name == "rwkv5" else name, num_hidden_layers=1)
    assert all(parameter.isfinite().all() for parameter in fresh.parameters())


@torch.no_grad()
def test_the_state_does_not_grow(name):
    model, sizes = make(name), []
    for tokens in (5, 50):
        cache = model(ids(tokens=tokens), use_cache=True).past_key_values
        assert cache.get_seq_length() == tokens
        parts = [part for layer in cache.layers for part in (layer.conv_states, layer.recurrent_states)]
        sizes.append(sum(s.numel() for part in parts for s in part.values() if s is not None))
    batch, layers, hidden, head = 2, 2, 32, 16
    memory = 3 * hidden if name == "rwkv4-tiny" else hidden * head
    assert sizes == [batch * layers * (2 * hidden + memory)] * 2


@torch.no_grad()
def test_the_state_is_kept_in_float32(name):
    model = make(name).bfloat16()
    cache = model(ids(), use_cache=True).past_key_values
    assert all(layer.recurrent_states[0].dtype == torch.float32 for layer in cache.layers)


def test_assisted_generation_is_refused(name):
    with pytest.raises(ValueError, match="(?i)stateful"):
        make(name).generate(ids(1), prompt_lookup_num_tokens=3, max_new_tokens=4)


def test_training_pulls_the_largest_logit_towards_zero(name):
    """The gradient of L2Wrap: 1e-4 max / N on the largest logit of each token that counts, and none in the loss."""
    model, plain = make(name), make(name, l2_wrap_coefficient=0.0)
    tokens = ids()
    labels = tokens.clone()
    labels[0, 5:] = -100
    seen = []
    for each in (model, plain):
        outputs = each(tokens, labels=labels)
        outputs.logits.retain_grad()
        outputs.loss.backward()
        seen.append((outputs.loss.detach(), outputs.logits.grad))
    assert torch.equal(seen[0][0], seen[1][0])
    logits = plain(tokens).logits.detach()
    counts = torch.nn.functional.pad(labels[:, 1:] != -100, (0, 1))
    largest, where = logits.max(-1, keepdim=True)
    expected = torch.zeros_like(logits).scatter_(-1, where, 1e-4 * largest / counts.sum()) * counts[..., None]
    assert_close(seen[0][1] - seen[1][1], expected, atol=1e-8, rtol=1e-3)  # a small difference of larger numbers


def test_the_embedding_starts_tiny_and_the_head_orthogonal(name):
    model = hf_zoo.create_model("rwkv6-tiny" if name == "rwkv5" else name)
    assert 0.9e-4 < model.get_input_embeddings().weight.abs().max() <= 1e-4
    head = model.lm_head.weight
    assert_close(head.T @ head, torch.eye(64) * 0.25 * 512 / 64, atol=1e-4, rtol=1e-3)
    assert not any(block.mixer.o_proj.weight.any() or block.mlp.down_proj.weight.any() for block in model.model.layers)


# RWKV-4


def test_rwkv4_starts_as_published():
    model = hf_zoo.create_model("rwkv4-tiny", num_hidden_layers=3)
    mixer, h = model.model.layers[1].mixer, torch.arange(64)
    assert_close(mixer.time_decay, -5 + 8 * (h / 63) ** (0.7 + 1.3 * 0.5))
    assert_close(mixer.time_first, math.log(0.3) + 0.5 * ((h + 1) % 3 - 1))
    assert_close(mixer.mix_k, (h / 64) ** (2 / 3))
    assert_close(mixer.mix_v, (h / 64) ** (2 / 3) + 0.15)
    assert_close(mixer.mix_r, (h / 64) ** (1 / 3))
    assert not mixer.k_proj.weight.any() and not mixer.r_proj.weight.any()


@torch.no_grad()
@pytest.mark.parametrize("rescale_every", [0, 2])
def test_rwkv4_equals_upstream_step_by_step(rescale_every, tmp_path):
    """One row at a time, which is all that upstream can decode; also where it halves its weights in evaluation."""
    torch.manual_seed(0)
    config = RwkvConfig(vocab_size=64, hidden_size=32, num_hidden_layers=5, rescale_every=rescale_every)
    upstream = RwkvForCausalLM(config)
    for parameter in upstream.parameters():
        parameter.normal_(0, 0.3)
    upstream.save_pretrained(tmp_path)
    ours = ARCHITECTURES["zoo_rwkv4"].model_class().from_pretrained(tmp_path).eval()
    upstream.eval()
    state = cache = None
    for token in ids(rows=1).split(1, dim=1):
        expected = upstream(token, state=state, use_cache=True)
        got = ours(token, past_key_values=cache, use_cache=True)
        state, cache = expected.state, got.past_key_values
        # where upstream halves its hidden states, the eps of its norms weighs more
        tolerance = 2e-5 if rescale_every == 0 else 2e-3
        assert_close(got.logits, expected.logits, atol=tolerance, rtol=1e-4)


def test_rwkv4_gradients_equal_upstream(tmp_path):
    torch.manual_seed(0)
    upstream = RwkvForCausalLM(RwkvConfig(vocab_size=64, hidden_size=32, num_hidden_layers=2)).train()
    with torch.no_grad():
        for parameter in upstream.parameters():
            parameter.normal_(0, 0.3)
    upstream.save_pretrained(tmp_path)
    ours = ARCHITECTURES["zoo_rwkv4"].model_class().from_pretrained(tmp_path, l2_wrap_coefficient=0.0).train()
    losses = [model(ids(), labels=ids()).loss for model in (ours, upstream)]
    assert_close(*losses)
    for loss in losses:
        loss.backward()
    block, theirs = ours.model.layers[1], upstream.rwkv.blocks[1]
    pairs = [
        (block.mixer.time_decay, theirs.attention.time_decay),
        (block.mixer.time_first, theirs.attention.time_first),
        (block.mixer.k_proj.weight, theirs.attention.key.weight),
        (block.mixer.mix_v, theirs.attention.time_mix_value),
        (block.mlp.mix_r, theirs.feed_forward.time_mix_receptance),
        (ours.model.embed_norm.weight, upstream.rwkv.blocks[0].pre_ln.weight),
    ]
    for mine, other in pairs:
        assert_close(mine.grad, other.grad.view_as(mine.grad), atol=1e-5, rtol=1e-3)  # sums in another order


# RWKV-5 and 6


@torch.no_grad()
def test_rwkv5_is_rwkv6_on_which_tokens_have_no_influence():
    fifth, sixth = make("rwkv5"), make("rwkv6-tiny")
    missing = sixth.load_state_dict(fifth.state_dict(), strict=False).missing_keys
    for block in sixth.model.layers:
        block.mixer.decay.down.weight.zero_()
        block.mixer.shift_down.weight.zero_()
    assert all(any(part in key for part in ("decay.", "shift_", "mix_x", "mix.w")) for key in missing)
    assert_close(sixth(ids()).logits, fifth(ids()).logits)


def test_rwkv6_starts_as_published():
    model = hf_zoo.create_model("rwkv6-tiny", num_hidden_layers=3)
    mixer, n = model.model.layers[1].mixer, torch.arange(64)
    assert_close(mixer.time_decay, -6 + 5 * (n / 63) ** (0.7 + 1.3 * 0.5))
    assert_close(mixer.time_first.flatten(), 0.5 * (1 - n / 63) + 0.1 * ((n + 1) % 3 - 1))
    assert_close(mixer.mix["k"], 1 - (n / 64) ** (2 / 3))
    assert_close(mixer.mix["v"], 1 - (n / 64) ** (2 / 3) - 0.15)
    assert_close(mixer.mix["g"], 1 - (n / 64) ** (1 / 3))
    assert not mixer.shift_down.weight.any() and 0.009 < mixer.shift_up.abs().max() <= 0.01
    assert_close(mixer.head_norm.weight, torch.full((64,), (2 / 3) ** 0.7))


# RWKV-7


def test_rwkv7_starts_as_published():
    model = hf_zoo.create_model("rwkv7-tiny", num_hidden_layers=3)
    mixer, n = model.model.layers[1].mixer, torch.arange(64)
    line, s = n / 63 - 0.5, (n % 16 - 7.5) / 7.5
    zigzag = s * s.abs()
    assert_close(mixer.decay.bias, -6 + 6 * (n / 63) ** (1 + 0.5**0.3) + 0.5 + 2.5 * zigzag)
    assert_close(mixer.rate.bias, -0.19 + 0.3 * zigzag + 0.4 * line)
    assert_close(mixer.value.bias, 0.73 - 0.4 * line)
    assert_close(mixer.k_k, 0.71 - 0.1 * line)
    assert (mixer.k_a == 1.02).all() and (mixer.r_k == -0.04).all()
    assert_close(mixer.mix["r"], 1 - (n / 64) ** (0.2 * 2 / 3))
    assert_close(mixer.head_norm.weight, torch.full((64,), (2 / 3) ** 0.7))
    assert not mixer.gate.down.weight.any()
    assert model.model.layers[0].mixer.value is None


def test_first_values_reach_later_layers_with_their_gradient():
    model = make("rwkv7-tiny", num_hidden_layers=3).train()
    seen = []
    for is_on in (False, True):
        if is_on:
            model.gradient_checkpointing_enable()
        model.zero_grad()
        # Only the first layer's values are let through: its own output is cut off
        with torch.no_grad():
            model.model.layers[0].mixer.o_proj.weight.zero_()
        outputs = model(ids(), labels=ids(), output_hidden_states=True)
        outputs.loss.backward()
        grad = model.model.layers[0].mixer.v_proj.weight.grad
        assert grad.abs().max() > 0
        assert len(outputs.hidden_states) == 4
        assert all(state.shape == (2, 12, 32) for state in outputs.hidden_states)
        seen.append(grad.clone())
    assert torch.equal(*seen)


def test_the_mixer_alone_is_a_first_layer():
    torch.manual_seed(0)
    mixer = Rwkv7Mixer(32, 16, 8, 8, 8, value_rank=8)
    x, v_first = torch.randn(2, 7, 32), torch.randn(2, 7, 32)
    torch.nn.init.normal_(mixer.o_proj.weight)
    alone, (window, memory) = mixer(x)
    assert (alone.shape, window.shape, memory.shape) == ((2, 7, 32), (2, 32, 1), (2, 2, 16, 16))
    assert not torch.allclose(mixer(x, v_first=v_first)[0], alone)


def test_decays_are_bounded():
    """exp(-exp(-1/2)) < w < 1, whatever the token."""
    model, seen = make("rwkv7-tiny"), []
    original = rwkv7_mixer.delta_rule
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rwkv7_mixer, "delta_rule", lambda r, w, *args: seen.append(w) or original(r, w, *args))
        for scale in (1.0, 1e3):
            model(inputs_embeds=torch.randn(1, 9, 32) * scale)
            for block in model.model.layers:
                block.mixer.decay.up.weight.data *= scale
    w = torch.stack(seen).exp()
    assert 0.545 < w.min() and w.max() <= 1.0


@pytest.mark.parametrize("limit", [1.0, 2.0])
@torch.no_grad()
def test_rates_are_bounded_by_their_limit(limit):
    mixer = make("rwkv7-tiny", rate_limit=limit).model.layers[0].mixer
    mixer.rate.bias.fill_(1e3)
    seen, original = [], rwkv7_mixer.delta_rule
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rwkv7_mixer, "delta_rule", lambda *args: seen.append(args[4:6]) or original(*args))
        mixer(torch.randn(1, 5, 32))
    ((a, b),) = seen
    assert_close(b, -limit * a)


@pytest.mark.parametrize(
    ("preset", "field", "value", "message"),
    [
        ("rwkv7-tiny", "head_size", 24, "hidden_size must be a multiple of head_size: 64 is not a multiple of 24"),
        ("rwkv6-tiny", "head_size", 24, "hidden_size must be a multiple of head_size: 64 is not a multiple of 24"),
        ("rwkv7-tiny", "gate_rank", 0, "gate_rank must be at least 1, got 0"),
        ("rwkv7-tiny", "rate_limit", 2.5, "rate_limit must be above 0 and at most 2, got 2.5"),
        ("rwkv6-tiny", "decay_rank", 0, "decay_rank must be at least 1, got 0"),
        ("rwkv4-tiny", "l2_wrap_coefficient", -1.0, "l2_wrap_coefficient must be at least 0, got -1.0"),
    ],
)
def test_wrong_sizes_are_named(preset, field, value, message):
    with pytest.raises(ValueError, match=message):
        hf_zoo.create_config(preset, **{field: value})
