"""Two processes on a CPU give the losses and gradients of one, by DDP through Trainer and by FSDP2."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from tiny import llama_folder, text_file

EXAMPLE = Path(__file__).parents[2] / "examples" / "two_processes.py"


def history(mode: str, num_processes: int, folder: Path) -> list[tuple[float, float]]:
    """(loss, gradient norm) of each step."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={num_processes}"]
    arguments = [EXAMPLE, mode, "--model", folder / "model", "--dataset", folder / "lines.txt", "--num_steps", "6"]
    environment = {**os.environ, "PYTHONPATH": os.getcwd(), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    command = [*launcher, *map(str, arguments)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return [(float(a), float(b)) for a, b in re.findall(r"^step \d+ loss (\S+) gradient (\S+)", done.stdout, re.M)]


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["ddp", "fsdp"])
def test_two_processes_train_as_one_does(mode, tmp_path):
    llama_folder(tmp_path / "model", dropout=0.0)  # each process draws its own dropout
    text_file(tmp_path / "lines.txt")
    one, two = (history(mode, count, tmp_path) for count in (1, 2))
    assert len(one) == 6 and one[-1][0] < one[0][0]
    for step, (expected, actual) in enumerate(zip(one, two, strict=True)):
        # printed to six places; the sum of two halves rounds otherwise than the whole
        assert actual == pytest.approx(expected, abs=1e-4), step
