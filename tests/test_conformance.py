"""Promises every registered architecture keeps. A new architecture adds a Case, not a test."""

import json
import re
import subprocess
import sys
from dataclasses import fields
from functools import partial
from pathlib import Path

import peft
import pytest
import torch
import transformers
from cases import CASES, takes_tokens
from torch.testing import assert_close

import hf_zoo
from hf_zoo.lora import count_lora_parameters
from hf_zoo.presets import read_presets
from hf_zoo.registry import ARCHITECTURES, TASKS

ROOT = Path(__file__).parents[1]


def head_tasks(architecture):
    return architecture.all_tasks


HEADS = [(name, task) for name, architecture in ARCHITECTURES.items() for task in head_tasks(architecture)]
GENERATIVE = [name for name, architecture in ARCHITECTURES.items() if "causal-lm" in architecture.tasks]


WITH_TOKENS = [name for name in sorted(ARCHITECTURES) if takes_tokens(CASES[name])]
of_tokens = pytest.mark.parametrize("case", WITH_TOKENS, indirect=True)
of_heads_on_tokens = pytest.mark.parametrize(
    "headed", [head for head in HEADS if head[0] in WITH_TOKENS], indirect=True, ids="-".join
)


def promised(request, name):
    """The case, or a skip for the reason that it gives."""
    case = CASES[name]
    test = getattr(request.function, "__name__", "")
    if reason := case.waived.get(test):
        pytest.skip(reason)
    return case


@pytest.fixture(params=sorted(ARCHITECTURES))
def case(request):
    return promised(request, request.param)


@pytest.fixture(params=HEADS, ids="-".join)
def headed(request):
    name, task = request.param
    return promised(request, name), task


@pytest.fixture(params=sorted(GENERATIVE))
def generative(request):
    return promised(request, request.param)


MAIN_OUTPUTS = (  # of two towers it is what both say
    *("logits", "start_logits", "prediction_logits", "reconstruction", "pred_masks"),
    *("image_embeds", "last_hidden_state"),
)


def first_output(model, **inputs):
    """Logits, or the last hidden state of a model without a head."""
    outputs = model(**inputs)
    name = next(name for name in MAIN_OUTPUTS if name in outputs)
    return torch.cat((outputs.text_embeds, outputs[name]), dim=-1) if name == "image_embeds" else outputs[name]


def padded(inputs, side, amount=3):
    """The batch with padding on one side, its mask, and where the real tokens are."""
    ids = inputs["input_ids"]
    pads = torch.full((len(ids), amount), 4)  # an id like any other: only the mask may tell
    zeros, ones = torch.zeros_like(pads), torch.ones_like(ids)
    order = ((pads, ids), (zeros, ones)) if side == "left" else ((ids, pads), (ones, zeros))
    ids, mask = (torch.cat(pair, dim=1) for pair in order)
    return {"input_ids": ids, "attention_mask": mask}, mask.bool()


# configuration and registration


def test_config_survives_json(case, tmp_path):
    config = case.config()
    config.save_pretrained(tmp_path)
    again = transformers.AutoConfig.from_pretrained(tmp_path)
    assert type(again) is type(config)
    assert {**again.to_dict(), "_name_or_path": ""} == {**config.to_dict(), "_name_or_path": ""}


def test_every_config_field_is_read(case):
    config_class = case.architecture.config_class
    inherited = {f.name for f in fields(transformers.PreTrainedConfig)}
    folder = ROOT / "modeling"
    parts = {c.__module__.split(".")[-2] for c in config_class.__mro__ if "hf_zoo.modeling." in c.__module__}
    own = [path for part in parts for path in (folder / part).glob("*.py")]  # of the configs it extends, too
    lent = {part for path in own for part in re.findall(r"^from \.\.(\w+)\.modeling_", path.read_text(), re.MULTILINE)}
    own += [path for part in lent for path in (folder / part).glob("modeling_*.py")]  # and whose blocks it has
    processors = (where.split(".")[0] for _, where in case.architecture.processors)
    own += [ROOT / "tokenization" / f"{name}.py" for name in processors]
    sources = [*own, *folder.glob("*.py"), *folder.glob("layers/*.py")]
    text = "\n".join(path.read_text() for path in sources if path.name != "presets.py")
    # transformers itself reads these
    known = {
        "initializer_range",
        "tie_word_embeddings",
        "use_cache",
        "pad_token_id",
        "bos_token_id",
        "eos_token_id",
        "rope_parameters",
    }
    names = {f.name for f in fields(config_class)} - inherited - known
    assert [name for name in sorted(names) if f"config.{name}" not in text and f'"{name}"' not in text] == []


