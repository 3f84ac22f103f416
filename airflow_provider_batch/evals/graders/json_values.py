"""Graders of answers that are JSON, or contain it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from functools import lru_cache, reduce
from itertools import islice
from typing import Any

import jsonschema_rs

from airflow_provider_batch.core.schema.paths import members, possible_parts
from airflow_provider_batch.evals.graders.subject import Grade, Subject, excerpt, right, wrong
from airflow_provider_batch.exceptions import InputError

#: a line that opens or closes a block of code in Markdown
_FENCE = re.compile(r"[ \t]{0,3}(`{3,}|~{3,})([^`]*)")
#: a block of code on one line that is the whole answer
_FENCED_LINE = re.compile(r"```(?:json\b)?([^\n]*)```")

#: only this many fenced blocks of an answer are read
_MAX_BLOCKS = 1_000

_BRACKET = re.compile(r"[{\[]")
#: `contains-json` gives up after it has read `_MIN_READS` characters plus `_MAX_READS` times the length of the answer
_MIN_READS = 1_000_000
_MAX_READS = 4
#: what each bracket counts, and a value that is nested too deeply, in characters
_BRACKET_READS = 25
_DEEP_READS = 10_000


def json_value(argument: str, subject: Subject) -> Grade:
    """Grade whether the answer is JSON with the expected value at a path."""
    try:
        value = read_json(subject.text)
    except ValueError as error:
        return wrong(f"{error}: {excerpt(subject.text)}")
    path = parse_path(argument)
    candidates = list(possible_parts([value], path, members)) if isinstance(path, str) and path else [path or ()]
    if len(candidates) > 1:
        lists = " or ".join(json.dumps(parts, ensure_ascii=False) for parts in candidates)
        return wrong(f"names in the JSON contain dots, so the path could be {lists}; write it as a list")
    values = reduce(members, candidates[0], [value]) if candidates else []
    if not values:
        return wrong(f"the JSON has no {argument!r}")
    (value,) = values
    if isinstance(value, str) and value == subject.expected:
        return right("the same value")
    try:
        expected_value = _load(subject.expected)
    except ValueError:
        expected_value = subject.expected
    if _equal(value, expected_value):
        return right("the same value")
    return wrong(f"different value: {excerpt(json.dumps(value, ensure_ascii=False))}")


def is_json(_: str, subject: Subject) -> Grade:
    """Grade whether the answer is JSON and nothing else, without a fence around it."""
    try:
        _load(subject.text)
    except ValueError:
        return wrong(f"not JSON: {excerpt(subject.text)}")
    return right("JSON")


def contains_json(_: str, subject: Subject) -> Grade:
    """Grade whether there is a JSON object or list anywhere in the answer, also in a fence."""
    text, position, remaining = subject.text, 0, _MAX_READS * len(subject.text) + _MIN_READS
    decoder = json.JSONDecoder(parse_constant=_refuse_constant)
    while remaining > 0 and (bracket := _BRACKET.search(text, position)):
        start = position = bracket.start()
        try:
            value, end = decoder.raw_decode(text, start)
        except json.JSONDecodeError as error:
            remaining -= error.pos - start
        except (ValueError, RecursionError):
            remaining -= _DEEP_READS
        else:
            if not _is_prose(value):
                return right(f"contains JSON: {excerpt(text[start:end])}")
            remaining -= end - start
        remaining -= _BRACKET_READS
        position += 1
    if remaining <= 0:
        return wrong(f"no JSON found among too many brackets: {excerpt(text)}")
    return wrong(f"contains no JSON: {excerpt(text)}")


def json_schema(_: str, subject: Subject) -> Grade:
    """Grade whether the answer is JSON that is valid against the schema in `expected`."""
    try:
        value = read_json(subject.text)
    except ValueError as error:
        return wrong(f"{error}: {excerpt(subject.text)}")
    try:
        problem = next(iter(compile_schema(subject.expected).iter_errors(value)), None)
    except (ValueError, RecursionError) as error:
        return wrong(f"cannot be checked against the schema: {excerpt(str(error))}")
    if problem is None:
        return right("valid against the schema")
    place = ".".join(str(part) for part in problem.instance_path) or "the root"
    return wrong(f"not valid against the schema at {excerpt(place)}: {excerpt(problem.message)}")


def parse_path(argument: str) -> str | tuple[str | int, ...]:
    """Return the path of the grader `json`: a text whose dots separate names, or a list of names and indexes.

    :raises InputError: if a list is invalid.
    """
    if not argument.startswith("["):
        return argument
    try:
        parts = json.loads(argument)
    except (ValueError, RecursionError):
        parts = None
    if not parts or any(type(part) not in (str, int) for part in parts):
        raise InputError(f"the path of the grader 'json:{argument}' is not a JSON list of names and list indexes")
    return tuple(parts)


@lru_cache(maxsize=256)
def compile_schema(expected: str) -> Any:
    """Return a validator for the schema in `expected`. Its patterns are matched in linear time.

    :raises InputError: if it is not a JSON Schema, or a pattern has lookaround or backreferences.
    """
    try:
        schema = _load(expected)
    except ValueError:
        raise InputError("`expected` is not JSON, but the grader 'json-schema' needs a JSON Schema there") from None
    if not isinstance(schema, dict | bool):
        raise InputError("`expected` is not a JSON Schema: it must be an object, or true or false")
    try:
        return jsonschema_rs.validator_for(
            schema, offline=True, validate_formats=True, pattern_options=jsonschema_rs.RegexOptions()
        )
    except (ValueError, RecursionError, jsonschema_rs.ReferencingError) as error:
        problem = str(error).strip().partition("\n")[0].rstrip(".")
        raise InputError(f"`expected` is not a JSON Schema that can be checked: {problem}") from None


def read_json(text: str) -> Any:
    """Return the JSON in an answer: the whole answer, or the only fenced block in it that is JSON.

    :raises ValueError: if there is none, or if fenced blocks have different values.
    """
    try:
        return _load(text)
    except ValueError:
        blocks = list(_fenced_values(text))
    if not blocks:
        raise ValueError("not JSON")
    if any(not _equal(blocks[0], block) for block in blocks):
        raise ValueError("several fenced blocks with different JSON")
    return blocks[0]


def _fenced_values(text: str) -> Iterator[Any]:
    line = _FENCED_LINE.fullmatch(text.strip())
    for block in [line[1]] if line else islice(_fenced_blocks(text), _MAX_BLOCKS):
        try:
            yield _load(block)
        except ValueError:
            continue


def _fenced_blocks(text: str) -> Iterator[str]:
    """Yield the content of each fenced block that ends. Each line is read once."""
    fence, block = "", list[str]()
    for line in text.splitlines():
        match = _FENCE.match(line)
        if not fence:
            fence, block = (match[1], []) if match else ("", block)
        elif match and match[1].startswith(fence) and not match[2].strip():
            yield "\n".join(block)
            fence = ""
        else:
            block.append(line)


def _load(text: str) -> Any:
    """Return the value of a JSON text. Raises ValueError, also for NaN and Infinity, and for too deep nesting."""
    try:
        return json.loads(text.strip().removeprefix("\ufeff"), parse_constant=_refuse_constant)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _is_prose(value: Any) -> bool:
    """Return whether a list is rather a part of a text, such as the reference [1] or the box [ ]."""
    return isinstance(value, list) and (not value or (len(value) == 1 and not isinstance(value[0], list | dict | str)))


def _equal(left: Any, right: Any) -> bool:
    """Compare by the rules of JSON, where true is not 1. In Python they are equal."""
    if isinstance(left, bool) or isinstance(right, bool):
        return left is right
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(_equal(left[name], right[name]) for name in left)
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(_equal, left, right))
    return bool(left == right)
