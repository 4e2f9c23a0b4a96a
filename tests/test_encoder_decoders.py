"""Promises every encoder-decoder keeps when it writes: what the sweep asks of decoders, with a source beside."""

from functools import partial

import peft
import pytest
import torch
import transformers
from cases import CASES
from torch.testing import assert_close
from transformers import EncoderDecoderCache

from hf_zoo.registry import ARCHITECTURES

WRITERS = [name for name, architecture in ARCHITECTURES.items() if "seq2seq-lm" in architecture.tasks]
OPTIONS = {"max_new_tokens": 6, "do_sample": False, "eos_token_id": None}


@pytest.fixture(params=WRITERS)
def case(request):
    return CASES[request.param]


def targets(case, rows=2, tokens=9):
    generator = torch.Generator().manual_seed(7)
    return torch.randint(5, case.config().vocab_size, (rows, tokens), generator=generator)


def padded(ids, side, amount=3):
    """Ids with padding on one side, and the mask of it."""
    pads = torch.full((*ids.shape[:-1], amount), 4)  # an id like any other: only the mask may tell
    zeros, ones = torch.zeros_like(pads), torch.ones_like(ids)
    pairs = ((pads, ids), (zeros, ones)) if side == "left" else ((ids, pads), (ones, zeros))
    return tuple(torch.cat(pair, dim=-1) for pair in pairs)


@torch.no_grad()
def test_later_targets_cannot_change_earlier_outputs(case):
    model, inputs, ids = case.build(), case.inputs(), targets(case)
    changed = ids.clone()
    changed[:, 5:] = 5
    before, after = (model(**inputs, decoder_input_ids=d).logits for d in (ids, changed))
    assert_close(before[:, :5], after[:, :5])
    assert (before[:, 5:] - after[:, 5:]).abs().max() > 1e-3


def test_every_source_token_counts_and_padding_does_not(case):
    model, inputs, ids = case.build(), case.inputs(), targets(case)
    wide, mask = padded(inputs["input_ids"], "right")
    x = model.get_input_embeddings()(wide).detach().requires_grad_()
    model(inputs_embeds=x, attention_mask=mask, decoder_input_ids=ids).logits[:, -1].square().sum().backward()
    strength = x.grad.abs().amax(-1)
    assert (strength[mask.bool()] > 1e-6).all()
    assert (strength[~mask.bool()] == 0).all()


