"""What README.md shows runs: its Python blocks, its commands, the make targets and the files it names."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(python|bash)\n(.*?)^```", README, flags=re.MULTILINE | re.DOTALL)
USAGES = re.findall(r"^\| `hf-zoo ([^`]*)` \|", README, flags=re.MULTILINE)


def hf_zoo(arguments, folder):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "hf_zoo", *arguments]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, f"{shlex.join(arguments)}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.mark.slow
def test_blocks_run_in_order(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    namespace = {"__name__": "__main__"}
    num_commands = 0
    for language, block in BLOCKS:
        if language == "python":
            exec(compile(block, "README.md", "exec"), namespace)
            continue
        for line in block.splitlines():
            if line.startswith("hf-zoo "):
                hf_zoo(shlex.split(line)[1:], tmp_path)
                num_commands += 1
    assert num_commands >= 6
    for folder in ("first", "llama-again", "published", "model", "zoo-llama", "standalone"):
        assert (tmp_path / folder / "model.safetensors").exists(), folder
    assert (tmp_path / "adapter" / "adapter_model.safetensors").exists()


def test_the_table_of_commands_is_complete():
    from hf_zoo.cli import app

    registered = [*app.registered_commands, *app.registered_groups]
    assert sorted(usage.split()[0] for usage in USAGES) == sorted(command.name for command in registered)


@pytest.mark.parametrize("usage", USAGES, ids=lambda usage: usage.split()[0])
def test_flags_of_the_table_exist(usage, tmp_path):
    words = [word for word in usage.split() if word.islower() and word[0].isalpha()]  # `index build`, without flags
    command, rest = words[:2] if words[0] == "index" else words[:1], usage.split()
    shown = hf_zoo([*command, "--help"], tmp_path)
    for flag in re.findall(r"--\w[\w-]*", " ".join(rest)):
        assert flag in shown


def test_make_targets_exist():
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    named = set(re.findall(r"(?:^|`)make ([\w-]+)", README, flags=re.MULTILINE))
    assert {"demo", "test"} <= named <= targets


def test_files_and_headings_exist():
    headings = {re.sub(r"[^\w -]", "", line).strip().lower() for line in README.splitlines() if line.startswith("#")}
    anchors = {heading.replace(" ", "-") for heading in headings}
    for target in re.findall(r"\]\(([^)]*)\)|src=\"([^\"]*)\"", README):
        target = "".join(target)
        if target.startswith("#"):
            assert target[1:] in anchors, target
        elif not target.startswith("https://"):
            assert (ROOT / target).is_file(), target


def test_the_python_range_is_that_of_the_package():
    package = (ROOT / "pyproject.toml").read_text()
    assert 'requires-python = ">=3.10,<3.14"' in package and "Python 3.10 to 3.13" in README
    assert "transformers>=5.17,<5.24" in package and "transformers 5.17 to 5.23" in README
