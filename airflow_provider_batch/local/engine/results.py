"""The result files of a batch, written from its journal when it ends."""

from __future__ import annotations

import random
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from airflow_provider_batch.local.answers.responder import Reply
from airflow_provider_batch.local.api.objects import FileObject, Status
from airflow_provider_batch.local.dialects import OPENAI, Dialect
from airflow_provider_batch.local.faults import Kind
from airflow_provider_batch.local.storage.journal import Ending, Entry, Journal
from airflow_provider_batch.local.storage.store import Store

#: why a request never ran: code and message of its error line (OpenAI, Batch guide)
NEVER_RAN = {
    Status.EXPIRED: (
        "batch_expired",
        "This request could not be executed before the completion window expired.",
    ),
    Status.CANCELLED: (
        "batch_cancelled",
        "This request could not be executed because the batch was cancelled before this request executed.",
    ),
}


def _line(custom_id: str, response: dict[str, Any] | None, error: dict[str, str] | None) -> bytes:
    return msgspec.json.encode(
        {
            "id": f"batch_req_{secrets.token_hex(16)}",
            "custom_id": custom_id,
            "response": response,
            "error": error,
        }
    )


def answered(custom_id: str, reply: Reply) -> bytes:
    """The result line of a request that was asked, without its line end."""
    if reply.error is not None:
        return _line(custom_id, None, reply.error)
    # What lines with the status 0 look like is not on record; nulls are the hardest to read.
    request_id = f"req_{secrets.token_hex(16)}" if reply.status else None
    return _line(custom_id, {"status_code": reply.status, "request_id": request_id, "body": reply.body or None}, None)


def never_ran(custom_id: str, end: Status) -> bytes:
    """The error line of a request that a batch ended before, without its line end."""
    code, message = NEVER_RAN[end]
    return _line(custom_id, None, {"code": code, "message": message})


@dataclass(frozen=True, kw_only=True)
class Damage:
    """What goes wrong on request when the result files of one batch are written. Counts know nothing of it."""

    #: what becomes of a line, by the number of its input line
    lines: Mapping[int, Kind] = field(default_factory=dict)
    output: frozenset[Kind] = frozenset()
    errors: frozenset[Kind] = frozenset()


class ResultFiles:
    """Writes the output and the error file of one batch.

    A file without lines is not written, unless the dialect writes it.

    :param order: decides the order of the lines, which is not that of the input.
    :param created_at: of the files, Unix seconds; they expire `lifetime` seconds later.
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
        self._entries = entries + [one for one in entries if damage.lines.get(one.line) is Kind.DUPLICATE_LINE]
        if "in-order" in dialect:
            self._entries.sort(key=lambda entry: entry.line)
        elif "growing-output" not in dialect:
            random.Random(order).shuffle(self._entries)

    def write(self, batch_id: str) -> tuple[FileObject | None, FileObject | None]:
        """The output file and the error file. They are on disk, and not yet known to the store."""
        output, errors = self._parted()
        both = "growing-output" in self._dialect
        return (
            self._write(batch_id, "output", output, self._damage.output) if output or both else None,
            self._write(batch_id, "error", errors, self._damage.errors)
            if errors or both or "empty-error-file" in self._dialect
            else None,
        )

    def write_both(self, batch_id: str) -> list[FileObject]:
        """Both files, whatever is in them."""
        output, errors = self._parted()
        return [
            self._write(batch_id, "output", output, self._damage.output),
            self._write(batch_id, "error", errors, self._damage.errors),
        ]

    def _parted(self) -> tuple[list[Entry], list[Entry]]:
        """What ends in the output file, and what in the error file."""
        if "one-file" in self._dialect:
            return self._entries, []
        return (
            [entry for entry in self._entries if entry.ending is Ending.SUCCEEDED],
            [entry for entry in self._entries if entry.ending is not Ending.SUCCEEDED],
        )

    def _write(self, batch_id: str, kind: str, entries: list[Entry], damage: frozenset[Kind]) -> FileObject:
        file_id = self._dialect.result_file_id(batch_id, kind)
        size = self._copy(entries, self._store.path(file_id), damage)
        return FileObject(
            id=file_id,
            bytes=size,
            created_at=self._created_at,
            expires_at=self._created_at + self._lifetime,
            filename=f"{batch_id}_{kind}.jsonl",
            purpose="batch_output",
        )

    def _copy(self, entries: list[Entry], path: Path, damage: frozenset[Kind]) -> int:
        end = b"\r\n" if Kind.CRLF in damage else b"\n"
        with open(self._journal.path, "rb") as journal, open(path, "wb") as out:
            for entry in entries:
                kind = self._damage.lines.get(entry.line)
                if kind is Kind.MISSING_LINE:
                    continue
                journal.seek(entry.offset)
                line = journal.read(entry.length)[:-1]
                out.write(line[: len(line) // 2] if kind is Kind.BROKEN_LINE else line)
                out.write(end)
            size = out.tell()
            if Kind.NO_FINAL_NEWLINE in damage and size:
                size -= len(end)
                out.truncate(size)
            return size
