"""The interface through which the core reads and writes the staging folder of one job.

Files are created exclusively and never rewritten. Any number of workers can therefore use the same folder at the same
time, and a job that was only half written is a folder without a seal.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import BinaryIO, Protocol


class Folder(Protocol):
    """The folder of a job. File names are relative to it and use forward slashes."""

    #: absolute address of the folder, as written into the job's reference
    uri: str

    def create(self, name: str, data: bytes) -> bool:
        """Create a small file atomically. Return False, without writing, if the name is taken."""
        ...

    def read(self, name: str) -> bytes | None:
        """Return the content of a small file, or None if it does not exist."""
        ...

    def read_all(self, names: Sequence[str]) -> list[bytes | None]:
        """Return the content of each of these small files, as `read` does. A store may read several concurrently."""
        ...

    def names(self, subfolder: str) -> list[str]:
        """Return the sorted names of the files directly in a subfolder, or an empty list if it does not exist."""
        ...

    def folders(self, subfolder: str) -> list[str]:
        """Return the sorted names of the folders directly in a subfolder, or an empty list if it does not exist."""
        ...

    def writer(self, name: str) -> AbstractContextManager[BinaryIO]:
        """Open a large file for writing. Use it only for a file that no record or manifest names yet."""
        ...

    def reader(self, name: str) -> AbstractContextManager[BinaryIO]:
        """Open a large file for reading from its start. The file is seekable."""
        ...

    def remove(self, name: str) -> None:
        """Remove a file that no record or manifest names. If the store refuses, log a warning and keep the file."""
        ...
