"""What a results table can store, and what does not fit into it.

A database rejects a statement as a whole, so one value that it cannot store would stop the landing of all rows. Values
that come from a provider are therefore compared with the limits of the table before they are written.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable, Mapping
from datetime import datetime, time
from decimal import Decimal
from typing import Any, Literal, NamedTuple

import msgspec

from airflow_provider_batch.core.answers import tolerant_json
from airflow_provider_batch.core.answers.outcome import STORAGE, Answer, Outcome
from airflow_provider_batch.core.pricing.prices import Usage
from airflow_provider_batch.core.schema.columns import ColumnType

#: what a text must be, so that a column of another type can store it unchanged
TextFormat = Literal["integer", "date", "time", "timestamp", "local timestamp", "uuid"]


class ColumnLimits(msgspec.Struct, frozen=True, kw_only=True):
    """What one column can store; None means unlimited."""

    #: length of a text
    characters: int | None = None
    bytes: int | None = None
    #: the only texts, those of an enum
    labels: tuple[str, ...] | None = None
    format: TextFormat | None = None
    #: the smallest and the largest integer
    integers: tuple[int, int] | None = None
    #: decimal digits of a number: all of them, and those after the decimal point
    digits: tuple[int, int] | None = None
    #: 64 or 32 for a column that stores numbers as floats
    float_bits: int | None = None
    #: whether a float may be infinite
    has_infinity: bool = True
    #: digits of the seconds after the decimal point
    fraction_digits: int | None = None
    #: whether a JSON value must be a list
    is_list: bool = False
    #: number of elements of a vector or a list
    elements: int | None = None
    #: largest absolute value of an element of a vector
    largest_element: float | None = None
    #: what each element of a list must be
    element: ColumnLimits | None = None


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


def storage_problems(values: Iterable[tuple[str, ColumnType, Any]], limits: StorageLimits) -> dict[str, str]:
    """Return why values cannot be stored, by column. The values of the other columns can be stored together."""
    problems: dict[str, str] = {}
    texts: dict[str, str | bytes] = {}
    for column, type_, value in values:
        if value is None:
            continue
        text: str | bytes | None
        problem = None
        if type_ is ColumnType.JSON:
            text = _encode(value)
            problem = _json_problem(text, limits)
        else:
            text = value if isinstance(value, str) else None
        column_limits = limits.columns.get(column)
        if problem is None and column_limits is not None:
            is_document = type_ is ColumnType.JSON and not column_limits.is_list
            problem = column_problem(
                str(text, "utf-8") if isinstance(text, bytes) and is_document else value, column_limits
            )
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
        error_message=storage_message(reasons),
    )


_MESSAGE_START, _MESSAGE_END = "The results table cannot store every value. ", ". The files in staging have the answer."


def storage_message(reasons: str) -> str:
    """Return what the results table says about a row without the values that it cannot store."""
    return f"{_MESSAGE_START}{reasons}{_MESSAGE_END}"


def storage_reasons(message: str) -> str:
    """Return the reasons in such a message."""
    return message.removeprefix(_MESSAGE_START).removesuffix(_MESSAGE_END)


_TEXT_NAMES = ("model", "finish_reason", "error_code", "error_message")
#: the columns that `fit_names` fits
LIMITED_NAMES = (*_TEXT_NAMES, *Usage.__struct_fields__)


def fit_names(answer: Answer, limits: StorageLimits) -> Answer:
    """Return the answer with names, messages and token counts as their columns can store them.

    Texts are cut. A number that its column cannot store is unknown.
    """
    changes: dict[str, Any] = {}
    for name in _TEXT_NAMES:
        text, column = getattr(answer, name), limits.columns.get(name)
        if text is not None and column is not None and column_problem(text, column) is not None:
            characters = min(column.characters or len(text), (column.bytes or 4 * len(text)) // 4)
            changes[name] = text[:characters]
    usage = {
        name: None
        for name in answer.usage.__struct_fields__
        if name in limits.columns and column_problem(getattr(answer.usage, name), limits.columns[name]) is not None
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


def column_problem(value: Any, limits: ColumnLimits) -> str | None:
    """Return why a column with these limits cannot store the value unchanged, or None if it can."""
    if isinstance(value, list):
        return _list_problem(value, limits)
    if limits.is_list:
        return "the value is not a list, but the column takes lists"
    if isinstance(value, str):
        return _text_problem(value, limits)
    if isinstance(value, int | float | Decimal):
        return _number_problem(value, limits)
    if isinstance(value, datetime | time):
        return _fraction_problem(value, limits)
    return None


def _list_problem(value: list[Any], limits: ColumnLimits) -> str | None:
    noun = "list" if limits.is_list else "vector"
    if limits.elements is not None and len(value) != limits.elements:
        return f"the {noun} has {len(value):,} elements, but the column takes {limits.elements:,}"
    if limits.largest_element is not None and max(map(abs, value), default=0) > limits.largest_element:
        return f"an element of the vector is larger than {limits.largest_element:,}, the limit of the column"
    if limits.element is not None:
        problems = (column_problem(item, limits.element) for item in value if item is not None)
        problem = next((problem for problem in problems if problem is not None), None)
        return None if problem is None else f"in the list, {problem}"
    return None


def _text_problem(value: str, limits: ColumnLimits) -> str | None:
    if limits.characters is not None and len(value) > limits.characters:
        return f"the text has {len(value):,} characters, but the column takes {limits.characters:,}"
    if limits.bytes is not None and len(value.encode(errors="surrogatepass")) > limits.bytes:
        return (
            f"the text has {len(value.encode(errors='surrogatepass')):,} bytes, but the column takes {limits.bytes:,}"
        )
    if limits.labels is not None and value not in limits.labels:
        return "the text is not one of the values of the column's enum"
    if limits.format is not None:
        return _format_problem(value, limits.format, limits)
    if limits.integers is not None or limits.digits is not None or limits.float_bits is not None:
        return "the value is a text, but the column takes numbers"
    return None


_DATE = r"\d{4}-\d\d-\d\d"
_TIME = r"\d\d:\d\d(:\d\d(\.\d{1,6})?)?"
#: The notations of which no database makes anything else; PostgreSQL also reads "today" as a date, and 01/02/2026.
_NOTATIONS: Mapping[TextFormat, tuple[re.Pattern[str], str]] = {
    "integer": (re.compile(r"0|-?[1-9]\d*", re.ASCII), "a whole number in its usual notation"),
    "uuid": (re.compile(r"[\da-f]{8}(-?[\da-f]{4}){3}-?[\da-f]{12}", re.ASCII | re.IGNORECASE), "a UUID"),
    "date": (re.compile(_DATE, re.ASCII), "a date as YYYY-MM-DD"),
    "time": (re.compile(_TIME, re.ASCII), "a time as HH:MM:SS"),
    "local timestamp": (re.compile(f"{_DATE}[T ]{_TIME}", re.ASCII), "an ISO 8601 timestamp without an offset"),
    "timestamp": (
        re.compile(rf"{_DATE}[T ]{_TIME}(Z|[+-]\d\d:?\d\d)", re.ASCII),
        "an ISO 8601 timestamp with an offset",
    ),
}


def _format_problem(value: str, format: TextFormat, limits: ColumnLimits) -> str | None:
    pattern, description = _NOTATIONS[format]
    problem = f"the text is not {description}, which the column takes"
    if not pattern.fullmatch(value):
        return problem
    if format == "integer":
        return _number_problem(Decimal(value), limits)
    try:
        if format == "time":
            return _fraction_problem(time.fromisoformat(value), limits)
        if format != "uuid":
            return _fraction_problem(datetime.fromisoformat(value), limits)
    except ValueError:  # such as 2026-02-30
        return problem
    return None


def _number_problem(value: int | float | Decimal, limits: ColumnLimits) -> str | None:
    size = min((size for size in (limits.characters, limits.bytes) if size is not None), default=None)
    if size is not None and not isinstance(value, bool) and len(_number_text(value)) > size:
        return f"the number has {len(_number_text(value)):,} characters, but the column takes texts of {size:,}"
    if not limits.has_infinity and value in (float("inf"), float("-inf")):
        return "the number is infinite, which the column cannot store"
    if limits.integers is not None:
        smallest, largest = limits.integers
        if value != value or value in (float("inf"), float("-inf")) or value != int(value):
            return "the number is not whole, but the column takes whole numbers"
        if not smallest <= value <= largest:
            return f"the number is not between {smallest:,} and {largest:,}, the limits of the column"
    if limits.digits is not None and not _has_digits(value, *limits.digits):
        precision, scale = limits.digits
        return (
            f"the number does not fit into {precision - scale:,} digits before and {scale:,} digits after the decimal "
            "point, the limits of the column"
        )
    if limits.float_bits is not None and not _survives_as_float(value, limits.float_bits):
        return f"the number has more digits than the column, which stores floats of {limits.float_bits} bits, keeps"
    return None


def _number_text(value: int | float | Decimal) -> str:
    """Return a number as a text column stores it."""
    return f"{value:f}" if isinstance(value, Decimal) else str(value).removesuffix(".0")


def _has_digits(value: int | float | Decimal, precision: int, scale: int) -> bool:
    _, digits, exponent = Decimal(str(value)).as_tuple()
    if not isinstance(exponent, int):  # NaN or an infinity
        return False
    text = "".join(map(str, digits))
    significant_digits = text.rstrip("0")
    exponent += len(text) - len(significant_digits)
    if not significant_digits.strip("0"):
        return True
    return -exponent <= scale and len(significant_digits.lstrip("0")) + exponent <= precision - scale


def _survives_as_float(value: int | float | Decimal, bits: int) -> bool:
    if value != value:
        return True
    try:
        number = float(value)
        if bits == 32:
            (number,) = struct.unpack("f", struct.pack("f", number))
    except OverflowError:
        return False
    # a decimal survives if the shortest notation of the float has its digits
    return Decimal(repr(number)) == value if isinstance(value, Decimal) else number == value


def _fraction_problem(value: datetime | time, limits: ColumnLimits) -> str | None:
    digits = limits.fraction_digits
    if digits is not None and digits < 6 and value.microsecond % 10 ** (6 - digits):
        return f"the time has more than {digits} digits after the seconds, the limit of the column"
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
