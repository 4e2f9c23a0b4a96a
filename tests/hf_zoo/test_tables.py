"""The generated tables of the README and of docs/: up to date with the registry, and true to what was recorded."""

import importlib.util
import json
from pathlib import Path

import pytest

from hf_zoo.presets import read_presets
from hf_zoo.registry import ARCHITECTURES

ROOT = Path(__file__).parents[2]


@pytest.fixture
def tables(monkeypatch):
    spec = importlib.util.spec_from_file_location("tables", ROOT / "docs" / "tables.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", ["README.md", "docs/promises.md", "docs/claims.md", "docs/speed.md"])
def test_pages_are_up_to_date(tables, name):
    text = (ROOT / name).read_text()
    assert tables.filled(ROOT / name, text) == text, "run `python docs/tables.py`"


def test_every_architecture_and_preset_has_its_place(tables):
    table = tables.architectures_table()
    assert len(table.splitlines()) == 2 + len(ARCHITECTURES)
    assert len({line.count("|") for line in table.splitlines()}) == 1
    for architecture in ARCHITECTURES.values():
        assert f"`{architecture.model_type}`" in table
        assert (ROOT / "modeling" / architecture.name / "README.md").is_file()
        assert all(f"{name} (" in table for name in read_presets(architecture))


def test_text_around_the_tables_is_kept(tables):
    page = ROOT / "README.md"
    names = tables.PAGES[page]
    text = "before\n" + "".join(f"<!-- {name} -->\nold\n<!-- /{name} -->\nbetween\n" for name in names)
    new = tables.filled(page, text)
    assert new.startswith("before\n")
    assert new.count("between\n") == len(names) == 2
    assert "\nold\n" not in new
    assert tables.filled(page, new) == new


def test_a_missing_marker_is_named(tables):
    with pytest.raises(ValueError, match="<!-- architectures -->"):
        tables.filled(ROOT / "README.md", "no markers")


REPORT = """<testsuites><testsuite>
<testcase name="test_padding_changes_nothing[left-zoo_llm-causal-lm]"/>
<testcase name="test_padding_changes_nothing[right-zoo_llm-causal-lm]"><failure/></testcase>
<testcase name="test_padding_changes_nothing[left-zoo_mlm-masked-lm]"/>
<testcase name="test_padding_changes_nothing[left-zoo_mlm-multiple-choice]"><skipped/></testcase>
<testcase name="test_compiled_whole[zoo_mlm]"><skipped/></testcase>
<testcase name="test_compiled_whole[zoo_llm]"/>
<testcase name="test_generation_is_right[zoo_llm-greedy]"><error/></testcase>
</testsuite></testsuites>"""


def test_promises_are_read_from_the_sweep(tables, monkeypatch, tmp_path):
    recorded = tables.promises_of(REPORT)
    assert recorded == {
        "padding changes nothing": {"zoo_llm": "fails", "zoo_mlm": "holds"},
        "compiled whole": {"zoo_mlm": "waived", "zoo_llm": "holds"},
        "generation is right": {"zoo_llm": "fails"},
    }
    monkeypatch.setattr(tables, "PROMISES", tmp_path / "promises.json")
    assert "--run" in tables.promises_table()
    tables.PROMISES.write_text(json.dumps(recorded))
    assert tables.promises_table().splitlines()[2:] == [
        "| padding changes nothing | **no** | yes |",
        "| generation is right | **no** | - |",
        "| compiled whole | yes | waived |",
    ]


def test_claims_are_read_from_their_files(tables, monkeypatch, tmp_path):
    monkeypatch.setattr(tables, "CLAIMS", tmp_path)
    assert "None" in tables.claims_table()
    comparisons = [
        {"statement": "copies beyond its training length", "measured": {"at_4096": 0.99}, "holds": True},
        {"statement": "is linear in time", "measured": {"exponent": 1.4}, "holds": False},
    ]
    report = {"architecture": "mamba", "paper": "Gu and Dao 2023", "minutes": 3.1, "comparisons": comparisons}
    (tmp_path / "mamba.json").write_text(json.dumps(report))
    source = "[`zoo_mamba`](../examples/claims/mamba.py) | Gu and Dao 2023"
    assert tables.claims_table().splitlines()[2:] == [
        f"| {source} | copies beyond its training length | at 4096 0.99 | yes |",
        f"| {source} | is linear in time | exponent 1.4 | **no** |",
    ]
    source = source.replace("../", "")
    assert tables.headlines_table().splitlines()[2:] == [
        f"| {source} | copies beyond its training length | at 4096 0.99 | **no** |"  # since not all of it holds
    ]
