"""Reads the files that rows name, from object storage or a local disk, a few rows ahead of the rendering.

An object store takes tens of milliseconds for a file, so reading one after the other would take most of the time of a
job. Files are read in threads, in the order of the rows. What was read and not rendered yet stays within
`MAX_WAITING_BYTES`, as far as the sizes of the files so far predict it; a single file has at most `MAX_FILE_BYTES`.

A file that is missing, or that the worker may not read on its disk, costs its row. A store that does not answer,
refuses the connection, or a folder that is not mounted, is an error of the task: it can be retried, and nothing was
sent.
"""

from __future__ import annotations

import errno
import os
import stat
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from functools import cache
from types import TracebackType
from typing import Any, BinaryIO

from airflow.providers.common.compat.sdk import ObjectStoragePath

from airflow_provider_batch.core.requests.file_parts import MAX_FILE_BYTES, check_size, missing_file, unreadable_file
from airflow_provider_batch.core.requests.file_paths import LOCAL, Location, UnusableFileError
from airflow_provider_batch.exceptions import FileStoreError

#: files that are read at the same time
THREADS = 16
#: the most rows that are read ahead
MAX_ROWS = 2 * THREADS
#: bytes of files that were read, and are not rendered yet
MAX_WAITING_BYTES = 64_000_000
#: expected size of a file as long as none could be read
_UNKNOWN_SIZE = MAX_WAITING_BYTES // THREADS
#: errors of a local path that names no file
_NO_FILE = (errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.ELOOP, errno.EINVAL)


class FileReader(AbstractContextManager["FileReader"]):
    """Reads files in threads. `read` returns a file, and `read_ahead` starts reading those of the next rows."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(THREADS, "files")
        self._reads: dict[Location, Future[bytes]] = {}
        #: how many of the rows that were read ahead need a file
        self._uses: Counter[Location] = Counter()
        self._largest = 0
        #: size of the next files in bytes, as far as it can be predicted; None before the first file
        self._expected_size: int | None = None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._pool.shutdown(cancel_futures=True)
        self._reads.clear()

    def read(self, location: Location) -> bytes:
        """Return the content of a file.

        :raises UnusableFileError: if the file costs its row.
        :raises FileStoreError: if the store cannot be read.
        """
        future = self._reads.get(location)
        self._expected_size = self._expected_size or _UNKNOWN_SIZE
        content = _read(location) if future is None else future.result()
        self._largest = max(self._largest, len(content))
        self._expected_size = self._largest
        return content

    def read_ahead(
        self, rows: Iterable[tuple[Any, ...]], locations_of: Callable[[tuple[Any, ...]], list[Location]]
    ) -> Iterator[tuple[Any, ...]]:
        """Yield the rows in order, each while its files and those of the next rows are being read."""
        waiting: deque[tuple[tuple[Any, ...], list[Location]]] = deque()
        rows = iter(rows)
        is_complete = False
        while True:
            while not is_complete and self._has_room(len(waiting)):
                row = next(rows, None)
                if row is None:
                    is_complete = True
                    break
                locations = locations_of(row)
                waiting.append((row, locations))
                for location in locations:
                    self._start(location)
            if not waiting:
                return
            row, locations = waiting.popleft()
            yield row
            for location in locations:
                self._release(location)

    def _has_room(self, waiting_rows: int) -> bool:
        if not waiting_rows or not self._reads:
            return waiting_rows < MAX_ROWS
        if self._expected_size is None:
            return False  # the first file shows how large they are, before several are read at the same time
        return waiting_rows < MAX_ROWS and (len(self._reads) + 1) * self._expected_size <= MAX_WAITING_BYTES

    def _start(self, location: Location) -> None:
        self._uses[location] += 1
        if location not in self._reads:
            self._reads[location] = self._pool.submit(_read, location)

    def _release(self, location: Location) -> None:
        self._uses[location] -= 1
        if not self._uses[location]:
            del self._uses[location], self._reads[location]


def _read(location: Location) -> bytes:
    if location.scheme == LOCAL:
        return _read_local(location)
    filesystem, folder = _object_store(location.scheme, location.connection, location.bucket)
    try:
        with filesystem.open(f"{folder}/{location.path}", "rb", block_size=MAX_FILE_BYTES, cache_type="none") as file:
            return _read_within_limit(location, file)
    except UnusableFileError:
        raise
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError) as error:
        raise missing_file(location) from error
    except Exception as error:  # each store has errors of its own
        raise _store_error(location, error) from error


def _read_local(location: Location) -> bytes:
    root, path = os.path.realpath(location.root), os.path.realpath(location.path)
    if os.path.commonpath([root, path]) != root:
        raise UnusableFileError(
            "file_path", f"The path {str(location)!r} is a symbolic link that leads out of {location.root}."
        )
    try:
        file_descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW)
        with open(file_descriptor, "rb") as file:
            status = os.fstat(file.fileno())
            if stat.S_ISDIR(status.st_mode):
                raise missing_file(location)
            if not stat.S_ISREG(status.st_mode):
                raise unreadable_file(location, "it is a device or a pipe")
            check_size(location, status.st_size)
            return _read_within_limit(location, file)
    except PermissionError as error:
        raise unreadable_file(location, "permission denied") from error
    except OSError as error:
        if error.errno in _NO_FILE and os.path.isdir(root):
            raise missing_file(location) from error
        raise _store_error(location, error) from error


def _read_within_limit(location: Location, file: BinaryIO) -> bytes:
    size = getattr(file, "size", None)
    if isinstance(size, int):
        check_size(location, size)
    content = file.read(MAX_FILE_BYTES + 1)
    check_size(location, len(content))
    return content


@cache
def _object_store(scheme: str, connection: str, bucket: str) -> tuple[Any, str]:
    """Return the filesystem of a bucket, and the path of the bucket in it."""
    address = f"{scheme}://{f'{connection}@' if connection else ''}{bucket}/"
    try:
        path = ObjectStoragePath(address)
        return path.fs, path.path.rstrip("/")
    except (ValueError, ImportError) as error:
        raise FileStoreError(
            f"files: {address} cannot be opened, because this Airflow installation has no filesystem for it: {error}. "
            "Nothing was sent. Install the provider that contains it, such as apache-airflow-providers-amazon[s3fs]."
        ) from error
    except Exception as error:
        raise _store_error(Location(scheme, connection, bucket, ""), error) from error


def _store_error(location: Location, error: BaseException) -> FileStoreError:
    reason = str(error).rstrip(".") or type(error).__name__
    return FileStoreError(
        f"files: Cannot read {location}: {type(error).__name__}: {reason}. Nothing was sent. Check that the store is "
        "reachable and that the connection may read it, then run the task again. If only this file is at fault, leave "
        "its row out."
    )
