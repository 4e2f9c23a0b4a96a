"""What a tool may touch: files to read, files to write, the network. None by default, never other processes.

Checked twice: before a call, what a tool declares against what was granted; during it, by an audit hook in the worker,
what it does against what it declares. Python's own modules are always readable, or no tool could import anything.
"""

import os
import sys
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

PERMISSIONS = ("read", "write", "network")

_NEVER = {
    *("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork", "os.forkpty", "pty.spawn"),
    *("os.startfile", "os.kill", "os.killpg", "signal.pthread_kill", "resource.setrlimit", "resource.prlimit"),
    *("sqlite3.enable_load_extension", "sqlite3.load_extension"),
}
_WRITES = {
    *("os.remove", "os.rename", "os.rmdir", "os.mkdir", "os.link", "os.symlink", "os.truncate", "os.utime"),
    *("os.chmod", "os.chown", "os.chflags", "os.setxattr", "os.removexattr"),
}
_LISTINGS = {"os.listdir", "os.scandir"}
_HARMLESS_SOCKETS = {"socket.gethostname", "socket.sethostname"}
_WRITE_FLAGS = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_CODE_SUFFIXES = (".py", ".pyc", ".so", ".pyd")
_FREE_PATHS = {os.devnull, "/dev/urandom", "/dev/random"}
_ZONES = ("/usr/share/zoneinfo", "/usr/lib/zoneinfo", "/usr/share/lib/zoneinfo", "/etc/zoneinfo")

_Function = TypeVar("_Function", bound=Callable[..., Any])


class PermissionRefused(PermissionError):
    """A tool did what it has no permission for."""


def needs(*permissions: str) -> Callable[[_Function], _Function]:
    """A decorator by which a function says what it touches as a tool.

    Args:
        permissions: of "read", "write" and "network".
    """
    names = check_permissions(permissions)

    def mark(function: _Function) -> _Function:
        function.tool_permissions = names
        return function

    return mark


def check_permissions(names: Iterable[str]) -> frozenset[str]:
    """The permissions as a set.

    Raises:
        ValueError: one that does not exist; the nearest is named.
    """
    names = frozenset(names)
    for name in sorted(names - set(PERMISSIONS)):
        from ..errors import unknown_name

        raise unknown_name("permission", name, PERMISSIONS, f"There are {', '.join(PERMISSIONS)}.")
    return names


class Guard:
    """The audit hook of a worker: from `enter` to `leave` it refuses what the permissions do not cover.

    It stays on between calls, for what a call may have left running. It sees what Python code does: code in C that
    opens files by itself is held by the limits of the process alone.

    Args:
        permissions: what is allowed.
    """

    def __init__(self, permissions: Iterable[str]) -> None:
        self.permissions = frozenset(permissions)
        self.refused = ""
        self._is_active = False
        self._roots = tuple(os.path.realpath(path) + os.sep for path in {sys.prefix, sys.base_prefix}) + _ZONES
        self._folders: tuple[str, ...] = ()
        sys.addaudithook(self._hear)

    def enter(self) -> None:
        """Begin to refuse."""
        self.refused = ""
        self._folders = tuple(os.path.realpath(path or os.curdir) for path in sys.path)
        self._is_active = True

    def leave(self) -> None:
        """Stop refusing."""
        self._is_active = False

    def _hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self._is_active:
            return
        needed = self._needed(event, arguments)
        if needed is not None and needed not in self.permissions:
            what = f"{event} {arguments[0]!r:.200}" if arguments else event
            reason = "no tool may do" if needed == "process" else f"without the permission {needed!r}:"
            self.refused = self.refused or f"{reason} {what}"
            raise PermissionRefused(self.refused)

    def _needed(self, event: str, arguments: tuple[Any, ...]) -> str | None:
        """The permission that an event needs, "process" for what none allows; None for what needs none."""
        if event == "open":
            path, mode, flags = arguments
            writes = bool((flags or 0) & _WRITE_FLAGS) or any(letter in (mode or "") for letter in "wax+")
            return self._needed_for_file(path, writes)
        if event in _NEVER:
            return "process"
        if event.startswith("socket."):
            if event in _HARMLESS_SOCKETS or (event == "socket.__new__" and _is_local_socket(arguments)):
                return None
            return "network"
        if event in _WRITES or event.startswith("shutil."):
            return "write"
        if event in _LISTINGS:
            path = arguments[0]
            is_code = isinstance(path, str) and os.path.realpath(path or os.curdir) in self._folders
            return None if is_code else self._needed_for_file(path if path is not None else os.curdir, False)
        if event == "sqlite3.connect":
            path = os.fsdecode(arguments[0]) if not isinstance(arguments[0], str) else arguments[0]
            return None if path in ("", ":memory:") else "read" if "mode=ro" in path else "write"
        if event == "ctypes.dlopen":
            name = arguments[0]
            return None if name is None or str(name).startswith(self._roots) else "process"
        return None

    def _needed_for_file(self, path: Any, writes: bool) -> str | None:
        if isinstance(path, int) or path in _FREE_PATHS:
            return None
        if writes:
            return "write"
        real = os.path.realpath(os.fsdecode(path))
        if f"{real}{os.sep}".startswith(self._roots):
            return None
        is_code = real.endswith(_CODE_SUFFIXES) and real.startswith(
            tuple(f"{folder}{os.sep}" for folder in self._folders)
        )
        return None if is_code else "read"


def _is_local_socket(arguments: tuple[Any, ...]) -> bool:
    """A socket between processes of this machine: every event loop has one, and connecting it is another event."""
    import socket

    return hasattr(socket, "AF_UNIX") and arguments[1] == socket.AF_UNIX
