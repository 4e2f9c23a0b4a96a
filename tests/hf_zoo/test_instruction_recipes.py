"""Recipes of published models: their data, their prompts, and a training step on a tiny base."""

import peft
import pytest
import torch
from transformers import Trainer, TrainingArguments

import hf_zoo
from hf_zoo.recipes import list_recipes

ROW = {"instruction": "Add 1 and 2.", "input": "1 2", "output": "3"}


@pytest.mark.parametrize("name", list_recipes())
def test_the_data_fit_together(name):
    recipe = hf_zoo.recipe(name)
    assert recipe.base in hf_zoo.list_models()
    assert recipe.source and set(recipe.columns) <= set(ROW) - {"output"}
    TrainingArguments("unused", use_cpu=True, **recipe.training)
    formatted = recipe.format(ROW)
    assert formatted["completion"] == "3"
    assert all(ROW[column] in formatted["prompt"] for column in recipe.columns)
    assert recipe.format({**ROW, "output": None})["completion"] == ""


def test_prompts_are_those_published():
    assert hf_zoo.recipe("fingpt").format(ROW)["prompt"] == "Instruction: Add 1 and 2.\nInput: 1 2\nAnswer: "
    assert (
        hf_zoo.recipe("wizardcoder").format(ROW)["prompt"].endswith("### Instruction:\nAdd 1 and 2.\n\n### Response:")
    )


def test_what_is_missing_is_named():
    with pytest.raises(ValueError, match="fingtp.*fingpt"):
        hf_zoo.recipe("fingtp")
    with pytest.raises(ValueError, match="column of fingpt.*input"):
        hf_zoo.recipe("fingpt").format({"instruction": "Add."})


@pytest.mark.parametrize("name", list_recipes())
def test_a_step_trains_what_the_recipe_says(name, tmp_path):
    recipe, model = hf_zoo.recipe(name), hf_zoo.create_model("llm-tiny")
    text = recipe.format(ROW)
    prompt, answer = ([5 + ord(c) % 200 for c in text[part]] for part in ("prompt", "completion"))
    row = {"input_ids": torch.tensor(prompt + answer), "labels": torch.tensor([-100] * len(prompt) + answer)}
    config = recipe.lora_config(model)
    model = model if config is None else peft.get_peft_model(model, config)
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    options = {**recipe.training, "max_steps": 2, "warmup_steps": 0, "learning_rate": 1e-3}
    arguments = TrainingArguments(tmp_path, use_cpu=True, report_to=[], save_strategy="no", **options)
    Trainer(model, arguments, train_dataset=[row] * 16).train()
    changed = {n for n, p in model.named_parameters() if not torch.equal(p, before[n])}
    if recipe.lora is None:
        assert changed == set(before)
        return
    assert changed and all("lora_" in n for n in changed)
    layers = {n.split(".lora_")[0].rpartition(".")[2] for n in changed}
    assert layers == set(recipe.lora["target_modules"])
    (settings,) = model.peft_config.values()
    assert (settings.r, settings.lora_alpha, settings.lora_dropout) == (8, 32, 0.1)
