"""Checkpoints that carry their code: what is written, what is kept, and who loads it."""

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import peft
import pytest
import torch
import transformers
from cases import CASES, takes_tokens
from huggingface_hub import HfApi, ModelCard
from huggingface_hub.errors import LocalEntryNotFoundError
from tiny import needs_image_processors

import hf_zoo
from hf_zoo.export import auto_map, flat_name, flattened_code
from hf_zoo.registry import ARCHITECTURES, TASKS, find_architecture

ROOT = Path(__file__).parents[2]
PICKLES = {".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt"}


@pytest.fixture(params=sorted(ARCHITECTURES))
def architecture(request):
    return ARCHITECTURES[request.param]


@pytest.fixture
def model(architecture):
    torch.manual_seed(0)
    return hf_zoo.create_model(architecture.tiny_preset).eval()


def saved(model, folder):
    model.save_pretrained(folder)
    return {path.name: path for path in Path(folder).iterdir()}


def has_code(folder, architecture):
    """Whether a folder holds everything that loading it elsewhere needs."""
    entries = json.loads(Path(folder, "config.json").read_text()).get("auto_map", {})
    names = {path.name for path in Path(folder).iterdir()}
    return set(flattened_code(architecture)) <= names and entries == auto_map(architecture)


def test_exported_code_is_the_source(architecture):
    """Comments, order and text: only import lines differ, and the line of provenance."""
    sources = {
        flat_name(path): path for folder in ("modeling", "tokenization") for path in (ROOT / folder).rglob("*.py")
    }
    for name, text in flattened_code(architecture).items():
        provenance, *lines = text.splitlines()
        source = sources[name].read_text().splitlines()
        assert provenance == f"# {sources[name].relative_to(ROOT)} of hf_zoo {hf_zoo.__version__}, Apache-2.0"
        assert len(lines) == len(source)
        changed = [(old, new) for old, new in zip(source, lines, strict=True) if old != new]
        assert all(old.lstrip().startswith("from .") and new.lstrip().startswith("from .") for old, new in changed)
        assert [old.split(" import ")[1] for old, _ in changed] == [new.split(" import ")[1] for _, new in changed]


def test_exported_imports_are_files_beside(architecture):
    code = flattened_code(architecture)
    for name, text in code.items():
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.ImportFrom) and node.level:
                assert node.level == 1
                assert f"{node.module}.py" in code, f"{name} imports {node.module}"


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("import hf_zoo", "imports hf_zoo"),
        ("from . import masks", "must be"),
        ("from ..layers import norm", "must be"),
    ],
)
def test_code_that_cannot_be_flattened_is_named(tmp_path, monkeypatch, line, complaint):
    architecture = find_architecture("llm")
    folder = tmp_path / "modeling" / "llm"
    folder.mkdir(parents=True)
    path = folder / "modeling_llm.py"
    path.write_text(f'"""Text."""\n\n{line}\n')
    broken = type("Module", (), {"__file__": str(path)})
    monkeypatch.setattr(type(architecture), "module", lambda self, kind: broken)
    with pytest.raises(ValueError, match=f"modeling_llm.py:3 .*{complaint}"):
        flattened_code(architecture)


def test_folder_has_weights_code_card_and_no_pickle(model, architecture, tmp_path):
    files = saved(model, tmp_path)
    assert {"config.json", "model.safetensors", "README.md"} <= set(files)
    assert has_code(tmp_path, architecture)
    assert not PICKLES & {path.suffix for path in files.values()}
    card = files["README.md"].read_text()
    assert architecture.paper[1] in card
    assert TASKS[architecture.tasks[0]][0] in card
    assert not hasattr(model.config, "auto_map")


def test_a_users_card_is_kept(model, tmp_path):
    (tmp_path / "README.md").write_text("mine")
    assert saved(model, tmp_path)["README.md"].read_text() == "mine"


def test_saving_again_writes_the_same(model, tmp_path):
    first = {name: path.read_bytes() for name, path in saved(model, tmp_path).items()}
    again = type(model).from_pretrained(tmp_path)
    assert {name: path.read_bytes() for name, path in saved(again, tmp_path).items()} == first


def test_configs_and_processors_are_saved_together(architecture, tmp_path):
    processor = hf_zoo.create_processor(architecture.tiny_preset)
    if architecture.name in ("imagebind", "vlm"):  # whose processors hold one of transformers' own
        needs_image_processors()
    folder = hf_zoo.export_standalone(hf_zoo.create_model(architecture.tiny_preset), tmp_path, processor)
    assert has_code(folder, architecture)
    if takes_tokens(CASES[architecture.model_type]):
        again = transformers.AutoTokenizer.from_pretrained(folder)
        tokenizer = getattr(processor, "tokenizer", processor)  # of a processor for more than text
        assert again("def f(x):").input_ids == tokenizer("def f(x):").input_ids
    else:
        assert type(transformers.AutoProcessor.from_pretrained(folder)) is type(processor)
    config_alone = tmp_path / "config"
    hf_zoo.create_config(architecture.tiny_preset).save_pretrained(config_alone)
    assert has_code(config_alone, architecture)


@pytest.mark.parametrize("trust", [True, False, None])
def test_the_installed_class_is_used_where_there_is_one(model, tmp_path, trust):
    model.save_pretrained(tmp_path)
    auto_class = getattr(transformers, TASKS[find_architecture(model.config.model_type).tasks[0]][0])
    imported = set(sys.modules)
    again = auto_class.from_pretrained(tmp_path, trust_remote_code=trust)
    assert type(again) is type(model)
    assert type(again.config) is type(model.config)
    assert not hasattr(again.config, "auto_map")  # else saving again would copy the folder's code, not the package's
    assert not any(name.startswith("transformers_modules") for name in set(sys.modules) - imported)


