"""Uploads in parts: two tables in the state directory's database, and the parts on disk.

    uploads/<upload id>/<part id>   content of each part

Uploads survive a restart. The parts of a completed or cancelled upload are deleted immediately. The server notices that
an upload has expired, and deletes its parts, when a client requests it, when the next upload is created, or when the
server starts. At its start it also deletes parts that a killed server left behind.
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
    """Status of an upload. All but `pending` are final."""

    PENDING = "pending"
    COMPLETED = "completed"
    CANCELLED = "cancelled"
    EXPIRED = "expired"


class Upload(msgspec.Struct, frozen=True, kw_only=True):
    """`Upload` of OpenAI's API description. Times are integer Unix seconds."""

    id: str
    object: Literal["upload"] = "upload"
    #: size of the complete file, as declared when the upload was created
    bytes: int
    created_at: int
    filename: str
    purpose: str
    status: UploadStatus = UploadStatus.PENDING
    #: until this time, parts can be added and the upload can be completed
    expires_at: int
    #: None until the upload is completed
    file: FileObject | None = None


class UploadStore:
    """The uploads of one state directory. All methods are fast and must be called in the event loop's thread."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._db = store.database
        #: Ids of uploads whose parts are being joined. They do not expire while this runs.
        self.completing: set[str] = set()
        self._db.executescript(_SCHEMA)
        self._folder = store.root / "uploads"
        self._folder.mkdir(exist_ok=True)
        self._expire_uploads()
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

    def _expire_uploads(self) -> None:
        rows = self._db.execute("SELECT body FROM upload WHERE pending = 1").fetchall()
        for (body,) in rows:
            self._expire_if_due(msgspec.json.decode(body, type=Upload))

    def _expire_if_due(self, upload: Upload) -> Upload:
        """End a pending upload whose time is up. Return the upload as it is now."""
        expired = upload.expires_at <= self._store.clock.now() and upload.id not in self.completing
        if expired and upload.status is UploadStatus.PENDING:
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
        """Record a new upload. Its file will be kept for `file_lifetime` seconds, or until deleted if that is None."""
        self._expire_uploads()
        (self._folder / upload.id).mkdir()
        with self._db:
            self._db.execute(
                "INSERT INTO upload (id, pending, file_lifetime, body) VALUES (?, 1, ?, ?)",
                (upload.id, file_lifetime, msgspec.json.encode(upload)),
            )

    def upload(self, upload_id: str) -> Upload | None:
        """Return the current state of an upload, or None if it does not exist."""
        row = self._db.execute("SELECT body FROM upload WHERE id = ?", (upload_id,)).fetchone()
        return None if row is None else self._expire_if_due(msgspec.json.decode(row[0], type=Upload))

    def file_lifetime(self, upload_id: str) -> int | None:
        """Return the seconds for which an upload's file is kept, or None to keep it until it is deleted.

        The upload must exist.
        """
        lifetime: int | None
        (lifetime,) = self._db.execute("SELECT file_lifetime FROM upload WHERE id = ?", (upload_id,)).fetchone()
        return lifetime

    def part_path(self, upload_id: str, part_id: str) -> Path:
        """Return the path of a part's content, which must be written there before `add_part`.

        The ids must have been generated by this module.
        """
        return self._folder / upload_id / part_id

    def add_part(self, upload_id: str, part_id: str, size: int) -> None:
        """Record a part. Its content must already be at its `part_path`."""
        with self._db:
            self._db.execute(
                "INSERT INTO upload_part (id, upload_id, size) VALUES (?, ?, ?)", (part_id, upload_id, size)
            )

    def part_sizes(self, upload_id: str) -> dict[str, int]:
        """Return the size in bytes of each part of an upload, by part id."""
        return dict(self._db.execute("SELECT id, size FROM upload_part WHERE upload_id = ?", (upload_id,)))

    def complete(self, upload: Upload, file: FileObject) -> Upload:
        """Complete an upload and record its file, in one transaction. The content must already be in the store."""
        return self._end(upload, status=UploadStatus.COMPLETED, file=file)

    def cancel(self, upload: Upload) -> Upload:
        """Cancel an upload and delete its parts."""
        return self._end(upload, status=UploadStatus.CANCELLED)


def join_parts(parts: Sequence[Path], target: Path) -> str:
    """Concatenate the parts into `target` and return the hexadecimal MD5 of the result. Uses little memory."""
    digest = hashlib.md5(usedforsecurity=False)
    with open(target, "wb") as output:
        for chunk in _chunks(parts):
            digest.update(chunk)
            output.write(chunk)
    return digest.hexdigest()


def _chunks(parts: Sequence[Path]) -> Iterable[bytes]:
    for part in parts:
        with open(part, "rb") as file:
            while chunk := file.read(_CHUNK):
                yield chunk


def new_upload_id() -> str:
    """Return `upload_` and 32 random hexadecimal digits."""
    return f"upload_{secrets.token_hex(16)}"


def new_part_id() -> str:
    """Return `part_` and 32 random hexadecimal digits."""
    return f"part_{secrets.token_hex(16)}"
