"""The loop of an agent: observe, recall, decide, bind, execute, parse, remember, until it is done.

Nothing that a policy decides is run as code: it names a tool, and the tool gets arguments that were checked. What a
tool says goes to the policy as data between marks. Whatever goes wrong in a call is an observation, not an exception.
"""

import re
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from .arguments import InvalidArguments, bind, check_depth
from .decisions import Ask, Decision, Finish, Think, ToolCall, to_json
from .executor import Executor, Outcome
from .memory import Episode, EpisodicStore
from .monitor import Monitor, RunStopped
from .parsers import MAX_CHARS, parse
from .policy import Context, Observation, Policy, Step, UnreadableDecision, results_of
from .profiles import Profile
from .tools import Tool, ToolRegistry
from .trace import VERSION, TraceWriter


@dataclass(frozen=True)
class Event:
    """Something that happened in a run.

    Args:
        kind: "start", "decision", "state" (of a call), "observation" or "end".
        data: as in the trace.
    """

    kind: str
    data: dict[str, Any]


@dataclass(frozen=True)
class RunResult:
    """What came of a run.

    Args:
        status: "finished"; "max_steps", "max_cost" or "loop" where the monitor ended it; "no_answer" where the agent
            asked and there was nobody to answer; "policy_error"; "interrupted".
        answer: of the agent; empty unless finished.
        reason: why it ended, in words; empty if finished.
        steps: decisions and what came of them.
        seconds: that it took.
    """

    status: str
    answer: str
    reason: str
    steps: tuple[Step, ...]
    seconds: float


