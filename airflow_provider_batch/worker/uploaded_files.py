"""Uploads the files of a job to the provider, each content once, and remembers under which id.

A file lies in staging from the seal on, and its id is recorded next to it, exclusively. If two workers upload the same
file, or one is killed before it records the id, the provider has a copy to which nothing refers. That costs nothing.
"""

from __future__ import annotations

from io import BytesIO
from threading import Lock
from typing import TYPE_CHECKING

import msgspec

from airflow_provider_batch.core.ledger.folder import Folder
from airflow_provider_batch.core.requests.uploaded_files import UPLOADS, FileHeader, FileToUpload
from airflow_provider_batch.exceptions import StagingError

if TYPE_CHECKING:
    from airflow_provider_batch.hooks.batch import BatchHook

#: files that are uploaded at the same time for one input file
MAX_CONCURRENT_UPLOADS = 8


class _RemoteFile(msgspec.Struct):
    file_id: str


def store_file(folder: Folder, file: FileToUpload) -> None:
    """Keep a file in staging until it is uploaded. A file that is already there is not written again."""
    folder.create(f"{UPLOADS}/{file.key}", msgspec.json.encode(file.header) + b"\n" + file.content)


class UploadedFiles:
    """The files of a job at the provider."""

    def __init__(self, folder: Folder, hook: BatchHook) -> None:
        self._folder, self._hook = folder, hook
        self._ids: dict[str, str] = {}
        self._locks: dict[str, Lock] = {}
        self._lock = Lock()

    def file_id(self, key: str) -> str:
        """Return the id of a file, and upload it if the provider does not have it yet. Threads may call this."""
        with self._lock:
            lock = self._locks.setdefault(key, Lock())
        with lock:
            if key not in self._ids:
                self._ids[key] = self._recorded_id(key) or self._upload(key)
            return self._ids[key]

    def delete(self) -> int:
        """Delete the files at the provider, and return how many there were.

        :raises ProviderError: if the provider did not delete one.
        """
        keys = [name.removesuffix(".id") for name in self._folder.names(UPLOADS) if name.endswith(".id")]
        for key in keys:
            file_id = self._recorded_id(key)
            if file_id:
                self._hook.delete(file_id)
            self._folder.remove(f"{UPLOADS}/{key}.id")
        return len(keys)

    def _recorded_id(self, key: str) -> str | None:
        data = self._folder.read(f"{UPLOADS}/{key}.id")
        return None if data is None else msgspec.json.decode(data, type=_RemoteFile).file_id

    def _upload(self, key: str) -> str:
        data = self._folder.read(f"{UPLOADS}/{key}")
        if data is None:
            raise StagingError(
                f"{self._folder.uri}/{UPLOADS}/{key} no longer exists. It is a file that a request refers to. Restore "
                "it if you have a backup of staging, or clear submit with resubmit=True to seal the job again."
            )
        head, _, content = data.partition(b"\n")
        header = msgspec.json.decode(head, type=FileHeader)
        file_id = self._hook.upload(BytesIO(content), header.name, purpose=header.purpose, mime=header.mime)
        if not self._folder.create(f"{UPLOADS}/{key}.id", msgspec.json.encode(_RemoteFile(file_id))):
            return self._recorded_id(key) or file_id
        return file_id
