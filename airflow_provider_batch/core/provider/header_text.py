"""Checks of text that is sent in an HTTP header or an address. Their sentences never show the text."""

from __future__ import annotations

import re
import unicodedata
from typing import Any

_NAMES = {" ": "a space", "\n": "a line feed", "\r": "a carriage return", "\t": "a tab"}


def header_problem(field: str, value: Any) -> str | None:
    """Return why a value cannot be sent as a header, without showing it, or None if it can."""
    if not isinstance(value, str):
        return f"{field} must be text, not {type(value).__name__}"
    if not value.strip():
        return f"{field} is empty. Remove it, or enter a value"
    character = unusable_character(value)
    return None if character is None else f"{field} {character}"


def unusable_character(text: str) -> str | None:
    """Return which character of a value cannot be sent, and where it is, or None if all can be sent."""
    for position, character in enumerate(text):
        if "!" <= character <= "~" or (character == " " and text.strip(" ") == text):
            continue
        if position == 0 or not re.search("[!-~]", text[position:]):
            return f"{'ends' if position else 'starts'} with {_describe(character)}"
        return f"contains {_describe(character)} as character {position + 1} of {len(text)}"
    return None


def is_quoted(text: str) -> bool:
    """Return whether a quotation mark was copied with a value."""
    return text[:1] in ('"', "'", "`") or text[-1:] in ('"', "'", "`")


def _describe(character: str) -> str:
    if character in _NAMES:
        return _NAMES[character]
    name = unicodedata.name(character, "a control character")
    return f"U+{ord(character):04X} ({name})"
