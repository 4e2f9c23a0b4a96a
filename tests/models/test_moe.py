"""What is special about experts: their load, the losses that balance it, and training that resumes exactly."""

import json
import math

import peft
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.testing import assert_close
from transformers import Trainer, TrainingArguments
from transformers.models.mixtral.modeling_mixtral import load_balancing_loss_func

import hf_zoo
from hf_zoo.lora import count_lora_parameters
from hf_zoo.modeling.layers.mlp import GatedMLP
from hf_zoo.modeling.moe.modeling_moe import ZooMoeForCausalLM
from hf_zoo.training.expert_load import ExpertLoad, find_routers, load_entropy

SIZES = {"vocab_size": 64, "hidden_size": 32, "intermediate_size": 32, "num_attention_heads": 4, "num_experts": 8}
GROUPS = {"n_group": 4, "topk_group": 2, "num_experts_per_tok": 4}
V3 = {"router_type": "deepseek_v3", "norm_topk_prob": True, "seq_aux": True, "router_bias_update_speed": 0.01}
OPTIONS = {
    "switch": {"router_type": "switch", "num_experts_per_tok": 1},
    "gshard": {"router_type": "gshard"},
    "mixtral": {},
    "mixtral noisy": {"router_jitter_noise": 0.1, "router_z_loss_coef": 0.01},
    "expert choice": {"router_type": "expert_choice", "allow_noncausal_routing": True},
    "deepseek": {"router_type": "deepseek", "n_shared_experts": 2, "first_k_dense_replace": 1},
    "deepseek groups": {"router_type": "deepseek", **GROUPS, "routed_scaling_factor": 4.0, "n_shared_experts": 1},
    "deepseek v3": {**V3, **GROUPS, "n_shared_experts": 1, "routed_scaling_factor": 2.5},
    "hierarchical": {"router_type": "hierarchical", **GROUPS},
    "hierarchical bounded": {"router_type": "hierarchical", **GROUPS, "capacity_factor": 1.0},
    "every other layer": {"moe_layer_freq": 2, "moe_intermediate_size": 24},
    "plain experts": {"is_gated_mlp": False, "hidden_act": "relu", "n_shared_experts": 1},
    "post norm": {"block_layout": "post", "scale_residual_init": True},
    "parallel": {"block_layout": "parallel", "positions": "alibi"},
}


def make(seed=0, **options):
    torch.manual_seed(seed)
    model = hf_zoo.create_model("moe-tiny", **{**SIZES, "num_hidden_layers": 2, **options}).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return model


def ids(rows=2, tokens=12):
    return torch.randint(1, 64, (rows, tokens), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", OPTIONS)
@torch.no_grad()
def test_options_keep_the_promises_of_the_sweep(name):
    """Padding changes nothing, cached steps are right, nothing is refused when it generates."""
    model, tokens = make(**OPTIONS[name]), ids()
    expected = model(tokens).logits
    pads, ones = torch.full((2, 3), 9), torch.ones_like(tokens)
    wide = {"input_ids": torch.cat((pads, tokens), 1), "attention_mask": torch.cat((pads * 0, ones), 1)}
    assert_close(model(**wide).logits[:, 3:], expected, atol=2e-5, rtol=1e-4)
    outputs, steps = model(tokens[:, :5], use_cache=True), []
    for t in range(5, 12):
        outputs = model(tokens[:, t : t + 1], past_key_values=outputs.past_key_values, use_cache=True)
        steps.append(outputs.logits)
    assert_close(torch.cat(steps, 1), expected[:, 5:], atol=2e-5, rtol=1e-4)
    changed = tokens.clone()
    changed[:, 7:] = 5
    assert_close(model(changed).logits[:, :7], expected[:, :7], atol=2e-5, rtol=1e-4)
    for function in ("eager", "batched_mm", "grouped_mm"):
        model.set_experts_implementation(function)
        assert_close(model(tokens).logits, expected, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("name", OPTIONS)
def test_every_option_trains_and_reloads(name, tmp_path):
    model, tokens = make(**OPTIONS[name]).train(), ids(4)
    model(tokens, labels=tokens).loss.backward()
    silent = [n for n, p in model.named_parameters() if p.grad is None or p.grad.abs().max() < 1e-9]
    assert silent == []
    for router in find_routers(model):
        for buffer in router.buffers():
            buffer.add_(torch.rand_like(buffer))
    model.save_pretrained(tmp_path)
    again = type(model).from_pretrained(tmp_path)
    before, after = model.state_dict(), again.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key], after[key]) for key in before)


