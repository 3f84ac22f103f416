"""The server's state: one directory.

It holds an SQLite database, the uploaded and produced files, and the work of batches that have not ended.

    state.sqlite     files, batches, what the responder remembers; and the tables of `upload_store` and `webhooks`
    files/<id>       bytes of each file
    uploads/<id>/    parts of files that are not whole yet; see `upload_store`
    clock.json       what the server's clock shows
    server.json      process id and base URL of the server, while one runs
    work/<id>/       of a live batch: `input.jsonl` (a hard link to the input file, so that deleting the file
                     does not hurt a running batch) and `answers` (its journal)

A killed server finds everything again. What a kill can leave behind (bytes without a row, work of a batch
that has ended) is swept when the directory is opened. One server per directory: an advisory lock sees to
it.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

from airflow_provider_batch.local.api.objects import ENDED, Batch, FileObject
from airflow_provider_batch.local.clock import Clock
from airflow_provider_batch.local.storage.record import Record

#: see above; the command that serves writes and removes it
ADDRESS_FILE = "server.json"

_SCHEMA = """
CREATE TABLE IF NOT EXISTS file (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    purpose TEXT NOT NULL,
    body BLOB NOT NULL
);
CREATE TABLE IF NOT EXISTS batch (
    number INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    ended INTEGER NOT NULL,
    body BLOB NOT NULL
);
CREATE INDEX IF NOT EXISTS batch_live ON batch (ended) WHERE ended = 0;
CREATE TABLE IF NOT EXISTS seen_key (key BLOB PRIMARY KEY) WITHOUT ROWID;
"""


class StateInUseError(Exception):
    """Another server holds this state directory."""


class Store:
    """Opens (and creates) a state directory. All methods are short and belong to the event loop's thread.

    :param speed: of the directory's clock; see `Settings.speed`.
    """

    def __init__(self, root: Path, *, speed: float = 1.0) -> None:
        self.root = root
        self.files = root / "files"
        self.work = root / "work"
        for folder in (self.files, self.work):
            folder.mkdir(parents=True, exist_ok=True)
        self._lock = os.open(root / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self._lock)
            raise StateInUseError(
                f"Another local batch server already works in {root}. Stop it, or choose another state directory."
            ) from error
        #: by which everything in this directory is stamped and expires
        self.clock = Clock(root / "clock.json", speed)
        #: called with every batch that ends, inside the transaction that ends it: what is written then through
        #: `database` is there if and only if the end is
        self.on_end: Callable[[Batch], None] = lambda _: None
        self._db = sqlite3.connect(root / "state.sqlite")
        # WAL and NORMAL: a killed process loses nothing; a power cut is no concern here.
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=NORMAL")
        self._db.executescript(_SCHEMA)
        self._sweep()

    @property
    def database(self) -> sqlite3.Connection:
        """The open database, for parts of the server that keep tables of their own in it."""
        return self._db

    def close(self) -> None:
        """Release the database and the lock."""
        self._db.close()
        os.close(self._lock)

    def _sweep(self) -> None:
        known = {row[0] for row in self._db.execute("SELECT id FROM file")}
        for path in self.files.iterdir():
            if path.name not in known:
                path.unlink()
        live = {row[0] for row in self._db.execute("SELECT id FROM batch WHERE ended = 0")}
        for path in self.work.iterdir():
            if path.name not in live:
                shutil.rmtree(path)

    # files

    def path(self, file_id: str) -> Path:
        """Where the bytes of a file lie. Only for ids that this store minted."""
        return self.files / file_id

    def insert_file(self, file: FileObject) -> None:
        """Record a file whose bytes already lie at `path(file.id)`, as part of the open transaction."""
        self._db.execute(
            "INSERT INTO file (id, purpose, body) VALUES (?, ?, ?)",
            (file.id, file.purpose, msgspec.json.encode(file)),
        )

    def add_file(self, file: FileObject) -> None:
        """Record a file whose bytes already lie at `path(file.id)`."""
        with self._db:
            self.insert_file(file)

    def file(self, file_id: str) -> FileObject | None:
        """The file, or None if it is unknown, deleted or expired."""
        row = self._db.execute("SELECT body FROM file WHERE id = ?", (file_id,)).fetchone()
        if row is None:
            return None
        file = msgspec.json.decode(row[0], type=FileObject)
        if file.expires_at is not None and file.expires_at <= self.clock.now():
            self.delete_file(file_id)
            return None
        return file

    def list_files(self, *, after: str | None, limit: int, ascending: bool, purpose: str | None) -> list[FileObject]:
        """Up to `limit` files that have not expired, from just after `after`; newest first unless `ascending`."""
        where = ["coalesce(json_extract(CAST(body AS TEXT), '$.expires_at') > ?, true)"]
        values: list[Any] = [self.clock.now()]
        if purpose is not None:
            where.append("purpose = ?")
            values.append(purpose)
        if after is not None:
            where.append(f"number {'>' if ascending else '<'} (SELECT number FROM file WHERE id = ?)")
            values.append(after)
        rows = self._db.execute(
            f"SELECT body FROM file WHERE {' AND '.join(where)}"
            f" ORDER BY number {'ASC' if ascending else 'DESC'} LIMIT ?",
            (*values, limit),
        )
        return [msgspec.json.decode(body, type=FileObject) for (body,) in rows]

    def delete_file(self, file_id: str) -> bool:
        """Forget a file and its bytes; whether there was one."""
        with self._db:
            gone = self._db.execute("DELETE FROM file WHERE id = ?", (file_id,)).rowcount == 1
        if gone:
            self.path(file_id).unlink(missing_ok=True)
        return gone

    # batches

    def next_number(self) -> int:
        """The number of the next batch, from 1."""
        row = self._db.execute("SELECT coalesce(max(number), 0) + 1 FROM batch").fetchone()
        return int(row[0])

    def add_batch(self, record: Record) -> None:
        """Record a new batch."""
        with self._db:
            self._db.execute(
                "INSERT INTO batch (number, id, ended, body) VALUES (?, ?, 0, ?)",
                (record.number, record.batch.id, msgspec.json.encode(record)),
            )

    def save_batch(self, record: Record, *, results: Sequence[FileObject] = ()) -> None:
        """Replace a batch and add its result files, in one transaction: both are seen, or neither."""
        with self._db:
            for file in results:
                self.insert_file(file)
            self._db.execute(
                "UPDATE batch SET ended = ?, body = ? WHERE id = ?",
                (record.batch.status in ENDED, msgspec.json.encode(record), record.batch.id),
            )
            if record.batch.status in ENDED:
                self.on_end(record.batch)
        if record.batch.status in ENDED:
            shutil.rmtree(self.work / record.batch.id, ignore_errors=True)

    def batch(self, batch_id: str) -> Batch | None:
        """The batch as last saved."""
        row = self._db.execute("SELECT body FROM batch WHERE id = ?", (batch_id,)).fetchone()
        return None if row is None else msgspec.json.decode(row[0], type=Record).batch

    def list_batches(self, *, after: str | None, limit: int) -> list[Batch]:
        """Up to `limit` batches, newest first, from just after `after`."""
        where = "" if after is None else "WHERE number < (SELECT number FROM batch WHERE id = ?)"
        rows = self._db.execute(
            f"SELECT body FROM batch {where} ORDER BY number DESC LIMIT ?",
            (limit,) if after is None else (after, limit),
        )
        return [msgspec.json.decode(body, type=Record).batch for (body,) in rows]

    def ended_batches(self) -> Iterator[Record]:
        """The batches that have ended, oldest first."""
        for (body,) in self._db.execute("SELECT body FROM batch WHERE ended = 1 ORDER BY number"):
            yield msgspec.json.decode(body, type=Record)

    def live_batches(self) -> list[Record]:
        """The batches that have not ended, oldest first."""
        rows = self._db.execute("SELECT body FROM batch WHERE ended = 0 ORDER BY number")
        return [msgspec.json.decode(body, type=Record) for (body,) in rows]

    # what the responder remembers

    def first_time(self, key: bytes) -> bool:
        """True for the first call with this key in the life of the state directory, False ever after."""
        with self._db:
            return self._db.execute("INSERT OR IGNORE INTO seen_key (key) VALUES (?)", (key,)).rowcount == 1
