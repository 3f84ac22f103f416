"""An in-memory object store that accepts files as S3 does: in parts, visible only after the last part."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fsspec.implementations.memory import MemoryFile, MemoryFileSystem
from fsspec.spec import AbstractBufferedFile


class Upload(AbstractBufferedFile):  # type: ignore[misc]  # fsspec has no types
    """An upload in progress."""

    fs: Bucket

    def write(self, data: Any) -> int:
        self.fs.step()
        size: int = super().write(data)
        return size

    def _initiate_upload(self) -> None:
        self.fs.step()
        self.parts: list[bytes] = []
        self.fs.pending_uploads.add(self.path)

    def _upload_chunk(self, final: bool = False) -> bool:
        self.fs.step()
        self.buffer.seek(0)
        part = self.buffer.read()
        self.fs.largest_part = max(self.fs.largest_part, len(part))
        if self.fs.stores_content(self.path):
            self.parts.append(part)
        if final:
            if "x" in self.mode and self.path in self.fs.store:
                raise FileExistsError(self.path)
            self.fs.store[self.path] = MemoryFile(self.fs, self.path, b"".join(self.parts))
            self.fs.pending_uploads.discard(self.path)
            self.fs.step()
        return True

    def discard(self) -> None:
        self.fs.step()
        self.fs.pending_uploads.discard(self.path)


class Bucket(MemoryFileSystem):  # type: ignore[misc]  # fsspec has no types
    """The object store.

    :param step: called before each call to the store, and after a file has become visible.
    :param stores_content: whether the content of a file is stored; if not, the file stays empty to save memory.
    """

    cachable = False

    def __init__(
        self, step: Callable[[], None] = lambda: None, stores_content: Callable[[str], bool] = lambda path: True
    ) -> None:
        super().__init__()
        self.store: dict[str, Any] = {}
        self.pseudo_dirs = [""]
        self.step, self.stores_content = step, stores_content
        #: paths of uploads that were started and neither completed nor aborted
        self.pending_uploads: set[str] = set()
        #: size of the largest part, in bytes
        self.largest_part = 0

    def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **kwargs: Any) -> None:
        path = self._strip_protocol(path)
        self.step()
        if mode == "create" and path in self.store:
            raise FileExistsError(path)
        self.largest_part = max(self.largest_part, len(value))
        self.store[path] = MemoryFile(self, path, value if self.stores_content(path) else b"")
        self.step()

    def _open(self, path: str, mode: str = "rb", block_size: int | None = None, **kwargs: Any) -> Any:
        self.step()
        if "r" in mode:
            return super()._open(path, mode, block_size, **kwargs)
        return Upload(self, self._strip_protocol(path), mode, block_size or "default")