def test_auto_classes_resolve(headed):
    case, task = headed
    auto_class = getattr(transformers, TASKS[task][0])
    assert type(auto_class.from_config(case.config())) is case.architecture.model_class(task)


def test_preset_counts_are_exact(case):
    for name, preset in read_presets(case.architecture).items():
        with torch.device("meta"):
            model = case.architecture.model_class(case.architecture.counted_task)(hf_zoo.create_config(name))
        model.tie_weights()
        assert model.num_parameters() == preset["parameters"], name


def test_tiny_preset_is_tiny(case):
    assert read_presets(case.architecture)[case.architecture.tiny_preset]["parameters"] < 1_000_000


# the forward and backward pass


@torch.no_grad()
def test_forward_shape_and_finiteness(headed):
    case, task = headed
    model = case.build(task)
    outputs = model(**model.dummy_inputs)
    for value in outputs.values():
        if isinstance(value, torch.Tensor):
            assert value.isfinite().all()
            assert not value.ndim or len(value) == 2  # a loss without labels is a number


def test_every_parameter_learns(headed):
    case, task = headed
    model = case.build(task).train().double()  # in float32 rounding would pass for a gradient
    inputs = {n: x.double() if x.is_floating_point() else x for n, x in model.dummy_inputs.items()}
    if task in ("feature-extraction", "text-encoding"):
        outputs = model(**inputs)
        loss = sum(v.square().sum() for v in outputs.values() if isinstance(v, torch.Tensor))
    else:
        loss = model(**inputs, **case.labels(model, inputs)).loss
    loss.backward()
    # A bias may shift all scores of a softmax alike, which changes nothing
    silent = [
        name
        for name, parameter in model.named_parameters()
        if parameter.grad is None or (parameter.grad.abs().max() < 1e-13 and not name.endswith("bias"))
    ]
    assert [name for name in silent if not any(part in name for part in case.never_learn)] == []


def test_gradient_checkpointing_changes_nothing(case):
    gradients = []
    for is_on in (False, True):
        model = case.build().train()
        if is_on:
            model.gradient_checkpointing_enable()
        torch.manual_seed(3)
        inputs = case.inputs()
        loss = model(**inputs, **case.labels(model, inputs)).loss
        loss.backward()
        learnt = (p.grad for p in model.parameters() if p.grad is not None)  # tokens alone use no patches
        gradients.append([loss.detach(), *learnt])
    for plain, checkpointed in zip(*gradients, strict=True):
        assert torch.equal(plain, checkpointed)


@of_tokens
@torch.no_grad()
def test_later_tokens_cannot_change_earlier_outputs(case):
    model, inputs = case.build("feature-extraction"), case.inputs()
    changed = {"input_ids": inputs["input_ids"].clone()}
    changed["input_ids"][:, 7:] = 5
    before, after = first_output(model, **inputs), first_output(model, **changed)
    if case.is_causal:
        assert_close(before[:, :7], after[:, :7])
    else:
        assert (before[:, :7] - after[:, :7]).abs().max() > 1e-3
    assert (before[:, 7:] - after[:, 7:]).abs().max() > 1e-3


@of_heads_on_tokens
@pytest.mark.parametrize("side", ["left", "right"])
@torch.no_grad()
def test_padding_changes_nothing(headed, side):
    case, task = headed
    if task == "multiple-choice":
        pytest.skip("its rows are pairs; sequence-classification shows the same")
    model, inputs = case.build(task), case.inputs()
    wide, real = padded(inputs, side)
    expected, got = first_output(model, **inputs), first_output(model, **wide)
    if got.shape[:2] == real.shape:
        got = got[real].view(expected.shape)
    assert_close(got, expected, atol=2e-5, rtol=1e-4)


