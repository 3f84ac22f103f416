"""A job's folder on a local disk."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from airflow_provider_batch.staging.path_folder import PathFolder, staging_error


class LocalFolder(PathFolder):
    """A job's folder on a local disk, or on a mount that supports hard links."""

    path: Path

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        self.uri = self.path.as_uri()

    def create(self, name: str, data: bytes) -> bool:
        """Create a complete file and return True. Return False, without writing, if the file already exists."""
        final = self.path / name
        draft = final.with_name(f".{final.name}.{secrets.token_hex(8)}")
        try:
            final.parent.mkdir(parents=True, exist_ok=True)
            with draft.open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            try:
                os.link(draft, final)
            except FileExistsError:
                return False
            finally:
                draft.unlink()
        except OSError as error:
            raise staging_error("write", final, error) from error
        return True

    def _entries(self, subfolder: str, *, folders: bool) -> list[str]:
        try:
            with os.scandir(self.path / subfolder) as entries:
                return sorted(e.name for e in entries if e.is_dir() == folders and not e.name.startswith("."))
        except FileNotFoundError:
            return []
        except OSError as error:
            raise staging_error("list", self.path / subfolder, error) from error

    @contextmanager
    def writer(self, name: str) -> Iterator[BinaryIO]:
        """Open a file for writing. The file is valid once the block has ended without an error."""
        final = self.path / name
        try:
            final.parent.mkdir(parents=True, exist_ok=True)
            with final.open("wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise staging_error("write", final, error) from error

    @contextmanager
    def reader(self, name: str) -> Iterator[BinaryIO]:
        """Open a file for reading."""
        try:
            file = (self.path / name).open("rb")
        except OSError as error:
            raise staging_error("read", self.path / name, error) from error
        with file:
            yield file
