"""The tables that scikit-learn ships, one column a feature."""

from typing import TYPE_CHECKING

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
    try:
        import sklearn.datasets
    except ImportError:
        raise MissingExtra("scikit-learn", "tables") from None
    from datasets import ClassLabel, Dataset, Features, Value

    # The scaled form of this table has every sample's mean and deviation in it, those of the test split too
    options = {"scaled": False} if name == "diabetes" else {}
    table = getattr(sklearn.datasets, f"load_{name}")(**options)
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
