"""Python values in the forms that databases take: mended text, JSON, moments in UTC."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import msgspec

_JSON = msgspec.json.Encoder(decimal_format="number")


def mend(text: str) -> str:
    r"""Text that UTF-8 can carry: halves of a surrogate pair are joined, lone ones become U+FFFD.

    Models answer with JSON such as "\ud83d", which Python reads as a lone surrogate and no database stores.
    """
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def json_text(value: Any) -> str:
    """The value as compact JSON. PostgreSQL's jsonb refuses NUL characters: they are left out. NaN becomes null."""
    try:
        encoded = _JSON.encode(value).decode()
    except (UnicodeEncodeError, OverflowError):  # lone surrogates; integers over 64 bits
        return _plain_json(value)
    return _plain_json(value) if "\\u0000" in encoded else encoded


def _plain_json(value: Any) -> str:
    return json.dumps(_clean(value), ensure_ascii=False, separators=(",", ":"), default=str)


def _clean(value: Any) -> Any:
    if isinstance(value, str):
        return mend(value).replace("\0", "")
    if isinstance(value, dict):
        return {_clean(str(key)): _clean(member) for key, member in value.items()}
    if isinstance(value, list | tuple):
        return [_clean(member) for member in value]
    if isinstance(value, float) and value - value != 0:  # NaN and the infinities, which JSON lacks
        return None
    if isinstance(value, Decimal):
        return float(value)
    return value


def utc(moment: datetime) -> datetime:
    """The moment in UTC. One without a time zone is taken to be in UTC already."""
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


def iso(moment: datetime) -> str:
    """ISO 8601 in UTC, always with microseconds, so that comparing the text compares the moments."""
    return utc(moment).isoformat(timespec="microseconds")


def typed(kind: type, value: Any) -> Any:
    """Return the value. Raises TypeError if it is not of this type."""
    if not isinstance(value, kind):
        raise TypeError(kind)
    return value


def text(value: Any) -> str:
    """Return a text that UTF-8 can carry. Raises TypeError for anything but a text."""
    return mend(typed(str, value))


def text_without_nul(value: Any) -> str:
    """Return a text for a database that stores no NUL characters. Raises TypeError for anything but a text."""
    return text(value).replace("\0", "")


def integer(value: Any) -> int:
    """Return an integer. Raises TypeError for anything else."""
    return int(typed(int, value))


def decimal(value: Any) -> Decimal:
    """Return a number as a decimal with the digits that it is written with."""
    return value if isinstance(value, Decimal) else Decimal(str(value))


def binary(value: Any) -> bytes:
    """Return anything that is made of bytes as bytes."""
    return bytes(memoryview(value))


def whole(value: Any) -> Any:
    """The value itself where the driver gives a handle to a large one, as python-oracledb does for CLOB and BLOB."""
    return value.read() if hasattr(value, "read") else value
