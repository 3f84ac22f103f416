"""A job's folder in an object store."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, BinaryIO

from airflow.providers.common.compat.sdk import ObjectStoragePath
from fsspec.spec import AbstractBufferedFile

from airflow_provider_batch.exceptions import StagingError
from airflow_provider_batch.staging.path_folder import PathFolder, cannot

#: bytes of a part of an upload to an object store, and of what is read ahead. S3 takes at least 5 MiB, at most 10,000
#: parts; s3fs's own 50 MiB, for two files of each of a hundred models, would be 10 GB of memory
PART = 8 << 20


class ObjectFolder(PathFolder):
    """A job's folder in an object store, through Airflow's `ObjectStoragePath` (its connections, its fsspec).

    A large file goes up in parts of 8 MiB, each sent when it is full; it is there, whole, when it is closed, and never
    if its writing broke off.
    """

    path: ObjectStoragePath

    def __init__(self, uri: str) -> None:
        self.uri = uri
        try:
            self.path = ObjectStoragePath(uri)
            _ = self.path.fs  # Airflow looks the filesystem up here, and keeps it
        except (ValueError, ImportError) as error:
            raise StagingError(
                f"Staging is {uri}, which this Airflow has no filesystem for: {error}. Install the provider that "
                "brings it, such as apache-airflow-providers-amazon[s3fs]. Nothing was uploaded."
            ) from error

    def create(self, name: str, data: bytes) -> bool:
        """Write a new file whole and return True; False, without writing, if the file exists."""
        try:
            with self._written(name, "xb") as file:
                file.write(data)
        except FileExistsError:
            return False
        except OSError as error:
            raise cannot("write", self.path / name, error) from error
        return True

    def _entries(self, subfolder: str, *, folders: bool) -> list[str]:
        # filesystems such as s3fs keep listings, but what other workers recorded since has to be seen
        self.path.fs.invalidate_cache()
        try:
            return sorted(p.name for p in (self.path / subfolder).iterdir() if p.is_dir() == folders)
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as error:
            raise cannot("list", self.path / subfolder, error) from error

    @contextmanager
    def writer(self, name: str) -> Iterator[BinaryIO]:
        """Open a file for writing; it counts once the block has ended without an error."""
        try:
            with self._written(name, "wb") as file:
                yield file
        except OSError as error:
            raise cannot("write", self.path / name, error) from error

    @contextmanager
    def reader(self, name: str) -> Iterator[BinaryIO]:
        """Open a file for reading."""
        try:
            with self._open(name, "rb") as file:
                yield file
        except OSError as error:
            raise cannot("read", self.path / name, error) from error

    def _open(self, name: str, mode: str) -> Any:
        # Not through the path's own `open`, which notes every single read and write as lineage.
        return self.path.fs.open((self.path / name).path, mode, block_size=PART)

    @contextmanager
    def _written(self, name: str, mode: str) -> Iterator[BinaryIO]:
        file = self._open(name, mode)
        try:
            yield file
            file.close()
        except BaseException:
            with suppress(OSError):
                if isinstance(file, AbstractBufferedFile):
                    # Else its end, at the latest as garbage, would complete the upload with what there is.
                    file.closed = True
                    file.discard()
                else:
                    # Files that are there from the start: those of fsspec's memory and local filesystems.
                    file.close()
                    self.path.fs.rm_file((self.path / name).path)
            raise
