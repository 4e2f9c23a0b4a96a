"""Secrets: what looks like one, and taking them out of what is written down."""

import os
import re
from collections.abc import Iterable
from typing import Any

REDACTED = "[redacted]"
_NAMES = re.compile(
    r"(?i:(?:^|[_\W])(?:(?:api|access|secret|private|auth)_?key|token|secret|passwd|password|credentials?|authorization)$)"
    r"|[A-Z0-9]_KEY$"  # of a variable
)
_SHAPES = re.compile(
    r"""
    \b(?:sk|pk|rk)-[A-Za-z0-9_-]{16,}            # API keys
  | \bhf_[A-Za-z0-9]{16,}                        # Hugging Face
  | \bgh[pousr]_[A-Za-z0-9]{20,}                 # GitHub
  | \bxox[abprs]-[A-Za-z0-9-]{10,}               # Slack
  | \bAKIA[0-9A-Z]{16}\b                         # AWS
  | \beyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]{8,}         # JSON web tokens
  | -----BEGIN\ [A-Z ]*PRIVATE\ KEY-----.*?(?:-----END\ [A-Z ]*PRIVATE\ KEY-----|\Z)
  | (?<=://)[^/\s:@]+:[^/\s@]+(?=@)              # user and password in an address
    """,
    re.X | re.S,
)
_ASSIGNED = re.compile(
    r"(?i)\b(bearer\s+|(?:password|passwd|secret|token|api[_-]?key)\s*[=:]\s*[\"']?)([^\s\"',;}]{4,})"
)
_MIN_LENGTH = 6  # a shorter value would be found in every text


def looks_secret(name: str) -> bool:
    """Whether a name (of an environment variable, of a field) is that of a secret."""
    return bool(_NAMES.search(name))


class Redactor:
    """Takes secrets out of JSON.

    Args:
        secrets: values that must not be written; those of environment variables with telling names are known.
    """

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        known = {*secrets, *(value for name, value in os.environ.items() if looks_secret(name))}
        self._known = sorted((value for value in known if len(value) >= _MIN_LENGTH), key=len, reverse=True)

    def __call__(self, value: Any) -> Any:
        """The same without secrets: known values, known shapes, and fields with telling names."""
        if isinstance(value, str):
            for secret in self._known:
                value = value.replace(secret, REDACTED)
            return _ASSIGNED.sub(rf"\1{REDACTED}", _SHAPES.sub(REDACTED, value))
        if isinstance(value, dict):
            return {
                name: REDACTED if isinstance(content, str) and looks_secret(str(name)) else self(content)
                for name, content in value.items()
            }
        if isinstance(value, list | tuple):
            return [self(part) for part in value]
        return value
