"""What is special about latent attention: a small cache, further tokens in training, an encoder."""

import pytest
import torch
from torch.testing import assert_close
from transformers import Trainer, TrainingArguments

import hf_zoo
from hf_zoo.modeling.layers.mixture_of_experts import MixtureOfExperts
from hf_zoo.training.expert_load import ExpertLoad, find_routers

SIZES = {"vocab_size": 64, "hidden_size": 32, "intermediate_size": 48}
OPTIONS = {
    "v3": {},
    "v2": {"router_type": "deepseek", "q_lora_rank": None, "n_group": 4, "topk_group": 2},
    "dense": {"first_k_dense_replace": 2},
    "halves": {"rope_interleave": False},
    "stretched": {
        "rope_parameters": {
            **{"rope_type": "yarn", "rope_theta": 1e4, "factor": 8.0, "original_max_position_embeddings": 16},
            **{"mscale": 1.0, "mscale_all_dim": 1.0},
        }
    },
    "biases": {"attention_bias": True, "mlp_bias": True},
    "mixtral experts": {"router_type": "mixtral", "n_shared_experts": 0},
    "further tokens": {"num_nextn_predict_layers": 2},
}


def make(task=None, seed=0, **options):
    torch.manual_seed(seed)
    model = hf_zoo.create_model("mla-tiny", task, **{**SIZES, **options}).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return model


