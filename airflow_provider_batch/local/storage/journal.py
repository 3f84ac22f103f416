"""The answers of a running batch, in the order they came.

An append-only file. Each entry is one line: a small head, a tab, and the finished result line as it will
stand in the output or error file. The head says which input line it answers, how that ended and the tokens,
so that counts and offsets can be had without parsing the answers. JSON text has no raw tab or newline, so
both are safe as separators. A kill can tear the last line only; it is cut off when the journal is opened
again.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from enum import IntEnum
from pathlib import Path
from typing import BinaryIO, NamedTuple

from airflow_provider_batch.local.api.tokens import Tokens


class Ending(IntEnum):
    """How one request ended."""

    SUCCEEDED = 0
    FAILED = 1
    #: cancelled or expired before it ran
    NEVER_RAN = 2


class Entry(NamedTuple):
    """One answered line, without its text. `line` counts from 1; `offset` and `length` are bytes."""

    line: int
    ending: Ending
    tokens: Tokens
    offset: int
    length: int


class Journal:
    """Opens a batch's journal for appending, and mends its end.

    The file is open only from an answer until `rest`: thousands of batches can wait at once.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: BinaryIO | None = None
        self._cut_torn_end()

    def close(self) -> None:
        """Close the file until the next answer comes."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _cut_torn_end(self) -> None:
        end = 0
        with open(self.path, "ab+") as file:
            file.seek(0)
            for raw in file:
                if raw.endswith(b"\n"):
                    end += len(raw)
            file.truncate(end)

    def append(self, line: int, ending: Ending, tokens: Tokens, result: bytes) -> None:
        """Add one answer. It survives a kill of the process from the moment this returns."""
        if self._file is None:
            # It must be there: one that was made anew would lack the answers before.
            self._file = open(self.path, "r+b")  # noqa: SIM115
            self._file.seek(0, os.SEEK_END)
        head = b"%d %d %d %d %d %d\t" % (line, ending, *tokens)
        self._file.write(head + result + b"\n")
        self._file.flush()

    def entries(self) -> Iterator[Entry]:
        """All entries, oldest first."""
        offset = 0
        with open(self.path, "rb") as file:
            for raw in file:
                head, _, _ = raw.partition(b"\t")
                line, ending, *tokens = map(int, head.split())
                yield Entry(
                    line,
                    Ending(ending),
                    Tokens(*tokens),
                    offset + len(head) + 1,
                    len(raw) - len(head) - 1,
                )
                offset += len(raw)
