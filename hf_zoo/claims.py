"""Claims: the headline result of each architecture's paper, reproduced small, as a comparison that can fail.

A claim is a script, `examples/claims/<arch>.py`, that trains with `Trainer`, compares with the rival that the paper
compares with, and ends with `claim.finish()`, which writes `<arch>.json` and `<arch>.png` beside the script. What
takes another training is a script of its own, `<arch>_<what>.py`, with figures of its own.
"""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import MissingExtra, unknown_name
from .registry import ARCHITECTURES

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, TrainerCallback


@dataclass
class Comparison:
    """One sentence that the figures make true or false.

    Args:
        statement: what is claimed, in words.
        measured: name -> figure, the rival's too.
        holds: whether the figures bear it out.
    """

    statement: str
    measured: dict[str, float]
    holds: bool


@dataclass
class Claim:
    """What a claim script reports.

    Args:
        architecture: folder name in `modeling/`.
        paper: whose result it is.
        comparisons: filled by `compare`.
        curves: title -> label -> (x values, y values), drawn side by side.
    """

    architecture: str
    paper: str
    comparisons: list[Comparison] = field(default_factory=list)
    curves: dict[str, dict[str, tuple[list[float], list[float]]]] = field(default_factory=dict)
    started: float = field(default_factory=time.monotonic)

    def compare(self, statement: str, holds: bool, **measured: float) -> None:
        """Add a comparison and print it."""
        figures = ", ".join(f"{name} {value:.3g}" for name, value in measured.items())
        print(f"{'holds' if holds else 'FAILS'}: {statement} ({figures})", flush=True)
        self.comparisons.append(
            Comparison(statement, {n: round(float(v), 4) for n, v in measured.items()}, bool(holds))
        )

    def draw(self, title: str, label: str, x: list[float], y: list[float]) -> None:
        """Add a curve to the picture."""
        self.curves.setdefault(title, {})[label] = (list(x), list(y))

    def finish(self) -> None:
        """Write figures and picture beside the script, and leave with an error if a comparison fails."""
        script = Path(sys.argv[0]).resolve()
        result = {
            "architecture": self.architecture,
            "paper": self.paper,
            "minutes": round((time.monotonic() - self.started) / 60, 1),
            "comparisons": [asdict(comparison) for comparison in self.comparisons],
        }
        script.with_suffix(".json").write_text(json.dumps(result, indent=2) + "\n")
        if self.curves:
            self._picture(script.with_suffix(".png"))
        raise SystemExit(0 if all(comparison.holds for comparison in self.comparisons) else 1)

    def _picture(self, path: Path) -> None:
        try:
            import matplotlib
        except ImportError:
            raise MissingExtra("matplotlib", "plots") from None
        matplotlib.use("Agg")
        from matplotlib import pyplot

        figure, axes = pyplot.subplots(1, len(self.curves), figsize=(4.5 * len(self.curves), 3.2), squeeze=False)
        for axis, (title, lines) in zip(axes[0], self.curves.items(), strict=True):
            for label, (x, y) in lines.items():
                axis.plot(x, y, marker="o" if len(x) < 20 else None, label=label)
            axis.set_title(title, fontsize=10)
            axis.legend(fontsize=8)
            axis.grid(alpha=0.3)
            if min(min(x) for x, _ in lines.values()) > 0 and max(max(x) for x, _ in lines.values()) > 500:
                axis.set_xscale("log", base=2)
        figure.tight_layout()
        figure.savefig(path, dpi=110)


class Examples:
    """A data set without end: example i is drawn by `draw` from a generator seeded with i, so it is always the same.

    Args:
        draw: makes one example, a dictionary of tensors, from a `torch.Generator`.
        size: how many; what Trainer calls an epoch.
        seed: another seed is another data set.
    """

    def __init__(self, draw: Callable[["torch.Generator"], dict[str, "torch.Tensor"]], size: int, seed: int) -> None:
        self.draw, self.size, self.seed = draw, size, seed

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> dict[str, "torch.Tensor"]:
        import torch

        return self.draw(torch.Generator().manual_seed(self.seed * 1_000_003 + index))

    def batch(self, rows: int) -> dict[str, "torch.Tensor"]:
        """The first rows, stacked."""
        import torch

        examples = [self[i] for i in range(rows)]
        return {name: torch.stack([example[name] for example in examples]) for name in examples[0]}


def train(
    model: "PreTrainedModel",
    draw: Callable[["torch.Generator"], dict[str, "torch.Tensor"]],
    steps: int,
    learning_rate: float,
    batch_size: int = 32,
    seed: int = 1,
    callbacks: "Sequence[TrainerCallback]" = (),
    **arguments: Any,
) -> list[float]:
    """Train with `Trainer` on freshly drawn examples; returns the loss at every tenth step."""
    from transformers import Trainer, TrainingArguments

    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(
            model,
            TrainingArguments(
                folder,
                max_steps=steps,
                learning_rate=learning_rate,
                per_device_train_batch_size=batch_size,
                seed=seed,
                use_cpu=True,
                report_to=[],
                save_strategy="no",
                logging_steps=10,
                **{"warmup_steps": steps // 20, "lr_scheduler_type": "cosine", **arguments},
            ),
            train_dataset=Examples(draw, steps * batch_size, seed),
            callbacks=list(callbacks),
        )
        trainer.train()
    model.eval()
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


def scripts_of(folder: Path) -> dict[str, list[Path]]:
    """Architecture -> its scripts in a folder, in the registry's order; `sam_text.py` is one of sam's."""
    names = [name.removeprefix("zoo_") for name in ARCHITECTURES]
    scripts: dict[str, list[Path]] = {name: [] for name in names}
    for path in sorted(folder.glob("*.py")):
        if owners := [name for name in names if f"{path.stem}_".startswith(f"{name}_")]:
            scripts[max(owners, key=len)].append(path)
    return {name: paths for name, paths in scripts.items() if paths}


def run_claims(names: list[str]) -> list[dict[str, Any]]:
    """Run claim scripts one after the other, each in a process of its own.

    Args:
        names: architectures, with or without `zoo_`; all that have a script if empty.

    Returns:
        What each script reported.

    Raises:
        ValueError: no such claim, or this is not a source checkout.
    """
    scripts = scripts_of(Path(__file__).resolve().parents[1] / "examples" / "claims")
    if not scripts:
        raise ValueError("claims are scripts of the source checkout: run this from a clone of the repository")
    names = [name.removeprefix("zoo_") for name in names]
    for name in names:
        if name not in scripts:
            raise unknown_name("claim", name, scripts)
    results = []
    for script in (script for name in names or scripts for script in scripts[name]):
        report = script.with_suffix(".json")
        report.unlink(missing_ok=True)
        run = subprocess.run([sys.executable, script])
        if not report.exists():
            raise ValueError(f"the claim {script.stem} ended with code {run.returncode} before it reported")
        results.append(json.loads(report.read_text()))
    return results
