"""The files of a row: which it names, and their parts in its user message."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

import msgspec

from airflow_provider_batch.core.formatting import format_count
from airflow_provider_batch.core.requests.body_form import evaluate, leaves
from airflow_provider_batch.core.requests.check import FileArgument
from airflow_provider_batch.core.requests.file_parts import MAX_FILE_BYTES, ReadFile, check_size, file_part, text_part
from airflow_provider_batch.core.requests.file_paths import Location, UnusableFileError, locate
from airflow_provider_batch.core.requests.template import Leaf, RowTemplate, Values, one_by_one
from airflow_provider_batch.core.requests.value import to_text

#: maximum number of files of a request
_MAX_FILES = 500
#: bytes of a line around the body: the custom_id, the method and the URL
_LINE_ENVELOPE = 1_000


class BoundFile(NamedTuple):
    """A file argument, bound to the columns of a query."""

    argument: str
    path: Any
    root: Location
    detail: str | None

    def locations(self, row: Values) -> list[Location]:
        """Return the files that a row names. Raises UnusableFileError for one that is not below the root."""
        locations = []
        for path in _paths(evaluate(self.path, row)):
            location = locate(self.root, path)
            if location is not None:
                locations.append(location)
        return locations


def bind_file(file: FileArgument, bind: Callable[..., Any]) -> BoundFile:
    """Return a file argument, bound to the columns of a query by `bind`."""
    argument = file.path.argument if isinstance(file.path, RowTemplate) else "files"
    return BoundFile(argument, bind(file.path, as_text=False), file.root, file.detail)


def _paths(value: Any) -> list[str]:
    """Return the paths in the value of a template: one text, a list of texts, or the JSON of such a list."""
    if isinstance(value, str) and value.lstrip().startswith("["):
        with suppress(msgspec.DecodeError, UnicodeEncodeError, RecursionError):
            value = msgspec.json.decode(value)
    if isinstance(value, (list, tuple)):
        paths = [to_text(item) for item in value]
        if len(paths) > _MAX_FILES:
            raise UnusableFileError(
                "file_path", f"The row names {len(paths):,} files, but a request may have at most {_MAX_FILES:,}."
            )
        return paths
    return [to_text(value)]


class FileParts:
    """Adds the files of a row to its user message."""

    def __init__(
        self,
        endpoint: str,
        files: Sequence[BoundFile],
        read_file: Callable[[Location], bytes] | None,
        max_bytes: int | None,
    ) -> None:
        self._endpoint = endpoint
        self._files = files
        self._read_file = read_file
        self._max_bytes = max_bytes
        #: addresses of the files of the last row
        self.addresses: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self._files)

    def added_to(self, prompt: Any) -> Leaf:
        """Return the content of the user message: the parts of the prompt, then the files of the row."""

        def content(row: Values) -> list[Any]:
            message = evaluate(prompt, row)
            parts = message if isinstance(message, list) else [text_part(self._endpoint, message)]
            return [*parts, *self._parts(row)]

        return Leaf("files", one_by_one(content), tuple(column for leaf in leaves(prompt) for column in leaf.columns))

    def check_request_size(self, body: bytes) -> None:
        """Raise UnusableFileError if the files make a request too large for any input file."""
        size = len(body) + _LINE_ENVELOPE
        if self.addresses and self._max_bytes is not None and size > self._max_bytes:
            raise UnusableFileError(
                "file_too_large",
                f"With {format_count(len(self.addresses), 'file')} ({', '.join(self.addresses)[:1_000]}), the request "
                f"has {size:,} bytes, but an input file may have at most {self._max_bytes:,}.",
            )

    def _parts(self, row: Values) -> list[dict[str, Any]]:
        assert self._read_file is not None
        locations = [(location, file.detail) for file in self._files for location in file.locations(row)]
        self.addresses = tuple(str(location) for location, _ in locations)
        parts, size = [], 0
        for location, detail in locations:
            content = self._read_file(location)
            size += len(content)
            if size > MAX_FILE_BYTES:
                check_size(location, len(content))
                raise UnusableFileError(
                    "file_too_large",
                    f"The {len(locations):,} files of the row ({', '.join(self.addresses)[:1_000]}) have more than "
                    f"{MAX_FILE_BYTES:,} bytes together, which the API does not take.",
                )
            parts.append(file_part(ReadFile(location, content), self._endpoint, detail))
        return parts
