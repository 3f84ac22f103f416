"""The content of imported files: text, JSON, JSON lines and CSV; `yaml_values` has YAML.

A file may come from anywhere, so everything has a limit, and every error names the file and, where there is one, the
line.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from typing import Any

from airflow_provider_batch.evals.imports.sources import NOTHING_IMPORTED
from airflow_provider_batch.exceptions import InputError

#: maximum size of a file, in bytes
MAX_BYTES = 256 << 20

_LFS_POINTER = b"version https://git-lfs.github.com/spec/"


def decode_text(data: bytes, place: str) -> str:
    """Return the text of a file in UTF-8, with or without a byte order mark.

    :param place: name of the file, for errors.
    :raises InputError: if it is too large, or not UTF-8.
    """
    if len(data) > MAX_BYTES:
        raise InputError(
            f"{place} is larger than {MAX_BYTES >> 20} MB. Split it, and import its parts. {NOTHING_IMPORTED}"
        )
    if data.startswith(_LFS_POINTER):
        raise InputError(
            f"{place} is only a pointer to a file in Git LFS. Fetch the content with `git lfs pull`. {NOTHING_IMPORTED}"
        )
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise InputError(f"{place} is not UTF-8, in line {line:,}. Save it as UTF-8. {NOTHING_IMPORTED}") from None


def read_json_lines(data: bytes, place: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield the number and the object of each line that is not empty.

    :raises InputError: if a line is not a JSON object.
    """
    # other characters that Python takes for line ends may be part of a JSON text
    for number, line in enumerate(decode_text(data, place).split("\n"), start=1):
        if not line.strip():
            continue
        value = _parse_json(line, f"Line {number:,} of {place}")
        if not isinstance(value, dict):
            raise InputError(f"Line {number:,} of {place} is not a JSON object. {NOTHING_IMPORTED}")
        yield number, value


def read_json_records(data: bytes, place: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield the number, counted from 1, and the object of each element of a JSON list. One object is a list of one.

    :raises InputError: if the file is neither, or an element is not an object.
    """
    document = _parse_json(decode_text(data, place), place)
    for number, value in enumerate(document if isinstance(document, list) else [document], start=1):
        if not isinstance(value, dict):
            raise InputError(f"Element {number:,} of {place} is not a JSON object. {NOTHING_IMPORTED}")
        yield number, value


def read_csv(data: bytes, place: str) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield the line and the values of each row, by the names in the first line. Empty lines are left out.

    Values are separated by commas or, if the first line has none, by semicolons or tabs.

    :raises InputError: if a row has more or fewer values than the first line, or a name appears twice.
    """
    text = decode_text(data, place)
    header = text.partition("\n")[0]
    delimiter = next((character for character in ",;\t" if character in header), ",")
    csv.field_size_limit(MAX_BYTES)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        names = [name.strip() for name in next(reader, [])]
        repeated = sorted({name for name in names if names.count(name) > 1 and name != "__expected"})
        if repeated:
            raise InputError(f"{place} has the column {repeated[0]!r} more than once. {NOTHING_IMPORTED}")
        for values in reader:
            if not any(value.strip() for value in values):
                continue
            if len(values) != len(names):
                raise InputError(
                    f"Line {reader.line_num:,} of {place} has {len(values)} values, but the first line names "
                    f"{len(names)} columns. {NOTHING_IMPORTED}"
                )
            yield reader.line_num, dict(zip(names, values, strict=True))
    except csv.Error as error:
        raise InputError(
            f"{place} is not valid CSV near line {reader.line_num:,}: {error}. {NOTHING_IMPORTED}"
        ) from None


def _parse_json(text: str, place: str) -> Any:
    try:
        return json.loads(text)
    except RecursionError:
        raise InputError(f"{place} is nested too deeply. {NOTHING_IMPORTED}") from None
    except ValueError as error:
        raise InputError(f"{place} is not valid JSON: {error}. {NOTHING_IMPORTED}") from None
