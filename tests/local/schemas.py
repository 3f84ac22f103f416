"""Checks the local server's responses against OpenAI's published schemas.

`openapi_batch.yaml` is the published document. OpenAI's responses differ from it in four ways, as its own samples and
real responses show. `DOCUMENT` is the published document with these corrections, which only affect responses:

* An optional property may be null. Few are declared that way, but the published samples have null in every property
  that is not set.
* A file may have the purpose `evals`, which `CreateFileRequest` accepts and `OpenAIFile` omits.
* The content of a file is `application/octet-stream`, not JSON.
* Every call may respond with 4XX and an `ErrorResponse`. The published document lists no errors for these endpoints.

Objects must not have properties other than the published ones, so that a misspelt property fails.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import yaml

_COMPONENT = "#/components/schemas/"
#: Schemas that no response refers to, but that the server's result files and webhooks use.
_OTHER_SCHEMAS = (
    "BatchRequestOutput",
    "ErrorResponse",
    "WebhookBatchCancelled",
    "WebhookBatchCompleted",
    "WebhookBatchExpired",
    "WebhookBatchFailed",
)


def _references(node: Any) -> Iterator[str]:
    if isinstance(node, list):
        for item in node:
            yield from _references(item)
    elif isinstance(node, dict):
        if isinstance(node.get("$ref"), str):
            yield node["$ref"].removeprefix(_COMPONENT)
        for inner in node.values():
            yield from _references(inner)


def _response_schemas(document: dict[str, Any]) -> set[str]:
    """Return the names of all schemas that responses consist of."""
    schemas = document["components"]["schemas"]
    responses = [call["responses"] for path in document["paths"].values() for call in path.values()]
    pending, names = [*_references(responses), *_OTHER_SCHEMAS], set[str]()
    while pending:
        name = pending.pop()
        if name not in names:
            names.add(name)
            pending.extend(_references(schemas[name]))
    return names


def _as_in_responses(node: Any) -> Any:
    """Return a schema that allows null in optional properties and forbids additional properties."""
    if isinstance(node, list):
        return [_as_in_responses(item) for item in node]
    if not isinstance(node, dict):
        return node
    node = {word: _as_in_responses(inner) for word, inner in node.items()}
    if isinstance(node.get("properties"), dict):
        required = node.get("required", [])
        node["properties"] = {
            name: inner if name in required else {"anyOf": [inner, {"type": "null"}]}
            for name, inner in node["properties"].items()
        }
        node.setdefault("additionalProperties", False)
    return node


def _document() -> dict[str, Any]:
    document = yaml.safe_load((Path(__file__).parent / "openapi_batch.yaml").read_text(encoding="utf-8"))
    assert isinstance(document, dict)
    schemas = document["components"]["schemas"]
    for name in _response_schemas(document):
        schemas[name] = _as_in_responses(schemas[name])
    schemas["OpenAIFile"]["properties"]["purpose"]["enum"].append("evals")
    error_response = {
        "description": "Error.",
        "content": {"application/json": {"schema": {"$ref": f"{_COMPONENT}ErrorResponse"}}},
    }
    for path in document["paths"].values():
        for call in path.values():
            call["responses"]["4XX"] = copy.deepcopy(error_response)
    content = document["paths"]["/files/{file_id}/content"]["get"]["responses"]["200"]["content"]
    content["application/octet-stream"] = {"schema": {"type": "string", "format": "binary"}}
    del content["application/json"]
    return document


#: The published document with corrected responses; see the module's docstring.
DOCUMENT = _document()


def assert_fits(value: Any, name: str) -> None:
    """Fail unless the value is valid against the schema `name` in `DOCUMENT`."""
    jsonschema.validate(value, {**DOCUMENT, "$ref": f"{_COMPONENT}{name}"})
