"""`hf-zoo agent`: a model that calls tools, shown step by step."""

from contextlib import ExitStack, closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from ..agents.runtime import AgentRuntime, Event, RunResult
    from ..agents.tools import ToolRegistry

_INTERRUPTED = 130  # as a shell reports Ctrl-C
_MAX_SHOWN = 600  # characters of what a tool said


def agent_command(
    model: Annotated[str | None, typer.Option(help="A chat model: a folder or a name on the Hub.")] = None,
    task: Annotated[str | None, typer.Option(help="What to do, in words.")] = None,
    tools: Annotated[list[str] | None, typer.Option(help="module:function, or python-tools; repeat for more.")] = None,
    openapi: Annotated[list[Path] | None, typer.Option(help="OpenAPI document whose operations are tools.")] = None,
    server: Annotated[str | None, typer.Option(help="Address of that API, if not the document's.")] = None,
    mcp: Annotated[list[str] | None, typer.Option(help="Command that starts an MCP server.")] = None,
    allow: Annotated[str, typer.Option(help="Of read, write and network, with commas between.")] = "",
    trace: Annotated[Path | None, typer.Option(help="New file for the events of the run.")] = None,
    replay: Annotated[Path | None, typer.Option(help="Repeat the calls of a trace and show what differs.")] = None,
    memory: Annotated[Path | None, typer.Option(help="File of what earlier runs left to remember.")] = None,
    max_steps: Annotated[int, typer.Option(min=1, help="Decisions that a run may take.")] = 20,
    seconds: Annotated[float, typer.Option(min=0.1, help="Of one call.")] = 10.0,
) -> None:
    """Let a model solve a task with tools; each call is checked, run apart, and shown as it happens."""
    if replay is None and not (model and task):
        raise ValueError("--model and --task are needed, or --replay")
    if replay is not None and (model or task or trace):
        raise ValueError(
            "--replay takes the task and the decisions from the trace: leave out --model, --task, --trace"
        )
    if trace is not None and trace.exists():
        raise ValueError(f"{trace} exists; choose another name, nothing is overwritten")

    from rich.console import Console

    from ..agents.executor import Executor, Limits
    from ..agents.load import load_policy
    from ..agents.memory import WordStore
    from ..agents.monitor import Monitor
    from ..agents.permissions import check_permissions
    from ..agents.policy import ScriptedPolicy
    from ..agents.runtime import AgentRuntime
    from ..agents.trace import TraceWriter
    from ..registration import register

    granted = check_permissions(name.strip() for name in allow.split(",") if name.strip())
    register()
    console = Console(soft_wrap=True)
    with ExitStack() as stack:
        registry = _load_tools(stack, tools or [], openapi or [], server, mcp or [])
        executor = stack.enter_context(Executor(Limits(seconds), granted))
        if replay is not None:
            _replay(console, replay, AgentRuntime(ScriptedPolicy([]), registry, executor))
            return
        policy = load_policy(model)
        runtime = AgentRuntime(
            policy,
            registry,
            executor,
            Monitor(max_steps),
            memory=None if memory is None else WordStore(memory),
            answer=typer.prompt,
            trace=None if trace is None else TraceWriter(trace),
        )
        stack.callback(runtime.close)
        result = _run(console, runtime, task)
        if result.status != "finished":
            raise typer.Exit(_INTERRUPTED if result.status == "interrupted" else 1)


def _load_tools(
    stack: ExitStack, names: list[str], documents: list[Path], server: str | None, commands: list[str]
) -> "ToolRegistry":
    from ..agents.load import load_functions
    from ..agents.tools import ToolRegistry

    registry = ToolRegistry(function for name in names for function in load_functions(name))
    for document in documents:
        from ..agents.openapi import tools_from_openapi

        for tool in tools_from_openapi(document, server):
            registry.register(tool)
    for command in commands:
        from ..agents.mcp_tools import McpServer

        for tool in stack.enter_context(McpServer(command)).tools:
            registry.register(tool)
    return registry


def _run(console: "Console", runtime: "AgentRuntime", task: str) -> "RunResult":
    try:
        with closing(runtime.steps(task)) as events:
            for event in events:
                _show(console, event)
    except KeyboardInterrupt:
        console.print("interrupted", style="bold red")
    return runtime.result


def _replay(console: "Console", path: Path, runtime: "AgentRuntime") -> None:
    from ..agents.trace import replay

    differences = replay(path, runtime)
    for one in differences:
        console.print(f"step {one.step}: {one.call.name}", style="bold", markup=False)
        for label, (status, value) in (("recorded", one.recorded), ("now", one.now)):
            console.print(f"  {label:<9}{status} {_printable(str(value))}", markup=False, highlight=False)
    console.print(f"{len(differences)} results differ" if differences else "every result is as it was")
    if differences:
        raise typer.Exit(1)


def _show(console: "Console", event: "Event") -> None:
    """A line or two for an event; states of calls are for the trace alone."""
    data = event.data
    if event.kind == "decision":
        decision = data["decision"]
        if decision["kind"] == "call":
            line = f"{decision['name']}({_printable(str(decision['arguments']))})"
        else:
            line = _printable(decision["text"])
        styles = {"call": "cyan", "think": "dim", "ask": "magenta", "finish": "bold green"}
        console.print(f"{decision['kind']:<7}{line}", style=styles[decision["kind"]], markup=False, highlight=False)
    elif event.kind == "observation":
        style = "default" if data["status"] == "OK" else "red"
        note = f" ({data['note']})" if data["note"] else ""
        line = f"{data['status']:<7}{_printable(data['text'])}{note}"
        console.print(line, style=style, markup=False, highlight=False)
    elif event.kind == "end" and data["status"] != "finished":
        console.print(f"{data['status']}: {_printable(data['reason'])}", style="bold red", markup=False)


def _printable(text: str) -> str:
    """Without control characters: what a tool says must not steer the terminal."""
    shown = "".join(
        letter if letter.isprintable() or letter == "\n" else "\N{REPLACEMENT CHARACTER}" for letter in text
    )
    return shown if len(shown) <= _MAX_SHOWN else f"{shown[:_MAX_SHOWN]}..."
