r"""Finds the JSON in an answer that has something around it, or that is not quite JSON.

Servers that do not enforce a schema, and models that think aloud, wrap their JSON in known ways:

    text before and after it, Markdown fences     every JSON object or list of the text is a candidate
    reasoning: <think>…</think>, gpt-oss channels what is inside such a block is a draft and does not count
    a JSON string that contains the JSON          the string is read as a text
    [{…}]                                         a list of one element stands for its element
    {"answer": {…}}, {"name": …, "arguments": {…}}, {"type": "object", "properties": {…}}
                                                  a wrapper stands for its content

Only what has one possible reading is repaired: comments, trailing commas, single quotes, names without quotes before a
colon, Python's True, False and None, and line breaks inside strings. Nothing is completed: if an object or a list never
ends, nothing in the text is a candidate, because the rest may be a part of it.

The functions here know nothing about the schema except the names in it. Whether a candidate is the answer is decided by
`structured.read_structured`. Every function takes time proportional to the length of the text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import msgspec

#: maximum number of objects and lists in one text, not counting those in reasoning
MAX_VALUES = 1_000
#: how many times the length of the text may be read while looking for the ends of objects and lists
_MAX_READS = 10

_TAGS = "think|thinking|thought|thoughts|reasoning|reflection|scratchpad|analysis|seed:think"
_REASONING_START = rf"<(?:{_TAGS})>|\[THINK\]|◁think▷|<\|START_THINKING\|>|<\|channel\|>\s*analysis\b"
_REASONING_END = (
    rf"</(?:{_TAGS})>|\[/THINK\]|◁/think▷|<\|END_THINKING\|>|<channel\|>|\bassistantfinal"
    r"|<\|channel\|>\s*(?:final|commentary\s+to=)[^{}\[\]]{0,200}?<\|message\|>"
)
#: how an object or a list begins; braces and brackets in prose or code rarely begin like that
_JSON_START = r"""\{(?=\s*(?:["'}\\\d-]|[A-Za-z_$][\w$]{0,100}\s*:|//|/\*))|\[(?=\s*["'{\[\]])"""
_LANDMARK = re.compile(
    rf"(?P<start>{_REASONING_START})|(?P<end>{_REASONING_END})|(?P<json>{_JSON_START})", re.IGNORECASE
)
_END = re.compile(_REASONING_END, re.IGNORECASE)

#: Strings and comments that do not end run to the end of the text, so that no character is looked at twice.
_DOUBLE_QUOTED = r'"[^"\\]*(?:\\.[^"\\]*)*(?:"|\\?\Z)'
_SINGLE_QUOTED = r"'[^'\\]*(?:\\.[^'\\]*)*(?:'|\\?\Z)"
_COMMENT = r"//[^\n]*|/\*(?s:.*?)(?:\*/|\Z)"
_BRACKETS = re.compile(rf"{_DOUBLE_QUOTED}|{_SINGLE_QUOTED}|{_COMMENT}|(?P<bracket>[{{}}\[\]])", re.DOTALL)
_TOKEN = re.compile(
    rf"(?P<string>{_DOUBLE_QUOTED}|{_SINGLE_QUOTED})|(?P<blank>\s+|{_COMMENT})|(?P<word>[A-Za-z_$][\w$]*)"
    r"|(?P<other>[\d.+-][\w.+-]*|.)",
    re.DOTALL,
)
_STRING_PARTS = re.compile(r"\\.|[\x00-\x1f\"]", re.DOTALL)
_WORDS = {"True": "true", "False": "false", "None": "null", "true": "true", "false": "false", "null": "null"}
_FENCED = re.compile(r"```\w*\n(.*?)\n?```", re.DOTALL)
_ESCAPED_JSON = re.compile(r"""[{\[](?:\\[nrt]|\s)*(?:\\"|[{\[])""")

#: names of objects that wrap an answer, in lower case without punctuation; the title of the schema is another one
_WRAPPERS = frozenset(
    {
        "answer",
        "finalanswer",
        "result",
        "response",
        "output",
        "structuredoutput",
        "finaloutput",
        "final",
        "data",
        "json",
        "object",
        "content",
    }
)
#: keys of a tool call: those with its arguments, those that lead to them, and the others
_ARGUMENTS = ("arguments", "parameters", "args", "input", "function", "tool_calls", "function_call")
_TOOL_CALL_KEYS = frozenset({*_ARGUMENTS, "id", "call_id", "type", "name", "index", "status", "tool_name", "tool"})
_SCHEMA_KEYS = frozenset(
    {"type", "properties", "required", "title", "description", "additionalProperties", "$defs", "$schema"}
)


def json_texts(text: str) -> list[str]:
    """Return the objects and lists in a text, outside of its reasoning, in order, each as JSON text.

    What is inside another object or list does not count. Something that begins and ends like an object or a list, but
    is not JSON, is returned as it is, since it may be what the author of the text means. The result is empty if an
    object or a list never ends.
    """
    values: list[str] = []
    #: the number of values before the reasoning block that is open, and where its content begins
    block: tuple[int, int] | None = None
    last_end = max((match.start() for match in _END.finditer(text)), default=-1)
    position = count = read = 0
    while match := _LANDMARK.search(text, position):
        position = match.end()
        if match["start"]:
            block = block or (len(values), position)
        elif match["end"]:
            del values[block[0] if block else 0 :]
            block, count = None, 0
        else:
            start, end = match.start(), _end_of_value(text, match.start())
            value = None if end is None else to_json(text[start:end])
            count += 1
            read += (end or len(text)) - start
            if (value is None or count > MAX_VALUES) and start < last_end and read <= _MAX_READS * len(text):
                # everything before the end of a reasoning block belongs to the block, whether or not it is JSON
                position = _next_end(text, start)
            elif end is None or count > MAX_VALUES:
                return []
            else:
                values.append(value or text[start:end])
                position = end
    if block is not None:
        # A server that enforces the schema may leave the model no room to close the block that the prompt opened.
        is_all = len(values) == block[0] + 1 and text[block[1] :].strip() == values[-1]
        values = values if is_all else values[: block[0]]
    return values


def _next_end(text: str, start: int) -> int:
    match = _END.search(text, start)
    return len(text) if match is None else match.start()


def inner_text(text: str) -> str | None:
    r"""Return the text that a whole text stands for, or None if it stands for itself.

    That is the content of a Markdown fence, of a JSON string, or of JSON with escapes (`{\"a\"`), without a byte order
    mark.
    """
    inner = text.strip().removeprefix("\ufeff").strip()
    fenced = _FENCED.fullmatch(inner)
    if fenced is not None:
        return fenced[1].strip()
    is_escaped = _ESCAPED_JSON.match(inner) is not None
    if is_escaped or inner.startswith('"'):
        try:
            content = json.loads(f'"{inner}"' if is_escaped else inner, strict=False)
        except (ValueError, RecursionError):
            content = None
        if isinstance(content, str):
            return content
    return None if inner == text else inner


def unwrapped_texts(value: str, names: frozenset[str], title: str) -> Iterator[str]:
    """Yield the texts that an object or a list may stand for, as its only element or as the content of a wrapper.

    :param names: names of the properties that the schema has at any depth. They are not wrappers.
    :param title: title of the schema.
    """
    members = _members(value)
    if isinstance(members, list):
        if len(members) == 1:
            yield from _texts_of_member(members[0])
        return
    is_call, is_echo = _is_tool_call(members, names), _is_schema_echo(members)
    words = _WRAPPERS | {_plain_name(title)} - {""}
    for key, member in members.items():
        is_wrapper = key not in names and _plain_name(key) in words
        if is_wrapper or (is_call and key in _ARGUMENTS) or (is_echo and key == "properties"):
            yield from _texts_of_member(member)


def names_property(value: str, names: frozenset[str]) -> bool:
    """Return whether an object has a property of the schema, or a list has an element.

    A schema without required properties may accept every object, also `{}` in a piece of code.

    :param names: names of the properties that the schema has at any depth; if there are none, every property counts.
    """
    members = _members(value)
    return len(members) > 0 and (isinstance(members, list) or not names or not names.isdisjoint(members))


def resembles_answer(value: str, names: frozenset[str]) -> bool:
    """Return whether a text may be meant as the answer, although the schema does not accept it.

    It has a property of the schema, or it is broken.

    :param names: names of the properties that the schema has at any depth.
    """
    if not _is_json(value):
        return True
    members = _members(value)
    if isinstance(members, list):
        objects = [text for text in (bytes(member).decode() for member in members) if text.startswith("{")]
        return len(members) > 1 and any(resembles_answer(text, names) for text in objects)
    return not names.isdisjoint(members) and not _is_tool_call(members, names) and not _is_schema_echo(members)


def _is_tool_call(members: dict[str, msgspec.Raw], names: frozenset[str]) -> bool:
    return members.keys() <= _TOOL_CALL_KEYS and any(key in members and key not in names for key in _ARGUMENTS)


def _is_schema_echo(members: dict[str, msgspec.Raw]) -> bool:
    return members.keys() <= _SCHEMA_KEYS and _decode(members.get("type", msgspec.Raw(b"null"))) == "object"


def _members(value: str) -> dict[str, msgspec.Raw] | list[msgspec.Raw]:
    try:
        return msgspec.json.decode(value, type=dict[str, msgspec.Raw] | list[msgspec.Raw])
    except (msgspec.DecodeError, RecursionError):
        return []


def to_json(text: str) -> str | None:
    """Return an object or a list as JSON text, repaired if necessary, or None if it is neither and cannot be one."""
    if _is_json(text):
        return text
    repaired = _repair(text)
    return repaired if _is_json(repaired) else None


def property_names(schema: Any) -> frozenset[str]:
    """Return the names of all properties in a JSON Schema, at any depth."""
    names: set[str] = set()
    nodes = [schema]
    while nodes:
        node = nodes.pop()
        if isinstance(node, dict):
            properties = node.get("properties")
            if isinstance(properties, dict):
                names.update(properties)
            nodes += node.values()
        elif isinstance(node, list):
            nodes += node
    return frozenset(names)


def _end_of_value(text: str, start: int) -> int | None:
    """Return where the object or list that begins at `start` ends, or None if it does not end."""
    depth = 0
    for match in _BRACKETS.finditer(text, start):
        bracket = match["bracket"]
        if bracket is not None:
            depth += 1 if bracket in "{[" else -1
            if depth == 0:
                return match.end()
    return None


def _texts_of_member(member: msgspec.Raw) -> Iterator[str]:
    text = bytes(member).decode().strip()
    if text.startswith('"'):
        content = _decode(member)
        yield from json_texts(content) if isinstance(content, str) else ()
    elif text.startswith(("{", "[")):
        yield text


def _decode(raw: msgspec.Raw) -> Any:
    try:
        return msgspec.json.decode(raw)
    except (msgspec.DecodeError, RecursionError):
        return None


def _plain_name(name: str) -> str:
    return re.sub(r"[\W_]+", "", name).lower()


def _is_json(text: str) -> bool:
    if not text.strip().startswith(("{", "[")):
        return False
    try:
        msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return False
    return True


def _repair(text: str) -> str:
    """Return the text with everything replaced that has exactly one reading as JSON."""
    parts: list[str] = []
    follower = ""
    for match in reversed(list(_TOKEN.finditer(text))):
        kind, token = match.lastgroup, match.group()
        if kind == "blank":
            parts.append(" ")
            continue
        if kind == "string":
            parts.append(_quote(token))
        elif kind == "word":
            is_name = follower == ":" and token not in _WORDS
            parts.append(f'"{token}"' if is_name else _WORDS.get(token, token))
        elif token != "," or follower not in ("}", "]"):
            parts.append(token)
        follower = token
    return "".join(reversed(parts))


def _quote(token: str) -> str:
    """Return a string in single or double quotes as a JSON string."""

    def replace(match: re.Match[str]) -> str:
        part = match[0]
        if part == "\\'":
            return "'"
        return part if part.startswith("\\") else '\\"' if part == '"' else f"\\u{ord(part):04x}"

    return f'"{_STRING_PARTS.sub(replace, token[1:-1])}"'
