"""Makes the page of the REST interface from its OpenAPI document."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

METHODS = ("get", "post", "put", "patch", "delete")

HEAD = """# REST interface

{description}

The base is `{{base_url}}overlay/v1`, where `{{base_url}}` is the single-user server's, for example
`/user/alice/`. The machine-readable description is [openapi.yaml](openapi.yaml) (OpenAPI {openapi}).

Example, with an API token of JupyterHub that may access the server:

```sh
url=https://hub.example.org/user/alice/overlay/v1
header="Authorization: token $TOKEN"
curl -H "$header" "$url/status"
curl -H "$header" "$url/jobs" -d '{{"action": "install", "install": ["humanize"]}}'
curl -H "$header" "$url/jobs/$ID"
```
"""


def page(path: Path) -> str:
    """Return the page in Markdown.

    Parameters
    ----------
    path:
        The OpenAPI document.
    """
    document = yaml.safe_load(path.read_text())
    parts = [HEAD.format(description=document["info"]["description"].strip(), openapi=document["openapi"])]
    parts.append("## Requests\n")
    for address, item in document["paths"].items():
        for method in METHODS:
            if method in item:
                parts += _operation(document, address, method, item[method], item.get("parameters", []))
    error = document["components"]["responses"]["Error"]["description"].strip()
    parts += ["## Errors\n", f"{error}\n", "What to do about each: [Error and notice codes](codes.md).\n"]
    parts.append("## Shapes\n")
    for name, schema in document["components"]["schemas"].items():
        parts += _schema(name, schema)
    return "\n".join(parts)


def _operation(
    document: dict[str, Any],
    address: str,
    method: str,
    operation: dict[str, Any],
    shared: list[dict[str, Any]],
) -> Iterator[str]:
    yield f"### {method.upper()} {address}\n"
    yield operation["summary"] + ".\n"
    if "description" in operation:
        yield operation["description"].strip() + "\n"
    yield "| part | meaning |"
    yield "|---|---|"
    for given in [*shared, *operation.get("parameters", [])]:
        parameter = _resolve(document, given)
        text = parameter.get("description") or "of the address"
        yield f"| {parameter['in']} `{parameter['name']}` | {text} |"
    body = operation.get("requestBody")
    if body:
        yield f"| body | {_type(body['content']['application/json']['schema'])} |"
    for status, given in operation["responses"].items():
        response = _resolve(document, given)
        if status == "default":
            yield "| else | [an error](#errors) |"
            continue
        content = response.get("content", {}).get("application/json")
        shape = f" {_type(content['schema'])}" if content else ""
        yield f"| {status} | {response['description']}{shape} |"
    yield ""


def _schema(name: str, schema: dict[str, Any]) -> Iterator[str]:
    yield f"### {name}\n"
    if schema.get("description"):
        yield schema["description"].strip() + "\n"
    if schema.get("type") != "object":
        yield f"{_type(schema)}\n"
        return
    yield "| field | type | meaning |"
    yield "|---|---|---|"
    yield from _fields("", schema)
    yield ""


def _fields(prefix: str, schema: dict[str, Any]) -> Iterator[str]:
    required = schema.get("required", [])
    for name, value in schema.get("properties", {}).items():
        optional = "" if name in required else " (optional)"
        yield f"| `{prefix}{name}`{optional} | {_type(value)} | {value.get('description', '').strip()} |"
        items = value.get("items", {})
        if value.get("properties"):
            yield from _fields(f"{prefix}{name}.", value)
        elif items.get("properties"):
            yield from _fields(f"{prefix}{name}[].", items)


def _type(schema: dict[str, Any]) -> str:
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    if "oneOf" in schema:
        return " or ".join(_type(part) for part in schema["oneOf"])
    if "enum" in schema:
        return "one of " + ", ".join(f"`{value}`" for value in schema["enum"])
    kind = schema.get("type", "anything")
    if isinstance(kind, list):
        return " or ".join(kind)
    if kind == "array":
        items = schema.get("items")
        return "array" + (f" of {_type(items)}" if items else "")
    if kind == "object" and len(schema.get("properties", {})) == 1:
        name, value = next(iter(schema["properties"].items()))
        return f"`{{{name}}}`: {_type(value)}"
    if schema.get("format"):
        return f"{kind} ({schema['format']})"
    return str(kind)


def _resolve(document: dict[str, Any], node: dict[str, Any]) -> dict[str, Any]:
    while "$ref" in node:
        target: Any = document
        for key in node["$ref"].removeprefix("#/").split("/"):
            target = target[key]
        node = target
    return node
