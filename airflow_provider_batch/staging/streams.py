"""Large files of an object store, read and written in parts, without a temporary file.

fsspec's own files copy a whole block for every line that is read, and cannot continue after an error. These read and
write parts of `PART_BYTES`, and each part can be repeated.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

from fsspec.spec import AbstractBufferedFile

from airflow_provider_batch.staging.store_errors import is_end_of_file

#: Size of a part in bytes. S3 requires parts of at least 5 MiB in an upload, and allows 10,000 of them. The default of
#: s3fs, 50 MiB, would take 10 GB of memory for two files of each of a hundred models.
PART_BYTES = 8 << 20


class StoreReader(io.RawIOBase):
    """A file of an object store. It keeps one part in memory.

    :param read_range: returns the bytes of the file from a start to an end.
    :param read_size: returns the size of the file in bytes. Only called if the end of a large file is looked for.
    """

    def __init__(self, read_range: Callable[[int, int], bytes], read_size: Callable[[], int]) -> None:
        self._read_range, self._read_size = read_range, read_size
        self._position = 0
        self._part, self._part_start = memoryview(b""), 0
        #: size of the file, once it is known
        self._size: int | None = None

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def tell(self) -> int:
        """Return the position in bytes from the start."""
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move the position, and return it."""
        if whence == io.SEEK_END:
            self._position = self._find_size() + offset
        else:
            self._position = offset + (self._position if whence == io.SEEK_CUR else 0)
        return self._position

    def readinto(self, buffer: Any) -> int:
        """Read into a buffer. Return the number of bytes, which is 0 at the end of the file."""
        if not self._holds(self._position) and (self._size is None or self._position < self._size):
            self._load(self._position)
        start = self._position - self._part_start
        target = memoryview(buffer)
        data = self._part[start : start + len(target)] if self._holds(self._position) else b""
        target[: len(data)] = data
        self._position += len(data)
        return len(data)

    def _holds(self, position: int) -> bool:
        return self._part_start <= position < self._part_start + len(self._part)

    def _load(self, start: int) -> None:
        part_end = self._part_start + len(self._part)
        try:
            data = self._read_range(start, start + PART_BYTES)
        except OSError as error:
            # a store refuses a range that begins at the end of the file, also at byte 0 of an empty one
            if not is_end_of_file(error):
                raise
            data = b""
        if len(data) < PART_BYTES and (data or start == part_end):
            self._size = start + len(data)
        self._part, self._part_start = memoryview(data), start

    def _find_size(self) -> int:
        if self._size is None and not self._part:
            self._load(0)  # most files have one part, and this tells their size without another request
        if self._size is None:
            self._size = self._read_size()
        return self._size


class StoreWriter:
    """A file that is being written to an object store. A small one is uploaded at once, a large one in parts.

    :param run: carries out an operation, possibly several times.
    """

    def __init__(self, filesystem: Any, path: str, run: Callable[[Callable[[], Any]], Any]) -> None:
        self._filesystem, self._path, self._run = filesystem, path, run
        self._waiting = bytearray()
        #: the upload of a file that has more than one part
        self._file: Any = None
        self._size = 0

    def write(self, data: Any) -> int:
        """Take bytes, and upload each part that is full."""
        self._waiting += data
        size = len(data)
        self._size += size
        while len(self._waiting) > PART_BYTES:
            part = bytes(memoryview(self._waiting)[:PART_BYTES])
            self._upload(partial(_write, part))
            del self._waiting[:PART_BYTES]
        return size

    def finish(self) -> None:
        """Upload the rest. The file exists from now on."""
        last_part = bytes(self._waiting)
        if self._file is None:
            self._run(lambda: self._filesystem.pipe_file(self._path, last_part))
            return

        def close(file: Any) -> None:
            _write(last_part, file)
            try:
                file.close()
            except FileNotFoundError:
                # the upload is gone if it was completed, and the answer to that was lost
                self._filesystem.invalidate_cache()
                if self._filesystem.size(self._path) != self._size:
                    raise

        self._upload(close)

    def discard(self) -> None:
        """Abort the upload. The store then has no such file."""
        file, self._waiting = self._file, bytearray()
        if file is None:
            return
        with suppress(Exception):
            if isinstance(file, AbstractBufferedFile):
                # closing the file, as garbage collection also does, would complete the upload with a partial file
                file.closed = True
                file.discard()
            else:
                # fsspec's memory and local filesystems create the file when it is opened
                file.close()
                self._filesystem.rm_file(self._path)

    def _upload(self, operation: Callable[[Any], Any]) -> None:
        if self._file is None:
            self._file = self._run(lambda: self._filesystem.open(self._path, "wb", block_size=PART_BYTES))
        file = self._file
        if not isinstance(file, AbstractBufferedFile):
            self._run(lambda: operation(file))
            return
        state = _Snapshot(file)

        def attempt() -> None:
            state.restore()
            operation(file)

        self._run(attempt)


def _write(part: bytes, file: Any) -> None:
    file.write(part)


class _Snapshot:
    """The state of one of fsspec's files before a part is uploaded, so that a failed upload can be repeated.

    After an error, such a file has forgotten its part, lists it twice, or is closed; that depends on the store.
    """

    def __init__(self, file: AbstractBufferedFile) -> None:
        self._file = file
        self._fields = dict(vars(file))
        self._lists = {name: list(value) for name, value in self._fields.items() if isinstance(value, list)}
        self._buffer = file.buffer.getvalue()

    def restore(self) -> None:
        """Put the file back into the state of the snapshot."""
        vars(self._file).clear()
        vars(self._file).update(self._fields, **{name: list(value) for name, value in self._lists.items()})
        self._file.buffer = io.BytesIO()
        self._file.buffer.write(self._buffer)
