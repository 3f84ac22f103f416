"""An object store in memory that takes files as S3 does: in parts, there as a whole once the last part is in."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fsspec.implementations.memory import MemoryFile, MemoryFileSystem
from fsspec.spec import AbstractBufferedFile


class Upload(AbstractBufferedFile):  # type: ignore[misc]  # fsspec has no types
    """A file on its way up."""

    fs: Bucket

    def write(self, data: Any) -> int:
        self.fs.step()
        written: int = super().write(data)
        return written

    def _initiate_upload(self) -> None:
        self.fs.step()
        self.parts: list[bytes] = []
        self.fs.under_way.add(self.path)

    def _upload_chunk(self, final: bool = False) -> bool:
        self.fs.step()
        self.buffer.seek(0)
        part = self.buffer.read()
        self.fs.largest = max(self.fs.largest, len(part))
        if self.fs.keeps(self.path):
            self.parts.append(part)
        if final:
            if "x" in self.mode and self.path in self.fs.store:
                raise FileExistsError(self.path)
            self.fs.store[self.path] = MemoryFile(self.fs, self.path, b"".join(self.parts))
            self.fs.under_way.discard(self.path)
            self.fs.step()
        return True

    def discard(self) -> None:
        self.fs.step()
        self.fs.under_way.discard(self.path)


class Bucket(MemoryFileSystem):  # type: ignore[misc]  # fsspec has no types
    """The object store. `step` is called before each call that goes to it, and after a file became whole."""

    cachable = False

    def __init__(
        self, step: Callable[[], None] = lambda: None, keeps: Callable[[str], bool] = lambda path: True
    ) -> None:
        super().__init__()
        self.store: dict[str, Any] = {}
        self.pseudo_dirs = [""]
        self.step, self.keeps = step, keeps
        #: uploads that were begun and neither completed nor aborted
        self.under_way: set[str] = set()
        #: bytes of the largest part
        self.largest = 0

    def _open(self, path: str, mode: str = "rb", block_size: int | None = None, **kwargs: Any) -> Any:
        self.step()
        if "r" in mode:
            return super()._open(path, mode, block_size, **kwargs)
        return Upload(self, self._strip_protocol(path), mode, block_size or "default")