@torch.no_grad()
def test_padding_between_tokens_changes_nothing(generative):
    """What a prompt that was padded on the right looks like when its text goes on without a cache."""
    model, ids = generative.build(), generative.inputs()["input_ids"]
    pads = torch.full((2, 3), 4)
    mask = torch.ones(2, ids.shape[1] + 3, dtype=torch.long)
    mask[:, 5:8] = 0
    got = first_output(model, input_ids=torch.cat((ids[:, :5], pads, ids[:, 5:]), 1), attention_mask=mask)
    expected = first_output(model, input_ids=ids)
    assert_close(got[mask.bool()].view(expected.shape), expected, atol=2e-5, rtol=1e-4)


@torch.no_grad()
def test_rows_do_not_see_each_other(case):
    model, inputs = case.build(), case.inputs()
    together = first_output(model, **inputs)
    apart = [first_output(model, **{name: value[i : i + 1] for name, value in inputs.items()}) for i in range(2)]
    assert_close(together, torch.cat(apart), atol=2e-5, rtol=1e-4)


@of_tokens
@torch.no_grad()
def test_packed_documents_do_not_see_each_other(case):
    model, ids = case.build(), case.inputs(rows=1)["input_ids"]
    positions = torch.cat((torch.arange(5), torch.arange(7)))[None]
    packed = first_output(model, input_ids=ids, position_ids=positions)
    apart = [first_output(model, input_ids=part) for part in (ids[:, :5], ids[:, 5:])]
    assert_close(packed, torch.cat(apart, dim=1), atol=2e-5, rtol=1e-4)
    with_mask = first_output(model, input_ids=ids, position_ids=positions, attention_mask=torch.ones_like(ids))
    assert_close(packed, with_mask)


@of_tokens
@torch.no_grad()
def test_embeddings_stand_in_for_ids(case):
    model, inputs = case.build(), case.inputs()
    embedded = model.get_input_embeddings()(inputs["input_ids"])
    assert_close(first_output(model, inputs_embeds=embedded), first_output(model, **inputs))


@torch.no_grad()
def test_attention_backends_agree(case):
    model, inputs = case.build(), case.inputs()
    wide, real = padded(inputs, "left") if takes_tokens(case) else (inputs, slice(None))
    if not model._supports_sdpa:
        with pytest.raises(ValueError, match="scaled_dot_product_attention|sdpa"):
            model.set_attn_implementation("sdpa")
        return
    outputs = []
    for backend in ("eager", "sdpa"):
        model.set_attn_implementation(backend)
        outputs.append(first_output(model, **wide)[real])
    assert_close(*outputs, atol=2e-5, rtol=1e-4)


@torch.no_grad()
def test_bfloat16_stays_close(case):
    model, inputs = case.build(), case.inputs()
    exact = first_output(model, **inputs)
    rough = first_output(model.to(torch.bfloat16), **inputs).float()
    assert (rough - exact).abs().mean() < 0.1 * exact.abs().mean()


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@torch.no_grad()
def test_half_precision_checkpoints_run(case, dtype, tmp_path):
    """What stays in float32 when such a folder is opened meets what does not."""
    model, inputs = case.build(), case.inputs()
    model.save_pretrained(tmp_path)
    again = type(model).from_pretrained(tmp_path, dtype=dtype).eval()
    exact, rough = first_output(model, **inputs), first_output(again, **inputs)
    assert rough.dtype == getattr(torch, dtype)
    assert (rough.float() - exact).abs().mean() < 0.1 * exact.abs().mean()


@torch.no_grad()
def test_hidden_states_are_captured(case):
    model, inputs = case.build(), case.inputs()
    outputs = model(**inputs, output_hidden_states=True)
    names = [name for name in outputs if name.endswith("hidden_states")]  # of an encoder and a decoder, two
    assert names
    for name in names:
        assert len(outputs[name]) == case.config().get_text_config().num_hidden_layers + 1
        if takes_tokens(case):
            assert_close(outputs[name][0].shape, (*inputs["input_ids"].shape, case.config().hidden_size))
        assert (len(outputs[name][0]), outputs[name][0].shape[-1]) == (2, case.config().hidden_size)


