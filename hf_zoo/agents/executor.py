"""Running tools: in worker processes, for so long, with so much memory and output, again if that may help.

A worker is a fresh Python process, not a fork: it has none of the agent's threads, models and secrets. There is one
for each set of permissions; it is kept between calls and killed when a call takes too long.
"""

import itertools
import json
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import MissingExtra
from .permissions import check_permissions
from .redaction import looks_secret
from .tools import Tool
from .worker import read_frame, run, write_frame

STATUSES = ("OK", "ERROR", "TIMEOUT", "INVALID", "DENIED")
_START_SECONDS = 120.0  # a tool may import torch
_MAX_BACKOFF = 5.0


@dataclass(frozen=True)
class Limits:
    """What one call may take.

    Args:
        seconds: of time.
        memory_mb: of memory beyond what its worker had before, on Linux; None for any amount.
        output_chars: of its result; the rest is cut off and noted.
    """

    seconds: float = 10.0
    memory_mb: int | None = 1024
    output_chars: int = 100_000


@dataclass(frozen=True)
class Outcome:
    """What came of a call.

    Args:
        status: "OK", "ERROR" (the tool failed), "TIMEOUT" (it or what it waited for took too long), "INVALID" (it was
            never called: the name or an argument is wrong) or "DENIED" (a permission is missing).
        value: what the tool returned, as JSON; None unless OK.
        error: why not, in words.
        total: characters of the whole result, where it was cut; 0 where not.
        seconds: that the call took, all attempts together.
        attempts: how often it was tried.
    """

    status: str
    value: Any = None
    error: str = ""
    total: int = 0
    seconds: float = 0.0
    attempts: int = 1