class AgentRuntime:
    """Runs tasks with a policy that decides and tools that act.

    Args:
        policy: what decides.
        tools: functions, tools, or a registry of them.
        executor: what runs them; by default one without any permission.
        monitor: the limits of a run.
        memory: of earlier runs, read at every decision and written at the end.
        profile: who the agent is.
        answer: of the user to a question; without it a question ends the run.
        max_tools: schemas that a decision sees; of more, those that fit the task best.
        trace: where events are written.
    """

    def __init__(
        self,
        policy: Policy,
        tools: ToolRegistry | Iterable[Tool | Callable[..., Any]] = (),
        executor: Executor | None = None,
        monitor: Monitor | None = None,
        memory: EpisodicStore | None = None,
        profile: Profile | None = None,
        answer: Callable[[str], str] | None = None,
        max_tools: int = 16,
        trace: TraceWriter | None = None,
    ) -> None:
        self.policy = policy
        self.tools = tools if isinstance(tools, ToolRegistry) else ToolRegistry(tools)
        self.executor = executor or Executor()
        self.monitor = monitor or Monitor()
        self.memory, self.profile, self.answer = memory, profile or Profile(), answer
        self.max_tools, self.trace = max_tools, trace
        self.result: RunResult | None = None

    def with_policy(self, policy: Policy, answers: Sequence[str]) -> "AgentRuntime":
        """The same tools, limits and executor under another policy, with written answers, without memory or trace."""
        left = list(answers)
        return AgentRuntime(
            policy,
            self.tools,
            self.executor,
            Monitor(10**9, 10**9),
            profile=self.profile,
            answer=lambda _: left.pop(0) if left else "",
        )

    def run(self, task: str) -> RunResult:
        """Run a task to its end."""
        for _ in self.steps(task):
            pass
        return self.result

    def close(self) -> None:
        """End the workers and the trace."""
        self.executor.close()
        if self.trace is not None:
            self.trace.close()

    def __enter__(self) -> "AgentRuntime":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def steps(self, task: str) -> Iterator[Event]:
        """Run a task and yield what happens as it happens; `result` says afterwards what came of it.

        Closing the iterator, or Ctrl-C, ends the run as "interrupted", with its trace whole.
        """
        self.monitor.reset()
        self.result = None
        run = _Run(task, self._offer(task), time.monotonic())
        status, reason = "interrupted", "interrupted"
        try:
            names = [tool.name for tool in self.tools]
            yield self._note("start", version=VERSION, task=task, tools=names, profile=str(self.profile))
            yield from self._loop(run)
            status, reason = "finished", ""
        except (RunStopped, _Ended) as stop:
            status, reason = stop.status, str(stop)
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"
            raise
        finally:
            seconds = time.monotonic() - run.start
            self.result = RunResult(status, run.answer, reason, tuple(run.steps), seconds)
            end = self._note("end", status=status, answer=run.answer, reason=reason, num_steps=len(run.steps))
            if self.memory is not None and status != "interrupted":
                self.memory.write(Episode(_summary(task, self.result), status))
        yield end

    def _loop(self, run: "_Run") -> Iterator[Event]:
        while True:
            self.monitor.step()
            decision = self._decide(run)
            if isinstance(decision, Observation):
                run.steps.append(Step(Think(""), decision))
                yield self._note("decision", decision=to_json(Think("")))
                yield self._observed(run, decision)
                continue
            yield self._note("decision", decision=to_json(decision))
            observation = None
            if isinstance(decision, ToolCall):
                observation = yield from self._call(decision, run)
            elif isinstance(decision, Ask):
                observation = self._ask(decision)
            run.steps.append(Step(decision, observation))
            if observation is not None:
                yield self._observed(run, observation)
            if isinstance(decision, Finish):
                run.answer = decision.text
                return

    def _decide(self, run: "_Run") -> Decision | Observation:
        recalled = self.memory.recall(run.task) if self.memory is not None else []
        context = Context(run.task, run.schemas, tuple(run.steps), tuple(one.text for one in recalled), self.profile)
        try:
            decision = self.policy.decide(context)
            if isinstance(decision, ToolCall):
                check_depth(decision.arguments)
            to_json(decision)
        except (UnreadableDecision, InvalidArguments) as error:
            return Observation("policy", "INVALID", "error", None, str(error)[:MAX_CHARS])
        except Exception as error:
            raise _Ended("policy_error", f"{type(error).__name__}: {error}") from error
        return decision

    def _call(self, call: ToolCall, run: "_Run") -> Iterator[Event]:
        """Events of a call; returns its observation."""
        name = str(call.name)
        arguments = call.arguments
        self.monitor.plan(name, arguments)
        yield self._state(name)
        try:
            tool = self.tools[name]
            bound = bind(tool, arguments, results_of(run.steps))
        except (InvalidArguments, ValueError) as error:
            outcome = Outcome("INVALID", error=str(error), attempts=0)
        else:
            self.monitor.move("bound")
            yield self._state(name, arguments=bound)
            self.monitor.charge(tool.cost)
            self.monitor.move("running")
            yield self._state(name)
            outcome = self.executor.run(tool, bound)
        self.monitor.move("ok" if outcome.status == "OK" else "failed")
        yield self._state(name, seconds=round(outcome.seconds, 4), attempts=outcome.attempts)
        if outcome.status != "OK":
            self.monitor.move("replan")
            yield self._state(name)
        return parse(re.sub(r"[^\w.-]", "_", name)[:64], outcome)

    def _ask(self, question: Ask) -> Observation:
        if self.answer is None:
            raise _Ended("no_answer", f"there is nobody to answer: {question.text}")
        text = self.answer(question.text)
        return Observation("user", "OK", "text", text, text, parsed=text)

    def _offer(self, task: str) -> tuple[dict[str, Any], ...]:
        return tuple(dict(tool.schema) for tool in self.tools.search(task, self.max_tools))

    def _observed(self, run: "_Run", observation: Observation) -> Event:
        data = {name: content for name, content in vars(observation).items() if name != "parsed"}
        return self._note("observation", step=len(run.steps) - 1, **data)

    def _state(self, name: str, **data: Any) -> Event:
        return self._note("state", tool=name, state=self.monitor.state, **data)

    def _note(self, event: str, /, **data: Any) -> Event:
        if self.trace is not None:
            self.trace.write(event, data)
        return Event(event, data)


class _Ended(Exception):
    def __init__(self, status: str, reason: str) -> None:
        super().__init__(reason)
        self.status = status


class _Run:
    """A run while it goes on."""

    def __init__(self, task: str, schemas: tuple[dict[str, Any], ...], start: float) -> None:
        self.task, self.schemas, self.start = task, schemas, start
        self.steps: list[Step] = []
        self.answer = ""


def _summary(task: str, result: RunResult) -> str:
    """An episode in a few words."""
    tools = ", ".join(
        dict.fromkeys(step.decision.name for step in result.steps if isinstance(step.decision, ToolCall))
    )
    said = result.answer or result.reason
    return f"Task: {task}\nTools: {tools or 'none'}\n{result.status}: {said}"