def test_loss_divides_by_the_items_of_all_batches(case):
    model, inputs = case.build(), case.inputs()
    if takes_tokens(case):
        inputs["labels"] = inputs["input_ids"].clone()
        inputs["labels"][0, 3:] = -100
    else:
        inputs |= case.labels(model, inputs)
    counted = inputs["labels"][:, 1:] if case.is_causal else inputs["labels"]
    whole = model(**inputs).loss
    rows = [{name: value[i : i + 1] for name, value in inputs.items()} for i in range(2)]
    parts = [model(**row, num_items_in_batch=(counted != -100).sum()).loss for row in rows]
    assert_close(sum(parts), whole)


# generation


@torch.no_grad()
def test_cached_steps_match_one_forward(generative):
    model, ids = generative.build(), generative.inputs()["input_ids"]
    outputs = model(ids[:, :5], use_cache=True)
    steps = [outputs.logits]
    for t in (5, 6, 7):
        outputs = model(ids[:, t : t + 1], past_key_values=outputs.past_key_values, use_cache=True)
        steps.append(outputs.logits)
    outputs = model(ids[:, 8:], past_key_values=outputs.past_key_values, use_cache=True)
    steps.append(outputs.logits)
    assert_close(torch.cat(steps, dim=1), model(ids).logits, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("side", ["left", "right"])
@torch.no_grad()
def test_cached_steps_after_padding(generative, side):
    model, inputs = generative.build(), generative.inputs()
    wide, _ = padded({"input_ids": inputs["input_ids"][:, :7]}, side)
    outputs = model(**wide, use_cache=True)
    mask, steps = wide["attention_mask"], []
    for t in range(7, 12):
        mask = torch.cat((mask, torch.ones(2, 1, dtype=mask.dtype)), dim=1)
        token = inputs["input_ids"][:, t : t + 1]
        outputs = model(token, attention_mask=mask, past_key_values=outputs.past_key_values, use_cache=True)
        steps.append(outputs.logits)
    assert_close(torch.cat(steps, dim=1), model(**inputs).logits[:, 7:], atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("how", ["greedy", "beams", "left padding", "static cache"])
@torch.no_grad()
def test_generation_is_right(generative, how):
    model, inputs = generative.build(), generative.inputs()
    options = {"max_new_tokens": 6, "do_sample": False, "eos_token_id": None, "pad_token_id": 0}
    expected = inputs["input_ids"]
    for _ in range(6):
        expected = torch.cat((expected, model(expected).logits[:, -1:].argmax(-1)), dim=1)
    if how == "greedy":
        got = model.generate(**inputs, **options)
        assert torch.equal(got, model.generate(**inputs, **options, use_cache=False))
    elif how == "beams":
        got = model.generate(**inputs, **options, num_beams=3)
        expected = model.generate(**inputs, **options, num_beams=3, use_cache=False)
    elif how == "static cache":
        got = model.generate(**inputs, **options, cache_implementation="static", disable_compile=True)
    else:
        wide, _ = padded(inputs, "left")
        got = model.generate(**wide, **options)[:, 3:]
    assert torch.equal(got, expected)


@torch.no_grad()
def test_generation_goes_on_from_a_cache(generative):
    model, inputs = generative.build(), generative.inputs()
    options = {"do_sample": False, "eos_token_id": None, "pad_token_id": 0}
    expected = model.generate(**inputs, **options, max_new_tokens=6)
    first = model.generate(**inputs, **options, max_new_tokens=3, return_dict_in_generate=True)
    rest = model.generate(first.sequences, **options, max_new_tokens=3, past_key_values=first.past_key_values)
    assert torch.equal(rest, expected)


# saving and loading


@torch.no_grad()
def test_reload_is_bit_equal(headed, tmp_path):
    case, task = headed
    model = case.build(task)
    model.save_pretrained(tmp_path)
    assert not list(tmp_path.glob("*.bin"))
    again = getattr(transformers, TASKS[task][0]).from_pretrained(tmp_path).eval()
    assert type(again) is type(model)
    for parameter in again.parameters():  # a product of few rows rounds by where in memory the file was mapped to
        parameter.data = parameter.data.clone()
    assert torch.equal(first_output(model, **model.dummy_inputs), first_output(again, **model.dummy_inputs))


@of_tokens
def test_tied_weights_stay_tied(case, tmp_path):
    model = case.build(tie_word_embeddings=True)
    model.save_pretrained(tmp_path)
    again = type(model).from_pretrained(tmp_path)
    assert again.get_output_embeddings().weight is again.get_input_embeddings().weight


@of_tokens
@torch.no_grad()
def test_resized_embeddings(case):
    model, inputs = case.build(), case.inputs()
    before, size = first_output(model, **inputs), case.config().vocab_size
    model.resize_token_embeddings(size + 3)
    after = first_output(model, **inputs)
    assert after.shape[-1] == size + 3
    assert_close(after[..., :size], before)


def test_missing_weights_are_an_error(case, tmp_path):
    from safetensors.torch import load_file, save_file

    model = case.build()
    model.save_pretrained(tmp_path)
    path = tmp_path / "model.safetensors"
    weights = load_file(path)
    lost = next(name for name in weights if "layers.1" in name)
    save_file({n: w for n, w in weights.items() if n != lost}, path, metadata={"format": "pt"})
    with pytest.raises(ValueError, match=lost.replace(".", r"\.")):
        type(model).from_pretrained(tmp_path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(Exception, match="(?i)header|incomplete|invalid|corrupt"):
        type(model).from_pretrained(tmp_path)


def test_weights_of_another_shape_are_an_error(case, tmp_path):
    case.build().save_pretrained(tmp_path)
    with pytest.raises(RuntimeError, match="mismatch"):
        case.architecture.model_class().from_pretrained(tmp_path, config=case.config(hidden_size=32))


# bad input


@of_tokens
def test_ids_outside_the_vocabulary_are_named(case):
    model, ids = case.build(), case.inputs()["input_ids"]
    for wrong in (case.config().vocab_size, -1):
        ids[0, 0] = wrong
        with pytest.raises(ValueError, match=f"{wrong} is outside the vocabulary"):
            model(ids)


@of_tokens
@torch.no_grad()
def test_rows_of_padding_are_finite(case):
    model, inputs = case.build(), case.inputs()
    mask = torch.ones_like(inputs["input_ids"])
    mask[1] = 0
    outputs = first_output(model, **inputs, attention_mask=mask)
    assert outputs.isfinite().all()
    assert_close(outputs[:1], first_output(model, input_ids=inputs["input_ids"][:1]), atol=2e-5, rtol=1e-4)


@of_tokens
@torch.no_grad()
def test_empty_batches_give_empty_outputs(case):
    outputs = first_output(case.build(), input_ids=torch.zeros((0, 5), dtype=torch.long))
    assert outputs.shape[:2] == (0, 5)


@of_tokens
def test_ids_and_embeddings_together_are_refused(case):
    model = case.build()
    with pytest.raises(ValueError, match="exactly one"):
        model()


def test_sizes_below_one_are_named(case):
    with pytest.raises(ValueError, match="hidden_size"):
        case.config(hidden_size=-8)
    with pytest.raises(ValueError, match="num_hidden_layers"):
        case.config(num_hidden_layers=0)


def test_wrong_types_in_a_config_file_are_named(case, tmp_path):
    case.config().save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "hidden_size": "many"}))
    with pytest.raises(Exception, match="hidden_size"):
        transformers.AutoConfig.from_pretrained(tmp_path)