class Executor:
    """Runs tools, one call at a time, with arguments that were checked before.

    Args:
        limits: of one attempt.
        granted: permissions; a tool that declares others is denied.
        backoff: seconds before the first repetition, doubled before each further one.
    """

    def __init__(self, limits: Limits | None = None, granted: Iterable[str] = (), backoff: float = 0.1) -> None:
        self._workers: dict[frozenset[str], _Worker] = {}
        self.limits = limits or Limits()
        self.granted = check_permissions(granted)
        self.backoff = backoff

    def run(self, tool: Tool, arguments: Mapping[str, Any]) -> Outcome:
        """Call a tool; its own `retries` say how often an error or a time-out is tried again."""
        if missing := sorted(tool.permissions - self.granted):
            return Outcome("DENIED", error=f"{tool.name} needs the permission {', '.join(missing)}", attempts=0)
        start, wait = time.monotonic(), self.backoff
        for attempt in itertools.count(1):
            reply = self._run_here(tool, arguments) if tool.is_local else self._run_in_worker(tool, arguments)
            if reply["status"] not in ("ERROR", "TIMEOUT") or attempt > tool.retries:
                return Outcome(**reply, seconds=time.monotonic() - start, attempts=attempt)
            time.sleep(min(wait, _MAX_BACKOFF))
            wait *= 2
        raise AssertionError("unreachable")

    def close(self) -> None:
        """End the workers."""
        for worker in self._workers.values():
            worker.kill()
        self._workers.clear()

    def __enter__(self) -> "Executor":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()

    def _run_in_worker(self, tool: Tool, arguments: Mapping[str, Any]) -> dict[str, Any]:
        worker = self._workers.get(tool.permissions)
        try:
            if worker is None:
                worker = self._workers[tool.permissions] = _Worker(self.limits, tool.permissions)
            reply = worker.call(tool.function, dict(arguments), tool.seconds or self.limits.seconds)
        except BaseException:  # Ctrl-C, too: a half-written exchange must not be read by the next call
            self._drop(tool.permissions)
            raise
        if not worker.is_alive:
            self._drop(tool.permissions)
        return reply

    def _drop(self, permissions: frozenset[str]) -> None:
        worker = self._workers.pop(permissions, None)
        if worker is not None:
            worker.kill()

    def _run_here(self, tool: Tool, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """In a thread of the agent's own process, which is abandoned if it takes too long."""
        seconds, replies = tool.seconds or self.limits.seconds, []
        most = self.limits.output_chars
        thread = threading.Thread(
            target=lambda: replies.append(run(tool.function, dict(arguments), most)), daemon=True
        )
        thread.start()
        thread.join(seconds)
        return replies[0] if replies else {"status": "TIMEOUT", "error": f"no result after {seconds:g} s"}


class _Worker:
    """A process that runs tools.

    Args:
        limits: of one call.
        permissions: that its guard knows.
    """

    def __init__(self, limits: Limits, permissions: frozenset[str]) -> None:
        self._limits = limits
        self._keys: dict[Callable[..., Any], int] = {}
        self._most = 12 * limits.output_chars + 100_000  # bytes of a reply: JSON writes a character in 12 at most
        environment = {name: value for name, value in os.environ.items() if not looks_secret(name)}
        environment["PYTHONSAFEPATH"] = "1"  # nothing in the working folder stands in for a module
        environment["PYTHONPATH"] = os.pathsep.join(_package_roots())
        self._process = subprocess.Popen(
            [sys.executable, "-m", "hf_zoo.agents.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
            start_new_session=True,  # Ctrl-C is for the agent
        )
        settings = {
            "path": list(sys.path),
            "argv": list(sys.argv),
            "permissions": permissions,
            "memory_bytes": None if limits.memory_mb is None else limits.memory_mb << 20,
            "output_chars": limits.output_chars,
        }
        reply = self._exchange(pickle.dumps(settings), _START_SECONDS)
        if reply["status"] != "OK":
            raise RuntimeError(f"the worker did not start: {reply['error']}")

    @property
    def is_alive(self) -> bool:
        return self._process.poll() is None

    def call(self, function: Callable[..., Any], arguments: dict[str, Any], seconds: float) -> dict[str, Any]:
        """The reply to a call, or one that says how the process ended."""
        if function not in self._keys:
            body = {"key": len(self._keys), "function": _pickle(function)}
            reply = self._exchange(pickle.dumps(body), _START_SECONDS)
            if reply["status"] != "OK":
                return {**reply, "error": f"the tool cannot be loaded: {reply['error']}"}
            self._keys[function] = body["key"]
        return self._exchange(pickle.dumps({"key": self._keys[function], "arguments": arguments}), seconds)

    def kill(self) -> None:
        """End the process at once."""
        if self._process.poll() is None and hasattr(os, "killpg"):
            os.killpg(self._process.pid, signal.SIGKILL)  # it leads a group of its own
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            try:
                stream.close()
            except OSError:
                pass

    def _exchange(self, body: bytes, seconds: float) -> dict[str, Any]:
        is_late = threading.Event()

        def end() -> None:
            is_late.set()
            self._process.kill()

        timer = threading.Timer(seconds, end)
        timer.daemon = True
        timer.start()
        try:
            write_frame(self._process.stdin, body)
            reply = read_frame(self._process.stdout, self._most)
        except BrokenPipeError:
            reply = None
        except ValueError as error:
            self.kill()
            return {"status": "ERROR", "error": f"{error}, which is too large"}
        finally:
            timer.cancel()
        if reply is not None and not is_late.is_set():
            return json.loads(reply)
        code = self._process.wait()
        if is_late.is_set():
            return {"status": "TIMEOUT", "error": f"no result after {seconds:g} s"}
        how = f"by {signal.Signals(-code).name}" if code < 0 else f"with exit code {code}"
        return {"status": "ERROR", "error": f"the tool ended its process {how}"}


def _package_roots() -> list[str]:
    """Where the worker finds hf_zoo itself, before it takes over the agent's whole path."""
    return [os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))]


def _pickle(function: Callable[..., Any]) -> bytes:
    """By reference where the worker can import it; by value where it cannot: from a script, a notebook, a lambda."""
    try:
        import cloudpickle
    except ImportError:
        if _is_importable(function):
            return pickle.dumps(function)
        raise MissingExtra("cloudpickle", "agents") from None
    return cloudpickle.dumps(function)


def _is_importable(function: Callable[..., Any]) -> bool:
    function = getattr(function, "func", function)  # of a partial
    name = getattr(function, "__qualname__", "<")
    return getattr(function, "__module__", "__main__") != "__main__" and "<" not in name
