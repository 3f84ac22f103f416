"""A job's folder on a local disk."""

from __future__ import annotations

import logging
import os
import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from airflow_provider_batch.staging.errors import staging_error

log = logging.getLogger(__name__)


class LocalFolder:
    """A job's folder on a local disk, or on a mount that supports hard links."""

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

    def read(self, name: str) -> bytes | None:
        """Return the content of a file, or None if it does not exist."""
        try:
            return (self.path / name).read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise staging_error("read", self.path / name, error) from error

    def read_all(self, names: Sequence[str]) -> list[bytes | None]:
        """Return the content of each of these files, or None for one that does not exist."""
        return [self.read(name) for name in names]

    def names(self, subfolder: str) -> list[str]:
        """Return the names of the files in a subfolder."""
        return self._entries(subfolder, folders=False)

    def folders(self, subfolder: str) -> list[str]:
        """Return the names of the folders in a subfolder."""
        return self._entries(subfolder, folders=True)

    def remove(self, name: str) -> None:
        """Delete a file that is no longer needed. If the disk refuses, log a warning."""
        try:
            (self.path / name).unlink(missing_ok=True)
        except OSError as error:
            # permissions that let workers write but not delete are common, and nothing depends on this file now
            log.warning(
                "Could not remove %s from staging, although it is no longer needed: %s", self.path / name, error
            )

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
