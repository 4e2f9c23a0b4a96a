"""`hf-zoo new`, in a copy of the checkout."""

import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from hf_zoo.errors import MissingExtra
from hf_zoo.new import new_architecture

ROOT = Path(__file__).parents[2]
SOURCES = ("hf_zoo", "modeling", "tokenization", "tests", "pyproject.toml")


@pytest.fixture
def checkout(tmp_path):
    for name in SOURCES:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, tmp_path / name)
    return tmp_path


def run(checkout, *arguments):
    return subprocess.run([sys.executable, "-m", *arguments], cwd=checkout, capture_output=True, text=True)


@pytest.mark.parametrize("like", ["llm", "zoo_mlm"])
def test_written_tree_is_clean(checkout, like):
    written = new_architecture("echo_net", like, checkout)
    assert {path.name for path in written} == {
        *("__init__.py", "configuration_echo_net.py", "modeling_echo_net.py", "presets.py", "README.md"),
        *("registry.py", "cases.py"),
    }
    assert run(checkout, "ruff", "check", ".").stdout.strip() == "All checks passed!"
    assert run(checkout, "ruff", "format", "--check", ".").returncode == 0
    short = like.removeprefix("zoo_").capitalize()
    for path in (checkout / "modeling" / "echo_net").iterdir():
        text = path.read_text()
        assert f"Zoo{short}" not in text
        assert f"{short}Block" not in text
        assert f"{short.lower()}-tiny" not in text
    listed = run(checkout, "hf_zoo", "list", "echo*")
    assert "zoo_echo_net" in listed.stdout
    assert "echo-net-tiny" in listed.stdout


@pytest.mark.parametrize(
    ("name", "like", "complaint"),
    [
        ("llm", "mlm", "modeling/llm is there already"),
        ("layers", "mlm", "modeling/layers is there already"),
        ("MyModel", "mlm", "'MyModel' cannot name"),
        ("class", "mlm", "'class' cannot name"),
        ("echo_net", "mln", "'mln'.*'zoo_mlm'"),
    ],
)
def test_names_that_cannot_be_used(checkout, name, like, complaint):
    before = sorted(checkout.rglob("*"))
    with pytest.raises(ValueError, match=complaint):
        new_architecture(name, like, checkout)
    assert sorted(checkout.rglob("*")) == before


def test_outside_a_checkout(tmp_path):
    with pytest.raises(ValueError, match="source checkout"):
        new_architecture("echo_net", "llm", tmp_path)


def test_without_ruff(checkout, monkeypatch):
    find_spec = importlib.util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "ruff" else find_spec(name))
    with pytest.raises(MissingExtra, match=r"hf_zoo\[dev\]"):
        new_architecture("echo_net", "llm", checkout)
    assert not (checkout / "modeling" / "echo_net").exists()


@pytest.mark.slow
def test_new_architecture_keeps_every_promise(checkout):
    outcome = run(checkout, "hf_zoo", "new", "echo_net", "--like", "llm")
    assert outcome.returncode == 0, outcome.stderr
    assert "What remains" in outcome.stdout
    sweep = run(checkout, "pytest", "tests/test_conformance.py", "-q", "-k", "zoo_echo_net", "-p", "no:cacheprovider")
    assert sweep.returncode == 0, sweep.stdout[-3000:]
