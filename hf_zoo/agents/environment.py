"""Several agents in one environment: they share a board and pass messages, each deciding in turn."""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import Any

from ..errors import unknown_name
from .runtime import AgentRuntime, Event
from .tools import Tool


class Environment:
    """What agents share.

    Args:
        names: of the agents.
    """

    def __init__(self, *names: str) -> None:
        self.names = names
        self.board: dict[str, Any] = {}
        self._boxes: dict[str, list[dict[str, str]]] = defaultdict(list)

    def tools(self, name: str) -> list[Tool]:
        """The tools by which an agent reaches the others. What they tell it is data, like all that tools say.

        Args:
            name: of the agent.

        Raises:
            ValueError: it is not here.
        """
        if name not in self.names:
            raise unknown_name("agent", name, self.names)

        def send_message(to: str, text: str) -> str:
            """Send a message to another agent.

            Args:
                to: Name of the agent.
                text: The message.
            """
            if to not in self.names:
                raise unknown_name("agent", to, self.names)
            self._boxes[to].append({"from": name, "text": text})
            return f"sent to {to}"

        def read_messages() -> list[dict]:
            """Read the messages that came since they were last read."""
            return self._boxes.pop(name, [])

        def write_board(key: str, text: str) -> str:
            """Write something on the board that all agents see.

            Args:
                key: Where to write it.
                text: What to write.
            """
            self.board[key] = text
            return f"{key} written"

        def read_board() -> dict:
            """Read the board that all agents see."""
            return dict(self.board)

        functions = (send_message, read_messages, write_board, read_board)
        return [Tool.from_function(function, is_local=True) for function in functions]

    def run(self, agents: Mapping[str, tuple[AgentRuntime, str]]) -> Iterator[tuple[str, Event]]:
        """Run agents in turn, a decision each, and yield who did what; every runtime has its `result` afterwards.

        Args:
            agents: for each name, who acts, and on what task.
        """
        running = {name: runtime.steps(task) for name, (runtime, task) in agents.items()}
        try:
            while running:
                for name in list(running):
                    for event in running[name]:
                        yield name, event
                        if event.kind == "observation" or event.kind == "decision" and not _is_call(event):
                            break
                    else:
                        del running[name]
        finally:
            for steps in running.values():
                steps.close()


def _is_call(event: Event) -> bool:
    return event.data["decision"]["kind"] == "call"
