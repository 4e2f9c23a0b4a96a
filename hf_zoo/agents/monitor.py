"""Watching a run: where every call stands, and when the run goes in circles or takes too much."""

import hashlib
import json
from collections import Counter
from collections.abc import Mapping
from typing import Any

# A call is planned, bound to checked arguments, running, and then ok or failed; after a failure another is planned
NEXT = {
    "planned": ("bound", "failed"),
    "bound": ("running", "failed"),
    "running": ("ok", "failed"),
    "failed": ("replan",),
    "replan": ("planned",),
    "ok": ("planned",),
}


class RunStopped(Exception):
    """The run must not go on.

    Args:
        status: "max_steps", "max_cost" or "loop".
        reason: in words.
    """

    def __init__(self, status: str, reason: str) -> None:
        super().__init__(reason)
        self.status = status


class Monitor:
    """Limits of a run and the state of its calls.

    Args:
        max_steps: decisions.
        max_repeats: how often the same tool may be called with the same arguments.
        max_cost: sum of the tools' costs; None for any.
    """

    def __init__(self, max_steps: int = 20, max_repeats: int = 3, max_cost: float | None = None) -> None:
        self.max_steps, self.max_repeats, self.max_cost = max_steps, max_repeats, max_cost
        self.reset()

    def reset(self) -> None:
        """Begin a run."""
        self.num_steps, self.cost, self.state = 0, 0.0, ""
        self._seen: Counter[str] = Counter()

    def step(self) -> None:
        """Count a decision that is about to be made.

        Raises:
            RunStopped: it would be one too many.
        """
        if self.num_steps >= self.max_steps:
            raise RunStopped("max_steps", f"no answer after {self.max_steps} steps")
        self.num_steps += 1

    def plan(self, name: str, arguments: Mapping[str, Any]) -> None:
        """A call was decided on.

        Raises:
            RunStopped: it was made as often as allowed already.
        """
        self.move("planned")
        call = json.dumps([name, arguments], sort_keys=True, default=repr)
        digest = hashlib.sha256(call.encode()).hexdigest()
        self._seen[digest] += 1
        if self._seen[digest] > self.max_repeats:
            raise RunStopped("loop", f"{name} was called {self.max_repeats} times with the same arguments")

    def charge(self, cost: float) -> None:
        """Add the cost of a call that is about to run.

        Raises:
            RunStopped: it would be more than allowed.
        """
        if self.max_cost is not None and self.cost + cost > self.max_cost:
            raise RunStopped(
                "max_cost", f"the next call would make the cost {self.cost + cost:g} of {self.max_cost:g}"
            )
        self.cost += cost

    def move(self, state: str) -> None:
        """The call has come to another state.

        Raises:
            ValueError: it cannot, from where it was.
        """
        if self.state and state not in NEXT[self.state]:
            raise ValueError(f"a call that is {self.state} cannot become {state}")
        self.state = state
