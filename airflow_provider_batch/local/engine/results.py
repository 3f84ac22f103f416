"""Writes the result files of a batch from its journal when the batch ends."""

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

#: code and message in the error line of a request that never ran (OpenAI, Batch guide)
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


def reply_line(custom_id: str, reply: Reply) -> bytes:
    """Return the result line of a request that was answered, without its line end."""
    if reply.error is not None:
        return _line(custom_id, None, reply.error)
    # The lines that OpenAI writes for status 0 are not documented. Nulls are the hardest case for a reader.
    request_id = f"req_{secrets.token_hex(16)}" if reply.status else None
    return _line(custom_id, {"status_code": reply.status, "request_id": request_id, "body": reply.body or None}, None)


def never_ran_line(custom_id: str, end: Status) -> bytes:
    """Return the error line of a request that had not run when its batch ended, without its line end."""
    code, message = NEVER_RAN[end]
    return _line(custom_id, None, {"code": code, "message": message})


@dataclass(frozen=True, kw_only=True)
class Damage:
    """Faults in the result files of one batch. They do not change the batch's counts."""

    #: faults in single lines, by the number of the input line
    lines: Mapping[int, Kind] = field(default_factory=dict)
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
        self._entries = entries + [entry for entry in entries if damage.lines.get(entry.line) is Kind.DUPLICATE_LINE]
        if "in-order" in dialect:
            self._entries.sort(key=lambda entry: entry.line)
        elif "growing-output" not in dialect:
            random.Random(order).shuffle(self._entries)

    def write(self, batch_id: str) -> tuple[FileObject | None, FileObject | None]:
        """Write the output file and the error file. The caller has to add them to the store."""
        output, errors = self._split_entries()
        write_empty = "growing-output" in self._dialect
        return (
            self._write(batch_id, "output", output, self._damage.output) if output or write_empty else None,
            self._write(batch_id, "error", errors, self._damage.errors)
            if errors or write_empty or "empty-error-file" in self._dialect
            else None,
        )

    def write_both(self, batch_id: str) -> list[FileObject]:
        """Write both files, even if they are empty."""
        output, errors = self._split_entries()
        return [
            self._write(batch_id, "output", output, self._damage.output),
            self._write(batch_id, "error", errors, self._damage.errors),
        ]

    def _split_entries(self) -> tuple[list[Entry], list[Entry]]:
        """Return the entries of the output file and those of the error file."""
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
        with open(self._journal.path, "rb") as journal, open(path, "wb") as file:
            for entry in entries:
                kind = self._damage.lines.get(entry.line)
                if kind is Kind.MISSING_LINE:
                    continue
                journal.seek(entry.offset)
                line = journal.read(entry.length)[:-1]
                file.write(line[: len(line) // 2] if kind is Kind.BROKEN_LINE else line)
                file.write(end)
            size = file.tell()
            if Kind.NO_FINAL_NEWLINE in damage and size:
                size -= len(end)
                file.truncate(size)
            return size