def test_unknown_fields_are_refused_with_the_nearest(case):
    with pytest.raises(ValueError, match="hiden_size.*hidden_size"):
        case.config(hiden_size=8)


# peft


def adapted(case, task=None, seed=5, **options):
    """The tiny model with LoRA on its default targets, with an update that is not the identity."""
    model = case.build(task)
    wrapped = peft.get_peft_model(model, hf_zoo.lora_config(model, r=4, **options))
    return wrapped.eval()


def test_lora_needs_no_targets(headed):
    case, task = headed
    model = case.build(task)
    ours = hf_zoo.lora_config(model, r=4)
    linear = hf_zoo.lora_config(model, r=4, target_parameters=None)
    # plain peft, with no targets named, adapts linear layers alone
    for expected, config in ((linear, peft.LoraConfig(r=4)), (ours, ours)):
        count = count_lora_parameters(model, expected)
        wrapped = peft.get_peft_model(case.build(task), config)
        assert sum(p.numel() for n, p in wrapped.named_parameters() if "lora_" in n) == count > 0


@torch.no_grad()
def test_lora_starts_as_identity_and_merges(case):
    inputs = case.inputs()
    before = first_output(case.build(), **inputs)
    wrapped = adapted(case)
    assert_close(first_output(wrapped, **inputs), before)
    generator = torch.Generator().manual_seed(5)
    for name, parameter in wrapped.named_parameters():
        if "lora_B" in name:
            parameter.normal_(0, 0.1, generator=generator)
    tuned = first_output(wrapped, **inputs)
    assert (tuned - before).abs().max() > 1e-3
    assert_close(first_output(wrapped.merge_and_unload(), **inputs), tuned, atol=2e-5, rtol=1e-4)