def test_models_start_with_the_function_that_sorts():
    assert make().config._experts_implementation == "zoo_sorted"
    config = hf_zoo.create_config("moe-tiny")
    assert (
        ZooMoeForCausalLM._from_config(config, experts_implementation="eager").config._experts_implementation
        == "eager"
    )


def test_layers_may_be_dense():
    kinds = [type(layer.mlp) for layer in make(num_hidden_layers=5, first_k_dense_replace=1).model.layers]
    assert [kind is GatedMLP for kind in kinds] == [True, False, False, False, False]
    kinds = [type(layer.mlp) for layer in make(num_hidden_layers=4, moe_layer_freq=2).model.layers]
    assert [kind is GatedMLP for kind in kinds] == [True, False, True, False]


def test_residual_projections_may_start_small():
    options = {"scale_residual_init": True, "num_hidden_layers": 8, "n_shared_experts": 1}
    mlp = hf_zoo.create_model("moe-tiny", **options).model.layers[3].mlp
    for weight in (mlp.experts.down_proj, mlp.shared_experts.down_proj.weight):
        assert weight.std().item() == pytest.approx(0.02 / 4, rel=0.1)
    assert mlp.experts.gate_up_proj.std().item() == pytest.approx(0.02, rel=0.1)


# losses


def test_the_losses_are_those_of_transformers_and_are_added_in_training():
    model, tokens = make(num_hidden_layers=1, router_aux_loss_coef=0.3, router_z_loss_coef=0.1), ids()
    plain = model(tokens, labels=tokens)
    assert (plain.aux_loss, plain.z_loss, plain.router_logits) == (None, None, None)
    asked = model(tokens, labels=tokens, output_router_logits=True)
    (logits,) = asked.router_logits
    assert_close(asked.aux_loss, load_balancing_loss_func((logits,), 8, 2))
    assert_close(asked.z_loss, logits.logsumexp(-1).square().mean())
    assert_close(asked.loss, plain.loss)  # evaluation compares with models without experts
    trained = model.train()(tokens, labels=tokens)
    assert_close(trained.loss, plain.loss + 0.3 * asked.aux_loss + 0.1 * asked.z_loss)


@pytest.mark.parametrize("task", ["sequence-classification", "token-classification", "question-answering"])
def test_all_heads_add_the_losses_of_the_router(task):
    losses = []
    for coefficient in (0.0, 10.0):
        torch.manual_seed(0)
        model = hf_zoo.create_model("moe-tiny", task, **SIZES, router_aux_loss_coef=coefficient).train()
        labels = {"labels": ids() % 2 if task == "token-classification" else torch.tensor([0, 1])}
        if task == "question-answering":
            labels = {"start_positions": torch.tensor([0, 1]), "end_positions": torch.tensor([2, 3])}
        losses.append(model(ids(), **labels).loss.item())
    assert losses[1] > losses[0] + 10


def test_losses_of_accumulated_batches_add_up_to_one_mean():
    model, tokens = make(router_z_loss_coef=0.1).train(), ids(4)
    labels = tokens.clone()
    labels[0, 5:] = -100
    items = (labels[:, 1:] != -100).sum()
    parts = [model(tokens[i : i + 2], labels=labels[i : i + 2], num_items_in_batch=items) for i in (0, 2)]
    task = [model.eval()(tokens[i : i + 2], labels=labels[i : i + 2], num_items_in_batch=items) for i in (0, 2)]
    shares = [(labels[i : i + 2, 1:] != -100).sum() / items for i in (0, 2)]
    for part, alone, share in zip(parts, task, shares, strict=True):
        side = model.config.router_aux_loss_coef * part.aux_loss + 0.1 * part.z_loss
        assert_close(part.loss, alone.loss + share * side)


