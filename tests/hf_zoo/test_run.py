"""`hf-zoo run SCRIPT`: a script sees what it would see of Python itself, with the zoo registered."""

import json
import os
import subprocess
import sys

import pytest

SCRIPT = """
import json, sys
import neighbour
from transformers import CONFIG_MAPPING
import hf_zoo
known = [name in CONFIG_MAPPING for name in hf_zoo.list_architectures()]
print(json.dumps([__name__, sys.argv, sys.path[0], neighbour.HERE, all(known)]))
sys.exit(3)
"""


def run(*arguments, launcher=(), cwd=None):
    environment = {**os.environ, "PYTHONPATH": os.getcwd(), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, *launcher, "-m", "hf_zoo", "run", *map(str, arguments)]
    return subprocess.run(command, env=environment, cwd=cwd, capture_output=True, text=True, timeout=120)


@pytest.fixture
def script(tmp_path):
    folder = tmp_path / "scripts"
    folder.mkdir()
    (folder / "neighbour.py").write_text("HERE = 1")
    (folder / "train_it.py").write_text(SCRIPT)
    return folder / "train_it.py"


def test_a_script_runs_as_if_python_had_started_it(script):
    done = run(script, "--model", "x", "--help", "-h", "file")
    assert done.returncode == 3, done.stderr
    arguments = [str(script), "--model", "x", "--help", "-h", "file"]
    assert json.loads(done.stdout) == ["__main__", arguments, str(script.parent), 1, True]


def test_an_error_of_the_script_keeps_its_traceback(script):
    script.write_text("def broken():\n    raise ValueError('mine')\n\nbroken()\n")
    done = run(script)
    assert done.returncode == 1
    assert "line 2, in broken" in done.stderr and "ValueError: mine" in done.stderr


def test_a_missing_script_is_one_line(script):
    done = run("train_i.py", cwd=script.parent)
    assert done.returncode == 2
    assert done.stderr.strip().count("\n") == 0
    assert "'train_i.py'" in done.stderr and "'train_it.py'" in done.stderr
    assert "no script" in run("nowhere/x.py").stderr


@pytest.mark.slow
def test_a_script_runs_under_torchrun(script):
    script.write_text("import os, sys\nprint('rank', os.environ['RANK'], 'of', sys.argv[1])\n")
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2")
    done = run(script, "two", launcher=launcher)
    assert done.returncode == 0, done.stderr
    assert sorted(line for line in done.stdout.splitlines() if "rank" in line) == ["rank 0 of two", "rank 1 of two"]
