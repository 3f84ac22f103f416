"""Rows without a request: a file that they name is missing or cannot be used.

They are sealed like all others, in a file of their own, and land with the reason. Their neighbours are sent.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import ExitStack
from typing import BinaryIO

import msgspec

from airflow_provider_batch.core.ledger.folder import Folder
from airflow_provider_batch.core.ledger.job import InvalidFile, InvalidRow
from airflow_provider_batch.core.ledger.sealed_file import read_entries


class _AbandonedError(Exception):
    """Passed to the writer of a file that will not be completed."""


class InvalidRowWriter:
    """Writes the rows that cannot be sent to one file, which is created with the first of them."""

    def __init__(self, folder: Folder, prefix: str) -> None:
        self._folder, self._path = folder, f"{prefix}/invalid.rows.jsonl"
        self._stack = ExitStack()
        self._file: BinaryIO | None = None
        self._digest = hashlib.sha256()
        self.rows = 0

    def add(self, row: InvalidRow) -> None:
        """Write a row."""
        if self._file is None:
            self._file = self._stack.enter_context(self._folder.writer(self._path))
        line = msgspec.json.encode(row) + b"\n"
        self._file.write(line)
        self._digest.update(line)
        self.rows += 1

    def finish(self) -> InvalidFile | None:
        """Close the file and return it, or None if there are no such rows."""
        self._stack.close()
        return InvalidFile(self._path, self.rows, self._digest.hexdigest()) if self.rows else None

    def abandon(self) -> None:
        """Close the file without completing it. Does nothing after `finish`."""
        error = _AbandonedError()
        self._stack.__exit__(type(error), error, None)


def read_invalid_rows(folder: Folder, file: InvalidFile) -> Iterator[InvalidRow]:
    """Yield the rows that cannot be sent.

    :raises StagingError: if the file is not the one that was sealed, before any row is yielded.
    """
    return read_entries(folder, file.file, file.sha256, InvalidRow)
