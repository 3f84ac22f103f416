"""The result files of a batch, written from its journal when it ends."""

from __future__ import annotations

import random
import secrets
from pathlib import Path
from typing import Any

import msgspec

from airflow_provider_batch.local.journal import Ending, Entry, Journal
from airflow_provider_batch.local.records import FileObject, Status, new_file_id
from airflow_provider_batch.local.store import Store

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


def result_line(custom_id: str, response: dict[str, Any] | None, error: dict[str, str] | None) -> bytes:
    """One line of a result file, without its line end."""
    return msgspec.json.encode(
        {
            "id": f"batch_req_{secrets.token_hex(16)}",
            "custom_id": custom_id,
            "response": response,
            "error": error,
        }
    )


class ResultFiles:
    """Writes the output and the error file of one batch. Neither is written if it would be empty.

    :param order: decides the order of the lines, which is not that of the input.
    :param created_at: of the files, Unix seconds; they expire `lifetime` seconds later.
    """

    def __init__(self, store: Store, journal: Journal, *, order: str, created_at: int, lifetime: int) -> None:
        self._store = store
        self._journal = journal
        self._created_at = created_at
        self._lifetime = lifetime
        self._entries = list(journal.entries())
        random.Random(order).shuffle(self._entries)

    def write(self, batch_id: str) -> tuple[FileObject | None, FileObject | None]:
        """The output file and the error file. They are on disk, and not yet known to the store."""
        succeeded = [entry for entry in self._entries if entry.ending is Ending.SUCCEEDED]
        others = [entry for entry in self._entries if entry.ending is not Ending.SUCCEEDED]
        return self._write(succeeded, f"{batch_id}_output.jsonl"), self._write(others, f"{batch_id}_error.jsonl")

    def _write(self, entries: list[Entry], filename: str) -> FileObject | None:
        if not entries:
            return None
        file_id = new_file_id()
        size = self._copy(entries, self._store.path(file_id))
        return FileObject(
            id=file_id,
            bytes=size,
            created_at=self._created_at,
            expires_at=self._created_at + self._lifetime,
            filename=filename,
            purpose="batch_output",
        )

    def _copy(self, entries: list[Entry], path: Path) -> int:
        with open(self._journal.path, "rb") as journal, open(path, "wb") as out:
            for entry in entries:
                journal.seek(entry.offset)
                out.write(journal.read(entry.length))
            return out.tell()


def never_ran(custom_id: str, end: Status) -> bytes:
    """The error line of a request that a batch ended before."""
    code, message = NEVER_RAN[end]
    return result_line(custom_id, None, {"code": code, "message": message})
