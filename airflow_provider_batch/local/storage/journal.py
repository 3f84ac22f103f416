"""The journal of a running batch: an append-only file with its answers, in the order in which they came in.

Each entry is one line: a short head, a tab, and the result line exactly as the output or error file will contain it.
The head holds the number of the input line, how the request ended, and its token counts. Counts and offsets can
therefore be computed without parsing the answers. JSON text contains no raw tabs or newlines, so both are safe as
separators.

If the process is killed, at most the last line is incomplete. It is removed when the journal is opened again.
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
    """One entry, without its result line.

    `line` is the number of the input line, from 1. `offset` and `length` locate the result line in the journal, in
    bytes.
    """

    line: int
    ending: Ending
    tokens: Tokens
    offset: int
    length: int


class Journal:
    """The journal of one batch. Creating the object removes an incomplete last line.

    The file is open only from an `append` to the next `close`, because thousands of batches can wait at the same time.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: BinaryIO | None = None
        self._remove_incomplete_line()

    def close(self) -> None:
        """Close the file until the next `append`."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _remove_incomplete_line(self) -> None:
        end = 0
        with open(self.path, "ab+") as file:
            file.seek(0)
            for raw in file:
                if raw.endswith(b"\n"):
                    end += len(raw)
            file.truncate(end)

    def append(self, line: int, ending: Ending, tokens: Tokens, result: bytes) -> None:
        """Append one answer. Once this returns, the answer survives a kill of the process."""
        if self._file is None:
            # This mode fails if the file is missing. A new file would lack all earlier answers.
            self._file = open(self.path, "r+b")  # noqa: SIM115
            self._file.seek(0, os.SEEK_END)
        head = b"%d %d %d %d %d %d\t" % (line, ending, *tokens)
        self._file.write(head + result + b"\n")
        self._file.flush()

    def entries(self) -> Iterator[Entry]:
        """Yield all entries, oldest first."""
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
