"""`hf-zoo show`, `export` and `convert`: what they say of a model, and what they refuse."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import transformers
from cases import CASES
from typer.testing import CliRunner

import hf_zoo
from hf_zoo.cli import app
from hf_zoo.pictures import check_picture, draw_parts, draw_patterns
from hf_zoo.presets import read_presets
from hf_zoo.registry import ARCHITECTURES
from hf_zoo.show import attention_patterns, describe

ROOT = Path(__file__).parents[2]
TINY = sorted(architecture.tiny_preset for architecture in ARCHITECTURES.values())


def parts_of(part, copies=1):
    """Each part below, with how many of it there are in all."""
    copies *= part.copies
    yield part, copies
    for below in part.parts:
        yield from parts_of(below, copies)


def command(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments], env={"COLUMNS": "200"})


@pytest.mark.parametrize("name", TINY)
def test_counts_are_those_of_the_model(name):
    described = describe(name)
    model = hf_zoo.create_model(name)
    assert described.parts.total == model.num_parameters()
    assert described.weight_bytes("bfloat16") == 2 * model.num_parameters()
    for part, _ in parts_of(described.parts):
        assert part.parameters >= sum(below.total for below in part.parts)


@pytest.mark.parametrize("architecture", ARCHITECTURES.values(), ids=lambda a: a.name)
def test_every_size_is_shown_without_memory(architecture):
    name, preset = max(read_presets(architecture).items(), key=lambda item: item[1]["parameters"])
    described = describe(name, architecture.counted_task)
    assert described.parts.total == preset["parameters"]
    with torch.device("meta"):
        modules = described.model_class(described.config).named_modules()
    num_blocks = sum(len(module) for name, module in modules if name.rpartition(".")[2] == "layers")
    shown = sum(copies for part, copies in parts_of(described.parts) if part.name.startswith("layers "))
    assert shown == num_blocks


def test_layers_that_differ_are_not_folded():
    from hf_zoo.show import _parts_below

    alike, other = torch.nn.Linear(2, 3), torch.nn.Linear(3, 2)
    module = torch.nn.Module()
    module.layers = torch.nn.ModuleList([alike, torch.nn.Linear(2, 3), other, torch.nn.Linear(2, 3)])
    assert [(p.name, p.copies) for p in _parts_below(module, set())] == [
        ("layers 0-1", 2),
        ("layers 2", 1),
        ("layers 3", 1),
    ]


def test_a_tied_head_counts_once():
    head = next(part for part, _ in parts_of(describe("gpt2").parts) if part.name == "lm_head")
    assert head.total == 0
    assert "tied" in head.shapes[0]


def test_cache_of_attention_is_two_numbers_a_layer_head_and_dimension():
    config = hf_zoo.create_config("llama2-70b")
    numbers = 2 * config.num_hidden_layers * config.num_key_value_heads * config.head_dim
    for dtype, size in (("float32", 4), ("bfloat16", 2)):
        cost = describe("llama2-70b").cache_cost(dtype)
        assert (cost.per_token, cost.fixed, cost.windows) == (size * numbers, 0, {})


def test_cache_of_a_window_is_bounded():
    config = hf_zoo.create_config("mistral-7b-v0.1")
    cost = describe("mistral-7b-v0.1").cache_cost("bfloat16")
    ((width, most),) = cost.windows.items()
    assert width == config.sliding_window
    # the token itself is seen too, so one less is kept
    assert most == (width - 1) * cost.per_token


RECURRENT = [n for n in TINY if set(getattr(hf_zoo.create_config(n), "layer_types", [])) == {"linear_attention"}]


@pytest.mark.parametrize("name", RECURRENT)
def test_cache_of_a_state_has_one_size(name):
    cost = describe(name).cache_cost("float32")
    assert cost.per_token == 0
    assert cost.fixed > 0


def test_encoders_have_no_cache():
    assert describe("mlm-tiny").cache_cost("float32") is None


def saved_llm(folder, task=None, **overrides):
    hf_zoo.create_model("llm-tiny", task, **overrides).save_pretrained(folder)
    return str(folder)


def test_patterns_are_true(tmp_path):
    seen = attention_patterns(describe("llama2-7b"), 9)
    assert list(seen) == ["full_attention"]
    assert torch.equal(seen["full_attention"], torch.ones(9, 9, dtype=torch.bool).tril())

    mixed = saved_llm(tmp_path, sliding_window=3, layer_types=["sliding_attention", "full_attention"])
    seen = attention_patterns(describe(mixed), 9)
    causal = torch.ones(9, 9, dtype=torch.bool).tril()
    assert torch.equal(seen["full_attention"], causal)
    assert torch.equal(seen["sliding_attention"], causal & ~causal.tril(-3))

    (seen,) = attention_patterns(describe("bert-base-cased"), 9).values()
    assert seen.all()


def saved_config(folder, preset, **options):
    """A folder of a preset with other options."""
    hf_zoo.create_model(preset, **options).save_pretrained(folder)
    return str(folder)


def test_patterns_of_long_encoders(tmp_path):
    """By layer where layers differ, with global tokens, neighbours of all gaps and random blocks."""
    i, j = torch.arange(40)[:, None], torch.arange(40)
    options = {"attention_window": [4, 12, 4], "attention_dilation": [1, 1, [1, 3, 1, 3]], "global_positions": [7]}
    folder = saved_config(tmp_path / "a", "longformer-tiny", num_hidden_layers=3, **options)
    seen = attention_patterns(describe(folder), 40)
    is_global = (i == 7) | (j == 7)
    assert list(seen) == ["layers 0", "layers 1", "layers 2"]
    assert torch.equal(seen["layers 0"], ((i - j).abs() <= 2) | is_global)
    assert torch.equal(seen["layers 1"], ((i - j).abs() <= 6) | is_global)
    assert torch.equal(
        seen["layers 2"], ((i - j).abs() <= 2) | is_global | ((i - j).abs() == 3) | ((i - j).abs() == 6)
    )
    folder = saved_config(tmp_path / "b", "longformer-tiny", num_hidden_layers=3, attention_window=[2, 8, 8])
    assert list(attention_patterns(describe(folder), 12)) == ["layers 0", "layers 1-2"]

    (seen,) = attention_patterns(describe(saved_config(tmp_path / "c", "bigbird-tiny", block_size=2)), 40).values()
    block_i, block_j = i // 2, j // 2
    always = ((block_i - block_j).abs() <= 1) | (block_j == 0) | (block_j == 19) | (block_i == 0) | (block_i == 19)
    assert seen[always.expand(40, 40)].all()
    random = (seen & ~always)[::2, ::2]
    assert 1 <= random[1:-1].sum(-1).min() and random[1:-1].sum(-1).max() <= 4  # one for each of four heads


def test_patterns_of_blocks_are_those_of_their_heads():
    """All heads together see everything, so each kind of them is drawn by itself."""
    seen = attention_patterns(describe("blockbert-base-n3"), 12)
    i, j = torch.arange(12)[:, None] // 4, torch.arange(12) // 4
    assert list(seen) == ["heads 0-7", "heads 8-9", "heads 10-11"]
    for shift, pattern in enumerate(seen.values()):
        assert torch.equal(pattern, ((i + shift) % 3 == j) | torch.eye(12, dtype=torch.bool))  # and the residual


def test_patterns_of_the_sparse_transformer(tmp_path):
    i, j = torch.arange(20)[:, None], torch.arange(20)
    options = {"pattern": "strided", "stride": 4, "num_hidden_layers": 1, "head_assignment": "merged"}
    (seen,) = attention_patterns(describe(saved_config(tmp_path, "sparse-transformer-tiny", **options)), 20).values()
    assert torch.equal(seen, (j <= i) & ((i - j <= 4) | ((i - j) % 4 == 0)))


@pytest.mark.parametrize("name", RECURRENT)
def test_a_state_carries_every_token_before(name):
    (seen,) = attention_patterns(describe(name), 9).values()
    assert torch.equal(seen, torch.ones(9, 9, dtype=torch.bool).tril())


@pytest.mark.parametrize("name", TINY)
def test_pictures_are_drawn(name, tmp_path):
    from PIL import Image

    described = describe(name)
    draw_parts(described, tmp_path / "parts.png")
    try:
        draw_patterns(described, attention_patterns(described, 5), tmp_path / "pattern.png")
    except ValueError as error:
        assert str(error).startswith(f"{name} takes no tokens")
        assert CASES[described.architecture.model_type].modality not in ("tokens", "pairs", "images in text")
    for path in tmp_path.iterdir():
        assert len(Image.open(path).convert("RGB").getcolors(10**6)) > 3


def test_pictures_that_cannot_be_written_are_known_before(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match=r"'\.gif'"):
        check_picture(tmp_path / "a.gif")
    with pytest.raises(FileNotFoundError, match="nowhere"):
        check_picture(tmp_path / "nowhere" / "a.png")
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match=r"hf_zoo\[plots\]"):
        check_picture(tmp_path / "a.png")


def test_show_says_what_it_costs(tmp_path):
    shown = command("show", "llama2-7b", "--pattern", tmp_path / "p.png", "--length", 8)
    assert shown.exit_code == 0, shown.output
    for text in ("layers 0-31 (32 x LlmBlock)", "6,738,415,616", "13.5 GB", "arXiv:2307.09288", "weight (4096, 4096)"):
        assert text in shown.output
    assert (tmp_path / "p.png").is_file()


def test_a_folder_is_shown_with_the_head_it_has(tmp_path):
    folder = saved_llm(tmp_path / "a", "token-classification")
    assert describe(folder).model_class.__name__ == "ZooLlmForTokenClassification"
    assert describe(folder, "causal-lm").model_class.__name__ == "ZooLlmForCausalLM"
    with pytest.raises(ValueError, match="no config.json"):
        describe(str(tmp_path))
    transformers.LlamaConfig().save_pretrained(tmp_path / "llama")
    with pytest.raises(ValueError, match="'llama'.*hf-zoo convert"):
        describe(str(tmp_path / "llama"))
    with pytest.raises(ValueError, match="'gpt3'.*'gpt2'"):
        describe("gpt3")


def test_export_of_a_preset_and_of_a_folder(tmp_path):
    fresh, again = tmp_path / "fresh", tmp_path / "again"
    assert command("export", "llm-tiny", fresh, "--task", "sequence-classification").exit_code == 0
    assert command("export", fresh, again).exit_code == 0
    assert (fresh / "model.safetensors").read_bytes() == (again / "model.safetensors").read_bytes()
    assert (again / "modeling_llm.py").is_file()
    assert json.loads((again / "config.json").read_text())["architectures"] == ["ZooLlmForSequenceClassification"]


def test_convert_there_and_back(tmp_path):
    source, llama, back, first = saved_llm(tmp_path / "zoo"), tmp_path / "llama", tmp_path / "back", tmp_path / "first"
    assert command("convert", source, llama, "--to", "llama").exit_code == 0
    assert command("convert", llama, back, "--to", "zoo_llm").exit_code == 0
    assert command("convert", back, first, "--to", "upstream").exit_code == 0
    assert json.loads((llama / "config.json").read_text())["model_type"] == "llama"
    assert (tmp_path / "zoo" / "model.safetensors").read_bytes() == (back / "model.safetensors").read_bytes()
    assert (llama / "model.safetensors").read_bytes() == (first / "model.safetensors").read_bytes()


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("export", "llm-tiny", "filled"), "is not empty"),
        (("export", "llm-tiny", "filled/file"), "is a file"),
        (("export", "llm-tinny", "new"), "'llm-tiny'"),
        (("export", "llm-tiny", "new", "--task", "masked-lm"), "It has feature-extraction, causal-lm"),
        (("convert", "model", "filled", "--to", "llama"), "is not empty"),
        (("convert", "model", "new", "--to", "lama"), "'llama'"),
        (("convert", "./nowhere", "new", "--to", "llama"), "is not a folder"),
    ],
)
def test_what_cannot_be_done_is_refused_before_any_work(tmp_path, monkeypatch, arguments, complaint):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "filled").mkdir()
    (tmp_path / "filled" / "file").write_text("mine")
    saved_llm(tmp_path / "model")
    monkeypatch.setattr(transformers.PreTrainedModel, "from_pretrained", None)
    result = command(*arguments)
    assert complaint in str(result.exception)
    assert not (tmp_path / "new").exists()
    assert [path.name for path in (tmp_path / "filled").iterdir()] == ["file"]


def test_errors_are_one_line():
    run = subprocess.run([sys.executable, "-m", "hf_zoo", "show", "gpt3"], capture_output=True, text=True, cwd=ROOT)
    assert run.returncode == 2
    assert len(run.stderr.strip().splitlines()) == 1
    assert "gpt2" in run.stderr
