"""A job's folder in an object store."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from glob import has_magic
from typing import Any, BinaryIO

from airflow.providers.common.compat.sdk import ObjectStoragePath
from fsspec.spec import AbstractBufferedFile

from airflow_provider_batch.exceptions import StagingError
from airflow_provider_batch.staging.path_folder import PathFolder, staging_error

#: Size of a part of an upload, and of the read-ahead, in bytes. S3 requires parts of at least 5 MiB and allows
#: 10,000 of them. The default of s3fs, 50 MiB, would take 10 GB of memory for two files of each of a hundred models.
PART_BYTES = 8 << 20


class ObjectFolder(PathFolder):
    """A job's folder in an object store, through Airflow's `ObjectStoragePath` (its connections, its fsspec).

    A large file is uploaded in parts of 8 MiB, each sent when it is full. The file exists once it has been closed, and
    never exists if an error interrupted the writing.
    """

    path: ObjectStoragePath

    def __init__(self, uri: str) -> None:
        self.uri = uri
        try:
            self.path = ObjectStoragePath(uri)
            _ = self.path.fs  # makes Airflow look up the filesystem now and cache it
        except (ValueError, ImportError) as error:
            raise StagingError(
                f"Staging is {uri}, but this Airflow installation has no filesystem for it: {error}. Nothing was "
                "uploaded. Install the provider that contains it, such as apache-airflow-providers-amazon[s3fs]."
            ) from error

    def create(self, name: str, data: bytes) -> bool:
        """Create a complete file and return True. Return False, without writing, if the file already exists."""
        try:
            with open_upload(self.path / name, "xb") as file:
                file.write(data)
        except FileExistsError:
            return False
        except OSError as error:
            raise staging_error("write", self.path / name, error) from error
        return True

    def read_all(self, names: Sequence[str]) -> list[bytes | None]:
        """Return the content of each of these files, or None for one that does not exist.

        Filesystems that can do it, such as s3fs, read many at the same time.
        """
        paths = [(self.path / name).path for name in names]
        if not paths or any(map(has_magic, paths)):  # fsspec would take these paths for patterns
            return super().read_all(names)
        contents = self.path.fs.cat(paths, on_error="return")
        return [self._content(path, contents[path]) for path in map(self.path.fs._strip_protocol, paths)]

    def _content(self, path: str, content: bytes | Exception) -> bytes | None:
        if isinstance(content, FileNotFoundError):
            return None
        if isinstance(content, OSError):
            raise staging_error("read", path, content) from content
        if isinstance(content, Exception):
            raise content
        return content

    def _entries(self, subfolder: str, *, folders: bool) -> list[str]:
        # s3fs and others cache listings, but the records of other workers must be visible immediately
        self.path.fs.invalidate_cache()
        try:
            return sorted(p.name for p in (self.path / subfolder).iterdir() if p.is_dir() == folders)
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as error:
            raise staging_error("list", self.path / subfolder, error) from error

    @contextmanager
    def writer(self, name: str) -> Iterator[BinaryIO]:
        """Open a file for writing. The file is valid once the block has ended without an error."""
        try:
            with open_upload(self.path / name) as file:
                yield file
        except OSError as error:
            raise staging_error("write", self.path / name, error) from error

    @contextmanager
    def reader(self, name: str) -> Iterator[BinaryIO]:
        """Open a file for reading."""
        try:
            with _open(self.path / name, "rb") as file:
                yield file
        except OSError as error:
            raise staging_error("read", self.path / name, error) from error


def _open(path: ObjectStoragePath, mode: str) -> Any:
    # the path's own `open` would record every single read and write as lineage
    return path.fs.open(path.path, mode, block_size=PART_BYTES)


@contextmanager
def open_upload(path: ObjectStoragePath, mode: str = "wb") -> Iterator[BinaryIO]:
    """Open a file in an object store for writing. After an error in the block, an object store has no such file."""
    file = _open(path, mode)
    try:
        yield file
        file.close()
    except BaseException:
        with suppress(OSError):
            if isinstance(file, AbstractBufferedFile):
                # closing the file, as garbage collection also does, would complete the upload with a partial file
                file.closed = True
                file.discard()
            else:
                # fsspec's memory and local filesystems create the file when it is opened
                file.close()
                path.fs.rm_file(path.path)
        raise
