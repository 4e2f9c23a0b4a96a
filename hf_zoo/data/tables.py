"""The tables and the images of digits that scikit-learn ships."""

from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import MissingExtra

if TYPE_CHECKING:
    from datasets import Dataset


def sklearn_table(name: str) -> tuple["Dataset", list[str]]:
    """One row a sample: its features under their own names, then `label` (a class) or `target` (a number).

    Args:
        name: what follows `load_` in `sklearn.datasets`.

    Returns:
        The rows, and the content by which each is split, so that equal rows never stand on both sides.

    Raises:
        MissingExtra: scikit-learn is not installed.
    """
    from datasets import ClassLabel, Dataset, Features, Value

    # The scaled form of this table has every sample's mean and deviation in it, those of the test split too
    options = {"scaled": False} if name == "diabetes" else {}
    table = _load(name, **options)
    columns = dict(zip(table.feature_names, table.data.T, strict=True))
    features = {column: Value("float32") for column in columns}
    if "target_names" in table:
        columns["label"] = table.target
        features["label"] = ClassLabel(names=[str(label) for label in table.target_names])
    else:
        columns["target"] = table.target
        features["target"] = Value("float32")
    keys = [" ".join(map(str, row.tolist())) for row in table.data]
    return Dataset.from_dict(columns, features=Features(features)), keys


def sklearn_digits() -> tuple["Dataset", list[str]]:
    """One row a handwritten digit: `image` (8 by 8, grey, white on black), `label` and `text` ("digit three").

    Returns:
        The rows, and the content by which each is split.

    Raises:
        MissingExtra: scikit-learn is not installed.
    """
    from datasets import ClassLabel, Dataset, Features, Image, Value
    from PIL.Image import fromarray

    table = _load("digits")
    names = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
    pixels = (table.images * (255 / 16)).round().astype(np.uint8)  # from 17 shades
    columns = {
        "image": [fromarray(image) for image in pixels],
        "label": table.target,
        "text": [f"digit {names[label]}" for label in table.target],
    }
    features = Features({"image": Image(), "label": ClassLabel(names=list(names)), "text": Value("string")})
    return Dataset.from_dict(columns, features=features), [image.tobytes().hex() for image in pixels]


def _load(name: str, **options: Any) -> Any:
    try:
        import sklearn.datasets
    except ImportError:
        raise MissingExtra("scikit-learn", "tables") from None
    return getattr(sklearn.datasets, f"load_{name}")(**options)
