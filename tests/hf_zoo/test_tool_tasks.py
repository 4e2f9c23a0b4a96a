"""`python-tools`: the calls solve the tasks, what they need stands in the words, no tool stands in two splits."""

import itertools
import json
import re

import pytest

from hf_zoo.data import load_dataset
from hf_zoo.data.splits import SPLITS
from hf_zoo.data.tool_wordings import WORDINGS
from hf_zoo.data.tools import NUM_OFFERED, python_tools, split_of_tool, tool_tasks


@pytest.fixture(scope="module")
def tasks(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_ZOO_CACHE", str(tmp_path_factory.mktemp("tools")))
        return load_dataset("python-tools")


def rows_of(tasks):
    return [(split, row) for split in SPLITS for row in tasks[split]]


def test_every_tool_is_asked_for_and_in_one_split_alone(tasks):
    functions = python_tools()
    assert len(functions) >= 100 and set(functions) == set(WORDINGS)
    called = {split: {call["name"] for calls in tasks[split]["calls"] for call in calls} for split in SPLITS}
    assert set.union(*called.values()) == set(functions)
    for split, names in called.items():
        assert {split_of_tool(name) for name in names} == {split}
        offered = {json.loads(tool)["function"]["name"] for tools in tasks[split]["tools"] for tool in tools}
        assert offered == names


def test_no_split_asks_in_the_words_of_another():
    asked = {split: set() for split in SPLITS}
    for name, wording in WORDINGS.items():
        asked[split_of_tool(name)] |= {re.sub(r"\{\w+\}", "{}", phrase) for phrase in wording.phrases}
    for first, second in itertools.combinations(SPLITS, 2):
        assert not asked[first] & asked[second]


def test_the_calls_of_every_task_give_its_answer(tasks):
    functions = python_tools()
    for _, row in rows_of(tasks):
        results = []
        for call in row["calls"]:
            arguments = {
                name: results[value["$result"]] if isinstance(value, dict) else value
                for name, value in json.loads(call["arguments"]).items()
            }
            results.append(functions[call["name"]](**arguments))
            assert json.loads(call["result"]) == results[-1], row["task"]
        last = results[-1]
        assert row["answer"] == (last if isinstance(last, str) else json.dumps(last))
        assert row["num_steps"] == len(results)


def test_values_can_be_copied_from_the_task(tasks):
    for _, row in rows_of(tasks):
        for step, call in enumerate(row["calls"]):
            for value in json.loads(call["arguments"]).values():
                if isinstance(value, dict):
                    assert 0 <= value["$result"] < step
                    continue
                assert (value if isinstance(value, str) else json.dumps(value)) in row["task"]


def test_tools_on_offer_hold_the_right_ones_among_others(tasks):
    for split, row in rows_of(tasks):
        offered = [json.loads(tool)["function"]["name"] for tool in row["tools"]]
        assert {call["name"] for call in row["calls"]} <= set(offered)
        assert len(set(offered)) == len(offered) == (6 if split == "validation" else NUM_OFFERED)
    places = [
        [json.loads(tool)["function"]["name"] for tool in row["tools"]].index(row["calls"][0]["name"])
        for row in tasks["train"]
    ]
    assert min(places.count(place) for place in range(NUM_OFFERED)) > len(places) / NUM_OFFERED / 2


def test_tools_that_are_learnt_from_have_to_be_told_apart(tasks):
    def share_of_its_kind(split):
        rows = [row for row in tasks[split] if row["num_steps"] == 1]
        names = [[json.loads(tool)["function"]["name"] for tool in row["tools"]] for row in rows]
        kinds = [[WORDINGS[name].kind for name in offered] for offered in names]
        alike = [found.count(row["kind"]) - 1 for row, found in zip(rows, kinds, strict=True)]
        return sum(alike) / len(alike) / (NUM_OFFERED - 1)

    assert share_of_its_kind("train") > 0.5 > share_of_its_kind("test")


def test_tasks_are_many_varied_and_the_same_each_time(tasks):
    for split in SPLITS:
        assert set(tasks[split]["num_steps"]) == {1, 2, 3}
        assert len(set(tasks[split]["task"])) == len(tasks[split])
    assert len(tasks["train"]) > 4000 and len(tasks["test"]) > 1000
    assert {kind for kinds in tasks["train"]["kind"] for kind in kinds.split("+")} == {
        *("arithmetic", "dates", "text", "json", "statistics", "sqlite"),
    }
    rows, keys = tool_tasks()
    assert [row for row, key in zip(rows, keys, strict=True) if key == "test"] == list(tasks["test"])


def test_tools_say_what_the_database_does_not_have():
    tools = python_tools()
    with pytest.raises(ValueError, match="no table 'x; DROP TABLE rivers'"):
        tools["count_rows"]("x; DROP TABLE rivers")
    with pytest.raises(ValueError, match="rivers has no column 'price'; it has name, length"):
        tools["sum_column"]("rivers", "price")
    with pytest.raises(ValueError, match="nothing is called 'Elbe'"):
        tools["look_up"]("rivers", "Elbe", "length")
