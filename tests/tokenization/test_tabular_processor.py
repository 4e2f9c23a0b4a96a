"""The processor of tables: what it learns of columns, what it makes of rows, what it refuses and gives back."""

import json

import numpy as np
import pandas
import pytest
import torch
from datasets import ClassLabel, Dataset, Features, Value
from torch.testing import assert_close
from transformers import AutoProcessor

import hf_zoo
from hf_zoo.tokenization.tabular_processor import ZooTabularProcessor

TABLE = {
    "age": [20, 30, None, 50],
    "height": [1.5, 1.7, 1.6, float("nan")],
    "town": ["Bonn", None, "Ulm", "Bonn"],
    "member": [True, False, True, True],
    "answer": ["yes", "no", "no", "yes"],
}


def as_rows(table):
    return [dict(zip(table, row, strict=True)) for row in zip(*table.values(), strict=True)]


KINDS = {
    "columns": lambda: TABLE,
    "rows": lambda: as_rows(TABLE),
    "pandas": lambda: pandas.DataFrame(TABLE),
    "pandas with its own missing": lambda: pandas.DataFrame(TABLE).convert_dtypes(),
    "datasets": lambda: Dataset.from_dict(TABLE),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_table_is_the_same(kind):
    rows = KINDS[kind]()
    processor = ZooTabularProcessor.fit(rows, target="answer")
    assert processor.to_dict() == ZooTabularProcessor.fit(TABLE, target="answer").to_dict()
    batch = processor(rows)
    assert batch["numeric_values"].dtype == torch.float32
    ages, heights = batch["numeric_values"].T
    known = np.array([20, 30, 50])
    assert_close(ages[[0, 1, 3]], torch.tensor((known - known.mean()) / known.std()).float())
    assert ages[2].isnan() and heights[3].isnan()
    assert_close(heights[:3].mean(), torch.tensor(0.0), atol=1e-6, rtol=0)
    assert batch["category_ids"].tolist() == [[1, 2], [0, 1], [2, 2], [1, 2]]  # towns, then members: false is first
    assert batch["labels"].tolist() == [1, 0, 0, 1]


def test_one_row_and_columns_in_another_order():
    processor = ZooTabularProcessor.fit(TABLE, target="answer")
    row = {"town": "Mainz", "member": False, "height": None, "age": 30}
    batch = processor(row)
    assert set(batch) == {"numeric_values", "category_ids"}
    assert batch["category_ids"].tolist() == [[0, 1]]  # a town that was never seen
    assert_close(batch["numeric_values"][0, 0], processor(TABLE)["numeric_values"][1, 0])
    assert isinstance(processor(row, return_tensors="np")["category_ids"], np.ndarray)


def test_bins_are_quantiles():
    values = np.random.default_rng(0).exponential(size=1000)
    rows = {"x": values, "constant": [3.0] * 1000, "two": [0.0] * 900 + [1.0] * 100}
    processor = ZooTabularProcessor.fit(rows, num_bins=8)
    scaled = processor(rows)["numeric_values"].numpy()
    bins = processor.config_fields()["numeric_bins"]
    counts, _ = np.histogram(scaled[:, 0], bins[0])
    assert len(counts) == 8 and counts.min() >= 120 and counts.sum() >= 999
    assert bins[1] == [-0.5, 0.5] and not scaled[:, 1].any()
    assert len(bins[2]) == 2  # equal quantiles are one edge


def test_codes_can_be_categories():
    rows = {"code": [3, 1, 3, 7], "x": [0.5, 1.5, 2.5, 3.5]}
    processor = ZooTabularProcessor.fit(rows, categorical=["code"])
    assert processor(rows)["category_ids"].T.tolist() == [[2, 1, 2, 3]]
    assert processor.config_fields() == {"num_numeric_columns": 1, "category_sizes": [4]}


def test_names_of_classes_come_from_datasets():
    features = Features({"x": Value("float32"), "kind": ClassLabel(names=["low", "high"])})
    rows = Dataset.from_dict({"x": [1.0, 2.0, 3.0], "kind": [1, 0, 1]}, features=features)
    processor = ZooTabularProcessor.fit(rows, target="kind")
    assert processor.config_fields()["id2label"] == {0: "low", 1: "high"}
    assert processor(rows)["labels"].tolist() == [1, 0, 1]
    assert processor({"x": [1.0], "kind": ["high"]})["labels"].tolist() == [1]  # and by name
    assert processor.decode(torch.tensor([[0.1, 0.7], [2.0, 1.0]])) == ["high", "low"]
    ready = rows.map(processor, batched=True, remove_columns=rows.column_names)
    assert ready["labels"] == [1, 0, 1]
    assert ZooTabularProcessor.fit(rows).config_fields()["category_sizes"] == [3]


def test_targets_of_numbers_come_back_in_their_units():
    rows = {"x": [1.0, 2.0, 3.0], "price": [100.5, 250.0, 300.0]}
    processor = ZooTabularProcessor.fit(rows, target="price")
    fields = processor.config_fields()
    assert (fields["num_labels"], fields["problem_type"]) == (1, "regression")
    labels = processor(rows)["labels"]
    assert_close(labels.mean(), torch.tensor(0.0), atol=1e-6, rtol=0)
    assert_close(processor.decode(labels[:, None]), rows["price"], atol=1e-4, rtol=1e-6)
    model = hf_zoo.create_model("tabular-tiny", **fields)
    assert model(**processor(rows)).logits.shape == (3, 1)


@pytest.mark.parametrize(
    ("rows", "complaint"),
    [
        ({**TABLE, "tovn": TABLE["town"]}, "unknown column 'tovn'. Did you mean 'town'?"),
        ({n: v for n, v in TABLE.items() if n != "height"}, "column 'height' is missing"),
        (
            {("hieght" if n == "height" else n): v for n, v in TABLE.items()},
            "unknown column 'hieght'. Did you mean 'height'?",
        ),
        ({**TABLE, "age": [20, "old", 3, 4]}, "column 'age' holds numbers, but row 1 has 'old'"),
        ({**TABLE, "age": [20, 3, float("inf"), 4]}, "column 'age' is infinite in row 2"),
        ({**TABLE, "answer": ["yes", "yse", "no", "no"]}, "unknown class of 'answer' 'yse'. Did you mean 'yes'?"),
        ([*as_rows(TABLE)[:2], {"age": 3}], "row 2 has other columns than row 0: 'answer'"),
        ({**TABLE, "age": [[1, 2]] * 4}, "list of single values"),
    ],
)
def test_other_tables_are_refused(rows, complaint):
    processor = ZooTabularProcessor.fit(TABLE, target="answer")
    with pytest.raises(ValueError) as error:
        processor(rows)
    assert complaint in str(error.value)


def test_what_cannot_be_fitted_is_refused():
    with pytest.raises(ValueError, match="unknown column 'anser'. Did you mean 'answer'?"):
        ZooTabularProcessor.fit(TABLE, target="anser")
    with pytest.raises(ValueError, match="unknown column 'twn'. Did you mean 'town'?"):
        ZooTabularProcessor.fit(TABLE, categorical=["twn"])
    for empty in ({}, {"x": []}, []):
        with pytest.raises(ValueError, match="at least one row and one column"):
            ZooTabularProcessor.fit(empty)
    with pytest.raises(ValueError, match="'x' has no value that is known"):
        ZooTabularProcessor.fit({"x": [float("nan")] * 3, "y": [1.0, 2.0, 3.0]}, categorical=[])
    with pytest.raises(ValueError, match="without a target"):
        ZooTabularProcessor.fit({"x": [1.0]}).decode(torch.zeros(1, 2))
    processor = ZooTabularProcessor.fit({"x": [1.0, 2.0], "y": [0.5, 1.5]}, target="y")
    with pytest.raises(ValueError, match="target 'y' of row 1 is missing"):
        processor({"x": [1.0, 2.0], "y": [0.5, None]})


def test_auto_processor_gives_it_back(tmp_path):
    processor = ZooTabularProcessor.fit(TABLE, target="answer", num_bins=3)
    model = hf_zoo.create_model("tabular-tiny", **processor.config_fields()).eval()
    hf_zoo.export_standalone(model, tmp_path, processor)
    again = AutoProcessor.from_pretrained(tmp_path)
    assert type(again) is ZooTabularProcessor
    for name in ("numeric_columns", "categorical_columns", "target"):
        assert getattr(again, name) == getattr(processor, name)
    for name, value in processor(TABLE).items():
        assert torch.equal(again(TABLE)[name].nan_to_num(-9), value.nan_to_num(-9))
    assert (tmp_path / "tabular_processor.py").is_file()
    auto_map = json.loads((tmp_path / "config.json").read_text())["auto_map"]
    assert auto_map["AutoProcessor"] == "tabular_processor.ZooTabularProcessor"


def test_a_preset_has_a_processor_of_numbered_columns():
    processor = hf_zoo.create_processor("tabular-tiny")
    model = hf_zoo.create_model("tabular-tiny").eval()
    assert processor.config_fields() == {"num_numeric_columns": 5, "category_sizes": [4, 3, 6]}
    row = {**{f"number_{i}": 0.5 for i in range(5)}, **{f"category_{i}": 2 for i in range(3)}}
    batch = processor(row)
    assert batch["category_ids"].tolist() == [[2, 2, 2]] and set(batch["numeric_values"][0].tolist()) == {0.5}
    assert model(**batch).logits.isfinite().all()
