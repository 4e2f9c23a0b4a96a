"""Tools run apart from the agent: what is slow, greedy, broken or forbidden ends there, and the next call works."""

import functools
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import agent_tools
import pytest

from hf_zoo.agents.executor import Executor, Limits
from hf_zoo.agents.permissions import check_permissions
from hf_zoo.agents.tools import Tool

ROOT = Path(__file__).parents[2]


@functools.cache
def tool(function, **options):
    return Tool.from_function(function, **options)


@pytest.fixture(scope="module")
def executor():
    with Executor(Limits(seconds=20, memory_mb=300, output_chars=1000)) as executor:
        yield executor


@pytest.fixture
def hasty():
    with Executor(Limits(seconds=0.5)) as executor:
        yield executor


def call(executor, function, **arguments):
    return executor.run(tool(function), arguments)


def is_well(executor):
    outcome = call(executor, agent_tools.add, a=1, b=2)
    return (outcome.status, outcome.value) == ("OK", 3)


def test_a_call_returns_its_value(executor):
    assert is_well(executor)
    assert call(executor, agent_tools.later, text="soon").value == "soon"
    assert call(executor, agent_tools.imported).value == []  # a worker is light


def test_what_cannot_be_imported_is_passed_on_whole(executor):
    scale = 3

    def triple(a: int) -> int:
        """Three times.

        Args:
            a: This.
        """
        return scale * a

    assert executor.run(Tool.from_function(triple), {"a": 5}).value == 15


def test_what_json_does_not_know_becomes_text(executor):
    assert call(executor, agent_tools.not_a_number).value == "nan"
    assert call(executor, agent_tools.holds_itself).value == "[[...]]"


def test_an_exception_is_an_outcome(executor):
    outcome = call(executor, agent_tools.fails, text="no " * 5000)
    assert outcome.status == "ERROR" and outcome.error.startswith("ValueError: no no") and len(outcome.error) == 2000
    assert call(executor, agent_tools.quits).error == "SystemExit: 3"
    assert is_well(executor)


def test_an_endless_tool_is_killed_and_the_agent_is_not(hasty):
    start = time.monotonic()
    outcome = call(hasty, agent_tools.forever)
    assert outcome.status == "TIMEOUT" and outcome.error == "no result after 0.5 s"
    assert time.monotonic() - start < 10
    assert is_well(hasty)


@pytest.mark.parametrize(
    ("function", "arguments", "how"),
    [
        (agent_tools.leaves, {"code": 7}, "with exit code 7"),
        (agent_tools.leaves, {"code": 0}, "with exit code 0"),
        (agent_tools.segfault, {}, "by SIGSEGV"),
    ],
)
def test_a_crash_is_an_outcome(executor, function, arguments, how):
    outcome = call(executor, function, **arguments)
    assert (outcome.status, outcome.error) == ("ERROR", f"the tool ended its process {how}")
    assert is_well(executor)


def test_output_is_cut(executor):
    outcome = call(executor, agent_tools.huge, size=100_000_000)
    assert outcome.status == "OK" and outcome.value == "x" * 1000 and outcome.total == 100_000_000
    outcome = call(executor, agent_tools.huge_list, size=100_000)
    assert outcome.value.startswith("[0, 1, 2") and len(outcome.value) == 1000 and outcome.total > 500_000
    assert is_well(executor)


@pytest.mark.skipif(sys.platform != "linux", reason="memory is limited on Linux alone")
def test_memory_is_limited(executor):
    outcome = call(executor, agent_tools.hog)
    assert outcome.status == "ERROR" and "more memory than a call may take" in outcome.error
    assert is_well(executor)


def test_what_is_printed_disturbs_nothing(executor):
    assert call(executor, agent_tools.prints, text="hello").value == "hello"


def test_failures_are_tried_again_with_growing_pauses(monkeypatch):
    pauses = []
    monkeypatch.setattr("hf_zoo.agents.executor.time.sleep", pauses.append)
    with Executor(backoff=0.1) as executor:
        outcome = executor.run(tool(agent_tools.fails_twice, retries=4), {})
        assert (outcome.value, outcome.attempts, pauses) == ("at last", 3, [0.1, 0.2])
        outcome = executor.run(tool(agent_tools.fails, retries=1), {"text": "no"})
        assert (outcome.status, outcome.attempts) == ("ERROR", 2)
        assert executor.run(tool(agent_tools.does, retries=5), {"what": "shell"}).attempts == 1  # not what is denied
    pauses.clear()
    waits = Tool(
        {"type": "function", "function": {"name": "waits"}},
        lambda: threading.Event().wait(0.2),
        is_local=True,
        retries=3,
        seconds=0.01,
    )
    outcome = Executor(backoff=2.0).run(waits, {})
    assert (outcome.status, outcome.attempts, pauses) == ("TIMEOUT", 4, [2.0, 4.0, 5.0])


def test_a_tool_may_have_a_time_of_its_own(executor):
    outcome = executor.run(tool(agent_tools.forever, seconds=0.3), {})
    assert (outcome.status, outcome.error) == ("TIMEOUT", "no result after 0.3 s")
    assert is_well(executor)


# permissions


def test_what_is_not_granted_is_not_run(executor, tmp_path):
    path = tmp_path / "file"
    outcome = call(executor, agent_tools.declared_write, path=str(path))
    assert (outcome.status, outcome.attempts) == ("DENIED", 0)
    assert outcome.error == "declared_write needs the permission write"
    assert not path.exists()


