"""What a results table can store, and what does not fit into it.

A database rejects a statement as a whole, so one value that it cannot store would stop the landing of all rows. Values
that come from a provider are therefore compared with the limits of the table before they are written.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import msgspec

from airflow_provider_batch.core.answers import tolerant_json
from airflow_provider_batch.core.answers.outcome import Answer, Outcome
from airflow_provider_batch.core.schema.columns import ColumnType

#: error code of an answer with a value that the results table cannot store
STORAGE = "storage"


class ColumnLimits(msgspec.Struct, frozen=True, kw_only=True):
    """What one column can store; None means unlimited."""

    #: length of a text
    characters: int | None = None
    bytes: int | None = None
    #: the smallest and the largest integer
    integers: tuple[int, int] | None = None
    #: number of elements of a vector
    elements: int | None = None
    #: largest absolute value of an element
    largest_element: float | None = None


class StorageLimits(msgspec.Struct, frozen=True, kw_only=True):
    """What the rows of a table can store."""

    columns: dict[str, ColumnLimits] = {}
    json_depth: int = tolerant_json.MAX_DEPTH
    #: digits of an integer in a JSON document; None means unlimited
    json_digits: int | None = None
    #: bytes of all texts and JSON documents of a row; None means unlimited
    row_bytes: int | None = None
    #: characters that the database's statements write as two bytes
    escaped_characters: str = ""


class StoredValue(NamedTuple):
    """A value on its way into a column."""

    column: str
    type: ColumnType
    value: Any


def storage_problems(values: Iterable[StoredValue], limits: StorageLimits) -> dict[str, str]:
    """Return why values cannot be stored, by column. The values of the other columns can be stored together."""
    problems: dict[str, str] = {}
    texts: dict[str, str | bytes] = {}
    for column, type_, value in values:
        if value is None:
            continue
        text: str | bytes | None
        if type_ is ColumnType.JSON:
            text = _encode(value)
            problem = _json_problem(text, limits)
        else:
            text = value if isinstance(value, str) else None
            column_limits = limits.columns.get(column)
            problem = None if column_limits is None else _column_problem(value, column_limits)
        if problem is not None:
            problems[column] = problem
        elif text:
            texts[column] = text
    if limits.row_bytes is not None and 4 * sum(map(len, texts.values())) > limits.row_bytes:
        problems.update(_row_problems(texts, limits.row_bytes, limits.escaped_characters))
    return problems


def without_values(answer: Answer, problems: Mapping[str, str]) -> Answer:
    """Return the answer without the values that cannot be stored.

    If they belong to the answer itself, a succeeded answer becomes an invalid output. If only the copy of the response
    cannot be stored, the answer stays as it is.
    """
    if "output" in problems:
        answer = msgspec.structs.replace(answer, value=None, text=None)
    if "response" in problems:
        answer = msgspec.structs.replace(answer, body=None)
    if answer.outcome is not Outcome.SUCCEEDED:
        return answer
    reasons = "; ".join(f"{column}: {problem}" for column, problem in problems.items())
    return msgspec.structs.replace(
        answer,
        outcome=Outcome.SUCCEEDED if problems.keys() == {"response"} else Outcome.INVALID_OUTPUT,
        error_code=STORAGE,
        error_message=f"The results table cannot store every value. {reasons}. The files in staging have the answer.",
    )


def fit_names(answer: Answer, limits: StorageLimits) -> Answer:
    """Return the answer with names, messages and token counts as their columns can store them.

    Texts are cut. A number that its column cannot store is unknown.
    """
    if not limits.columns:
        return answer
    changes: dict[str, Any] = {}
    for name in ("model", "finish_reason", "error_code", "error_message"):
        text, column = getattr(answer, name), limits.columns.get(name)
        if text is not None and column is not None and _column_problem(text, column) is not None:
            characters = min(column.characters or len(text), (column.bytes or 4 * len(text)) // 4)
            changes[name] = text[:characters]
    usage = {
        name: None
        for name in answer.usage.__struct_fields__
        if name in limits.columns and _column_problem(getattr(answer.usage, name), limits.columns[name]) is not None
    }
    if usage:
        changes["usage"] = msgspec.structs.replace(answer.usage, **usage)
    return msgspec.structs.replace(answer, **changes) if changes else answer


def _encode(value: Any) -> bytes | None:
    """Return a value as JSON, or None if it is nested too deeply for that."""
    try:
        return msgspec.json.encode(value)
    except RecursionError:
        return None


def _json_problem(text: bytes | None, limits: StorageLimits) -> str | None:
    if text is None or tolerant_json.depth(text, limits.json_depth) > limits.json_depth:
        return f"the JSON is nested more than {limits.json_depth} levels deep"
    if limits.json_digits is not None and re.search(rb"\d{%d}" % (limits.json_digits + 1), text):
        return f"the JSON has a number of more than {limits.json_digits} digits"
    return None


def _column_problem(value: Any, limits: ColumnLimits) -> str | None:
    if isinstance(value, str):
        if limits.characters is not None and len(value) > limits.characters:
            return f"the text has {len(value):,} characters, but the column takes {limits.characters:,}"
        if limits.bytes is not None and len(value.encode()) > limits.bytes:
            return f"the text has {len(value.encode()):,} bytes, but the column takes {limits.bytes:,}"
    elif isinstance(value, list):
        if limits.elements is not None and len(value) != limits.elements:
            return f"the vector has {len(value):,} elements, but the column takes {limits.elements:,}"
        if limits.largest_element is not None and max(map(abs, value), default=0) > limits.largest_element:
            return f"an element of the vector is larger than {limits.largest_element:,}, the limit of the column"
    elif isinstance(value, int) and limits.integers is not None:
        smallest, largest = limits.integers
        if not smallest <= value <= largest:
            return f"the number is not between {smallest:,} and {largest:,}, the limits of the column"
    return None


def _row_problems(texts: dict[str, str | bytes], row_bytes: int, escaped_characters: str) -> dict[str, str]:
    """Return the columns to leave out, the largest ones first, so that the rest of the row fits."""
    sizes = {column: _size(text, escaped_characters) for column, text in texts.items()}
    problems: dict[str, str] = {}
    for column, size in sorted(sizes.items(), key=lambda item: item[1], reverse=True):
        if sum(sizes.values()) <= row_bytes:
            break
        problems[column] = f"the value has {size:,} bytes, but the database takes {row_bytes:,} for a row"
        del sizes[column]
    return problems


def _size(text: str | bytes, escaped_characters: str) -> int:
    encoded = text.encode() if isinstance(text, str) else text
    return len(encoded) + sum(encoded.count(character.encode()) for character in escaped_characters)
