"""The process in which tools run. It imports neither torch nor transformers, unless a tool does.

`python -m hf_zoo.agents.worker`, started by the executor. Frames of eight bytes of length and a body go both ways:
requests are pickled by the agent, which is trusted; replies are JSON, so that nothing a tool returns can run code.
"""

import asyncio
import dataclasses
import datetime
import inspect
import json
import os
import pickle
import queue
import struct
import sys
import threading
from collections.abc import Callable
from typing import Any, BinaryIO

from .permissions import Guard

HEADER = struct.Struct(">Q")
MAX_ERROR = 2000
MAX_DEPTH = 32
_MAX_WIDTH = 10_000_000
_CONTAINERS = (dict, list, tuple)


def read_frame(stream: BinaryIO, most: int | None = None) -> bytes | None:
    """The next body; None at the end of the stream.

    Raises:
        ValueError: the body is larger than `most`.
    """
    header = stream.read(HEADER.size)
    if len(header) < HEADER.size:
        return None
    (size,) = HEADER.unpack(header)
    if most is not None and size > most:
        raise ValueError(f"a reply of {size:,} bytes")
    body = stream.read(size)
    return body if len(body) == size else None


def write_frame(stream: BinaryIO, body: bytes) -> None:
    """Write a body with its length."""
    stream.write(HEADER.pack(len(body)) + body)
    stream.flush()


def encode(value: Any, most: int) -> dict[str, Any]:
    """What a tool returned, as the part of a reply that holds it.

    Args:
        value: anything; what JSON does not know becomes the nearest that it knows.
        most: characters; more are cut off and counted in `total`.
    """
    if isinstance(value, bytes | bytearray):
        value = value[: 4 * most].decode("utf-8", errors="replace")
    if isinstance(value, str):
        text = value
        is_text = True
    elif is_deep(value):
        text, is_text = repr(value)[: most + 1], True
    else:
        try:
            text, is_text = json.dumps(value, default=_plain, allow_nan=False), False
        except (ValueError, TypeError, RecursionError):  # not a number, or it holds itself
            text, is_text = str(value), True
    if len(text) > most:
        return {"value": text[:most], "total": len(text)}
    return {"value": text if is_text else json.loads(text)}


def is_deep(value: Any) -> bool:
    """Whether a value is nested so deeply, or so widely, that nothing should walk through it by recursion."""
    level = [value]
    for _ in range(MAX_DEPTH):
        level = [part for one in level if isinstance(one, _CONTAINERS) for part in _parts(one)]
        if not level:
            return False
        if len(level) > _MAX_WIDTH:
            return True
    return True


def _parts(value: Any) -> Any:
    return value.values() if isinstance(value, dict) else value


def _plain(value: Any) -> Any:
    """The nearest that JSON knows."""
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    if isinstance(value, set | frozenset):
        return sorted(value, key=str)
    if hasattr(value, "tolist"):  # arrays and their numbers
        return value.tolist()
    return str(value)


def run(function: Callable[..., Any], arguments: dict[str, Any], most: int) -> dict[str, Any]:
    """Call a function; whatever happens, a reply."""
    try:
        value = function(**arguments)
        if inspect.iscoroutine(value):
            value = asyncio.run(value)
        return {"status": "OK", **encode(value, most)}
    except MemoryError:
        return {"status": "ERROR", "error": "MemoryError: more memory than a call may take"}
    except TimeoutError as error:  # of what the tool waited for
        return {"status": "TIMEOUT", "error": str(error)[:MAX_ERROR]}
    except BaseException as error:  # SystemExit too: the tool ends, the worker does not
        return {"status": "ERROR", "error": f"{type(error).__name__}: {error}"[:MAX_ERROR]}


def limit_process(memory_bytes: int | None, may_write: bool) -> None:
    """Hold the process, as it is now, to so much more memory, and to no bytes in files if it may not write."""
    try:
        import resource
    except ImportError:  # not on Windows
        return
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if not may_write:
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    if memory_bytes is not None and os.path.exists("/proc/self/statm"):  # elsewhere the limit is not kept
        with open("/proc/self/statm") as statm:
            pages = int(statm.read().split()[0])
        _, hard = resource.getrlimit(resource.RLIMIT_AS)
        soft = pages * resource.getpagesize() + memory_bytes
        resource.setrlimit(resource.RLIMIT_AS, (soft if hard < 0 else min(soft, hard), hard))


def _serve(requests: BinaryIO, replies: BinaryIO) -> None:
    settings = pickle.loads(read_frame(requests) or b"")
    sys.path[:] = settings["path"]
    sys.argv = settings["argv"]
    guard = Guard(settings["permissions"])
    waiting: queue.SimpleQueue[Any] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(requests, waiting), daemon=True).start()
    functions: dict[int, Callable[..., Any]] = {}
    write_frame(replies, b'{"status": "OK"}')
    while True:
        request = waiting.get()
        if "function" in request:
            guard.leave()
            reply = run(_load, {"functions": functions, **request}, 0)
            limit_process(settings["memory_bytes"], "write" in guard.permissions)
        else:
            guard.enter()
            reply = run(functions[request["key"]], request["arguments"], settings["output_chars"])
            if guard.refused and reply["status"] != "OK":
                reply = {"status": "DENIED", "error": guard.refused}
        write_frame(replies, json.dumps(reply).encode())


def _load(functions: dict[int, Callable[..., Any]], key: int, function: bytes) -> None:
    functions[key] = pickle.loads(function)


def _listen(requests: BinaryIO, waiting: "queue.SimpleQueue[Any]") -> None:
    """Pass requests on; end the process with the agent, even while a tool never ends."""
    while (body := read_frame(requests)) is not None:
        waiting.put(pickle.loads(body))
    os._exit(0)


def main() -> None:
    """Serve until the agent is gone. What a tool prints is dropped; the pipes have other numbers."""
    requests, replies = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    null = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(null, number)
    sys.dont_write_bytecode = True
    _serve(requests, replies)


if __name__ == "__main__":
    main()