@pytest.mark.parametrize(
    "what",
    [
        *("remove", "rename", "mkdir", "list", "copy", "temporary", "low", "append", "sqlite", "connect", "resolve"),
        *("udp", "url", "process", "shell", "fork", "kill", "limits", "native"),
    ],
)
def test_what_is_not_declared_is_refused(executor, tmp_path, what):
    path = tmp_path / "file"
    path.write_text("kept")
    outcome = call(executor, agent_tools.does, what=what, path=str(path))
    assert outcome.status == "DENIED", outcome
    assert [child.name for child in tmp_path.iterdir()] == ["file"] and path.read_text() == "kept"
    assert is_well(executor)


def test_files_are_read_and_written_with_permission_alone(tmp_path):
    path = tmp_path / "file"
    path.write_text("kept")
    with Executor(granted=("read", "write")) as executor:
        assert call(executor, agent_tools.read_file, path=str(path)).status == "DENIED"  # granted, but not declared
        assert call(executor, agent_tools.write_file, path=str(path)).status == "DENIED"
        assert call(executor, agent_tools.writes_with_read, path=str(path)).status == "DENIED"
        for what in ("sqlite", "low"):
            assert call(executor, agent_tools.makes_with_read, what=what, path=str(path)).status == "DENIED"
        assert call(executor, agent_tools.declared_read, path=str(path)).value == "kept"
        assert call(executor, agent_tools.declared_write, path=str(path)).value == "written"
    assert path.read_text() == "written"


def test_what_was_refused_is_not_held_against_the_next_call(executor, tmp_path):
    assert call(executor, agent_tools.does, what="mkdir", path=str(tmp_path / "x")).status == "DENIED"
    assert call(executor, agent_tools.fails, text="no").status == "ERROR"


@pytest.mark.skipif(sys.platform == "win32", reason="there is no limit of this kind")
def test_code_in_c_can_write_no_byte_either(executor, tmp_path):
    path = tmp_path / "other.db"
    assert call(executor, agent_tools.sqlite_attach, path=str(path)).status == "ERROR"
    assert not path.exists() or path.stat().st_size == 0


def test_what_a_call_leaves_running_has_no_more_rights(executor, tmp_path):
    path = tmp_path / "later"
    assert call(executor, agent_tools.writes_later, path=str(path)).status == "OK"
    time.sleep(0.4)
    assert is_well(executor) and not path.exists()


def test_workers_do_not_see_secrets(monkeypatch):
    monkeypatch.setenv("SOME_API_KEY", "abc")
    monkeypatch.setenv("HF_TOKEN", "abc")
    with Executor() as executor:
        names = call(executor, agent_tools.variables).value
    assert "PATH" in names and not {"SOME_API_KEY", "HF_TOKEN"} & set(names)


@pytest.mark.skipif(sys.version_info < (3, 11), reason="Python cannot be told so before 3.11")
def test_the_working_folder_stands_in_for_no_module(monkeypatch, tmp_path):
    tmp_path.joinpath("pickle.py").write_text("raise SystemExit(1)")
    monkeypatch.chdir(tmp_path)
    with Executor() as executor:
        assert is_well(executor)


def test_an_unknown_permission_is_refused():
    with pytest.raises(ValueError, match="unknown permission 'writes'. Did you mean 'write'"):
        check_permissions(["writes"])


# local tools and the end


def test_local_tools_run_here_and_time_out():
    with Executor(Limits(seconds=0.2)) as executor:
        assert executor.run(tool(agent_tools.add, is_local=True), {"a": 1, "b": 1}).value == 2
        assert executor.run(tool(agent_tools.sleepy, is_local=True), {"seconds": 3}).status == "TIMEOUT"
        assert executor.run(tool(agent_tools.fails, is_local=True), {"text": "no"}).error == "ValueError: no"


def test_ctrl_c_ends_the_worker(executor):
    def interrupt(*_):
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, 0.5)
    try:
        with pytest.raises(KeyboardInterrupt):
            call(executor, agent_tools.forever)
    finally:
        signal.signal(signal.SIGALRM, before)
    assert is_well(executor)


def test_workers_end_with_a_killed_agent(tmp_path):
    script = tmp_path / "agent.py"
    script.write_text(
        "import sys; sys.argv[0] = 'hf-zoo'\n"
        "import agent_tools\n"
        "from hf_zoo.agents.executor import Executor\n"
        "from hf_zoo.agents.tools import Tool\n"
        "schema = {'type': 'function', 'function': {'name': 'forever'}}\n"
        "executor = Executor()\n"
        "executor.run(Tool({'type': 'function', 'function': {'name': 'variables'}}, agent_tools.variables), {})\n"
        "(worker,) = executor._workers.values()\n"
        "print(worker._process.pid, flush=True)\n"
        "executor.run(Tool(schema, agent_tools.forever, seconds=100), {})\n"
    )
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}"}
    agent = subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, env=environment, text=True)
    worker = int(agent.stdout.readline())
    time.sleep(0.3)
    agent.kill()
    agent.wait()
    for _ in range(100):
        try:
            os.kill(worker, 0)
        except ProcessLookupError:
            return
        if Path(f"/proc/{worker}/stat").exists() and Path(f"/proc/{worker}/stat").read_text().split()[2] == "Z":
            return
        time.sleep(0.1)
    pytest.fail("the worker lives on")
