"""The record of a run: a line of JSON for each event, on disk as soon as it happened, without secrets."""

import json
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .decisions import Ask, ToolCall, from_json
from .policy import ScriptedPolicy
from .redaction import REDACTED, Redactor

if TYPE_CHECKING:
    from .runtime import AgentRuntime

VERSION = 1


class TraceWriter:
    """Writes a trace, an event a line.

    Args:
        path: of a file that does not exist yet.
        secrets: values that must not be written.

    Raises:
        ValueError: the file exists.
    """

    def __init__(self, path: str | Path, secrets: Iterable[str] = ()) -> None:
        self.path = Path(path)
        self._redact = Redactor(secrets)
        try:
            self._file = self.path.open("x", encoding="utf-8")
        except FileExistsError:
            raise ValueError(f"{self.path} exists; choose another name, nothing is overwritten") from None

    def write(self, kind: str, data: dict[str, Any]) -> None:
        """Append an event, in one piece."""
        event = {"event": kind, "time": round(time.time(), 3), **self._redact(data)}
        self._file.write(json.dumps(event, ensure_ascii=False, default=str) + "\n")
        self._file.flush()

    def close(self) -> None:
        """End the trace."""
        self._file.close()


def read_trace(path: str | Path) -> list[dict[str, Any]]:
    """The events of a trace; a last line that was cut off in the middle is left out.

    Raises:
        ValueError: the file is no trace.
    """
    events = []
    lines = Path(path).read_text(encoding="utf-8").splitlines()
    for number, line in enumerate(lines, 1):
        try:
            event = json.loads(line)
        except json.JSONDecodeError:
            if number == len(lines) and events:
                break
            raise ValueError(f"{path}, line {number}, is not JSON") from None
        if not isinstance(event, dict) or "event" not in event:
            raise ValueError(f"{path}, line {number}, is no event of a trace")
        events.append(event)
    if not events or events[0]["event"] != "start" or events[0].get("version") != VERSION:
        raise ValueError(f"{path} is no trace of version {VERSION}")
    return events


@dataclass(frozen=True)
class Difference:
    """A call whose result is not what the trace says.

    Args:
        step: number of the decision, from 0.
        call: which.
        recorded: status and value, as the trace has them.
        now: the same of the replay.
    """

    step: int
    call: ToolCall
    recorded: tuple[str, Any]
    now: tuple[str, Any]


def replay(path: str | Path, runtime: "AgentRuntime") -> list[Difference]:
    """Make the decisions of a trace again, without the model that made them, and compare what the tools say.

    Args:
        path: of the trace.
        runtime: with the tools; its policy is not asked, and what the user answered is taken from the trace.

    Returns:
        What differs; nothing if all is as it was. Calls of which something was redacted are made and not compared.
    """
    events = read_trace(path)
    made = [event["decision"] for event in events if event["event"] == "decision"]
    decisions = [from_json(decision) for decision in made]
    observed = {event["step"]: event for event in events if event["event"] == "observation"}
    answers = [observed[i]["text"] for i, one in enumerate(decisions) if isinstance(one, Ask) and i in observed]
    again = runtime.with_policy(ScriptedPolicy(decisions), answers)
    differences, number = [], -1
    redact = Redactor()
    for event in again.steps(events[0]["task"]):
        if event.kind == "decision":
            number += 1
        if event.kind != "observation" or number not in observed or not isinstance(decisions[number], ToolCall):
            continue
        recorded = (observed[number]["status"], observed[number]["value"])
        now = (event.data["status"], redact(event.data["value"]))
        if recorded != now and REDACTED not in json.dumps([made[number], recorded]):
            differences.append(Difference(number, decisions[number], recorded, now))
    return differences
