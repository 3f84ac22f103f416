"""Replace one value of a JSON text with any other text, even one that no encoder would write."""

from __future__ import annotations

import json
import secrets
from typing import Any


def replace_value(document: bytes, path: str, text: str | None) -> bytes:
    """Return a JSON document in which the value at `path` is replaced. Without such a place, nothing changes.

    :param path: names of fields and indexes of arrays, separated by dots; `*` stands for every item. The last name may
        be one that the object does not have.
    :param text: the new value as JSON, inserted unchanged and not checked; None removes the field.
    """
    root = json.loads(document)
    # the encoder must not see the new text, so it first writes a placeholder
    placeholder = secrets.token_hex(16)
    *parents, name = path.split(".")
    places = [root]
    for parent in parents:
        places = [item for place in places for item in _items(place, parent)]
    changed = [_replace(place, name, None if text is None else placeholder) for place in places]
    if not any(changed):
        return document
    result = json.dumps(root, ensure_ascii=False, separators=(",", ":"))
    return result.replace(json.dumps(placeholder), text or "").encode("utf-8", "surrogatepass")


def _items(place: Any, name: str) -> list[Any]:
    if name == "*" and isinstance(place, list):
        return place
    if isinstance(place, list):
        return [place[int(name)]] if name.isdecimal() and int(name) < len(place) else []
    return [place[name]] if isinstance(place, dict) and name in place else []


def _replace(place: Any, name: str, value: str | None) -> bool:
    """Replace or remove one field of an object, and return whether `place` is an object."""
    if not isinstance(place, dict):
        return False
    if value is None:
        place.pop(name, None)
    else:
        place[name] = value
    return True
