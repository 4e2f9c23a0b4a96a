"""Tools: functions that say in types and words what they take, and the registry in which they are found."""

import inspect
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from ..errors import unknown_name
from .permissions import check_permissions

_NAME = re.compile(r"[A-Za-z_][\w.-]{0,63}")
_RESERVED = ("user", "policy", "ask_user")  # sources of observations, and what a chat model calls to ask


@dataclass(frozen=True)
class Tool:
    """A function that an agent may call.

    Args:
        schema: name, description and parameters, in the format of `transformers.utils.get_json_schema`.
        function: takes the parameters as keywords and returns what JSON can hold.
        defaults: of parameters that need not be given.
        permissions: what it touches, of "read", "write" and "network".
        is_local: it must run in the agent's own process, where no permission is enforced and memory is not limited.
        retries: how often a failed call is repeated; only for what does no harm twice.
        seconds: that a call may take, if not what the executor allows.
        cost: of a call, in any unit, for the monitor's limit.
    """

    schema: Mapping[str, Any]
    function: Callable[..., Any]
    defaults: Mapping[str, Any] = field(default_factory=dict)
    permissions: frozenset[str] = frozenset()
    is_local: bool = False
    retries: int = 0
    seconds: float | None = None
    cost: float = 0.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "permissions", check_permissions(self.permissions))
        if not _NAME.fullmatch(self.name) or self.name in _RESERVED:
            raise ValueError(f"{self.name!r} cannot be the name of a tool")

    @property
    def name(self) -> str:
        """By which it is called."""
        return self.schema["function"]["name"]

    @property
    def description(self) -> str:
        """What it does, in words."""
        return self.schema["function"].get("description", "")

    @property
    def parameters(self) -> Mapping[str, Any]:
        """JSON schema of the arguments."""
        return self.schema["function"].get("parameters") or {"type": "object", "properties": {}}

    @classmethod
    def from_function(cls, function: Callable[..., Any], **options: Any) -> "Tool":
        """A tool from type hints and a docstring that describes every argument under `Args:`.

        Args:
            function: plain; `needs` may have declared its permissions.
            options: other fields of `Tool`.

        Raises:
            ValueError: a type hint or a description is missing; which, is said.
        """
        from transformers.utils import get_json_schema
        from transformers.utils.chat_template_utils import DocstringParsingException, TypeHintParsingException

        name = getattr(function, "__name__", repr(function))
        try:
            schema = get_json_schema(function)
        except (DocstringParsingException, TypeHintParsingException) as error:
            raise ValueError(f"{name} cannot be a tool: {error}") from None
        for parameter in inspect.signature(function).parameters.values():
            if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD, parameter.POSITIONAL_ONLY):
                raise ValueError(f"{name} cannot be a tool: {parameter} cannot be given by name")
        parameters = inspect.signature(function).parameters.values()
        options.setdefault("permissions", getattr(function, "tool_permissions", frozenset()))
        options.setdefault("defaults", {p.name: p.default for p in parameters if p.default is not p.empty})
        return cls(schema, function, **options)


class ToolRegistry:
    """Tools by name.

    Args:
        tools: to begin with; plain functions become tools.
    """

    def __init__(self, tools: Iterable[Tool | Callable[..., Any]] = ()) -> None:
        self._tools: dict[str, Tool] = {}
        self._index: Any = None
        for tool in tools:
            self.register(tool)

    def register(self, tool: Tool | Callable[..., Any]) -> Tool:
        """Add a tool.

        Raises:
            ValueError: there is one of that name, or the function cannot be a tool.
        """
        tool = tool if isinstance(tool, Tool) else Tool.from_function(tool)
        if tool.name in self._tools:
            raise ValueError(f"there is already a tool {tool.name!r}")
        self._tools[tool.name] = tool
        self._index = None
        return tool

    def __getitem__(self, name: str) -> Tool:
        if name not in self._tools:
            raise unknown_name("tool", name[:80], self._tools)
        return self._tools[name]

    def __iter__(self) -> Iterator[Tool]:
        return iter(self._tools.values())

    def __len__(self) -> int:
        return len(self._tools)

    def search(self, query: str, k: int = 8) -> list[Tool]:
        """The tools whose words fit a query best by BM25, best first. All, in their order, if there are but k.

        Raises:
            MissingExtra: bm25s is not installed.
        """
        tools = list(self)
        if len(tools) <= k:
            return tools
        from ..retrieval.bm25 import Bm25

        if self._index is None:
            self._index = Bm25([_words_of(tool) for tool in tools])
        _, rows = self._index.search([query], k)
        return [tools[row] for row in rows[0]]


def _words_of(tool: Tool) -> str:
    """What is searched: name, description and parameters, with compound names taken apart."""
    parameters = tool.parameters.get("properties", {})
    described = (f"{name} {schema.get('description', '')}" for name, schema in parameters.items())
    return re.sub(r"[_.-]", " ", " ".join((tool.name, tool.description, *described)))
