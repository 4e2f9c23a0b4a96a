"""Datasets: what they hold, that splits and caches stay put, that errors name the thing."""

import ast
import json
import subprocess
import sys
import sysconfig
import threading
import time

import numpy as np
import pytest
from datasets import Dataset, concatenate_datasets

import hf_zoo.data.cache as cache_module
from hf_zoo.data import load_dataset, pack, text_column
from hf_zoo.data.cache import cached_folder
from hf_zoo.data.load import BUILT_IN
from hf_zoo.data.splits import SPLITS, split_of
from hf_zoo.data.standard_library import documented_objects
from hf_zoo.tokenization.train import train_tokenizer

MODULES = {  # train, but for:
    "asyncio/threads.py": "from . import events\n",  # validation
    "asyncio/streams.py": "import socket\n",  # test
    "json/__init__.py": '"""JSON."""\n\nloads = None\n',
    "json/decoder.py": 'class Decoder:\n    """Decodes."""\n\n    def decode(self, s):\n        """Decode s."""\n',
    "json/tests/test_it.py": '"""Of the test suite."""\n',
    "os.py": '"""Systems."""\n\n\ndef getpid():\n    """Which process."""\n    return 1\n',
    "site-packages/other.py": '"""Not ours."""\n',
    "test/test_os.py": '"""Of the test suite, too."""\n',
    "queue.py": "",
}


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_ZOO_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def small_library(tmp_path, monkeypatch):
    """A standard library of a few modules in place of the real one."""
    root = tmp_path / "lib"
    for path, text in MODULES.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text, encoding="utf-8")
    (root / "re.py").write_bytes(b"x = 1\n" * 5 + b"y = '\xff'\n")  # not UTF-8, and declares nothing else
    (root / "abc.py").write_bytes(b"# coding: klingon\n")
    monkeypatch.setattr(sysconfig, "get_path", lambda name: str(root))
    return root


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    """The real `python-source` and `python-docs`, built once for this file."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_ZOO_CACHE", str(tmp_path_factory.mktemp("real")))
        return {name: load_dataset(name) for name in ("python-source", "python-docs")}


def all_rows(splits):
    return concatenate_datasets(list(splits.values()))


# what the datasets hold


def test_source_is_the_library_alone(small_library):
    rows = all_rows(load_dataset("python-source"))
    assert sorted(rows["path"]) == [
        *("asyncio/streams.py", "asyncio/threads.py"),
        *("json/__init__.py", "json/decoder.py", "os.py"),
    ]
    assert set(rows["text"]) == {MODULES[path] for path in rows["path"]}


def test_source_with_test_suites(small_library):
    paths = all_rows(load_dataset("python-source", include_tests=True))["path"]
    assert {"json/tests/test_it.py", "test/test_os.py"} <= set(paths)
    assert "site-packages/other.py" not in paths


def test_docs_describe_every_kind(small_library):
    rows = {row["name"]: row for row in all_rows(load_dataset("python-docs"))}
    kinds = {name: row["kind"] for name, row in rows.items()}
    assert kinds == {
        "json": "module",
        "json.decoder.Decoder": "class",
        "json.decoder.Decoder.decode": "method",
        "os": "module",
        "os.getpid": "function",
    }
    assert rows["os.getpid"]["signature"] == "def getpid()"
    assert rows["os.getpid"]["code"] == "def getpid():\n    return 1"
    assert rows["json.decoder.Decoder"]["code"] == "class Decoder:\n\n    def decode(self, s):\n        pass"


def test_docstring_on_the_line_of_its_function():
    source = (
        'def é(): "One."; return 2\n\n\nclass A(int, metaclass=type):\n    @property\n    def f(self) -> int: "Two."\n'
    )
    rows = list(documented_objects("a.py", source))
    assert [row["doc"] for row in rows] == ["One.", "Two."]
    assert rows[0]["code"] == "def é(): pass; return 2"
    assert rows[1]["code"] == "@property\ndef f(self) -> int: pass"


def test_real_source_is_this_pythons(real):
    rows = all_rows(real["python-source"])
    assert len(rows) > 400
    text = dict(zip(rows["path"], rows["text"], strict=True))["argparse.py"]
    import argparse

    assert text == open(argparse.__file__, encoding="utf-8").read()


def test_real_code_parses_and_holds_no_docstring(real):
    rows = all_rows(real["python-docs"])
    assert len(rows) > 5000
    for row in rows.select(range(0, len(rows), 4)):
        tree = ast.parse(row["code"])
        nodes = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
        held = [node for node in ast.walk(tree) if isinstance(node, nodes) and ast.get_docstring(node)]
        assert not held, row["name"]


def test_real_docs_stand_in_one_split_with_their_module(real):
    names, docs, paths = (
        [set(real["python-docs"][split][column]) for split in SPLITS] for column in ("name", "doc", "path")
    )
    for sets in (names, docs, paths):
        assert not (sets[0] & sets[1] or sets[0] & sets[2] or sets[1] & sets[2])
    for split, paths_of_split in zip(SPLITS, paths, strict=True):
        assert paths_of_split <= set(real["python-source"][split]["path"])


@pytest.mark.parametrize("name", [name for name in BUILT_IN if name.startswith("table-")])
def test_tables(name):
    pytest.importorskip("sklearn")
    splits = load_dataset(name)
    outcome = "target" if name == "table-diabetes" else "label"
    assert splits["train"].column_names[-1] == outcome
    if outcome == "label":
        assert set(splits["test"]["label"]) == set(range(splits["train"].features["label"].num_classes))
    total = sum(splits.num_rows.values())
    assert 0.6 < splits["train"].num_rows / total < 0.8
    contents = [{tuple(row.values())[:-1] for row in rows} for rows in splits.values()]
    assert not (contents[0] & contents[1] or contents[0] & contents[2] or contents[1] & contents[2])


def test_table_without_sklearn_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(ImportError, match=r"hf_zoo\[tables\]"):
        load_dataset("table-iris")


# splits


def test_split_is_fixed_for_ever():
    """A change of the hash would move test rows of published results into training."""
    held_out = {i: split_of(f"module_{i}.py") for i in range(40) if split_of(f"module_{i}.py") != "train"}
    assert held_out == {4: "validation", 23: "test", 28: "test", 36: "test"}
    assert split_of("json/decoder.py", (0.0, 1.0, 0.0)) == "validation"
    shares = [[split_of(str(i)) for i in range(20_000)].count(split) / 20_000 for split in SPLITS]
    np.testing.assert_allclose(shares, (0.90, 0.05, 0.05), atol=0.01)


def test_split_ignores_order_and_other_rows(real, small_library, tmp_path, monkeypatch):
    few = load_dataset("python-source")
    (small_library / "os.py").unlink()
    (small_library / "copy.py").write_text("x = 1\n")
    monkeypatch.setenv("HF_ZOO_CACHE", str(tmp_path / "second"))
    fewer = load_dataset("python-source")
    assert "copy.py" in all_rows(fewer)["path"]
    for split in SPLITS:
        assert set(fewer[split]["path"]) - {"copy.py"} == set(few[split]["path"]) - {"os.py"}
        assert set(few[split]["path"]) <= set(real["python-source"][split]["path"])


def test_split_expressions(small_library):
    whole = load_dataset("python-source")
    assert whole.num_rows == {"train": 3, "validation": 1, "test": 1}
    assert load_dataset("python-source", split="train[1:]")["path"] == whole["train"]["path"][1:]
    assert load_dataset("python-source", "train+validation+test")["path"] == all_rows(whole)["path"]
    with pytest.raises(ValueError, match="trian.*train"):
        load_dataset("python-source", split="trian")


# cache


def test_second_load_builds_nothing(small_library, monkeypatch):
    first = load_dataset("python-source")
    monkeypatch.setattr(sysconfig, "get_path", lambda name: pytest.fail("built twice"))
    assert load_dataset("python-source", split="train")["path"] == first["train"]["path"]


def test_killed_build_leaves_nothing_that_counts(tmp_path):
    build = "def build(folder):\n    (folder / 'half').touch()\n    os.kill(os.getpid(), 9)\n"
    script = f"import os, runpy\n{build}runpy.run_path({cache_module.__file__!r})['cached_folder']('a/b', build)"
    killed = subprocess.run([sys.executable, "-c", script])
    assert killed.returncode == -9
    assert (tmp_path / "cache/a/b.partial/half").exists()  # it did get that far
    folder = cached_folder("a/b", lambda folder: (folder / "whole").touch())
    assert [file.name for file in folder.iterdir()] == ["whole"]


def test_processes_that_build_at_once_share_one_result():
    builds = []

    def build(folder):
        builds.append(folder)
        time.sleep(0.2)
        (folder / "whole").touch()

    threads = [threading.Thread(target=cached_folder, args=("a", build)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(builds) == 1
    assert (cached_folder("a", build) / "whole").exists()


# local files and names


@pytest.mark.parametrize("suffix", [".txt", ".jsonl", ".json", ".csv", ".parquet"])
def test_local_files(tmp_path, suffix):
    rows = Dataset.from_dict({"text": ["one", "two"]})
    file = tmp_path / f"rows{suffix}"
    write = {".csv": rows.to_csv, ".parquet": rows.to_parquet, ".txt": lambda file: file.write_text("one\ntwo\n")}
    write.get(suffix, rows.to_json)(file)
    assert load_dataset(str(file), split="train", cache_dir=str(tmp_path))["text"] == ["one", "two"]


def test_local_folder(tmp_path):
    folder = tmp_path / "notes"
    folder.mkdir()
    (folder / "train.txt").write_text("one\ntwo\n")
    (folder / "test.txt").write_text("three\n")
    assert load_dataset(str(folder), cache_dir=str(tmp_path / "hf")).num_rows == {"train": 2, "test": 1}
    (folder / "rows.csv").write_text("text\none\n")
    with pytest.raises(ValueError, match=r"mixes formats.*test.txt|mixes formats.*rows.csv"):
        load_dataset(str(folder))


def test_broken_row_is_named(tmp_path):
    file = tmp_path / "rows.jsonl"
    file.write_text('{"text": "one"}\n\n{"text": two}\n')
    with pytest.raises(ValueError, match=r"rows.jsonl, line 3: not JSON"):
        load_dataset(str(file), cache_dir=str(tmp_path / "hf"))
    file.write_text('{"text": "one"}\n' + json.dumps(["two"]) + "\n")
    with pytest.raises(ValueError, match=r"rows.jsonl, line 2: a row is a JSON object"):
        load_dataset(str(file), cache_dir=str(tmp_path / "hf"))


def test_unusable_files_are_named(tmp_path):
    (tmp_path / "empty.txt").touch()
    with pytest.raises(ValueError, match=r"empty.txt is empty"):
        load_dataset(str(tmp_path / "empty.txt"))
    (tmp_path / "header.csv").write_text("text\n")
    with pytest.raises(ValueError, match=r"header.csv"):
        load_dataset(str(tmp_path / "header.csv"), split="train", cache_dir=str(tmp_path / "hf"))
    (tmp_path / "binary.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(ValueError, match=r"binary.txt cannot be read: .*utf-8"):
        load_dataset(str(tmp_path / "binary.txt"), cache_dir=str(tmp_path / "hf"))
    (tmp_path / "notes.doc").write_text("x")
    with pytest.raises(ValueError, match=r"notes.doc is none of .txt"):
        load_dataset(str(tmp_path / "notes.doc"))
    with pytest.raises(FileNotFoundError, match=r"emty.txt.*Did you mean .*empty.txt"):
        load_dataset(str(tmp_path / "emty.txt"))


def test_nearly_a_built_in_name():
    with pytest.raises(ValueError, match="unknown dataset 'python-sorce'. Did you mean 'python-source'"):
        load_dataset("python-sorce")
    with pytest.raises(ValueError, match="unknown option of python-source 'include_test'.*'include_tests'"):
        load_dataset("python-source", include_test=True)


def test_other_names_go_to_the_hub(monkeypatch):
    asked = []
    monkeypatch.setattr("datasets.load_dataset", lambda *args, **kwargs: asked.append((args, kwargs)))
    load_dataset("owner/name", split="train", streaming=True)
    load_dataset("wikitext")
    assert asked == [(("owner/name",), {"split": "train", "streaming": True}), (("wikitext",), {"split": None})]


# text and packing


def test_text_column():
    assert text_column(Dataset.from_dict({"title": ["a"], "text": ["b"]})) == "text"
    assert text_column(Dataset.from_dict({"n": [1], "poem": ["b"]})) == "poem"
    with pytest.raises(ValueError, match=r"several columns hold strings: a \(string\), b \(string\)"):
        text_column(Dataset.from_dict({"a": ["x"], "b": ["y"]}))
    with pytest.raises(ValueError, match=r"no column holds strings: a \(int64\)"):
        text_column(Dataset.from_dict({"a": [1]}))


def test_pack_joins_documents_and_restarts_positions():
    tokenizer = train_tokenizer((), "byte", 263)
    texts = ["abcdefgh", "", "xy", "0123"]
    packed = pack(Dataset.from_dict({"text": texts}), tokenizer, block_size=5)
    joined = "".join(f"<|bos|>{text}<|eos|>" for text in texts if text)
    ids = tokenizer(joined).input_ids  # 10 + 4 + 6 tokens
    assert np.array(packed["input_ids"]).ravel().tolist() == ids
    assert packed["labels"] == packed["input_ids"]
    # the first document goes on in the second row, the third starts near the end of the third
    assert packed["position_ids"] == [[0, 1, 2, 3, 4], [0, 1, 2, 3, 4], [0, 1, 2, 3, 0], [0, 1, 2, 3, 4]]


def test_pack_drops_the_incomplete_row():
    tokenizer = train_tokenizer((), "byte", 263)
    packed = pack(Dataset.from_dict({"text": ["abcdefgh", "x"]}), tokenizer, 6, separate_documents=False)
    assert np.array(packed["input_ids"]).shape == (2, 6)  # of 13 tokens
    assert "position_ids" not in packed.column_names
    with pytest.raises(ValueError, match="1 documents have fewer than block_size=64 tokens"):
        pack(Dataset.from_dict({"text": ["short"]}), tokenizer, 64)


def test_pack_is_remembered(small_library):
    rows = load_dataset("python-source", split="train")
    tokenizer = train_tokenizer((), "byte", 263)
    first, second = (pack(rows, tokenizer, 8) for _ in range(2))
    assert first.cache_files == second.cache_files != []