def ids(rows=2, tokens=12):
    return torch.randint(1, 64, (rows, tokens), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", OPTIONS)
@torch.no_grad()
def test_options_keep_the_promises_of_the_sweep(name):
    """Backends agree, padding changes nothing, cached steps are right, every option changes the function."""
    model, tokens = make(**OPTIONS[name]), ids()
    expected = model(tokens).logits
    if name not in ("v3", "further tokens"):
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


@torch.no_grad()
def test_the_cache_holds_a_latent_and_a_rotary_key_a_token():
    model = make()
    cache = model(ids(tokens=9), use_cache=True).past_key_values
    assert [(layer.keys.shape, layer.values.shape) for layer in cache.layers] == [((2, 1, 9, 24), (2, 1, 9, 8))] * 2
    published = hf_zoo.create_config("deepseek-v2")
    assert published.kv_lora_rank + published.qk_rope_head_dim == 576
    assert published.num_attention_heads * (published.qk_nope_head_dim + published.v_head_dim) == 32768


@torch.no_grad()
def test_decoding_multiplies_by_no_key_or_value_of_the_past():
    model = make()
    cache, seen = model(ids(), use_cache=True).past_key_values, []
    for layer in model.model.layers:
        expand = layer.self_attn.expand
        layer.self_attn.expand = lambda *args, expand=expand: seen.append(1) or expand(*args)
    model(ids()[:, :1], past_key_values=cache, use_cache=True)
    assert not seen
    model(ids())
    assert seen == [1, 1]


@torch.no_grad()
def test_an_encoder_sees_both_ways_and_keeps_no_cache():
    model, tokens = make("feature-extraction", is_causal=False), ids()
    outputs = model(tokens)
    assert outputs.past_key_values is None
    changed = tokens.clone()
    changed[:, 7:] = 5
    for backend in ("eager", "sdpa"):
        model.set_attn_implementation(backend)
        expected = model(tokens).last_hidden_state
        assert (model(changed).last_hidden_state[:, 0] - expected[:, 0]).abs().max() > 1e-3
        assert_close(expected, outputs.last_hidden_state, atol=2e-5, rtol=1e-4)
        wide = torch.cat((tokens, torch.full((2, 3), 9)), 1)
        mask = torch.cat((torch.ones_like(tokens), torch.zeros(2, 3, dtype=torch.long)), 1)
        padded = model(wide, attention_mask=mask).last_hidden_state[:, :12]
        assert_close(padded, expected, atol=2e-5, rtol=1e-4)
        positions = torch.cat((torch.arange(5), torch.arange(7)))[None]
        packed = model(tokens[:1], position_ids=positions).last_hidden_state
        apart = [model(part).last_hidden_state for part in (tokens[:1, :5], tokens[:1, 5:])]
        assert_close(packed, torch.cat(apart, 1), atol=2e-5, rtol=1e-4)


def test_an_encoder_is_no_language_model():
    with pytest.raises(ValueError, match="is_causal=False makes an encoder"):
        make(is_causal=False)
    config = hf_zoo.create_config("mla-tiny", is_causal=False, router_type="expert_choice", n_shared_experts=0)
    assert config.router_type == "expert_choice"  # which looks at later tokens, as an encoder may
    with pytest.raises(ValueError, match="allow_noncausal_routing"):
        hf_zoo.create_config("mla-tiny", router_type="expert_choice")


# further tokens


def by_hand(model, tokens, depth):
    """Logits of the modules up to a depth, one row of them after the other."""
    hidden = model.model(tokens).last_hidden_state
    for d in range(1, depth + 1):
        module, embedded = model.mtp[d - 1], model.model.embed_tokens(tokens)[:, d:]
        hidden = hidden[:, :-1]
        x = module.eh_proj(torch.cat((module.hnorm(hidden), module.enorm(embedded)), -1))
        length = x.shape[1]
        mask = torch.full((length, length), -torch.inf).triu(1)[None, None]
        positions = model.model.rotary_emb(x, torch.arange(length)[None])
        block = module.block
        x = x + block.self_attn(block.mixer_norm(x), mask, position_embeddings=positions)[0]
        y = block.mlp(block.mlp_norm(x))
        hidden = module.norm(x + (y[0] if isinstance(block.mlp, MixtureOfExperts) else y))
    return model.lm_head(hidden)


@pytest.mark.parametrize("backend", ["eager", "sdpa"])
def test_further_tokens_are_predicted_from_the_hidden_state_and_the_token_between(backend):
    model, tokens = make(num_nextn_predict_layers=2, router_aux_loss_coef=0.0), ids()
    model.set_attn_implementation(backend)
    plain = model(tokens, labels=tokens).loss
    trained = model.train()(tokens, labels=tokens).loss
    expected = []
    model.set_attn_implementation("eager")
    for depth in (1, 2):
        logits = by_hand(model.eval(), tokens, depth)[:, :-1]
        expected.append(torch.nn.functional.cross_entropy(logits.flatten(0, 1), tokens[:, depth + 1 :].flatten()))
    assert_close(trained, plain + 0.3 * sum(expected) / 2, atol=1e-5, rtol=1e-5)


def test_further_tokens_of_padded_and_packed_rows():
    model, tokens = make(num_nextn_predict_layers=1, router_aux_loss_coef=0.0).train(), ids(1)
    expected = model(tokens, labels=tokens).loss
    for side in ("left", "right"):
        pads, ones = torch.full((1, 3), 9), torch.ones_like(tokens)
        order = (lambda a, b: (a, b)) if side == "left" else (lambda a, b: (b, a))
        wide, mask = torch.cat(order(pads, tokens), 1), torch.cat(order(pads * 0, ones), 1)
        labels = wide.masked_fill(mask == 0, -100)
        padded = model(wide, attention_mask=mask, labels=labels).loss
        # on the left the first real tokens are asked for too, from pads; their share is the only difference
        if side == "right":
            assert_close(padded, expected, atol=2e-5, rtol=1e-4)
        assert padded.isfinite()
    parts = [tokens[:, :5], tokens[:, 5:]]
    positions = torch.cat((torch.arange(5), torch.arange(7)))[None]
    labels = tokens.clone()
    labels[0, 5] = -100  # the first of a document is not asked for
    packed = model(tokens, position_ids=positions, labels=labels, num_items_in_batch=10).loss
    apart = [model(part, labels=part, num_items_in_batch=10).loss for part in parts]
    assert_close(packed, sum(apart), atol=2e-5, rtol=1e-4)


def test_modules_of_further_tokens_learn_and_are_saved(tmp_path):
    model, tokens = make(num_nextn_predict_layers=1).train(), ids()
    model(tokens, labels=tokens).loss.backward()
    silent = [n for n, p in model.named_parameters() if p.grad is None or p.grad.abs().max() < 1e-9]
    assert silent == []
    assert all(router.pending_load.sum() > 0 for router in find_routers(model))
    assert len(find_routers(model)) == 2
    model.save_pretrained(tmp_path)
    again = type(model).from_pretrained(tmp_path)
    assert all(
        torch.equal(a, b) for a, b in zip(model.state_dict().values(), again.state_dict().values(), strict=True)
    )
    model(tokens[:, :2], labels=tokens[:, :2]).loss.backward()  # too short to have a token after the next


@pytest.mark.parametrize("is_reentrant", [False, True])
def test_checkpoints_change_nothing_with_further_tokens(is_reentrant):
    results = []
    for is_on in (False, True):
        model = make(num_nextn_predict_layers=1).train()
        if is_on:
            model.gradient_checkpointing_enable({"use_reentrant": is_reentrant})
            model.enable_input_require_grads()
        loss = model(ids(4), labels=ids(4)).loss
        loss.backward()
        loads = [router.pending_load.clone() for router in find_routers(model)]
        results.append([loss, *(p.grad for p in model.parameters()), *loads])
    for plain, checkpointed in zip(*results, strict=True):
        assert_close(checkpointed, plain)


@pytest.mark.slow
def test_training_resumes_to_the_same_bits(tmp_path):
    rows = [{"input_ids": row, "labels": row} for row in ids(64)]
    models = {}
    for part, resume in (("whole", None), ("again", tmp_path / "whole" / "checkpoint-4")):
        model = make(num_nextn_predict_layers=1, attention_dropout=0.1, residual_dropout=0.1)
        arguments = TrainingArguments(
            tmp_path / part, max_steps=8, learning_rate=1e-2, per_device_train_batch_size=4, report_to=[],
            use_cpu=True, save_steps=4,
        )  # fmt: skip
        trainer = Trainer(model, arguments, train_dataset=rows, callbacks=[ExpertLoad()])
        trainer.train(resume_from_checkpoint=None if resume is None else str(resume))
        models[part] = model.state_dict()
    assert all(torch.equal(models["whole"][key], models["again"][key]) for key in models["whole"])


@pytest.mark.parametrize(
    "options, field",
    [
        ({"kv_lora_rank": 0}, "kv_lora_rank"),
        ({"q_lora_rank": 0}, "q_lora_rank"),
        ({"v_head_dim": -1}, "v_head_dim"),
        ({"qk_rope_head_dim": 7}, "qk_rope_head_dim must be even"),
        ({"num_nextn_predict_layers": -1}, "num_nextn_predict_layers must be at least 0"),
        ({"hidden_act": "gleu"}, "hidden_act 'gleu'"),
        ({"rope_parameters": {"rope_type": "spiral", "rope_theta": 1.0}}, "rope_type 'spiral'"),
        ({"router_type": "roulette"}, "router_type"),
    ],
)
def test_numbers_that_do_not_fit_are_named(options, field):
    with pytest.raises(ValueError, match=field):
        hf_zoo.create_config("mla-tiny", **{**SIZES, **options})
