"""Tools from a server that speaks the Model Context Protocol over its standard input and output."""

import asyncio
import shlex
import threading
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import TimeoutError as NoResultYet  # before Python 3.11 not the built-in one
from functools import partial
from typing import Any

from ..errors import MissingExtra
from .permissions import PERMISSIONS
from .tools import Tool

_MAX_DESCRIPTION = 1000  # a server's words reach the model; they should describe, not preach
_START_SECONDS = 60.0


class McpServer:
    """A server that is started, asked for its tools, and ended with the `with` block.

    The server is a program with all rights of whoever starts it: nothing here limits it. So its tools need every
    permission, unless `permissions` says what they do.

    Args:
        command: program and arguments, as in a shell or as a list; no shell is started.
        environment: variables beyond the few that the protocol passes on.
        permissions: what its tools need.
        seconds: that a call may take.

    Raises:
        MissingExtra: the package `mcp` is not installed.
        ValueError: the program did not start, or does not speak the protocol.
    """

    def __init__(
        self,
        command: str | Sequence[str],
        environment: Mapping[str, str] | None = None,
        permissions: Iterable[str] = PERMISSIONS,
        seconds: float = 30.0,
    ) -> None:
        try:
            import mcp  # noqa: F401
        except ImportError:
            raise MissingExtra("mcp", "agents") from None
        self.command = shlex.split(command) if isinstance(command, str) else list(command)
        self.environment = dict(environment or {})
        self.permissions, self.seconds = frozenset(permissions), seconds
        self.tools: list[Tool] = []

    def __enter__(self) -> "McpServer":
        self._loop = asyncio.new_event_loop()
        self._is_ready, self._error = threading.Event(), None
        self._thread = threading.Thread(target=lambda: self._loop.run_until_complete(self._serve()), daemon=True)
        self._thread.start()
        if not self._is_ready.wait(_START_SECONDS) or self._error is not None:
            error = self._error or f"no answer after {_START_SECONDS:g} s"
            self.__exit__()
            raise ValueError(f"{shlex.join(self.command)} is no MCP server that starts: {error}")
        return self

    def __exit__(self, *_: object) -> None:
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stop)
            self._thread.join(_START_SECONDS)
        if not self._thread.is_alive() and not self._loop.is_closed():
            self._loop.close()

    async def _serve(self) -> None:
        """Hold the connection from beginning to end in one task, as its library wants."""
        from mcp import ClientSession, StdioServerParameters
        from mcp.client.stdio import stdio_client

        self._end = asyncio.Event()
        program, *arguments = self.command
        parameters = StdioServerParameters(command=program, args=arguments, env=self.environment or None)
        try:
            async with stdio_client(parameters) as (reading, writing), ClientSession(reading, writing) as session:
                await asyncio.wait_for(session.initialize(), _START_SECONDS)
                self._session = session
                listed = await session.list_tools()
                self.tools = [self._tool(tool.model_dump(by_alias=True)) for tool in listed.tools]
                self._is_ready.set()
                await self._end.wait()
        except BaseException as error:
            self._error = _innermost(error)
            self._is_ready.set()

    def _stop(self) -> None:
        self._end.set()

    def _tool(self, described: Mapping[str, Any]) -> Tool:
        function = {
            "name": described["name"],
            "description": (described.get("description") or "")[:_MAX_DESCRIPTION],
            "parameters": described["inputSchema"],
        }
        return Tool(
            {"type": "function", "function": function},
            partial(self._call, described["name"]),
            permissions=self.permissions,
            is_local=True,  # the connection is the agent's
            seconds=self.seconds + 1,
        )

    def _call(self, tool_name: str, /, **arguments: Any) -> Any:
        """What the server says: its structured result, else its text."""
        waiting = asyncio.run_coroutine_threadsafe(self._session.call_tool(tool_name, arguments), self._loop)
        try:
            said = waiting.result(self.seconds).model_dump(by_alias=True)
        except NoResultYet:
            waiting.cancel()
            raise TimeoutError(f"no result after {self.seconds:g} s") from None
        pieces = [part["text"] if part["type"] == "text" else f"[{part['type']}]" for part in said["content"]]
        text = "\n".join(pieces)
        if said.get("isError"):
            raise ValueError(text)
        structured = said.get("structuredContent")
        if isinstance(structured, dict):
            return structured["result"] if set(structured) == {"result"} else structured
        return text


def _innermost(error: BaseException) -> BaseException:
    """The first of a group of errors, which asynchronous code wraps around each other."""
    while getattr(error, "exceptions", ()):
        error = error.exceptions[0]
    return error
