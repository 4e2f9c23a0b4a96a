"""Pictures of models: where the parameters are, and who sees whom. Needs the extra `plots`."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from .errors import MissingExtra, unknown_name
from .show import Described, Part, short_count

if TYPE_CHECKING:
    from torch import Tensor

FORMATS = (".png", ".svg", ".pdf")
_MIN_LABEL_SHARE = 0.018  # of the picture's height; a lower box has no room for a line of text
_MAX_COLUMNS = 3


def check_picture(path: Path) -> None:
    """Raise unless a picture can be written there: asked before a model is made.

    Raises:
        ValueError: an unknown kind of picture.
        FileNotFoundError: no such folder.
        MissingExtra: matplotlib is not installed.
    """
    if path.suffix not in FORMATS:
        raise unknown_name("kind of picture", path.suffix, FORMATS, f"{path} must end in one of {', '.join(FORMATS)}.")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"{path.parent} is not a folder")
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        raise MissingExtra("matplotlib", "plots") from None


def draw_parts(described: Described, path: Path) -> None:
    """The modules as columns of boxes: height is the share of parameters, the next column what is inside."""
    from matplotlib.figure import Figure

    root = described.parts
    figure = Figure(figsize=(12, 8), layout="constrained")
    axes = figure.add_subplot()
    num_columns = _draw_boxes(axes, list(_unwrapped(root)), 0, 0.0, root.total, 1, 0)
    axes.set(xlim=(0, num_columns), ylim=(1, 0))
    axes.set_axis_off()
    axes.set_title(
        f"{described.name}: {described.model_class.__name__}, {short_count(root.total)} parameters", loc="left"
    )
    figure.savefig(path, dpi=150)


def _unwrapped(part: Part) -> Iterator[Part]:
    """What a model holds, with the trunk's own modules in the trunk's place."""
    for below in part.parts:
        is_trunk = below.copies == 1 and not below.shapes and below.total > part.total / 2
        yield from _unwrapped(below) if is_trunk else [below]


def _draw_boxes(axes, parts: list[Part], column: int, top: float, whole: int, copies: int, color_idx: int) -> int:
    """Draw parts below each other and, to their right, what they hold; how many columns that took."""
    from matplotlib import colormaps
    from matplotlib.patches import Rectangle

    num_columns = column
    for i, part in enumerate(part for part in parts if part.total):
        parameters = copies * part.total
        height = parameters / whole
        color_idx = color_idx if column else i
        color = colormaps["tab10"](color_idx % 10, alpha=0.45 - 0.12 * column)
        axes.add_patch(Rectangle((column, top), 1, height, facecolor=color, edgecolor="white", linewidth=1.5))
        if height >= _MIN_LABEL_SHARE:
            text = f"{part.label}  {short_count(parameters)}, {height:.1%}"
            axes.text(column + 0.02, top + height / 2, text, va="center", fontsize=9, clip_on=True)
        num_columns = max(num_columns, column + 1)
        if column + 1 < _MAX_COLUMNS:
            below = _draw_boxes(axes, list(part.parts), column + 1, top, whole, copies * part.copies, color_idx)
            num_columns = max(num_columns, below)
        top += height
    return num_columns


def draw_patterns(described: Described, patterns: dict[str, "Tensor"], path: Path) -> None:
    """One panel for each kind of layer: row t has a dark cell at s where token t sees token s."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.5 * len(patterns) + 0.5, 5), layout="constrained")
    for i, (kind, seen) in enumerate(patterns.items(), start=1):
        axes = figure.add_subplot(1, len(patterns), i)
        axes.imshow(seen.numpy(), cmap="Blues", vmin=0, vmax=1.2, interpolation="nearest")
        axes.set(xlabel="seen token", ylabel="token", title=f"{kind}: {seen.float().mean():.1%} of all pairs")
    figure.suptitle(f"{described.name}: who sees whom in one layer")
    figure.savefig(path, dpi=150)