def test_merged_adapters_carry_code(model, architecture, tmp_path):
    wrapped = peft.get_peft_model(model, hf_zoo.lora_config(model, r=2))
    with torch.no_grad():
        for name, parameter in wrapped.named_parameters():
            if "lora_B" in name:
                parameter.normal_()
    merged = wrapped.merge_and_unload()
    merged.save_pretrained(tmp_path)
    assert has_code(tmp_path, architecture)
    again = type(model).from_pretrained(tmp_path).eval()
    assert all(torch.equal(a, b) for a, b in zip(merged.parameters(), again.parameters(), strict=True))


def rows_for(model, architecture):
    case = CASES[architecture.model_type]
    if not takes_tokens(case):
        batch = case.inputs(rows=8)
        batch |= case.labels(model, batch)
        return [{name: x[i] for name, x in batch.items()} for i in range(8)]
    rows = [{"input_ids": torch.arange(5 + i, 17 + i)[None] % model.config.vocab_size} for i in range(8)]
    return [{name: x[0] for name, x in (row | case.labels(model, row)).items()} for row in rows]


@pytest.mark.slow
def test_trainer_checkpoints_carry_code_and_resume(architecture, tmp_path):
    """Six steps at once, and three steps resumed for three more, end in the same weights."""

    def trainer(folder, steps):
        torch.manual_seed(0)
        model = hf_zoo.create_model(architecture.tiny_preset)
        arguments = transformers.TrainingArguments(
            folder, max_steps=steps, save_steps=3, per_device_train_batch_size=2, report_to=[], use_cpu=True
        )
        return transformers.Trainer(model, arguments, train_dataset=rows_for(model, architecture))

    whole, resumed = trainer(tmp_path / "whole", 6), trainer(tmp_path / "whole", 6)
    whole.train()
    checkpoint = tmp_path / "whole" / "checkpoint-3"
    assert has_code(checkpoint, architecture)
    resumed.train(resume_from_checkpoint=str(checkpoint))
    for a, b in zip(whole.model.parameters(), resumed.model.parameters(), strict=True):
        assert torch.equal(a, b)


PUSHES = {
    "model": lambda model, folder: model.push_to_hub("someone/tiny"),
    "saved model": lambda model, folder: model.save_pretrained(folder, push_to_hub=True, repo_id="someone/tiny"),
    "config": lambda model, folder: model.config.push_to_hub("someone/tiny"),
    "saved config": lambda model, folder: model.config.save_pretrained(
        folder, push_to_hub=True, repo_id="someone/tiny"
    ),
}


@pytest.mark.parametrize("what", PUSHES)
def test_what_is_pushed_to_the_hub(model, architecture, monkeypatch, tmp_path, what):
    """The commit that would be sent: weights, config with auto_map, code and card, and no pickle."""
    commits = []
    url = "https://huggingface.co/someone/tiny"
    monkeypatch.setattr(
        HfApi, "create_repo", lambda self, repo_id, **_: type("Url", (str,), {"repo_id": repo_id})(url)
    )

    def create_commit(self, repo_id, operations, **kwargs):
        contents = {}
        for operation in operations:
            with operation.as_file() as file:  # the files are gone when the push has ended
                contents[operation.path_in_repo] = file.read()
        commits.append((repo_id, contents))

    def no_card(*_, **__):  # as of a new repository; asking for it would be tried again for half a minute
        raise LocalEntryNotFoundError("no card yet")

    monkeypatch.setattr(HfApi, "create_commit", create_commit)
    monkeypatch.setattr(ModelCard, "load", no_card)
    PUSHES[what](model, tmp_path / "folder")
    ((repo_id, contents),) = commits
    assert repo_id == "someone/tiny"
    assert set(flattened_code(architecture)) <= set(contents)
    assert json.loads(contents["config.json"])["auto_map"] == auto_map(architecture)
    assert "README.md" in contents
    assert ("model.safetensors" in contents) == what.endswith("model")
    assert not [name for name in contents if Path(name).suffix in PICKLES]


@pytest.mark.slow
def test_adapters_and_merged_models_load_without_the_package(model, architecture, tmp_path):
    """An adapter beside an exported base, opened where `import hf_zoo` fails."""
    base, adapter = tmp_path / "base", tmp_path / "adapter"
    model.save_pretrained(base)
    loaded = type(model).from_pretrained(base).eval()
    wrapped = peft.get_peft_model(loaded, hf_zoo.lora_config(loaded, r=2))
    with torch.no_grad():
        for name, parameter in wrapped.named_parameters():
            if "lora_B" in name:
                parameter.normal_()
        inputs = model.dummy_inputs
        expected = wrapped.eval()(**inputs)[0]
    wrapped.save_pretrained(adapter)
    torch.save((inputs, expected), tmp_path / "expected.pt")
    script = (
        "import sys, torch, transformers, peft\n"
        "sys.modules['hf_zoo'] = None  # any import of it fails\n"
        f"base = transformers.{TASKS[architecture.tasks[0]][0]}.from_pretrained('base', trust_remote_code=True)\n"
        "model = peft.PeftModel.from_pretrained(base, 'adapter').eval()\n"
        "inputs, expected = torch.load('expected.pt')\n"
        "with torch.no_grad(): got = model(**inputs)[0]\n"
        "torch.testing.assert_close(got, expected)\n"
        "print('equal')"
    )
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "home"), "PYTHONPATH": ""}
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=tmp_path, env=environment)
    assert run.stdout.strip() == "equal", run.stderr[-2000:]
