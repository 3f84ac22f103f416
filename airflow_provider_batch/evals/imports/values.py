"""Values of files as text."""

from __future__ import annotations

import json
from typing import Any


def text_of(value: Any) -> str | None:
    """Return a value of a JSON or YAML file as the text of a column. Lists and objects are written as JSON.

    Booleans and whole numbers are written as JSON writes them: true, and 3 for 3.0.
    """
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return str(int(value))
    return json.dumps(value, ensure_ascii=False)


def is_true(value: Any) -> bool:
    """Return whether an option of a file or of the command line is switched on."""
    return str(value).strip().lower() in ("true", "1", "yes")
