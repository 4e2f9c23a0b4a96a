"""Tokenizers of the presets, and the command that trains others."""

import json
from types import SimpleNamespace

import pytest
from transformers import AutoTokenizer
from typer.testing import CliRunner

import hf_zoo.data.recipes as recipes
from hf_zoo import presets
from hf_zoo.cli import app
from hf_zoo.data.recipes import build_tokenizer

TEXTS = ["def add(first, second):\n    return first + second\n", "class Adder:\n    pass\n"] * 20


@pytest.fixture(autouse=True)
def _small_corpus(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_ZOO_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(recipes, "load_dataset", lambda name, split: {"text": TEXTS})


def test_second_build_trains_nothing(monkeypatch):
    first = build_tokenizer("bpe", 300)
    monkeypatch.setattr(recipes, "load_dataset", lambda *args, **kwargs: pytest.fail("trained twice"))
    second = build_tokenizer("bpe", 300)
    assert second.get_vocab() == first.get_vocab() and len(second) == 300
    assert second.chat_template == first.chat_template
    assert second.name_or_path == "zoo-bpe-300"
    assert build_tokenizer("bpe", 300, "mine").name_or_path == "mine"


def test_kinds_and_sizes_do_not_share_a_cache():
    sizes = [len(build_tokenizer(*recipe)) for recipe in (("bpe", 300), ("bpe", 290), ("byte", 300))]
    assert sizes == [300, 290, 263]


def test_size_is_capped(monkeypatch):
    monkeypatch.setattr(recipes, "MAX_VOCAB_SIZE", 280)
    assert len(build_tokenizer("bpe", 128_256)) == 280


def test_failed_recipe_leaves_no_cache(tmp_path):
    with pytest.raises(ValueError, match="too small"):
        build_tokenizer("bpe", 100)
    folders = [path.name for path in (tmp_path / "cache/tokenizers").iterdir() if path.is_dir()]
    assert all(name.endswith(".partial") for name in folders)
    with pytest.raises(ValueError, match="too small"):
        build_tokenizer("bpe", 100)


@pytest.mark.parametrize(("kind", "size"), [("bpe", 300), ("wordpiece", 80)])
def test_create_processor(monkeypatch, kind, size):
    """With a preset's data and a configuration in the place of an architecture."""
    config = SimpleNamespace(vocab_size=size, max_position_embeddings=64)
    config.get_text_config = lambda: config
    preset = {"tokenizer": kind} if kind != "bpe" else {}
    architecture = SimpleNamespace(processor_classes=dict)
    monkeypatch.setattr(presets, "find_preset", lambda name: (architecture, preset))
    monkeypatch.setattr(presets, "create_config", lambda name: config)
    tokenizer = presets.create_processor("some-tiny")
    assert len(tokenizer) <= size
    assert tokenizer.model_max_length == 64
    assert (tokenizer.mask_token is None) == (kind == "bpe")


@pytest.fixture
def corpus(tmp_path):
    file = tmp_path / "corpus.jsonl"
    file.write_text("".join(json.dumps({"id": "a", "body": text}) + "\n" for text in TEXTS))
    return file


def run(*arguments):
    return CliRunner().invoke(app, ["tokenizer", *map(str, arguments)])


def test_command_trains_and_saves(tmp_path, corpus, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", str(tmp_path / "hf"))
    output = tmp_path / "out"
    ran = run("--output", output, "--dataset", corpus, "--text-column", "body", "--vocab-size", 300)
    assert ran.exit_code == 0, ran.output
    assert "300 ids" in ran.output and "bytes per token" in ran.output
    assert len(AutoTokenizer.from_pretrained(output)) == 300

    again = run("--output", output, "--dataset", corpus)
    assert isinstance(again.exception, ValueError) and "not empty: add --overwrite" in str(again.exception)

    (output / "model.safetensors").touch()
    ran = run("--output", output, "--dataset", corpus, "--text-column", "body", "--kind", "wordpiece", "--overwrite")
    assert ran.exit_code == 0, ran.output
    replaced = AutoTokenizer.from_pretrained(output)
    assert replaced.mask_token == "[MASK]" and replaced.chat_template is None
    assert (output / "model.safetensors").exists()


def test_command_names_the_column(tmp_path, corpus, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", str(tmp_path / "hf"))
    ran = run("--output", tmp_path / "out", "--dataset", corpus)
    assert "several columns hold strings: id (string), body (string)" in str(ran.exception)
    ran = run("--output", tmp_path / "out", "--dataset", corpus, "--text-column", "bdy")
    assert "Did you mean 'body'?" in str(ran.exception)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["bpe", "wordpiece", "unigram"])
def test_real_recipe(monkeypatch, kind):
    from hf_zoo.data import load_dataset

    monkeypatch.setattr(recipes, "load_dataset", load_dataset)
    tokenizer = build_tokenizer(kind, 8192)
    text = "".join(load_dataset("python-source", split="test")["text"])
    assert len(tokenizer) == 8192
    assert len(text.encode()) / len(tokenizer.encode(text)) > 3.0  # bytes a token, on modules it was not trained on
