"""A job's folder in an object store."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import BinaryIO
from urllib.parse import urlsplit

from airflow.providers.common.compat.sdk import AirflowNotFoundException, BaseHook, ObjectStoragePath
from airflow.sdk.io import attach

from airflow_provider_batch.exceptions import StagingError, UnusableStagingError
from airflow_provider_batch.staging.errors import staging_error
from airflow_provider_batch.staging.store import Store
from airflow_provider_batch.staging.store_errors import StoreError

log = logging.getLogger(__name__)


class ObjectFolder:
    """A job's folder in an object store, through Airflow's `ObjectStoragePath` (its connections, its fsspec).

    A large file is uploaded in parts of 8 MiB, each sent when it is full. The file exists once it has been closed, and
    never exists if an error interrupted the writing.
    """

    def __init__(self, uri: str) -> None:
        self.uri = uri
        _check_connection(uri)
        try:
            path = ObjectStoragePath(uri)
            self.store = Store(path.fs)  # makes Airflow look up the filesystem now and cache it
        except (ValueError, ImportError) as error:
            raise StagingError(
                f"Staging is {uri}, but this Airflow installation has no filesystem for it: {error}. Nothing was "
                "uploaded. Install the provider that contains it, such as apache-airflow-providers-amazon[s3fs]."
            ) from error
        #: the folder as the filesystem names it
        self.path = path.path.rstrip("/")

    def is_exclusive(self, name: str) -> bool:
        """Return whether the store refuses to create a file that exists. The file stays."""
        try:
            return self.store.is_exclusive(self._path(name))
        except StoreError as error:
            raise self._error("write", name, error) from error

    def create(self, name: str, data: bytes) -> bool:
        """Create a complete file and return True. Return False, without writing, if the file already exists."""
        try:
            return self.store.create(self._path(name), data)
        except StoreError as error:
            raise self._error("write", name, error) from error

    def read(self, name: str) -> bytes | None:
        """Return the content of a file, or None if it does not exist."""
        try:
            return self.store.read(self._path(name))
        except StoreError as error:
            raise self._error("read", name, error) from error

    def read_all(self, names: Sequence[str]) -> list[bytes | None]:
        """Return the content of each of these files, or None for one that does not exist."""
        try:
            return self.store.read_all([self._path(name) for name in names])
        except StoreError as error:
            raise self._error("read", error.path.removeprefix(f"{self.path}/"), error) from error

    def names(self, subfolder: str) -> list[str]:
        """Return the names of the files in a subfolder."""
        return self._entries(subfolder, folders=False)

    def folders(self, subfolder: str) -> list[str]:
        """Return the names of the folders in a subfolder."""
        return self._entries(subfolder, folders=True)

    def _entries(self, subfolder: str, *, folders: bool) -> list[str]:
        try:
            return self.store.names(self._path(subfolder), folders=folders)
        except StoreError as error:
            raise self._error("list", subfolder, error) from error

    def remove(self, name: str) -> None:
        """Delete a file that is no longer needed. If the store refuses, log a warning."""
        try:
            self.store.remove(self._path(name))
        except FileNotFoundError:
            return
        except StoreError as error:
            # permissions that let workers write but not delete are common, and nothing depends on this file now
            log.warning(
                "Could not remove %s/%s from staging, although it is no longer needed: %s", self.uri, name, error
            )

    def remove_everything(self) -> None:
        """Delete the folder and everything in it."""
        try:
            self.store.remove(self.path, recursive=True)
        except OSError as error:
            raise self._error("remove", "", error) from error

    @contextmanager
    def writer(self, name: str) -> Iterator[BinaryIO]:
        """Open a file for writing. The file is valid once the block has ended without an error."""
        try:
            with self.store.writer(self._path(name)) as file:
                yield file
        except StoreError as error:
            raise self._error("write", name, error) from error

    @contextmanager
    def reader(self, name: str) -> Iterator[BinaryIO]:
        """Open a file for reading."""
        try:
            with self.store.reader(self._path(name)) as file:
                yield file
        except StoreError as error:
            raise self._error("read", name, error) from error

    def _path(self, name: str) -> str:
        return f"{self.path}/{name}" if name else self.path

    def _error(self, verb: str, name: str, error: OSError) -> StagingError:
        return staging_error(verb, f"{self.uri}/{name}".rstrip("/"), error)


def _check_connection(uri: str) -> None:
    """Check that the connection of a store exists. Without it, Airflow's providers try credentials of the machine.

    :raises UnusableStagingError: if it does not exist.
    """
    parts = urlsplit(uri)
    conn_id = parts.netloc.rpartition("@")[0]
    if not conn_id or "fs" in vars(attach(parts.scheme, conn_id)):  # the filesystem is known, or was given by code
        return
    try:
        BaseHook.get_connection(conn_id)
    except AirflowNotFoundException as error:
        raise UnusableStagingError(
            f"Staging is {uri}, but there is no connection {conn_id!r}. Nothing was uploaded. Create it (Admin > "
            "Connections), or correct [openai_batch] staging or staging=. Without a name before the @, the credentials "
            "of the worker are used."
        ) from error
