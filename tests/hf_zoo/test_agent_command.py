"""`hf-zoo agent`: each step is shown, the trace is whole, a replay says what differs, errors are one line."""

import pytest
import torch
from typer.testing import CliRunner

import hf_zoo
import hf_zoo.agents.load
from hf_zoo.agents.chat_policy import ChatPolicy
from hf_zoo.agents.trace import read_trace
from hf_zoo.cli import app

ADD = '<tool_call>{"name": "add", "arguments": {"a": 2, "b": 3}}</tool_call>'
HOSTILE = '<tool_call>{"name": "hostile", "arguments": {}}</tool_call>'


@pytest.fixture
def says(monkeypatch):
    """Sets what the model says."""

    def script(*texts):
        left = list(texts)

        def generate(messages, tools):
            text = left.pop(0)
            if isinstance(text, BaseException):
                raise text
            return text

        monkeypatch.setattr(hf_zoo.agents.load, "load_policy", lambda name: ChatPolicy(generate=generate))

    return script


def agent(*arguments, **options):
    return CliRunner().invoke(app, ["agent", *arguments], **options)


def test_steps_are_shown_and_traced_and_replayed(says, tmp_path):
    says(ADD, '{"name": "ask_user", "arguments": {"question": "in words?"}}', "five \x1b[2J")
    trace = tmp_path / "trace.jsonl"
    tools = ("--tools", "agent_tools:add", "--tools", "agent_tools:hostile")
    done = agent("--model", "m", "--task", "add 2 and 3", *tools, "--trace", str(trace), input="yes\n")
    assert done.exit_code == 0, done.output
    for line in ("call   add({'a': 2, 'b': 3})", "OK     5", "ask    in words?", "finish five"):
        assert line in done.output
    assert "\x1b[2J" not in done.output
    assert read_trace(trace)[-1]["status"] == "finished"
    done = agent("--replay", str(trace), *tools)
    assert done.exit_code == 0 and "every result is as it was" in done.output
    trace.write_text(trace.read_text().replace('"value": 5', '"value": 6'))
    done = agent("--replay", str(trace), *tools)
    assert done.exit_code == 1 and "recorded OK 6" in done.output and "now      OK 5" in done.output


def test_a_large_action_model_decides(tmp_path):
    model = hf_zoo.create_model("lam-tiny")
    with torch.no_grad():  # it always calls, and always copies
        model.policy.kind.bias[0] = model.binder.mode.bias[0] = 100.0
    model.save_pretrained(tmp_path)
    hf_zoo.create_processor("lam-tiny").save_pretrained(tmp_path)
    options = ("--tools", "agent_tools:add", "--max-steps", "1")
    done = agent("--model", str(tmp_path), "--task", "add 20 and 3", *options)
    assert "call   add(" in done.output and "OK     23" in done.output
    assert done.exit_code == 1 and "no answer after 1 steps" in done.output


def test_ctrl_c_ends_cleanly(says, tmp_path):
    says(ADD, KeyboardInterrupt())
    trace = tmp_path / "trace.jsonl"
    done = agent("--model", "m", "--task", "t", "--tools", "agent_tools:add", "--trace", str(trace))
    assert done.exit_code == 130 and "interrupted" in done.output
    assert [event["event"] for event in read_trace(trace)][-2:] == ["observation", "end"]


def test_permissions_are_granted_by_name(says, tmp_path):
    call = f'{{"name": "declared_write", "arguments": {{"path": "{tmp_path / "new"}"}}}}'
    tools = ("--model", "m", "--task", "t", "--tools", "agent_tools:declared_write")
    says(call, "done")
    assert "DENIED" in agent(*tools).output and not (tmp_path / "new").exists()
    says(call, "done")
    assert "written" in agent(*tools, "--allow", "read,write").output and (tmp_path / "new").exists()


def test_a_run_without_an_answer_fails(says):
    says(ADD, ADD, ADD)
    done = agent("--model", "m", "--task", "t", "--tools", "agent_tools:add", "--max-steps", "2")
    assert done.exit_code == 1 and "no answer after 2 steps" in done.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--task", "t"], "--model and --task are needed"),
        (["--replay", "x", "--task", "t"], "leave out --model"),
        (["--model", "m", "--task", "t", "--allow", "writing"], "Did you mean 'write'"),
        (["--model", "m", "--task", "t", "--tools", "agent_tools:ad"], "Did you mean 'add'"),
        (["--model", "m", "--task", "t", "--tools", "no_such_module:add"], "no module 'no_such_module'"),
        (["--model", "m", "--task", "t", "--tools", "agent_tools"], "module:function"),
        (["--model", "m", "--task", "t", "--trace", __file__], "nothing is overwritten"),
    ],
)
def test_errors_say_what_is_wrong(arguments, message):
    done = agent(*arguments)
    assert isinstance(done.exception, ValueError) and message in str(done.exception)