@pytest.mark.parametrize("name", ["switch", "mixtral", "deepseek v3", "expert choice"])
@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_has_no_part_in_losses_capacity_and_load(side, name):
    model, tokens = make(**{**OPTIONS[name], "router_jitter_noise": 0.0, "seq_aux": False}).train(), ids()
    pads, ones = torch.full((2, 5), 9), torch.ones_like(tokens)
    order = (lambda a, b: (a, b)) if side == "left" else (lambda a, b: (b, a))
    mask = torch.cat(order(pads * 0, ones), 1)
    plain, wide = model(tokens), model(torch.cat(order(pads, tokens), 1), attention_mask=mask)
    assert_close(wide.logits[mask.bool()].view(plain.logits.shape), plain.logits, atol=2e-5, rtol=1e-4)
    assert_close((wide.aux_loss, wide.z_loss), (plain.aux_loss, plain.z_loss), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("is_reentrant", [False, True])
@pytest.mark.parametrize("name", ["switch", "deepseek v3", "expert choice"])
def test_checkpoints_that_recompute_change_no_loss_and_count_once(name, is_reentrant):
    results = []
    for is_on in (False, True):
        model = make(**OPTIONS[name]).train()
        if is_on:
            model.gradient_checkpointing_enable({"use_reentrant": is_reentrant})
            model.enable_input_require_grads()
        torch.manual_seed(3)
        outputs = model(ids(4), labels=ids(4))
        outputs.loss.backward()
        buffers = [buffer.clone() for router in find_routers(model) for buffer in router.buffers()]
        results.append([outputs.loss, outputs.aux_loss, *(p.grad for p in model.parameters()), *buffers])
    for plain, checkpointed in zip(*results, strict=True):
        assert_close(checkpointed, plain)


# balance


def entropy(model, batch):
    """Load entropy over log E, layer by layer."""
    loads = []
    hooks = [r.register_forward_hook(lambda _, x, y: loads.append(y.experts)) for r in find_routers(model)]
    with torch.no_grad():
        model(batch)
    for hook in hooks:
        hook.remove()
    return [load_entropy(experts.flatten().bincount(minlength=8).float()) for experts in loads]


@pytest.mark.parametrize("is_balanced", [True, False])
def test_a_collapsed_router_recovers_with_the_loss_and_not_without(is_balanced):
    """All tokens prefer expert 0 at the start, by a direction that all embeddings share."""
    options = {"router_type": "switch", "num_experts_per_tok": 1, "num_hidden_layers": 1, "drop_tokens": False}
    if not is_balanced:
        options |= {"router_aux_loss_coef": 0.0, "router_z_loss_coef": 0.0}
    torch.manual_seed(0)
    model = hf_zoo.create_model("moe-tiny", **SIZES, **options).train()
    with torch.no_grad():
        model.model.embed_tokens.weight.normal_()[:, 0] += 5.0
        model.model.layers[0].mlp.gate.weight[0, 0] += 5.0
    generator = torch.Generator().manual_seed(0)
    clusters = torch.randint(1, 64, (256, 16), generator=generator)  # a text keeps to one of eight alphabets
    clusters = 8 * (torch.arange(256) % 8)[:, None] + clusters % 8
    assert entropy(model, clusters)[0] < 0.1
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for step in range(200):
        batch = clusters[(32 * step) % 256 :][:32]
        model(batch, labels=batch).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
    assert (entropy(model, clusters)[0] > 0.9) == is_balanced


def test_the_bias_moves_once_a_step_whatever_is_accumulated_or_recomputed(tmp_path):
    rows = [{"input_ids": row, "labels": row} for row in ids(8)]
    found = []
    for size, accumulate, checkpoint in ((8, 1, False), (2, 4, False), (2, 4, True)):
        model = make(**V3, attention_dropout=0.0)
        arguments = TrainingArguments(
            tmp_path, max_steps=1, learning_rate=0.0, per_device_train_batch_size=size, report_to=[], use_cpu=True,
            gradient_accumulation_steps=accumulate, gradient_checkpointing=checkpoint, save_strategy="no",
        )  # fmt: skip
        Trainer(model, arguments, train_dataset=rows, callbacks=[ExpertLoad()]).train()
        biases = [router.e_score_correction_bias for router in find_routers(model)]
        assert all(torch.equal(b, 0.01 * b.sign()) for b in biases)
        assert all(router.pending_load.sum() == 0 for router in find_routers(model))
        found.append(torch.stack(biases))
    assert found[0].abs().max() > 0
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mixtral", "switch", "deepseek v3", "expert choice"])
def test_training_resumes_to_the_same_bits(name, tmp_path):
    rows = [{"input_ids": row, "labels": row} for row in ids(64)]
    models = {}
    for part, resume in (("whole", None), ("again", tmp_path / "whole" / "checkpoint-4")):
        model = make(**OPTIONS[name], attention_dropout=0.1)
        arguments = TrainingArguments(
            tmp_path / part, max_steps=8, learning_rate=1e-2, per_device_train_batch_size=4, report_to=[],
            use_cpu=True, save_steps=4, gradient_accumulation_steps=2,
        )  # fmt: skip
        trainer = Trainer(model, arguments, train_dataset=rows, callbacks=[ExpertLoad()])
        trainer.train(resume_from_checkpoint=None if resume is None else str(resume))
        models[part] = model.state_dict()
    assert all(torch.equal(models["whole"][key], models["again"][key]) for key in models["whole"])


def test_the_log_has_load_and_dropped_tokens(tmp_path):
    history = hf_zoo_train(tmp_path, **OPTIONS["switch"])
    entries = [entry for entry in history if "loss" in entry]
    assert entries and all(0 < entry["expert_load_entropy"] <= 1 for entry in entries)
    assert all(0 <= entry["dropped_tokens"] < 1 for entry in entries)


def hf_zoo_train(folder, **options):
    """`hf-zoo train` for two steps; its log."""
    from datasets import Dataset

    from hf_zoo.training.train import train

    model = hf_zoo.create_model("moe-tiny", **options)
    dataset = Dataset.from_dict({"text": ["def f(x): return x + 1"] * 8})
    tokenizer = hf_zoo.create_processor("moe-tiny")
    trainer = train(
        model, dataset, tokenizer=tokenizer, output_dir=str(folder), max_steps=2, logging_steps=1, block_size=32
    )
    return trainer.state.log_history


def test_entropy_of_a_load():
    assert load_entropy(torch.tensor([5.0, 5.0, 5.0])) == pytest.approx(1.0)
    assert load_entropy(torch.tensor([9.0, 0.0, 0.0])) == 0.0
    assert load_entropy(torch.tensor([1.0, 3.0])) == pytest.approx(2 - 0.75 * math.log2(3))


# folders, adapters, configurations


def test_a_folder_of_deepseek_moe_opens(tmp_path):
    """Written here as the published code writes it: every expert on its own, fields under that code's names."""
    model = make(router_type="deepseek", n_shared_experts=2, first_k_dense_replace=1, moe_intermediate_size=24)
    weights = {}
    for name, tensor in model.state_dict().items():
        name = name.replace("mixer_norm", "input_layernorm").replace("mlp_norm", "post_attention_layernorm")
        if ".experts.gate_up_proj" in name:
            for e, (gate, up) in enumerate(t.chunk(2) for t in tensor):
                weights[name.replace("gate_up_proj", f"{e}.gate_proj.weight")] = gate.clone()
                weights[name.replace("gate_up_proj", f"{e}.up_proj.weight")] = up.clone()
        elif ".experts.down_proj" in name:
            weights |= {name.replace("down_proj", f"{e}.down_proj.weight"): t.clone() for e, t in enumerate(tensor)}
        else:
            weights[name] = tensor.clone()
    assert "model.layers.1.mlp.shared_experts.gate_proj.weight" in weights
    assert "model.layers.1.mlp.experts.7.down_proj.weight" in weights
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    config = {
        **{"model_type": "deepseek", "architectures": ["DeepseekForCausalLM"], "vocab_size": 64, "hidden_size": 32},
        **{"intermediate_size": 32, "moe_intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4},
        **{"num_key_value_heads": 2, "n_shared_experts": 2, "n_routed_experts": 8, "num_experts_per_tok": 2},
        **{"moe_layer_freq": 1, "first_k_dense_replace": 1, "norm_topk_prob": False, "scoring_func": "softmax"},
        **{"aux_loss_alpha": 0.001, "seq_aux": True, "hidden_act": "silu", "max_position_embeddings": 512},
        **{"rms_norm_eps": 1e-5, "rope_theta": 10000.0, "rope_scaling": None, "tie_word_embeddings": False},
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    again = ZooMoeForCausalLM.from_pretrained(tmp_path).eval()
    assert_close(again(ids()).logits, model(ids()).logits)
    assert (again.config.router_type, again.config.seq_aux) == ("deepseek", True)
    (tmp_path / "config.json").write_text(json.dumps({**config, "scoring_func": "sigmoid"}))
    with pytest.raises(ValueError, match="scoring_func='sigmoid'"):
        ZooMoeForCausalLM.from_pretrained(tmp_path)
    with pytest.raises(ValueError, match="no deepseek to write"):
        hf_zoo.upstream.to_upstream(model, "deepseek")


def test_adapters_of_experts_are_counted_and_merge(tmp_path):
    model = make(n_shared_experts=1)
    config = hf_zoo.lora_config(model, r=4)
    assert set(config.target_parameters) == {"experts.gate_up_proj", "experts.down_proj"}
    linear = 4 * 2 * (32 + 32 + 32 + 16)  # q_proj and v_proj of two layers, the latter with half the heads
    assert count_lora_parameters(model, config) == linear + 2 * 4 * 8 * ((32 + 64) + (32 + 32))
    wrapped = peft.get_peft_model(model, config).train()
    loss = wrapped(input_ids=ids(), labels=ids()).loss
    loss.backward()
    learnt = {n for n, p in wrapped.named_parameters() if p.grad is not None and p.grad.abs().max() > 0}
    assert any("experts" in name for name in learnt)
    with torch.no_grad():
        for name, parameter in wrapped.named_parameters():
            if "lora_B" in name:
                parameter.normal_(0, 0.1)
    wrapped.eval()
    tuned = wrapped(input_ids=ids()).logits
    wrapped.save_pretrained(tmp_path)
    fresh = peft.PeftModel.from_pretrained(make(n_shared_experts=1), tmp_path).eval()
    assert_close(fresh(input_ids=ids()).logits, tuned)
    assert_close(wrapped.merge_and_unload()(ids()).logits, tuned, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("options", [{"lora_dropout": 0.1}, {"use_dora": True}, {"target_modules": ["k_proj"]}])
def test_experts_are_left_alone_where_peft_cannot_adapt_them(options):
    model = make()
    config = hf_zoo.lora_config(model, r=4, **options)
    assert config.target_parameters is None
    peft.get_peft_model(model, config)


def test_what_decides_stays_in_float32(tmp_path):
    make(**V3).save_pretrained(tmp_path)
    model = ZooMoeForCausalLM.from_pretrained(tmp_path, dtype=torch.bfloat16)
    mlp = model.model.layers[0].mlp
    assert {mlp.gate.weight.dtype, mlp.gate.e_score_correction_bias.dtype} == {torch.float32}
    assert mlp.experts.down_proj.dtype == torch.bfloat16
    assert load_file(tmp_path / "model.safetensors")["model.layers.0.mlp.gate.e_score_correction_bias"].shape == (8,)


def test_papers_coefficients_are_on_and_can_be_set():
    switch = hf_zoo.create_config("moe-tiny", **OPTIONS["switch"])
    assert (switch.router_aux_loss_coef, switch.router_z_loss_coef, switch.router_jitter_noise) == (0.01, 0.001, 0.01)
    assert switch.capacity_factor == 1.25
    assert hf_zoo.create_config("moe-tiny").router_aux_loss_coef == 0.02
    assert hf_zoo.create_config("moe-tiny", **V3).router_aux_loss_coef == 0.0001
    assert hf_zoo.create_config("moe-tiny", router_aux_loss_coef=0.0).router_aux_loss_coef == 0.0


@pytest.mark.parametrize(
    "options, field",
    [
        ({"num_experts_per_tok": 9}, "num_experts_per_tok must be from 1 to num_experts=8"),
        ({"num_experts": 0}, "num_experts=0, got 2"),
        ({"n_shared_experts": -1}, "n_shared_experts"),
        ({"first_k_dense_replace": -1}, "first_k_dense_replace"),
        ({"moe_layer_freq": 0}, "moe_layer_freq"),
        ({"router_type": "switch"}, "num_experts_per_tok must be 1"),
        ({"router_type": "gshard", "num_experts_per_tok": 3}, "num_experts_per_tok must be 2"),
        ({"router_type": "roulette"}, "router_type"),
        ({"capacity_factor": 1.0}, "capacity_factor is for the switch"),
        ({"router_type": "gshard", "capacity_factor": 0.0}, "capacity_factor must be positive"),
        ({"router_jitter_noise": 1.0}, "router_jitter_noise"),
        ({"router_type": "expert_choice"}, "allow_noncausal_routing=True"),
        ({"n_group": 2}, "n_group must be 1 for the mixtral router"),
        ({"router_type": "deepseek", "n_group": 3}, "num_experts must be a multiple of n_group"),
        ({"router_type": "deepseek", "n_group": 2, "topk_group": 3}, "topk_group must be at most n_group=2"),
        ({"router_type": "deepseek", "n_group": 8}, "does not fit into topk_group=1"),
        ({"router_type": "deepseek_v3", "n_group": 8, "topk_group": 4}, "groups of one expert"),
        (
            {"router_type": "hierarchical", "n_group": 4, "topk_group": 2, "num_experts_per_tok": 3},
            "num_experts_per_tok must be a multiple of topk_group",
        ),
    ],
)
def test_numbers_that_do_not_fit_are_named(options, field):
    with pytest.raises(ValueError, match=field):
        hf_zoo.create_config("moe-tiny", **{**SIZES, **options})
