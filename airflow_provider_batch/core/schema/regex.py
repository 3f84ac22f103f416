"""Regular expressions in schemas: which ones the provider accepts, and how ours are limited."""

from __future__ import annotations

import re

import jsonschema_rs

#: Judges what authors write, lookarounds and backreferences included. The limit ends a match that backtracks too often:
#: the pattern then does not match.
PATTERN_OPTIONS = jsonschema_rs.FancyRegexOptions(backtrack_limit=100_000)


def from_python(pattern: str) -> str:
    """Return a Python pattern in the syntax of JSON Schema: anchors, named groups and references to them."""

    def replace_token(match: re.Match[str]) -> str:
        backslashes, token, name = match.groups()
        return str(backslashes) + (_REPLACEMENTS.get(token) or rf"\{compiled.groupindex[name]}")

    try:
        compiled = re.compile(pattern)
    except re.error:
        return pattern
    return _PYTHON_TOKEN.sub(replace_token, pattern)


_PYTHON_TOKEN = re.compile(r"(?<!\\)((?:\\\\)*)(\\[AZ]|\(\?P<|\(\?P=(\w+)\))")
_REPLACEMENTS = {r"\A": "^", r"\Z": "$", "(?P<": "(?<"}


def is_sendable(pattern: str) -> bool:
    """Return whether a provider can be expected to accept a pattern.

    OpenAI answers lookarounds with HTTP 500. Constrained decoding needs a regular language, as Rust's `regex` does, so
    what that engine rejects is not sent: lookarounds, backreferences, atomic groups and possessive quantifiers.
    """
    try:
        jsonschema_rs.Draft202012Validator(
            {"pattern": pattern}, offline=True, pattern_options=jsonschema_rs.RegexOptions()
        )
    except (jsonschema_rs.ValidationError, ValueError):
        return False
    return True
