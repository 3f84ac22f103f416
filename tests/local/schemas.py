"""OpenAI's published schemas as a judge over what the local server answers.

`openapi_batch.yaml` is the published text. What OpenAI answers differs from it in four ways, as the samples in the same
document and real answers show; `DOCUMENT` is the published text with these made good, in responses alone:

* an optional property may be null, though few are declared so: the published samples have null in every one not set;
* a file may have the purpose `evals`, which `CreateFileRequest` accepts and `OpenAIFile` leaves out;
* the content of a file is `application/octet-stream`, not JSON;
* every call may answer 4XX with an `ErrorResponse`; the published text of these endpoints names no errors at all.

An object here has no properties beyond the published ones, so that a misspelt one is found.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import yaml

_COMPONENT = "#/components/schemas/"
#: schemas that are named by no response and yet are what the server answers or sends
_ALSO_ANSWERED = (
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


def _answered(document: dict[str, Any]) -> set[str]:
    """The names of the schemas that responses are made of."""
    schemas = document["components"]["schemas"]
    responses = [call["responses"] for path in document["paths"].values() for call in path.values()]
    waiting, seen = [*_references(responses), *_ALSO_ANSWERED], set[str]()
    while waiting:
        name = waiting.pop()
        if name not in seen:
            seen.add(name)
            waiting.extend(_references(schemas[name]))
    return seen


def _as_answered(node: Any) -> Any:
    """A schema with null in its optional properties and with no properties beyond the named ones."""
    if isinstance(node, list):
        return [_as_answered(item) for item in node]
    if not isinstance(node, dict):
        return node
    node = {word: _as_answered(inner) for word, inner in node.items()}
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
    for name in _answered(document):
        schemas[name] = _as_answered(schemas[name])
    schemas["OpenAIFile"]["properties"]["purpose"]["enum"].append("evals")
    refused = {
        "description": "Refused.",
        "content": {"application/json": {"schema": {"$ref": f"{_COMPONENT}ErrorResponse"}}},
    }
    for path in document["paths"].values():
        for call in path.values():
            call["responses"]["4XX"] = copy.deepcopy(refused)
    content = document["paths"]["/files/{file_id}/content"]["get"]["responses"]["200"]["content"]
    content["application/octet-stream"] = {"schema": {"type": "string", "format": "binary"}}
    del content["application/json"]
    return document


#: the published description with responses as OpenAI really gives them; see above
DOCUMENT = _document()


def assert_fits(value: Any, name: str) -> None:
    """Fail unless the value is valid against the schema of this name, as answered; see above."""
    jsonschema.validate(value, {**DOCUMENT, "$ref": f"{_COMPONENT}{name}"})
