"""`LossCurve`: a Trainer callback that keeps a picture of the losses beside the checkpoints."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformers import TrainerCallback
from transformers.utils import logging

from ..files import write_json

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from transformers import TrainerControl, TrainerState, TrainingArguments

logger = logging.get_logger(__name__)


class LossCurve(TrainerCallback):
    """Writes `training.json` (Trainer's log history) and `loss.png` at every save and at the end.

    Both are replaced at once, so that a reader or a kill never meets half a file. It works in any Trainer:
    `Trainer(..., callbacks=[LossCurve()])`. The picture needs matplotlib, `pip install 'hf_zoo[plots]'`; without it
    only `training.json` is written.

    Args:
        folder: where to; Trainer's `output_dir` without it.
    """

    def __init__(self, folder: str | os.PathLike | None = None) -> None:
        self.folder = folder

    def on_train_begin(
        self, args: "TrainingArguments", state: "TrainerState", control: "TrainerControl", **kwargs: Any
    ) -> None:
        """Say before the first step, not after the last, that there will be no picture."""
        if not _has_matplotlib() and state.is_world_process_zero:
            logger.warning("loss.png needs matplotlib: pip install 'hf_zoo[plots]'. Writing training.json alone.")

    def on_save(
        self, args: "TrainingArguments", state: "TrainerState", control: "TrainerControl", **kwargs: Any
    ) -> None:
        """After a checkpoint."""
        self.write(args.output_dir, state)

    def on_train_end(
        self, args: "TrainingArguments", state: "TrainerState", control: "TrainerControl", **kwargs: Any
    ) -> None:
        """After the last step."""
        self.write(args.output_dir, state)

    def write(self, output_dir: str, state: "TrainerState") -> None:
        """Write both files from the log history so far; only on the main process."""
        if not state.is_world_process_zero:
            return
        folder = Path(output_dir if self.folder is None else self.folder)
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / "training.json", state.log_history)
        if _has_matplotlib():
            part = folder / ".loss.png.part"
            draw_losses(state.log_history).savefig(part, format="png", dpi=120)
            os.replace(part, folder / "loss.png")


def _has_matplotlib() -> bool:
    from importlib.util import find_spec

    return find_spec("matplotlib") is not None


def draw_losses(log_history: list[dict[str, float]]) -> "Figure":
    """Training and evaluation loss over steps, the learning rate on an axis of its own."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.add_subplot(xlabel="step", ylabel="loss")
    for key, label, style in (("loss", "train", "-"), ("eval_loss", "validation", "o-")):
        points = [(entry["step"], entry[key]) for entry in log_history if key in entry]
        if points:
            axes.plot(*zip(*points, strict=True), style, markersize=4, label=label)
    rates = [(entry["step"], entry["learning_rate"]) for entry in log_history if "learning_rate" in entry]
    if rates:
        right = axes.twinx()
        right.set_ylabel("learning rate")
        right.plot(*zip(*rates, strict=True), color="0.7", linewidth=1)
        axes.set_zorder(right.get_zorder() + 1)  # the losses in front of the learning rate
        axes.patch.set_visible(False)
    if axes.lines:
        axes.legend()
    axes.grid(alpha=0.3)
    return figure
