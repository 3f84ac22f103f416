"""Writes the result files of a batch from its journal when the batch ends."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

from airflow_provider_batch.local.api.objects import FileObject
from airflow_provider_batch.local.dialects import OPENAI, Dialect
from airflow_provider_batch.local.engine.line_faults import damaged_lines, error_line
from airflow_provider_batch.local.faults import Fault, Kind
from airflow_provider_batch.local.storage.journal import Ending, Entry, Journal
from airflow_provider_batch.local.storage.store import Store


@dataclass(frozen=True, kw_only=True)
class Damage:
    """Faults in the result files of one batch. They do not change the batch's counts."""

    #: faults in single lines, by the number of the input line
    lines: Mapping[int, Fault] = field(default_factory=dict)
    #: faults in the output file
    output: frozenset[Kind] = frozenset()
    #: faults in the error file
    errors: frozenset[Kind] = frozenset()


class ResultFiles:
    """Writes the output file and the error file of one batch.

    A file without lines is not written, unless the dialect requires it.

    :param order: seed of the order of the lines, which differs from the order of the input.
    :param created_at: the creation time of the files, in Unix seconds.
    :param lifetime: seconds after which the files expire.
    """

    def __init__(
        self,
        store: Store,
        journal: Journal,
        *,
        order: str,
        created_at: int,
        lifetime: int,
        dialect: Dialect = OPENAI,
        damage: Damage = Damage(),
    ) -> None:
        self._store = store
        self._journal = journal
        self._created_at = created_at
        self._lifetime = lifetime
        self._dialect = dialect
        self._damage = damage
        entries = list(journal.entries())
        self._entries = entries + self._hit_by(Kind.DUPLICATE_LINE, entries)
        if "in-order" in dialect:
            self._entries.sort(key=lambda entry: entry.line)
        elif "growing-output" not in dialect:
            random.Random(order).shuffle(self._entries)

    def write(self, batch_id: str) -> tuple[FileObject | None, FileObject | None]:
        """Write the output file and the error file. The caller has to add them to the store."""
        output, errors = self._split_entries()
        write_empty = "growing-output" in self._dialect
        write_errors = errors or self._hit_by(Kind.ERROR_LINE_BESIDES, output)
        return (
            self._write_output(batch_id, output) if output or write_empty else None,
            self._write_errors(batch_id, output, errors)
            if write_errors or write_empty or "empty-error-file" in self._dialect
            else None,
        )

    def write_both(self, batch_id: str) -> list[FileObject]:
        """Write both files, even if they are empty."""
        output, errors = self._split_entries()
        return [self._write_output(batch_id, output), self._write_errors(batch_id, output, errors)]

    def _hit_by(self, kind: Kind, entries: Sequence[Entry]) -> list[Entry]:
        faults = self._damage.lines
        return [entry for entry in entries if entry.line in faults and faults[entry.line].kind is kind]

    def _split_entries(self) -> tuple[list[Entry], list[Entry]]:
        """Return the entries of the output file and those of the error file."""
        if "one-file" in self._dialect:
            return self._entries, []
        return (
            [entry for entry in self._entries if entry.ending is Ending.SUCCEEDED],
            [entry for entry in self._entries if entry.ending is not Ending.SUCCEEDED],
        )

    def _write_output(self, batch_id: str, entries: list[Entry]) -> FileObject:
        return self._write(batch_id, "output", self._lines(entries), self._damage.output)

    def _write_errors(self, batch_id: str, output: list[Entry], entries: list[Entry]) -> FileObject:
        further_errors = (
            error_line(self._damage.lines[entry.line], line, self._dialect)
            for entry, line in self._read(self._hit_by(Kind.ERROR_LINE_BESIDES, output))
        )
        return self._write(batch_id, "error", chain(self._lines(entries), further_errors), self._damage.errors)

    def _lines(self, entries: Iterable[Entry]) -> Iterator[bytes]:
        """Yield the lines of these entries, damaged where a fault hits them."""
        for entry, line in self._read(entries):
            fault = self._damage.lines.get(entry.line)
            if fault is None:
                yield line
            else:
                yield from damaged_lines(fault, line, self._dialect)

    def _read(self, entries: Iterable[Entry]) -> Iterator[tuple[Entry, bytes]]:
        """Yield each entry with its line from the journal, without the line end."""
        with open(self._journal.path, "rb") as journal:
            for entry in entries:
                journal.seek(entry.offset)
                yield entry, journal.read(entry.length)[:-1]

    def _write(self, batch_id: str, kind: str, lines: Iterable[bytes], damage: frozenset[Kind]) -> FileObject:
        file_id = self._dialect.result_file_id(batch_id, kind)
        size = _write_lines(lines, self._store.path(file_id), damage)
        return FileObject(
            id=file_id,
            bytes=size,
            created_at=self._created_at,
            expires_at=self._created_at + self._lifetime,
            filename=f"{batch_id}_{kind}.jsonl",
            purpose="batch_output",
        )


def _write_lines(lines: Iterable[bytes], path: Path, damage: frozenset[Kind]) -> int:
    """Write lines that have no line ends to a file, and return its size in bytes."""
    end = b"\r\n" if Kind.CRLF in damage else b"\n"
    with open(path, "wb") as file:
        for line in lines:
            file.write(line)
            file.write(end)
        size = file.tell()
        if Kind.NO_FINAL_NEWLINE in damage and size:
            size -= len(end)
            file.truncate(size)
        return size
