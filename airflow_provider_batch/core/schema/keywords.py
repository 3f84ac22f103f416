"""Keywords of JSON Schema that strict output does not take, in plain words for the description of a schema.

Which keywords OpenAI takes comes from its guide "Structured model outputs" and from requests that others have sent:
`minLength` and `maxLength`, which the guide does not name, are accepted and enforced; `uniqueItems` is refused.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from airflow_provider_batch.core.schema.convert import IP_FORMATS, LOCAL_DATE_TIME, UUID_VERSIONS
from airflow_provider_batch.core.schema.drafts import types
from airflow_provider_batch.core.schema.regex import is_sendable

SENT_KEYWORDS = frozenset(
    [
        "type",
        "enum",
        "const",
        "anyOf",
        "properties",
        "required",
        "additionalProperties",
        "items",
        "$ref",
        "$defs",
        "definitions",
        "title",
        "description",
        "pattern",
        "format",
        "minLength",
        "maxLength",
        "minimum",
        "maximum",
        "exclusiveMinimum",
        "exclusiveMaximum",
        "multipleOf",
        "minItems",
        "maxItems",
    ]
)
#: keywords that say nothing about a value
ANNOTATIONS = frozenset(("title", "description", "default", "examples", "deprecated", "readOnly", "writeOnly"))
#: our keyword with the core schema of the pydantic type that a JSON Schema comes from
PYDANTIC_KEYWORD = "x-pydantic"
#: the formats that OpenAI takes
SENT_FORMATS = frozenset(("date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid"))
#: formats without a meaning for the text of an answer
_SILENT_FORMATS = frozenset(("password", "binary", "fraction", "byte", "int32", "int64", "float", "double", "decimal"))
_FORMAT_NAMES = {
    "uri": "an absolute URL (URI)",
    "url": "an absolute URL",
    "uri-reference": "a URL, absolute or relative",
    "iri": "an absolute URL (IRI)",
    "regex": "a regular expression",
    "idn-email": "an email address",
    "idn-hostname": "a host name",
    "json-pointer": "a JSON pointer",
    "base64": "base64",
    "base64url": "base64 for URLs",
    LOCAL_DATE_TIME: "a date and time without a time zone",
    "ipvanyaddress": "an IP address",
    "ipvanyinterface": "an IP interface",
    "ipvanynetwork": "an IP network",
    "ipv4network": "an IPv4 network",
    "ipv6network": "an IPv6 network",
    "ipv4interface": "an IPv4 interface",
    "ipv6interface": "an IPv6 interface",
    "path": "a path of a file",
    "file-path": "a path of a file",
    "directory-path": "a path of a directory",
}


#: keeps a model from adding the time zone that it would write with OpenAI's format for a date and time
_LOCAL_DATE_TIME_PATTERN = r"^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}(\.\d{1,6})?$"

#: formats that are not sent and that the judge checks
_CHECKED_FORMATS = frozenset(
    (
        *("uri", "uri-reference", "uri-template", "iri", "iri-reference", "regex", "idn-email", "idn-hostname"),
        *("json-pointer", "relative-json-pointer", "base64", "base64url", "hex", LOCAL_DATE_TIME, "multi-host-uri"),
        *IP_FORMATS,
    )
)


class Note(NamedTuple):
    """What a description says instead of a keyword, and what the preview and the log say about it."""

    text: str
    #: empty if nothing about the value is checked
    change: str = ""


def describe_keywords(node: dict[str, Any]) -> Iterator[Note]:
    """Yield a note for each keyword of a schema that is not sent and says something about its value.

    A pattern or format that is not sent is removed from the schema.
    """
    pattern = node.get("pattern")
    if isinstance(pattern, str) and not is_sendable(pattern):
        del node["pattern"]
        yield _checked(f"Must match the regular expression {pattern}", f"pattern {pattern}")
    format = node.get("format")
    if isinstance(format, str) and format in UUID_VERSIONS:
        node["format"] = "uuid"
        yield _checked(f"Format: a UUID of version {UUID_VERSIONS[format]}", f"format {format}")
    elif isinstance(format, str) and format not in SENT_FORMATS:
        del node["format"]
        if format == LOCAL_DATE_TIME:
            node.setdefault("pattern", _LOCAL_DATE_TIME_PATTERN)
        if format not in _SILENT_FORMATS:
            text = f"Format: {_FORMAT_NAMES.get(format, format)}"
            if format in _CHECKED_FORMATS:
                yield _checked(text, f"format {format}")
            else:
                yield Note(text, f"format {format} is stated in the description and not checked")
    for keyword, describe in _DESCRIPTIONS.items():
        if keyword in node and (text := describe(node)):
            yield _checked(text, keyword)
    if "oneOf" in node:
        is_discriminated = "discriminator" in node or _is_discriminated(node["oneOf"])
        yield Note("" if is_discriminated else "Must match exactly one of the options", "oneOf is sent as anyOf")
    if node.get("examples") and isinstance(node["examples"], list):
        yield Note(f"Examples: {', '.join(map(_json, node['examples']))}")
    if "contentEncoding" in node:
        yield Note(f"Encoded as {node['contentEncoding']}")
    if "contentMediaType" in node:
        yield Note(f"The text is of the media type {node['contentMediaType']}")


#: by the first keyword of a group: keywords that only mean something together
GROUPS = {"if": ("then", "else"), "contains": ("minContains", "maxContains")}


def state(keyword: str, schema: dict[str, Any]) -> str | None:
    """Return in words what a keyword asks for that a schema cannot have twice. None if it has to be merged."""
    if keyword == "pattern":
        return f"Must match the regular expression {schema['pattern']}"
    if keyword == "format":
        return f"Format: {_FORMAT_NAMES.get(schema['format'], schema['format'])}"
    if any(keyword in group for group in GROUPS.values()):
        return ""
    describe = _DESCRIPTIONS.get(keyword)
    return None if describe is None else describe(schema)


def add_note(node: dict[str, Any], text: str) -> None:
    """Add a sentence to the description of a schema, unless it is empty or there already."""
    description = node.get("description")
    if not text:
        return
    if not isinstance(description, str) or not description.strip():
        node["description"] = f"{text}."
    elif f"{text}." not in description:
        ending = "" if description.rstrip().endswith((".", "!", "?", ":")) else "."
        node["description"] = f"{description.rstrip()}{ending} {text}."


def brief(schema: Any) -> str:
    """Return a schema in a word or two, such as "integer" or "Address"."""
    if not isinstance(schema, dict):
        return "anything"
    ref = schema.get("$ref")
    if isinstance(ref, str):
        return ref.rsplit("/", 1)[-1]
    if "const" in schema:
        return _json(schema["const"])
    name = schema.get("title") or " or ".join(types(schema)) or _json(schema)
    return str(name)


def _checked(text: str, keyword: str) -> Note:
    return Note(text, f"{keyword} is checked after the answer arrives")


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _is_discriminated(options: Any) -> bool:
    """Return whether the options are of different types, or have a property with a const of their own."""
    if not isinstance(options, list) or any(isinstance(option, dict) and "$ref" in option for option in options):
        return False
    kinds = [kind for option in options if isinstance(option, dict) for kind in types(option)]
    return len(kinds) == len(set(kinds)) and "number" not in kinds


def _unique_items(node: dict[str, Any]) -> str:
    return "No item may occur twice" if node["uniqueItems"] is True else ""


def _contains(node: dict[str, Any]) -> str:
    least, most = node.get("minContains", 1), node.get("maxContains")
    count = f"at least {least}" if most is None else f"{least} to {most}"
    return f"Of the items, {count} must match {_json(node['contains'])}"


def _not(node: dict[str, Any]) -> str:
    negated = node["not"]
    if isinstance(negated, dict) and negated.keys() - {"type"} == {"const"}:
        return f"Must not be {_json(negated['const'])}"
    if isinstance(negated, dict) and negated.keys() - {"type"} == {"enum"}:
        return f"Must not be one of {', '.join(map(_json, negated['enum']))}"
    if isinstance(negated, dict) and negated.keys() - {"type"} == {"pattern"}:
        return f"Must not match the regular expression {negated['pattern']}"
    return f"Must not match the JSON Schema {_json(negated)}"


def _condition(node: dict[str, Any]) -> str:
    branches = [
        f"{word} it must match {_json(node[keyword])}"
        for keyword, word in (("then", "then"), ("else", "otherwise"))
        if keyword in node
    ]
    return f"If it matches the JSON Schema {_json(node['if'])}, {', '.join(branches)}" if branches else ""


def _dependent_required(node: dict[str, Any]) -> str:
    return ". ".join(
        f"If {name} has a value, {' and '.join(others)} must have one, too"
        for name, others in node["dependentRequired"].items()
        if others
    )


def _dependent_schemas(node: dict[str, Any]) -> str:
    return ". ".join(
        f"If {name} has a value, the object must match the JSON Schema {_json(schema)}"
        for name, schema in node["dependentSchemas"].items()
    )


#: by keyword, its description given the schema, or "" if it says nothing
_DESCRIPTIONS: dict[str, Callable[[dict[str, Any]], str]] = {
    "uniqueItems": _unique_items,
    "contains": _contains,
    "not": _not,
    "if": _condition,
    "dependentRequired": _dependent_required,
    "dependentSchemas": _dependent_schemas,
    "minProperties": lambda node: f"At least {node['minProperties']} of the properties must have a value",
    "maxProperties": lambda node: f"At most {node['maxProperties']} of the properties may have a value",
}
