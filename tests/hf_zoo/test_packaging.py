"""Wheel, source archive and editable install: the same package from each, wherever Python is started."""

import os
import shutil
import site
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.slow
LOOK = "import hf_zoo, hf_zoo.modeling as m, sys; print(hf_zoo.__file__, m.__file__, len(hf_zoo.list_models()))"


def run(*command, cwd):
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    outcome = subprocess.run([str(c) for c in command], cwd=cwd, capture_output=True, text=True, env=environment)
    assert outcome.returncode == 0, outcome.stdout[-2000:] + outcome.stderr[-2000:]
    return outcome.stdout


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """A copy of the tree: building leaves folders behind."""
    folder = tmp_path_factory.mktemp("packaging") / "checkout"
    ignored = shutil.ignore_patterns(".git", ".venv", "__pycache__", "build", "dist", "*.egg-info", ".*_cache")
    shutil.copytree(ROOT, folder, ignore=ignored)
    return folder


@pytest.fixture(scope="module")
def archives(checkout):
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", "dist", ".", cwd=checkout)
    return checkout / "dist"


@pytest.fixture
def interpreter(tmp_path):
    """A virtual environment of its own that sees the packages of the running interpreter."""
    folder = tmp_path / "venv"
    venv.create(folder, with_pip=False)
    library = next(folder.glob("lib/python*/site-packages"))
    (library / "outer.pth").write_text("\n".join(site.getsitepackages()) + "\n")
    return folder / "bin" / "python"


def test_wheel_holds_the_package_and_nothing_beside_it(archives):
    (wheel,) = archives.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names if ".dist-info/" not in name} == {"hf_zoo"}
    for folder in ("hf_zoo", "modeling", "tokenization"):
        inside = "" if folder == "hf_zoo" else "hf_zoo/"
        files = [path for path in (ROOT / folder).rglob("*.py") if "__pycache__" not in path.parts]
        expected = {inside + path.relative_to(ROOT).as_posix() for path in files}
        assert expected <= set(names)
    assert "hf_zoo/modeling/llm/modeling_llm.py" in names
    assert "hf_zoo/modeling/llm/README.md" in names


def test_source_archive_holds_what_building_needs(archives):
    (archive,) = archives.glob("*.tar.gz")
    names = {name.partition("/")[2] for name in tarfile.open(archive).getnames()}
    assert {"pyproject.toml", "setup.py", "LICENSE", "modeling/llm/modeling_llm.py"} <= names
    assert {"tokenization/train.py", "hf_zoo/registry.py"} <= names


def test_installed_wheel_works_everywhere(archives, checkout, interpreter, tmp_path):
    (wheel,) = archives.glob("*.whl")
    run(interpreter, "-m", "pip", "install", "--no-deps", "--no-index", "--quiet", wheel, cwd=tmp_path)
    package, modeling, count = run(interpreter, "-c", LOOK, cwd=tmp_path).split()
    assert str(interpreter.parents[1]) in package
    assert str(interpreter.parents[1]) in modeling
    assert int(count) > 20
    assert "llm-tiny" in run(interpreter.parent / "hf-zoo", "list", cwd=tmp_path)
    # In the checkout its own files come first, all of them
    package, modeling, _ = run(interpreter, "-c", LOOK, cwd=checkout).split()
    assert Path(package).parents[1] == checkout
    assert Path(modeling).parents[1] == checkout


def test_editable_install_works_everywhere(checkout, interpreter, tmp_path):
    install = ("install", "--no-deps", "--no-index", "--no-build-isolation", "--quiet", "--editable", checkout)
    run(interpreter, "-m", "pip", *install, cwd=tmp_path)
    for cwd in (tmp_path, checkout):
        package, modeling, _ = run(interpreter, "-c", LOOK, cwd=cwd).split()
        assert Path(package).parents[1] == checkout
        assert Path(modeling).parents[1] == checkout
    assert "llm-tiny" in run(interpreter.parent / "hf-zoo", "list", cwd=tmp_path)