def test_lora_trains_adapters_alone_even_with_checkpointing(case):
    wrapped = adapted(case).train()
    wrapped.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    inputs = case.inputs()
    wrapped(**inputs, **case.labels(wrapped.base_model.model, inputs)).loss.backward()
    learnt = [n for n, p in wrapped.named_parameters() if p.grad is not None and p.grad.abs().max() > 0]
    assert learnt
    assert all("lora_" in name or "modules_to_save" in name for name in learnt)  # a new head trains whole
    assert {n for n, _ in wrapped.named_parameters() if "lora_B" in n} <= set(learnt)


PEFT_METHODS = {
    "dora": lambda: peft.LoraConfig(r=4, use_dora=True),
    "rslora": lambda: peft.LoraConfig(r=4, use_rslora=True),
    "adalora": lambda: peft.AdaLoraConfig(init_r=4, target_r=2, total_step=10),
    "ia3": peft.IA3Config,
    "vera": lambda: peft.VeraConfig(r=4),
    "oft": lambda: peft.OFTConfig(r=4, oft_block_size=0),
    "loha": lambda: peft.LoHaConfig(r=4),
    "lokr": lambda: peft.LoKrConfig(r=4),
    "ln_tuning": peft.LNTuningConfig,
}


@pytest.mark.parametrize("method", sorted(PEFT_METHODS))
def test_other_peft_methods_train(case, method):
    model, inputs = case.build(), case.inputs()
    wrapped = peft.get_peft_model(model, PEFT_METHODS[method]()).train()
    wrapped(**inputs, **case.labels(model, inputs)).loss.backward()
    assert any(p.grad is not None and p.grad.abs().max() > 0 for p in wrapped.parameters() if p.requires_grad)


PROMPT_METHODS = {
    "prompt tuning": peft.PromptTuningConfig,
    "p-tuning": partial(peft.PromptEncoderConfig, encoder_hidden_size=8),
    "prefix tuning": peft.PrefixTuningConfig,
}


@pytest.mark.parametrize("method", sorted(PROMPT_METHODS))
def test_virtual_tokens_train(generative, method):
    model, inputs = generative.build(), generative.inputs()
    if method == "prefix tuning" and "linear_attention" in model.config.layer_types:
        pytest.skip("a prefix is keys and values; a recurrent layer has none")
    if method == "prefix tuning" and generative.no_prefix:
        pytest.skip(generative.no_prefix)
    # peft asks how many heads there are before it needs to know; a recurrent layer has none to tell
    heads = getattr(model.config, "num_attention_heads", 1)
    config = PROMPT_METHODS[method](task_type="CAUSAL_LM", num_virtual_tokens=4, num_attention_heads=heads)
    wrapped = peft.get_peft_model(model, config).train()
    inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
    wrapped(**inputs, labels=inputs["input_ids"]).loss.backward()
    trained = [p for p in wrapped.parameters() if p.requires_grad]
    assert trained
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in trained)
    if "linear_attention" not in model.config.layer_types:  # peft wants a mask where `generate` drops it for states
        wrapped.eval().generate(**inputs, max_new_tokens=2, pad_token_id=0)


