"""Files that arrive in parts, until each is whole or given up: two tables in the state's database, and the parts.

    uploads/<upload id>/<part id>   bytes of each part

They survive a restart as everything else does. The parts of an upload that was completed or cancelled go at once,
those of an expired one when the next upload is created, asked for, or the server started; then also goes whatever a
kill left behind.
"""

from __future__ import annotations

import hashlib
import secrets
import shutil
from collections.abc import Iterable, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Any, Literal

import msgspec

from airflow_provider_batch.local.api.objects import FileObject
from airflow_provider_batch.local.storage.store import Store

_SCHEMA = """
CREATE TABLE IF NOT EXISTS upload (
    id TEXT PRIMARY KEY,
    pending INTEGER NOT NULL,
    file_lifetime INTEGER,
    body BLOB NOT NULL
);
CREATE INDEX IF NOT EXISTS upload_pending ON upload (pending) WHERE pending = 1;
CREATE TABLE IF NOT EXISTS upload_part (
    id TEXT PRIMARY KEY,
    upload_id TEXT NOT NULL,
    size INTEGER NOT NULL
);
CREATE INDEX IF NOT EXISTS upload_part_of ON upload_part (upload_id);
"""
_CHUNK = 1 << 20


class UploadStatus(StrEnum):
    """Where an upload is; it only ever leaves `pending`."""

    PENDING = "pending"
    COMPLETED = "completed"
    CANCELLED = "cancelled"
    EXPIRED = "expired"


class Upload(msgspec.Struct, frozen=True, kw_only=True):
    """`Upload` of OpenAI's API description. Times are integer Unix seconds."""

    id: str
    object: Literal["upload"] = "upload"
    #: of the whole file, as declared
    bytes: int
    created_at: int
    filename: str
    purpose: str
    status: UploadStatus = UploadStatus.PENDING
    #: until when parts may be added, and the upload be completed
    expires_at: int
    #: once it is completed
    file: FileObject | None = None


class UploadStore:
    """The uploads of one state directory. All methods are short and belong to the event loop's thread."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._db = store.database
        #: ids of uploads whose parts are being joined; they do not expire meanwhile
        self.completing: set[str] = set()
        self._db.executescript(_SCHEMA)
        self._folder = store.root / "uploads"
        self._folder.mkdir(exist_ok=True)
        self._expire()
        self._sweep()

    def _sweep(self) -> None:
        pending = {row[0] for row in self._db.execute("SELECT id FROM upload WHERE pending = 1")}
        parts = {row[0] for row in self._db.execute("SELECT id FROM upload_part")}
        for folder in self._folder.iterdir():
            if folder.name not in pending:
                shutil.rmtree(folder)
                continue
            for part in folder.iterdir():
                if part.name not in parts:
                    part.unlink()

    def _expire(self) -> None:
        rows = self._db.execute("SELECT body FROM upload WHERE pending = 1").fetchall()
        for (body,) in rows:
            self._judge(msgspec.json.decode(body, type=Upload))

    def _judge(self, upload: Upload) -> Upload:
        """The same, expired if its hour is over."""
        over = upload.expires_at <= self._store.clock.now() and upload.id not in self.completing
        if over and upload.status is UploadStatus.PENDING:
            return self._end(upload, status=UploadStatus.EXPIRED)
        return upload

    def _end(self, upload: Upload, **changes: Any) -> Upload:
        upload = msgspec.structs.replace(upload, **changes)
        with self._db:
            if upload.file is not None:
                self._store.insert_file(upload.file)
            self._db.execute(
                "UPDATE upload SET pending = 0, body = ? WHERE id = ?", (msgspec.json.encode(upload), upload.id)
            )
            self._db.execute("DELETE FROM upload_part WHERE upload_id = ?", (upload.id,))
        shutil.rmtree(self._folder / upload.id, ignore_errors=True)
        return upload

    def add(self, upload: Upload, *, file_lifetime: int | None) -> None:
        """Record a new upload, whose file will be kept so many seconds; None keeps it until it is deleted."""
        self._expire()
        (self._folder / upload.id).mkdir()
        with self._db:
            self._db.execute(
                "INSERT INTO upload (id, pending, file_lifetime, body) VALUES (?, 1, ?, ?)",
                (upload.id, file_lifetime, msgspec.json.encode(upload)),
            )

    def upload(self, upload_id: str) -> Upload | None:
        """The upload as of now, or None if it is unknown."""
        row = self._db.execute("SELECT body FROM upload WHERE id = ?", (upload_id,)).fetchone()
        return None if row is None else self._judge(msgspec.json.decode(row[0], type=Upload))

    def file_lifetime(self, upload_id: str) -> int | None:
        """Seconds that the file of a known upload is kept; None keeps it until it is deleted."""
        lifetime: int | None
        (lifetime,) = self._db.execute("SELECT file_lifetime FROM upload WHERE id = ?", (upload_id,)).fetchone()
        return lifetime

    def part_path(self, upload_id: str, part_id: str) -> Path:
        """Where the bytes of a part lie, or belong before `add_part`. Only for ids that this module minted."""
        return self._folder / upload_id / part_id

    def add_part(self, upload_id: str, part_id: str, size: int) -> None:
        """Record a part whose bytes already lie at its path."""
        with self._db:
            self._db.execute(
                "INSERT INTO upload_part (id, upload_id, size) VALUES (?, ?, ?)", (part_id, upload_id, size)
            )

    def part_sizes(self, upload_id: str) -> dict[str, int]:
        """Bytes of each part of an upload by the part's id."""
        return dict(self._db.execute("SELECT id, size FROM upload_part WHERE upload_id = ?", (upload_id,)))

    def complete(self, upload: Upload, file: FileObject) -> Upload:
        """End an upload with the file, whose bytes already lie in the store: both are seen, or neither."""
        return self._end(upload, status=UploadStatus.COMPLETED, file=file)

    def cancel(self, upload: Upload) -> Upload:
        """End an upload without a file."""
        return self._end(upload, status=UploadStatus.CANCELLED)


def join(parts: Sequence[Path], target: Path) -> str:
    """Write the parts one after the other to `target`; the MD5 of the whole in hexadecimal. Needs a chunk of memory."""
    digest = hashlib.md5(usedforsecurity=False)
    with open(target, "wb") as out:
        for chunk in _chunks(parts):
            digest.update(chunk)
            out.write(chunk)
    return digest.hexdigest()


def _chunks(parts: Sequence[Path]) -> Iterable[bytes]:
    for part in parts:
        with open(part, "rb") as file:
            while chunk := file.read(_CHUNK):
                yield chunk


def new_upload_id() -> str:
    """`upload_` and 32 hexadecimal characters."""
    return f"upload_{secrets.token_hex(16)}"


def new_part_id() -> str:
    """`part_` and 32 hexadecimal characters."""
    return f"part_{secrets.token_hex(16)}"
