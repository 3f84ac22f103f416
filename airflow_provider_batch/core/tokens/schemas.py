"""Schemas and tools as the text that a model sees.

OpenAI has published this text for its open models ("OpenAI harmony response format", sections "Function calling" and
"Structured output"). Tools are declarations in TypeScript, and the schema of the answer is JSON after a heading. What
the API reports for the tools of other models agrees with it, see `tests/core/tokens/test_schemas.py`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

#: types of JSON schemas whose name in TypeScript is different
_TYPES = {"integer": "number", "array": "any[]"}


def render_format(value: Any) -> str:
    """Return the text for `response_format` (Chat Completions API) or `text` (Responses API)."""
    if not isinstance(value, dict):
        return ""
    content = value.get("json_schema") or value.get("format") or {}
    schema = content.get("schema") if isinstance(content, dict) else None
    if schema is None:
        return ""
    lines = ["# Response Formats", "", f"## {content.get('name', '')}", "", *_comments(content), _json(schema)]
    return "\n".join(lines)


def render_tools(tools: Any) -> str:
    """Return the text for `tools` or `functions`. Tools that are not functions are shown as JSON."""
    functions, others = [], []
    for tool in tools if isinstance(tools, list) else [tools]:
        function = tool.get("function", tool) if isinstance(tool, dict) else None
        if isinstance(function, dict) and "name" in function and tool.get("type", "function") == "function":
            functions.append(function)
        else:
            others.append(tool)
    lines = [_json(tool) for tool in others]
    if functions:
        lines += ["# Tools", "", "## functions", "", "namespace functions {", ""]
        for function in functions:
            lines += [*_comments(function), *_declaration(function), ""]
        lines.append("} // namespace functions")
    return "\n".join(lines)


def _declaration(function: dict[str, Any]) -> list[str]:
    parameters = function.get("parameters")
    if not isinstance(parameters, dict) or not parameters.get("properties"):
        return [f"type {function['name']} = () => any;"]
    return [f"type {function['name']} = (_: {{", *_properties(parameters), "}) => any;"]


def _properties(schema: dict[str, Any]) -> Iterator[str]:
    required = schema.get("required") or ()
    properties = schema.get("properties")
    for name, value in properties.items() if isinstance(properties, dict) else ():
        yield from _comments(value)
        default = f" // default: {_json(value['default'])}" if isinstance(value, dict) and "default" in value else ""
        yield f"{name}{'' if name in required else '?'}: {_type(value)},{default}"


def _type(schema: Any) -> str:
    """Return the type of a value in TypeScript. Whatever has no short form there is shown as JSON."""
    if not isinstance(schema, dict):
        return "any"
    if isinstance(schema.get("enum"), list):
        return " | ".join(map(_json, schema["enum"]))
    for key in ("anyOf", "oneOf"):
        if isinstance(schema.get(key), list):
            return " | ".join(map(_type, schema[key]))
    kind = schema.get("type")
    if isinstance(kind, list):
        return " | ".join(_type({**schema, "type": name}) for name in kind)
    if kind == "array" and "items" in schema:
        return f"{_type(schema['items'])}[]"
    if kind == "object" and schema.get("properties"):
        return "\n".join(["{", *_properties(schema), "}"])
    if kind is None and schema:
        return _json(schema)
    return _TYPES.get(kind, kind) if isinstance(kind, str) else "any"


def _comments(value: Any) -> list[str]:
    description = value.get("description") if isinstance(value, dict) else None
    return [f"// {line}" for line in description.split("\n")] if isinstance(description, str) else []


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()
