"""Every script in examples/ runs for a few steps, leaves what it says and prints what it promises."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"
TEXT = "import os\nimport sys\n\n\ndef first(names):\n    return sorted(names)[0]\n"

# script -> (arguments, patterns of what it prints, files that it leaves)
SCRIPTS = {
    "train_from_scratch.py": (
        ["--text", "notes.txt", "--steps", "3", "--folder", "out"],
        [r"ZooMambaForCausalLM with [\d,]+ parameters", "loss curve are in out", "^import "],
        ["out/model.safetensors", "out/modeling_mamba.py", "out/tokenizer.json", "out/loss.png"],
    ),
    "tune_with_lora.py": (
        ["model", "--dataset", "notes.txt", "--steps", "3", "--folder", "out"],
        ["trainable params", r"held-out loss \d", r"differ by at most \d\.\de-0[5-9]", "merged model is in out"],
        ["out/model.safetensors", "out/tokenizer.json"],
    ),
    "open_upstream_checkpoint.py": (
        ["--folder", "back"],
        [r"LlamaForCausalLM opened as ZooLlmForCausalLM: .* \d\.\de-0[6-9]", "LlamaForCausalLM: weights bit-equal"],
        ["back/model.safetensors"],
    ),
    "publish_and_load_without_hf_zoo.py": (
        [],
        ["^modeling_mamba.py$", "ZooMambaForCausalLM of modeling_mamba.py loaded without hf_zoo", "are bit-equal"],
        [],
    ),
    "own_trainer_script.py": (
        ["--steps", "3", "--folder", "out"],
        [r"ZooMambaForSequenceClassification: [\d.]+% of 300"],
        ["out/model.safetensors"],
    ),
    "mamba_long_context.py": (
        ["--lengths", "32", "128", "--steps", "2"],
        [r"^ 32 +256 KiB +[\d.]+ +380 KiB", r"^ 128 +1,024 KiB +[\d.]+ +380 KiB"],
        [],
    ),
    "demo.py": (
        ["--steps", "3", "--folder", "demo"],
        ["pre-trained on python-source", "tuned with LoRA", r"model +\d\.\d+ +\d\.\d+ +[\d,]+", r"demo/loss.png"],
        ["demo/loss.png", "demo/model/model.safetensors", "demo/adapter/adapter_model.safetensors"],
    ),
}
ELSEWHERE = {"two_processes.py"}  # started by torchrun, in tests/hf_zoo/test_two_processes.py


def start(script, arguments, folder):
    # as a user would: the scripts import an installed hf_zoo, for which this checkout stands in
    environment = {**os.environ, "PYTHONPATH": str(EXAMPLES.parent), "OMP_NUM_THREADS": "1", "COLUMNS": "120"}
    launcher = ["-m", "hf_zoo", "run"] if script == "own_trainer_script.py" else []
    command = [sys.executable, *launcher, EXAMPLES / script, *arguments]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def folder(tmp_path):
    """Where a script finds a text and a checkpoint with its tokenizer."""
    import hf_zoo
    from hf_zoo.tokenization.train import train_tokenizer

    text = "\n".join(f"{line}  # {number}" for number in range(600) for line in TEXT.splitlines())
    (tmp_path / "notes.txt").write_text(text)
    hf_zoo.create_model("mamba-tiny").save_pretrained(tmp_path / "model")
    train_tokenizer([], "byte", 300).save_pretrained(tmp_path / "model")
    return tmp_path


@pytest.mark.slow
@pytest.mark.parametrize("script", SCRIPTS)
def test_example_runs(script, folder):
    arguments, patterns, files = SCRIPTS[script]
    printed = start(script, arguments, folder)
    for pattern in patterns:
        assert re.search(pattern, printed, flags=re.MULTILINE), f"{pattern}\n{printed}"
    for file in files:
        assert (folder / file).exists(), file


@pytest.mark.slow
def test_the_demo_is_not_repeated_and_goes_on_where_it_was(tmp_path):
    start("demo.py", ["--steps", "3", "--folder", "demo"], tmp_path)
    record, weights = tmp_path / "demo/adapter/run.json", tmp_path / "demo/model/model.safetensors"
    before = weights.stat().st_mtime_ns
    record.write_text(record.read_text().replace('"finished": true', '"finished": false'))
    printed = start("demo.py", ["--steps", "3", "--folder", "demo"], tmp_path)
    assert "demo/model is finished" in printed and "demo/adapter is finished" not in printed
    assert weights.stat().st_mtime_ns == before
    assert "demo/adapter is finished" in start("demo.py", ["--steps", "3", "--folder", "demo"], tmp_path)


def test_every_script_is_tested():
    assert {path.name for path in EXAMPLES.glob("*.py")} == {*SCRIPTS, *ELSEWHERE}
