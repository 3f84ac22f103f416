"""The operations on an object store that staging needs, on any filesystem of fsspec.

Each has the patience of the process (see `patience`), and raises `FileNotFoundError` or `StoreError`, whatever the
library of the store raises.

A file is created exclusively with a conditional upload: `If-None-Match: *` in S3 and Azure, `ifGenerationMatch=0` in
Google Cloud Storage. A store answers 412 if the file exists. But the answer to an upload can be lost, and the library
then repeats the upload, which finds its own file. So a file that exists with the very content counts as created.
"""

from __future__ import annotations

import inspect
import io
import random
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from glob import has_magic
from importlib.metadata import PackageNotFoundError, version
from typing import Any, BinaryIO, TypeVar, cast

from airflow_provider_batch.staging.patience import persist
from airflow_provider_batch.staging.store_errors import StoreError, describe, is_conflict, is_taken
from airflow_provider_batch.staging.streams import StoreReader, StoreWriter

Result = TypeVar("Result")

#: bytes that a reader hands out without another call of Python code
_BUFFER_BYTES = 1 << 18
#: how often an upload is repeated that met another upload of the same file
_CONFLICT_TRIES = 6
#: seconds before the first of these repetitions; each further delay is twice as long
_CONFLICT_DELAY = 0.05


class Store:
    """An object store. Paths are those of its filesystem.

    :param filesystem: a filesystem of fsspec.
    """

    def __init__(self, filesystem: Any) -> None:
        self.filesystem = filesystem
        # with more than one connection for a file, s3fs first requests the size of every file
        read = getattr(filesystem, "_cat_file", filesystem.cat_file)
        has_option = "max_concurrency" in inspect.signature(read).parameters
        self._read_options = {"max_concurrency": 1} if has_option else {}

    @property
    def library(self) -> str:
        """Return the name and version of the library of the store."""
        name = type(self.filesystem).__module__.partition(".")[0]
        try:
            return f"{name} {version(name)}"
        except PackageNotFoundError:
            return name

    def is_exclusive(self, path: str) -> bool:
        """Return whether the store refuses to create a file that exists. This costs one request, and two at first.

        The file stays, so that each later check finds it.
        """
        for _ in range(2):
            try:
                self.create_once(path, secrets.token_hex(8).encode())
            except StoreError as error:
                cause = error.__cause__ or error
                if is_taken(cause) or is_conflict(cause):
                    return True
                raise
        return False

    def create(self, path: str, data: bytes) -> bool:
        """Create a complete file and return True. Return False, without writing, if another file exists there."""
        for attempt in range(_CONFLICT_TRIES):
            try:
                self.create_once(path, data)
            except StoreError as error:
                cause = error.__cause__ or error
                if is_taken(cause):
                    return self._is_own(path, data)
                if not is_conflict(cause):
                    raise
                time.sleep(_CONFLICT_DELAY * 2**attempt * random.uniform(0.5, 1))
            else:
                return True
        return self._is_own(path, data)

    def create_once(self, path: str, data: bytes) -> None:
        """Create a complete file.

        :raises StoreError: also if the file exists.
        """
        self._run_with_file("write", path, lambda: self.filesystem.pipe_file(path, data, mode="create"))

    def _is_own(self, path: str, data: bytes) -> bool:
        content = self.read(path)
        if content is None:
            raise StoreError("the store says that the file exists, but does not return it")
        return content == data

    def read(self, path: str) -> bytes | None:
        """Return the content of a file, or None if it does not exist."""
        try:
            content: bytes = self._run("read", path, lambda: self.filesystem.cat_file(path, **self._read_options))
        except FileNotFoundError:
            return None
        return content

    def read_all(self, paths: Sequence[str]) -> list[bytes | None]:
        """Return the content of each file, or None for one that does not exist.

        Filesystems that can do it, such as s3fs, read many at the same time.
        """
        if not paths or any(map(has_magic, paths)):  # fsspec would take these paths for patterns
            return [self.read(path) for path in paths]
        names = [self.filesystem._strip_protocol(path) for path in paths]
        contents = self._run(
            "read", paths[0], lambda: self.filesystem.cat(list(paths), on_error="return", **self._read_options)
        )
        return [self._content(name, contents[name]) for name in names]

    def _content(self, path: str, content: bytes | Exception) -> bytes | None:
        if isinstance(content, FileNotFoundError):
            return None
        return self.read(path) if isinstance(content, Exception) else content

    def read_range(self, path: str, start: int, end: int) -> bytes:
        """Return a range of the bytes of a file."""
        content: bytes = self._run_with_file("read", path, lambda: self.filesystem.cat_file(path, start=start, end=end))
        return content

    def size(self, path: str) -> int:
        """Return the size of a file in bytes."""
        self.filesystem.invalidate_cache()
        return int(self._run_with_file("read", path, lambda: self.filesystem.size(path)))

    def names(self, path: str, *, folders: bool) -> list[str]:
        """Return the sorted names of the files, or of the folders, directly in a folder."""

        def listing() -> list[dict[str, Any]]:
            # s3fs and others cache listings, but the records of other workers must be visible immediately
            self.filesystem.invalidate_cache()
            entries: list[dict[str, Any]] = self.filesystem.ls(path, detail=True)
            return entries

        try:
            entries = self._run("list", path, listing)
        except FileNotFoundError:
            return []
        parent = self.filesystem._strip_protocol(path).strip("/")
        paths = [entry["name"].strip("/") for entry in entries if (entry["type"] == "directory") == folders]
        return sorted(entry.rpartition("/")[2] for entry in paths if entry != parent)

    def remove(self, path: str, *, recursive: bool = False) -> None:
        """Delete a file, or a folder with everything in it.

        :raises FileNotFoundError: if the store says that it does not exist.
        """
        if recursive:
            self._run("remove", path, lambda: self.filesystem.rm(path, recursive=True))
        else:
            self._run("remove", path, lambda: self.filesystem.rm_file(path))

    def reader(self, path: str) -> BinaryIO:
        """Return a file for reading, which is seekable. A missing file is an error of the first read."""
        raw = StoreReader(lambda start, end: self.read_range(path, start, end), lambda: self.size(path))
        return cast("BinaryIO", io.BufferedReader(raw, _BUFFER_BYTES))

    @contextmanager
    def writer(self, path: str) -> Iterator[BinaryIO]:
        """Open a file for writing. It exists once the block has ended, and not at all after an error in the block."""
        writer = StoreWriter(self.filesystem, path, lambda operation: self._run_with_file("write", path, operation))
        try:
            yield cast("BinaryIO", writer)
            writer.finish()
        except BaseException:
            writer.discard()
            raise

    def _run_with_file(self, verb: str, path: str, operation: Callable[[], Result]) -> Result:
        """Carry out an operation for which a missing file, or a missing bucket, is an error.

        :raises StoreError: for every error.
        """
        try:
            return self._run(verb, path, operation)
        except FileNotFoundError as error:
            raise _store_error(path, error) from error

    def _run(self, verb: str, path: str, operation: Callable[[], Result]) -> Result:
        """Carry out an operation.

        :raises FileNotFoundError: as the operation raised it.
        :raises StoreError: for every other error.
        """
        try:
            return persist(operation, f"{verb} {path}")
        except FileNotFoundError:
            raise
        except Exception as error:
            raise _store_error(path, error) from error


def _store_error(path: str, error: Exception) -> StoreError:
    store_error = StoreError(describe(error))
    store_error.path = path
    return store_error
