"""What the core asks of the folder in staging that holds one job.

Files are created exclusively and never rewritten; so any number of workers may look at the same folder at once,
and a half-written job is only a folder without a seal.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import BinaryIO, Protocol


class Folder(Protocol):
    """A job's folder. Names are relative, with forward slashes."""

    #: absolute address of the folder, as it is written into a job's reference
    uri: str

    def create(self, name: str, data: bytes) -> bool:
        """Create a small file whole, or not at all. False if the name was taken: nothing is changed then."""
        ...

    def read(self, name: str) -> bytes | None:
        """The whole of a small file; None if there is none."""
        ...

    def names(self, subfolder: str) -> list[str]:
        """Names of the files directly in a sub-folder, sorted; empty if there is none."""
        ...

    def folders(self, subfolder: str) -> list[str]:
        """Names of the folders directly in a sub-folder, sorted; empty if there is none."""
        ...

    def writer(self, name: str) -> AbstractContextManager[BinaryIO]:
        """Write a large file. Only files that nobody was told of yet are written this way."""
        ...

    def reader(self, name: str) -> AbstractContextManager[BinaryIO]:
        """Read a large file from its start; seekable."""
        ...

    def remove(self, name: str) -> None:
        """Remove a file that nobody was told of. One that the store does not let go stays, and a warning says so."""
        ...
