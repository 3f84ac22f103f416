"""A folder that is read only for a limited time and up to a limited number of bytes, for a person who is waiting.

The files of a job can be larger than what anybody wants to wait for. With this folder, the same code that a task reads
them with stops in time, wherever it is.
"""

from __future__ import annotations

import io
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, BinaryIO, cast

from airflow_provider_batch.core.ledger.folder import Folder

#: bytes that are read from a file at a time
_BUFFER_BYTES = 1 << 18


class ReadLimitError(Exception):
    """Raised by a read from a `LimitedFolder` that has used up its time or its bytes."""


class LimitedFolder:
    """A `Folder` whose reads raise `ReadLimitError` once a limit is reached.

    :param seconds: time in which it may be read, from now on.
    :param max_bytes: number of bytes of large files that may be read.
    """

    def __init__(self, folder: Folder, *, seconds: float, max_bytes: int) -> None:
        self.folder, self.uri = folder, folder.uri
        self._seconds, self._max_bytes = seconds, max_bytes
        self.renew()

    def renew(self) -> None:
        """Let the time and the bytes start again."""
        self._ends_at, self._bytes_left = time.monotonic() + self._seconds, self._max_bytes

    def spend(self, size: int) -> None:
        """Count bytes that were read.

        :raises ReadLimitError: if a limit is reached.
        """
        self._bytes_left -= size
        if self._bytes_left < 0 or time.monotonic() > self._ends_at:
            raise ReadLimitError

    def read(self, name: str) -> bytes | None:
        """Return the content of a small file, or None if it does not exist."""
        self.spend(0)
        return self.folder.read(name)

    def read_all(self, names: Sequence[str]) -> list[bytes | None]:
        """Return the content of each of these small files."""
        self.spend(0)
        return self.folder.read_all(names)

    def names(self, subfolder: str) -> list[str]:
        """Return the sorted names of the files directly in a subfolder."""
        return self.folder.names(subfolder)

    def folders(self, subfolder: str) -> list[str]:
        """Return the sorted names of the folders directly in a subfolder."""
        return self.folder.folders(subfolder)

    @contextmanager
    def reader(self, name: str) -> Iterator[BinaryIO]:
        """Open a large file for reading from its start."""
        self.spend(0)
        with self.folder.reader(name) as file:
            yield cast("BinaryIO", io.BufferedReader(_LimitedFile(file, self), _BUFFER_BYTES))

    def create(self, name: str, data: bytes) -> bool:
        """Refuse to write."""
        raise io.UnsupportedOperation(name)

    def writer(self, name: str) -> AbstractContextManager[BinaryIO]:
        """Refuse to write."""
        raise io.UnsupportedOperation(name)

    def remove(self, name: str) -> None:
        """Refuse to remove anything."""
        raise io.UnsupportedOperation(name)


class _LimitedFile(io.RawIOBase):
    def __init__(self, file: BinaryIO, folder: LimitedFolder) -> None:
        self._file, self._folder = file, folder

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer)
        data = self._file.read(len(view))
        view[: len(data)] = data
        self._folder.spend(len(data))
        return len(data)
