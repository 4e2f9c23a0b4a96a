"""What turns the rows of a table into what `zoo_tabular` reads, and remembers how: kinds of columns, means, bins,
categories and classes.

Numbers are standardised; a missing one stays NaN. A category is its place in what was seen when fitting, and 0 where
it is missing or was never seen. Bins lie between quantiles (Gorishniy et al. 2022, https://arxiv.org/abs/2203.05556,
section 3.2.1).

Shapes: B rows, N numeric columns, C columns of categories.
"""

import difflib
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from transformers import BatchFeature, PreTrainedConfig, ProcessorMixin

Rows = Any  # a pandas DataFrame, a `datasets.Dataset`, a dictionary of columns, one row or a list of rows


class ZooTabularProcessor(ProcessorMixin):
    """The columns of a table as they were when it was fitted; made by `ZooTabularProcessor.fit(rows, target="label")`.

    Args:
        numeric_columns: for each its `name`, `mean` and `deviation`, and the edges of its `bins` if it has some.
        categorical_columns: for each its `name` and `values`; value i is category i + 1.
        target: `name` of the column to predict and either its class `values` with their `names`, or its `mean` and
            `deviation`; None where nothing is.
    """

    attributes: list[str] = []
    _auto_class = "AutoProcessor"  # this file is saved beside the settings

    def __init__(
        self,
        numeric_columns: list[dict[str, Any]] | None = None,
        categorical_columns: list[dict[str, Any]] | None = None,
        target: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        self.numeric_columns = numeric_columns or []
        self.categorical_columns = categorical_columns or []
        self.target = target
        super().__init__(**kwargs)

    @classmethod
    def fit(
        cls,
        rows: Rows,
        target: str | None = None,
        categorical: Sequence[str] | None = None,
        num_bins: int | None = None,
    ) -> "ZooTabularProcessor":
        """Look at the rows to train on, and at no others.

        Args:
            rows: a pandas DataFrame, a `datasets.Dataset`, a dictionary of columns or a list of rows.
            target: the column to predict: names, booleans and whole numbers are classes, other numbers are a value.
            categorical: columns of categories; without it those that do not hold numbers alone.
            num_bins: between quantiles, for piecewise linear encodings of numbers; none without it.

        Raises:
            ValueError: there are no rows or columns, a named column is none of them, or a column is empty.
        """
        columns, names_of = _columns(rows)
        for name in (*(categorical or ()), *([] if target is None else [target])):
            if name not in columns:
                raise _unknown("column", name, columns)
        if not columns or not len(next(iter(columns.values()))):
            raise ValueError("a table needs at least one row and one column to be fitted to")
        goal = None if target is None else _fit_target(target, columns.pop(target), names_of.get(target))
        numeric, categories = [], []
        for name, values in columns.items():
            is_category = not _is_numeric(values) or name in names_of if categorical is None else name in categorical
            if is_category:
                categories.append({"name": name, "values": _distinct(values)})
            else:
                numeric.append({"name": name, **_fit_numbers(name, values, num_bins)})
        return cls(numeric, categories, goal)

    @classmethod
    def from_model_config(cls, config: PreTrainedConfig) -> "ZooTabularProcessor":
        """For a model without a table of its own: columns are numbered, numbers are left as they are."""
        numeric = [{"name": f"number_{i}", "mean": 0.0, "deviation": 1.0} for i in range(config.num_numeric_columns)]
        sizes = enumerate(config.category_sizes)
        return cls(numeric, [{"name": f"category_{i}", "values": list(range(1, size))} for i, size in sizes])

    @property
    def model_input_names(self) -> list[str]:
        """What the model takes."""
        names = ["numeric_values"] if self.numeric_columns else []
        return [*names, "category_ids"] if self.categorical_columns else names

    def config_fields(self) -> dict[str, Any]:
        """Fields of `ZooTabularConfig` that make a model for this table: `create_model(name, **config_fields())`."""
        fields: dict[str, Any] = {
            "num_numeric_columns": len(self.numeric_columns),
            "category_sizes": [len(column["values"]) + 1 for column in self.categorical_columns],
        }
        if any("bins" in column for column in self.numeric_columns):
            fields["numeric_bins"] = [column["bins"] for column in self.numeric_columns]
        if self.target is None:
            return fields
        if "values" not in self.target:
            return {**fields, "num_labels": 1, "problem_type": "regression"}
        names = self.target["names"]
        return {
            **fields,
            "id2label": dict(enumerate(names)),
            "label2id": {name: i for i, name in enumerate(names)},
            "problem_type": "single_label_classification",
        }

    def __call__(self, rows: Rows, return_tensors: str | None = "pt") -> BatchFeature:
        """`numeric_values` (B, N), `category_ids` (B, C), and `labels` (B) if the rows have the target.

        Args:
            rows: as for `fit`, or one row.
            return_tensors: "pt", or "np" for arrays.

        Raises:
            ValueError: a column is missing or unknown, holds something else than before, or a class is new.
        """
        columns, _ = _columns(rows)
        self._check_columns(columns)
        data = {}
        if self.numeric_columns:
            numbers = [self._numbers(column, columns[column["name"]]) for column in self.numeric_columns]
            data["numeric_values"] = np.stack(numbers, axis=1).astype(np.float32)
        if self.categorical_columns:
            data["category_ids"] = np.stack(
                [_ids(column["values"], columns[column["name"]]) for column in self.categorical_columns], axis=1
            )
        if self.target is not None and self.target["name"] in columns:
            data["labels"] = self._labels(columns[self.target["name"]])
        return BatchFeature(data, tensor_type=return_tensors)

    def decode(self, logits: Any) -> list[Any]:
        """What the model says of each row: the name of its class, or a value in the units of the target.

        Args:
            logits: (B, classes) or (B, 1).
        """
        if self.target is None:
            raise ValueError("the processor was fitted without a target, so logits mean nothing to it")
        logits = np.asarray(logits.detach().float().cpu() if hasattr(logits, "detach") else logits)
        if "values" in self.target:
            return [self.target["names"][i] for i in logits.argmax(-1)]
        return (logits[..., 0] * self.target["deviation"] + self.target["mean"]).tolist()

    def _check_columns(self, columns: Mapping[str, Any]) -> None:
        known = [column["name"] for column in (*self.numeric_columns, *self.categorical_columns)]
        allowed = known if self.target is None else [*known, self.target["name"]]
        for name in columns:
            if name not in allowed:
                raise _unknown("column", name, allowed)
        for name in known:
            if name not in columns:
                near = difflib.get_close_matches(name, list(columns), n=1, cutoff=0.0)
                hint = f"; the nearest of the table's is {near[0]!r}" if near else ""
                raise ValueError(f"column {name!r} is missing{hint}")

    def _numbers(self, column: dict[str, Any], values: np.ndarray) -> np.ndarray:
        return (_as_numbers(column["name"], values) - column["mean"]) / column["deviation"]

    def _labels(self, values: np.ndarray) -> np.ndarray:
        if "values" not in self.target:
            labels = self._numbers(self.target, values)
            if np.isnan(labels).any():
                raise ValueError(f"target {self.target['name']!r} of row {int(np.isnan(labels).argmax())} is missing")
            return labels.astype(np.float32)
        ids = _ids(self.target["values"], values) - 1
        by_name = _ids(self.target["names"], values) - 1
        ids = np.where(ids < 0, by_name, ids)
        if (ids < 0).any():
            raise _unknown(f"class of {self.target['name']!r}", values[int((ids < 0).argmax())], self.target["names"])
        return ids


def _columns(rows: Rows) -> tuple[dict[str, np.ndarray], dict[str, list[str]]]:
    """Name -> values of each column, and the names of the classes of those columns that `datasets` knows them of."""
    if hasattr(rows, "column_names") and hasattr(rows, "features"):  # a datasets.Dataset
        named = {name: list(f.names) for name, f in rows.features.items() if hasattr(f, "names")}
        plain = rows.with_format(None)[:]
        return {name: _array(values) for name, values in plain.items()}, named
    if hasattr(rows, "columns") and hasattr(rows, "to_numpy"):  # a pandas.DataFrame
        return {str(name): _array(rows[name].to_numpy()) for name in rows.columns}, {}
    if isinstance(rows, Mapping):
        columns = {name: rows[name] for name in rows}
        if any(isinstance(values, str) or not isinstance(values, Iterable) for values in columns.values()):
            columns = {name: [value] for name, value in columns.items()}  # one row
        return {name: _array(values) for name, values in columns.items()}, {}
    names = list(rows[0]) if len(rows) else []
    for number, row in enumerate(rows):
        if list(row) != names and set(row) != set(names):
            odd = sorted(set(row) ^ set(names))[0]
            raise ValueError(f"row {number} has other columns than row 0: {odd!r} is in one of them alone")
    return {name: _array([row[name] for row in rows]) for name in names}, {}


def _array(values: Any) -> np.ndarray:
    """One axis; of objects wherever numpy would turn what is in it into something else."""
    array = values if isinstance(values, np.ndarray) else np.asarray(values, dtype=object)
    if array.ndim != 1:
        raise ValueError(f"a column is a list of single values, got an array of shape {array.shape}")
    return array


def _is_missing(value: Any) -> bool:
    return value is None or type(value).__name__ in ("NAType", "NaTType") or value != value


def _is_numeric(values: np.ndarray) -> bool:
    """Whether all that is known is numbers, and there is some."""
    if values.dtype != object:
        return np.issubdtype(values.dtype, np.number)
    known = [value for value in values if not _is_missing(value)]
    is_number = (isinstance(v, (int, float, np.number)) and not isinstance(v, bool) for v in known)
    return bool(known) and all(is_number)


def _as_numbers(name: str, values: np.ndarray) -> np.ndarray:
    if values.dtype != object and np.issubdtype(values.dtype, np.number):
        numbers = values.astype(np.float64)
    else:
        numbers = np.empty(len(values))
        for row, value in enumerate(values):
            try:
                numbers[row] = math.nan if _is_missing(value) else float(value)
            except (TypeError, ValueError):
                raise ValueError(f"column {name!r} holds numbers, but row {row} has {value!r}") from None
    if np.isinf(numbers).any():
        raise ValueError(f"column {name!r} is infinite in row {int(np.isinf(numbers).argmax())}")
    return numbers


def _fit_numbers(name: str, values: np.ndarray, num_bins: int | None = None) -> dict[str, Any]:
    numbers = _as_numbers(name, values)
    known = numbers[~np.isnan(numbers)]
    if not known.size:
        raise ValueError(f"column {name!r} has no value that is known: leave it out")
    mean, deviation = float(known.mean()), float(known.std())
    settings: dict[str, Any] = {"mean": mean, "deviation": deviation if deviation > 0 else 1.0}
    if num_bins is not None:
        scaled = (known - mean) / settings["deviation"]
        edges = np.unique(np.quantile(scaled, np.linspace(0, 1, num_bins + 1)))
        settings["bins"] = edges.tolist() if len(edges) > 1 else [edges[0] - 0.5, edges[0] + 0.5]
    return settings


def _fit_target(name: str, values: np.ndarray, names: list[str] | None) -> dict[str, Any]:
    if names is not None:
        return {"name": name, "values": list(range(len(names))), "names": names}
    is_whole = _is_numeric(values) and all(not _is_missing(v) and float(v).is_integer() for v in values)
    is_integer = is_whole and not any(isinstance(v, (float, np.floating)) for v in values)
    if _is_numeric(values) and not is_integer:
        return {"name": name, **_fit_numbers(name, values)}
    distinct = _distinct(values)
    return {"name": name, "values": distinct, "names": [str(value) for value in distinct]}


def _plain(value: Any) -> Any:
    """What JSON gives back as it was."""
    value = value.item() if isinstance(value, np.generic) else value
    return value if isinstance(value, (bool, int, float, str)) else str(value)


def _distinct(values: np.ndarray) -> list[Any]:
    """Known values, each once, in an order that does not depend on the rows'."""
    known = {_plain(value) for value in values if not _is_missing(value)}
    return sorted(known, key=lambda value: (isinstance(value, str), value))


def _ids(known: list[Any], values: np.ndarray) -> np.ndarray:
    """For each value its place in `known`, counted from 1; 0 where it is missing or not among them."""
    places = {value: i for i, value in enumerate(known, 1)}
    return np.array([0 if _is_missing(v) else places.get(_plain(v), 0) for v in values], dtype=np.int64)


def _unknown(kind: str, name: Any, known: Iterable[str]) -> ValueError:
    near = difflib.get_close_matches(str(name), list(known), n=1, cutoff=0.0)
    return ValueError(f"unknown {kind} {name!r}.{f' Did you mean {near[0]!r}?' if near else ''}")