# training and export


@pytest.mark.slow
def test_thirty_steps_overfit_a_batch(case, tmp_path):
    torch.manual_seed(0)
    model = case.architecture.model_class()(case.config())
    inputs = case.inputs(rows=1)
    rows = [{name: value[0] for name, value in {**inputs, **case.labels(model, inputs)}.items()}] * 4
    arguments = transformers.TrainingArguments(
        tmp_path, max_steps=30, learning_rate=1e-2, per_device_train_batch_size=4, report_to=[], use_cpu=True
    )
    trainer = transformers.Trainer(model, arguments, train_dataset=rows)
    first = model(**{k: v[None] for k, v in rows[0].items()}).loss.item()
    trainer.train()
    assert model.eval()(**{k: v[None] for k, v in rows[0].items()}).loss.item() < first / 4


@pytest.mark.slow
def test_checkpoint_loads_without_the_package(case, tmp_path):
    """All heads, in a process where `import hf_zoo` fails."""
    expected = {}
    for task in head_tasks(case.architecture):
        model = case.build(task)
        folder = tmp_path / task
        model.save_pretrained(folder)
        with torch.no_grad():
            outputs = model(**model.dummy_inputs)
        outputs = {name: outputs[name] for name in (*MAIN_OUTPUTS, "text_embeds") if name in outputs}
        torch.save({"inputs": model.dummy_inputs, "outputs": outputs}, folder / "expected.pt")
        expected[task] = TASKS[task][0]
    script = tmp_path / "load.py"
    script.write_text(
        "import json, sys, torch, transformers\n"
        "sys.modules['hf_zoo'] = None  # any import of it fails\n"
        "root, heads = sys.argv[1], json.loads(sys.argv[2])\n"
        "for task, auto in heads.items():\n"
        "    folder = f'{root}/{task}'\n"
        "    load = getattr(transformers, auto).from_pretrained\n"
        "    model = load(folder, trust_remote_code=True).eval()\n"
        "    for p in model.parameters(): p.data = p.data.clone()  # see test_reload_is_bit_equal\n"
        "    saved = torch.load(f'{folder}/expected.pt', weights_only=True)\n"
        "    with torch.no_grad(): out = model(**saved['inputs'])\n"
        "    for name, value in saved['outputs'].items(): assert torch.equal(out[name], value), (task, name)\n"
        "    model.save_pretrained(f'{folder}-again')\n"
        "    again = load(f'{folder}-again', trust_remote_code=True).eval()\n"
        "    for p in again.parameters(): p.data = p.data.clone()\n"
        "    with torch.no_grad(): out = again(**saved['inputs'])\n"
        "    for name, value in saved['outputs'].items(): assert torch.equal(out[name], value), (task, name)\n"
        "print('all equal')\n"
    )
    run = subprocess.run(
        [sys.executable, script, tmp_path, json.dumps(expected)],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={
            **{"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "home"), "PATH": "/usr/bin:/bin"},
            "OMP_NUM_THREADS": str(torch.get_num_threads()),  # on which the rounding of sums depends
        },
    )
    assert run.stdout.strip().endswith("all equal"), run.stderr[-2000:]


@pytest.mark.slow
@torch.no_grad()
def test_compiled_whole(case):
    model, inputs = case.build(), case.inputs()
    if not model._can_compile_fullgraph:
        pytest.skip("does not claim to compile in one graph")
    expected = first_output(model, **inputs)
    torch.compiler.reset()  # heads and trunks are shared, and a function may be compiled for a few models only
    assert_close(first_output(torch.compile(model, fullgraph=True), **inputs), expected, atol=2e-5, rtol=1e-4)


@torch.no_grad()
def test_pipelines_run(generative, tmp_path):
    tokenizer = hf_zoo.create_processor(generative.architecture.tiny_preset)
    model = generative.build()
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    writer = transformers.pipeline("text-generation", model=str(tmp_path))
    assert writer("def f(", max_new_tokens=3)[0]["generated_text"].startswith("def f(")
