"""Tools from an OpenAPI document: each operation is one, parameters and fields of a JSON body are arguments."""

import json
import re
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from .tools import Tool

_METHODS = ("get", "put", "post", "delete", "patch", "head", "options")
_PLACES = ("path", "query", "header")
_MAX_DEPTH = 16
_MAX_BYTES = 10_000_000


@dataclass(frozen=True)
class Operation:
    """A request that an API takes.

    Args:
        method: GET, POST, ...
        server: address that all paths begin with.
        path: with names in braces.
        places: of the parameters: path, query, header or body.
        headers: sent with each request, such as an authorization; no model sees them.
    """

    method: str
    server: str
    path: str
    places: Mapping[str, str]
    headers: Mapping[str, str] = field(default_factory=dict)


def tools_from_openapi(
    document: str | Path | Mapping[str, Any], server: str | None = None, headers: Mapping[str, str] | None = None
) -> list[Tool]:
    """A tool for each operation of a document; all need the permission "network".

    Args:
        document: OpenAPI 3 as an object, or a file of JSON or YAML.
        server: address of the API; by default the document's first.
        headers: to send with each request, such as an authorization.

    Raises:
        ValueError: the document names no server, or refers to what it does not hold.
    """
    if not isinstance(document, Mapping):
        document = _read(Path(document))
    if "paths" not in document:
        raise ValueError("the document has no paths: is it OpenAPI 3?")
    server = server or next((one["url"] for one in document.get("servers", ())), "")
    if urllib.parse.urlsplit(server).scheme not in ("http", "https"):
        raise ValueError(f"the address of the API must begin with http:// or https://, not {server!r}; give `server`")
    tools = []
    for path, item in document["paths"].items():
        item = _resolved(item, document)
        for method in _METHODS:
            if method in item:
                tools.append(_tool(method, path, item, server.rstrip("/"), headers or {}))
    return tools


def call_operation(operation: Operation, /, **arguments: Any) -> Any:
    """Send a request and return what the answer says: JSON where it is JSON, else text.

    Raises:
        ValueError: the answer is an error; its status and its beginning are named.
    """
    path, query, headers, body = operation.path, {}, dict(operation.headers), {}
    for name, value in arguments.items():
        place = operation.places[name]
        if place == "path":
            piece = urllib.parse.quote(_as_text(value), safe="")
            if piece in ("", ".", ".."):
                raise ValueError(f"{name} cannot be {value!r}")
            path = path.replace(f"{{{name}}}", piece)
        elif place == "query":
            query[name] = value if isinstance(value, list) else _as_text(value)
        elif place == "header":
            headers[name] = urllib.parse.quote(
                _as_text(value), safe=" !#$&'()*+,/:;=?@[]~"
            )  # no new header by a new line
        else:
            body[name] = value
    address = operation.server + path + ("?" + urllib.parse.urlencode(query, doseq=True) if query else "")
    data = json.dumps(body).encode() if body else None
    if data is not None:
        headers["Content-Type"] = "application/json"
    request = urllib.request.Request(address, data, headers, method=operation.method)
    opener = urllib.request.build_opener(_SameHost)
    try:
        with opener.open(request) as answer:
            return _content(answer)
    except urllib.error.HTTPError as error:
        raise ValueError(f"HTTP {error.code} {error.reason}: {error.read(500).decode('utf-8', 'replace')}") from None


class _SameHost(urllib.request.HTTPRedirectHandler):
    """Follows no redirect to another host: the headers may hold a secret that is not for it."""

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        if urllib.parse.urlsplit(newurl)[:2] != urllib.parse.urlsplit(req.full_url)[:2]:
            raise ValueError(f"the answer redirects to another host, {urllib.parse.urlsplit(newurl).netloc}")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _content(answer: Any) -> Any:
    text = answer.read(_MAX_BYTES).decode("utf-8", "replace")
    if "json" in answer.headers.get("Content-Type", ""):
        try:
            return json.loads(text)
        except ValueError:
            pass
    return text


def _tool(method: str, path: str, item: Mapping[str, Any], server: str, headers: Mapping[str, str]) -> Tool:
    operation = item[method]
    properties, required, places = {}, [], {}
    for parameter in (*item.get("parameters", ()), *operation.get("parameters", ())):
        if parameter["in"] in _PLACES:
            name = parameter["name"]
            properties[name] = dict(parameter.get("schema", {"type": "string"}))
            properties[name].setdefault("description", parameter.get("description", name))
            places[name] = parameter["in"]
            if parameter.get("required"):
                required.append(name)
    body = operation.get("requestBody", {})
    schema = body.get("content", {}).get("application/json", {}).get("schema", {})
    for name, content in schema.get("properties", {}).items():
        if name not in places:
            properties[name], places[name] = content, "body"
            if body.get("required") and name in schema.get("required", ()):
                required.append(name)
    name = operation.get("operationId") or f"{method} {path}"
    function = {
        "name": re.sub(r"\W+", "_", name).strip("_")[:64],
        "description": operation.get("summary") or operation.get("description") or f"{method.upper()} {path}",
        "parameters": {"type": "object", "properties": properties, "required": list(dict.fromkeys(required))},
    }
    request = Operation(method.upper(), server, path, places, headers)
    permissions = frozenset({"network"})
    return Tool({"type": "function", "function": function}, partial(call_operation, request), permissions=permissions)


def _read(path: Path) -> Mapping[str, Any]:
    text = path.read_text(encoding="utf-8")
    if path.suffix in (".yaml", ".yml"):
        import yaml

        try:
            document = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise ValueError(f"{path} is not YAML: {error}") from None
    else:
        try:
            document = json.loads(text)
        except ValueError as error:
            raise ValueError(f"{path} is not JSON: {error}") from None
    if not isinstance(document, Mapping):
        raise ValueError(f"{path} holds no object")
    return document


def _resolved(value: Any, document: Mapping[str, Any], depth: int = 0) -> Any:
    """A part of a document with every reference replaced; one that holds itself is any object from some depth on."""
    if isinstance(value, list):
        return [_resolved(part, document, depth + 1) for part in value]
    if not isinstance(value, Mapping):
        return value
    if depth > _MAX_DEPTH:
        return {}
    if isinstance(value.get("$ref"), str):
        return _resolved(_find(value["$ref"], document), document, depth + 1)
    return {name: _resolved(part, document, depth + 1) for name, part in value.items()}


def _find(reference: str, document: Mapping[str, Any]) -> Any:
    part: Any = document
    for name in _names(reference):
        if not isinstance(part, Mapping) or name not in part:
            raise ValueError(f"the document does not hold {reference!r}")
        part = part[name]
    return part


def _names(reference: str) -> Iterator[str]:
    if not reference.startswith("#/"):
        raise ValueError(f"{reference!r} is not in the document; nothing else is read")
    for name in reference[2:].split("/"):
        yield name.replace("~1", "/").replace("~0", "~")


def _as_text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