@pytest.mark.parametrize("source", ["left", "right"])
@pytest.mark.parametrize("target", ["left", "right"])
@torch.no_grad()
def test_padding_of_either_side_changes_nothing(case, source, target):
    model, inputs, ids = case.build(), case.inputs(), targets(case)
    expected = model(**inputs, decoder_input_ids=ids).logits
    wide, mask = padded(inputs["input_ids"], source)
    decoder_ids, decoder_mask = padded(ids, target)
    got = model(
        input_ids=wide, attention_mask=mask, decoder_input_ids=decoder_ids, decoder_attention_mask=decoder_mask
    ).logits
    assert_close(got[decoder_mask.bool()].view(expected.shape), expected, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("side", ["none", "left", "right"])
@torch.no_grad()
def test_cached_steps_match_one_forward(case, side):
    model, ids = case.build(), targets(case)
    source = case.inputs()["input_ids"]
    expected = model(input_ids=source, decoder_input_ids=ids).logits
    mask = None
    if side != "none":
        source, mask = padded(source, side)
    outputs = model(input_ids=source, attention_mask=mask, decoder_input_ids=ids[:, :3], use_cache=True)
    assert isinstance(outputs.past_key_values, EncoderDecoderCache)
    steps, encoded = [outputs.logits], (outputs.encoder_last_hidden_state,)
    for part in (ids[:, 3:4], ids[:, 4:5], ids[:, 5:]):
        outputs = model(
            attention_mask=mask,
            encoder_outputs=encoded,
            decoder_input_ids=part,
            past_key_values=outputs.past_key_values,
            use_cache=True,
        )
        steps.append(outputs.logits)
    assert_close(torch.cat(steps, dim=1), expected, atol=2e-5, rtol=1e-4)


@torch.no_grad()
def test_the_source_is_projected_once(case):
    """A cache that holds its keys and values gives the answer of the source, whatever comes beside it."""
    model, inputs, ids = case.build(), case.inputs(), targets(case)
    first = model(**inputs, decoder_input_ids=ids[:, :3], use_cache=True)
    other = (torch.randn_like(first.encoder_last_hidden_state),)
    got = model(encoder_outputs=other, decoder_input_ids=ids[:, 3:4], past_key_values=first.past_key_values)
    assert_close(got.logits, model(**inputs, decoder_input_ids=ids[:, :4]).logits[:, 3:], atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("how", ["greedy", "beams", "left padding", "right padding", "static cache"])
@torch.no_grad()
def test_generation_is_right(case, how):
    model, inputs = case.build(), case.inputs()
    expected = torch.full((2, 1), model.config.decoder_start_token_id)
    for _ in range(6):
        logits = model(**inputs, decoder_input_ids=expected).logits
        expected = torch.cat((expected, logits[:, -1:].argmax(-1)), dim=1)
    if how == "greedy":
        got = model.generate(**inputs, **OPTIONS)
        assert torch.equal(got, model.generate(**inputs, **OPTIONS, use_cache=False))
    elif how == "beams":
        got = model.generate(**inputs, **OPTIONS, num_beams=3)
        expected = model.generate(**inputs, **OPTIONS, num_beams=3, use_cache=False)
    elif how == "static cache":
        got = model.generate(**inputs, **OPTIONS, cache_implementation="static", disable_compile=True)
    else:
        wide, mask = padded(inputs["input_ids"], how.split()[0])
        got = model.generate(input_ids=wide, attention_mask=mask, **OPTIONS)
    assert torch.equal(got, expected)


@torch.no_grad()
def test_attention_of_both_kinds_is_reported(case):
    model, inputs, ids = case.build(), case.inputs(), targets(case)
    model.set_attn_implementation("eager")
    outputs = model(**inputs, decoder_input_ids=ids, output_attentions=True)
    S, T = outputs.encoder_last_hidden_state.shape[1], ids.shape[1]
    for name, shape in (("encoder", (S, S)), ("decoder", (T, T)), ("cross", (T, S))):
        weights = outputs["cross_attentions" if name == "cross" else f"{name}_attentions"]
        assert len(weights) == 2
        for layer in weights:
            assert layer.shape[-2:] == shape
            assert_close(layer.sum(-1), torch.ones(layer.shape[:-1]))


def test_labels_are_what_is_to_be_written(case):
    """The decoder reads labels one step late; those that are ignored count nowhere."""
    model, inputs, ids = case.build(), case.inputs(), targets(case)
    labels = ids.clone()
    labels[0, 6:] = -100
    start = torch.full((2, 1), model.config.decoder_start_token_id)
    read = torch.cat((start, ids[:, :-1]), dim=1)
    read[0, 7:] = model.config.pad_token_id
    logits = model(**inputs, decoder_input_ids=read).logits
    expected = torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten())
    assert_close(model(**inputs, labels=labels).loss, expected)
    assert torch.equal(model.prepare_decoder_input_ids_from_labels(labels), read)


def test_a_target_is_needed_beside_encoder_outputs(case):
    model, inputs = case.build(), case.inputs()
    encoded = model.get_encoder()(**inputs)
    with pytest.raises(ValueError, match="decoder_input_ids"):
        model(encoder_outputs=encoded)


@pytest.mark.parametrize("reentrant", [True, False])
def test_checkpointing_of_either_kind_changes_no_gradient(case, reentrant):
    gradients = []
    for is_on in (False, True):
        model, inputs, ids = case.build().train(), case.inputs(), targets(case)
        if is_on:
            model.gradient_checkpointing_enable({"use_reentrant": reentrant})
            model.enable_input_require_grads()
        torch.manual_seed(3)
        model(**inputs, labels=ids).loss.backward()
        gradients.append([p.grad for p in model.parameters()])
    for plain, checkpointed in zip(*gradients, strict=True):
        assert_close(plain, checkpointed)


PROMPT_METHODS = {
    "prompt tuning": peft.PromptTuningConfig,
    "p-tuning": partial(peft.PromptEncoderConfig, encoder_hidden_size=8),
    "prefix tuning": peft.PrefixTuningConfig,
}


@pytest.mark.parametrize("method", sorted(PROMPT_METHODS))
def test_virtual_tokens_train(case, method):
    model, inputs, ids = case.build(), case.inputs(), targets(case)
    config = PROMPT_METHODS[method](task_type="SEQ_2_SEQ_LM", num_virtual_tokens=4)
    wrapped = peft.get_peft_model(model, config).train()
    inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
    wrapped(**inputs, labels=ids).loss.backward()
    trained = [p for p in wrapped.parameters() if p.requires_grad]
    assert trained
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in trained)


@pytest.mark.slow
def test_trainer_generates_while_it_evaluates(case, tmp_path):
    """With smoothed labels, as in 2017: after a few steps on one pair, `generate` writes it."""
    torch.manual_seed(0)
    model = case.architecture.model_class()(case.config(hidden_dropout=0.0))
    source, target = case.inputs(rows=1)["input_ids"][0], targets(case, rows=1)[0]
    target[-1] = model.config.eos_token_id
    rows = [{"input_ids": source, "labels": target}] * 4

    def collate(rows):
        batch = {name: torch.stack([row[name] for row in rows]) for name in rows[0]}
        return {**batch, "decoder_input_ids": model.prepare_decoder_input_ids_from_labels(batch["labels"])}

    arguments = transformers.Seq2SeqTrainingArguments(
        tmp_path,
        max_steps=30,
        learning_rate=1e-2,
        per_device_train_batch_size=4,
        label_smoothing_factor=0.1,
        predict_with_generate=True,
        generation_max_length=12,
        report_to=[],
        use_cpu=True,
    )
    trainer = transformers.Seq2SeqTrainer(
        model,
        arguments,
        data_collator=collate,
        train_dataset=rows,
        eval_dataset=rows,
        compute_metrics=lambda p: {"right": float((p.predictions[:, 1:10] == p.label_ids[:, :9]).mean())},
    )
    trainer.train()
    assert trainer.evaluate()["eval_right"] == 1.0
    assert trainer.evaluate(num_beams=3)["eval_right"] == 1.0
