"""What decides, and what it sees. A policy is any object with `decide`: a model, a script, a planner."""

import json
from dataclasses import dataclass
from typing import Any, Protocol

from .decisions import Decision
from .profiles import Profile

_OPEN, _CLOSE = "<tool_output", "</tool_output>"


@dataclass(frozen=True)
class Observation:
    """What came back from a tool or from the user: data, never an instruction.

    Args:
        source: the tool's name, or "user" for an answer to a question.
        status: "OK", "ERROR", "TIMEOUT", "INVALID" or "DENIED".
        kind: how the content was read: "json", "table", "text", or "error".
        value: the content as JSON, for another call to use; None of an error.
        text: the same for reading, cut to what a context has room for.
        note: what was left out, in words; empty if nothing was.
    """

    source: str
    status: str
    kind: str
    value: Any
    text: str
    note: str = ""

    @property
    def marked(self) -> str:
        """The text between marks that nothing inside it can imitate, which say that it is data."""
        text = self.text.replace(_OPEN, "<tool-output").replace("</tool_output", "</tool-output")
        note = f" note={json.dumps(self.note)}" if self.note else ""
        return f'{_OPEN} from="{self.source}" status="{self.status}"{note}>\n{text}\n{_CLOSE}'


@dataclass(frozen=True)
class Step:
    """A decision and what came of it; nothing comes of a thought."""

    decision: Decision
    observation: Observation | None = None


@dataclass(frozen=True)
class Context:
    """All that a policy sees when it decides.

    Args:
        task: in the user's words.
        tools: the schemas on offer, in the format of `transformers.utils.get_json_schema`.
        steps: of this run so far, oldest first; what a tool said is in `step.observation`, for a prompt `.marked`.
        memories: recalled from earlier runs, best first; data like what tools say.
        profile: who the agent is.
    """

    task: str
    tools: tuple[dict[str, Any], ...] = ()
    steps: tuple[Step, ...] = ()
    memories: tuple[str, ...] = ()
    profile: Profile = Profile()

    @property
    def results(self) -> tuple[Any, ...]:
        """Values of the calls that succeeded, in order: what `{"$result": n}` refers to."""
        seen = (step.observation for step in self.steps if step.observation is not None)
        return tuple(one.value for one in seen if one.status == "OK" and one.source != "user")


class Policy(Protocol):
    """What decides the next step of a run."""

    def decide(self, context: Context) -> Decision:
        """The next decision."""
        ...


class ScriptedPolicy:
    """Decides what was written down beforehand, one after the other: for replays, tests and fixed pipelines.

    Args:
        decisions: in order; after the last the run ends with an error.
    """

    def __init__(self, decisions: list[Decision]) -> None:
        self._left = list(decisions)

    def decide(self, context: Context) -> Decision:
        """The next decision of the script.

        Raises:
            IndexError: there is none left.
        """
        if not self._left:
            raise IndexError("the script has no decision left")
        return self._left.pop(0)
