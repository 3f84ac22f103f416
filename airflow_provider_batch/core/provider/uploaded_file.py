"""Defensive parsing of the reply to an upload.

OpenAI returns the file itself. SiliconFlow puts it under `data`, and other servers under `file`; some call the id
`file_id`, or number their files.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def read_file_id(answer: Any) -> str:
    """Return the id of the uploaded file, or an empty string if the answer has none.

    :param answer: a mapping, or an SDK object with a `to_dict` method. An error has no file, even if it has an id.
    """
    data = answer.to_dict(warnings=False) if hasattr(answer, "to_dict") else answer
    if not isinstance(data, Mapping) or data.get("error"):
        return ""
    # an object around the file may have an id of its own, such as that of the request
    objects = [data.get("data"), data.get("file"), data]
    ids = (_file_id(entry) for entry in objects if isinstance(entry, Mapping))
    return next((file_id for file_id in ids if file_id), "")


def _file_id(entry: Mapping[str, Any]) -> str:
    for name in ("id", "file_id"):
        value = entry.get(name)
        if isinstance(value, int) and not isinstance(value, bool) and value > 0:
            return str(value)
        if isinstance(value, str) and value and value.isprintable() and not any(map(str.isspace, value)):
            return value
    return ""
