"""Staging: where jobs lie, on a local disk or in an object store.

The ledger needs one thing of a store: that a file can be created *exclusively*. A local disk gives it with a hard
link (a record is there whole or not at all, also after kill -9); object stores give it with a conditional put,
which fsspec's mode "xb" asks for (s3fs `IfNoneMatch`, gcsfs `ifGenerationMatch=0`, adlfs likewise).

Large files stream: to a local disk as they come, to an object store as a multipart upload, part by part, with no
temporary file on the way.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import unquote, urlsplit

from airflow.configuration import AIRFLOW_HOME
from airflow.providers.common.compat.sdk import ObjectStoragePath, conf
from fsspec.spec import AbstractBufferedFile

from airflow_provider_batch.exceptions import StagingError
from airflow_provider_batch.jobs.folder import Folder
from airflow_provider_batch.jobs.job import JobKey

log = logging.getLogger(__name__)

#: bytes of a part of an upload to an object store, and of what is read ahead. S3 takes at least 5 MiB, at most 10,000
#: parts; s3fs's own 50 MiB, for two files of each of a hundred models, would be 10 GB of memory
PART = 8 << 20
#: folder of a staging root that holds what jobs learned; no DAG's folder begins with a dot
MEMORY = ".learned"
#: executors whose tasks all see the disk of this machine
LOCAL_EXECUTORS = frozenset({"LocalExecutor", "SequentialExecutor"})


def staging_root(argument: str | None = None) -> str:
    """The staging URI: the operator's argument, else config `[batch] staging`, else a folder in AIRFLOW_HOME."""
    configured = argument or conf.get("batch", "staging", fallback="") or ""
    return str(configured) if configured else (Path(AIRFLOW_HOME) / "batch_staging").absolute().as_uri()


def check_reachable(root: str, *, allow_local: bool) -> None:
    """Refuse a local disk where the next task may run on another machine.

    :raises StagingError: before anything is uploaded.
    """
    if not is_local(root) or allow_local or conf.getboolean("batch", "allow_local_staging", fallback=False):
        return
    executors = [name.rsplit(".", 1)[-1].rsplit(":", 1)[-1] for name in conf.getlist("core", "executor")]
    foreign = [name for name in executors if name not in LOCAL_EXECUTORS]
    if foreign:
        raise StagingError(
            f"Staging is the local disk ({root}), but {', '.join(foreign)} may run the next task on another machine, "
            "which would not find the job. Nothing was uploaded. Set [batch] staging (or staging=) to an object store "
            "such as s3://bucket/batch, or allow_local_staging=True if every worker mounts this path."
        )


def is_local(uri: str) -> bool:
    """Whether a staging URI is a path on this machine."""
    return urlsplit(uri).scheme in ("", "file")


def job_folder(root: str, key: JobKey) -> Folder:
    """The folder of the job with this key. No part of the key can lead out of `root`."""
    digest = hashlib.sha256(key.canonical()).hexdigest()[:16]
    run = f"{_safe(key.run_id)[:60]}.{key.map_index}" if key.map_index >= 0 else _safe(key.run_id)[:60]
    return open_folder("/".join((root.rstrip("/"), _safe(key.dag_id), _safe(key.task_id), f"{run}.{digest}")))


def job_folders(root: str, dag_id: str | None = None) -> Iterator[Folder]:
    """The folders under a staging root that may hold a job, of one DAG or of all."""
    base = open_folder(root)
    for dag in base.folders("") if dag_id is None else [_safe(dag_id)]:
        # a local disk does not list these, an object store does
        if dag == MEMORY:
            continue
        for task in base.folders(dag):
            for run in base.folders(f"{dag}/{task}"):
                yield open_folder("/".join((root.rstrip("/"), dag, task, run)))


def root_of(folder: Folder, key: JobKey) -> str | None:
    """The staging root that the folder of the job with this key lies in; None if it was put elsewhere."""
    root = folder.uri.rsplit("/", 3)[0]
    return root if job_folder(root, key).uri == folder.uri else None


def memory_folder(root: str, conn_id: str) -> Folder:
    """The folder under a staging root for what jobs learned of a connection."""
    digest = hashlib.sha256(conn_id.encode()).hexdigest()[:16]
    return open_folder("/".join((root.rstrip("/"), MEMORY, f"{_safe(conn_id)[:60]}.{digest}")))


def remove_folder(folder: Folder) -> None:
    """Remove a job's folder with everything in it.

    :raises StagingError: if something of it cannot be removed.
    """
    try:
        if isinstance(folder, LocalFolder):
            shutil.rmtree(folder.path)
        elif isinstance(folder, ObjectFolder):
            folder.path.fs.rm(folder.path.path, recursive=True)
        else:
            raise TypeError(f"{type(folder).__name__} is no folder of staging")
    except OSError as error:
        raise _cannot("remove", folder.uri, error) from error


def open_folder(uri: str) -> Folder:
    """A job's folder by the address that its reference carries."""
    if is_local(uri):
        return LocalFolder(Path(unquote(urlsplit(uri).path)) if uri.startswith("file:") else Path(uri))
    return ObjectFolder(uri)


def _safe(part: str) -> str:
    cleaned = re.sub(r"[^A-Za-z0-9_=+-]+", "_", part)[:120]
    return cleaned or "_"


class _PathFolder:
    """What both kinds of folders do alike, through the path they have."""

    path: Path | ObjectStoragePath

    def read(self, name: str) -> bytes | None:
        try:
            found: bytes = (self.path / name).read_bytes()
            return found
        except FileNotFoundError:
            return None
        except OSError as error:
            raise _cannot("read", self.path / name, error) from error

    def names(self, under: str) -> list[str]:
        return self._entries(under, folders=False)

    def folders(self, under: str) -> list[str]:
        return self._entries(under, folders=True)

    def remove(self, name: str) -> None:
        try:
            (self.path / name).unlink()
        except FileNotFoundError:
            return
        except OSError as error:
            # Permissions that let workers write and not delete are common; nothing depends on this file any more.
            log.warning("Staging: cannot remove %s, which is no longer needed: %s", self.path / name, error)

    def _entries(self, under: str, *, folders: bool) -> list[str]:
        raise NotImplementedError


class LocalFolder(_PathFolder):
    """A job's folder on a local disk (or a mount that has hard links)."""

    path: Path

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        self.uri = self.path.as_uri()

    def create(self, name: str, data: bytes) -> bool:
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
            raise _cannot("write", final, error) from error
        return True

    def _entries(self, under: str, *, folders: bool) -> list[str]:
        try:
            with os.scandir(self.path / under) as entries:
                return sorted(e.name for e in entries if e.is_dir() == folders and not e.name.startswith("."))
        except FileNotFoundError:
            return []
        except OSError as error:
            raise _cannot("list", self.path / under, error) from error

    @contextmanager
    def writer(self, name: str) -> Iterator[BinaryIO]:
        final = self.path / name
        try:
            final.parent.mkdir(parents=True, exist_ok=True)
            with final.open("wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise _cannot("write", final, error) from error

    @contextmanager
    def reader(self, name: str) -> Iterator[BinaryIO]:
        try:
            file = (self.path / name).open("rb")
        except OSError as error:
            raise _cannot("read", self.path / name, error) from error
        with file:
            yield file


class ObjectFolder(_PathFolder):
    """A job's folder in an object store, through Airflow's `ObjectStoragePath` (its connections, its fsspec).

    A large file goes up in parts of 8 MiB, each sent when it is full; it is there, whole, when it is closed, and never
    if its writing broke off.
    """

    path: ObjectStoragePath

    def __init__(self, uri: str) -> None:
        self.uri = uri
        try:
            self.path = ObjectStoragePath(uri)
            self.path.fs  # noqa: B018  # looked up and kept by Airflow
        except (ValueError, ImportError) as error:
            raise StagingError(
                f"Staging is {uri}, which this Airflow has no filesystem for: {error}. Install the provider that "
                "brings it, such as apache-airflow-providers-amazon[s3fs]. Nothing was uploaded."
            ) from error

    def create(self, name: str, data: bytes) -> bool:
        try:
            with self._written(name, "xb") as file:
                file.write(data)
        except FileExistsError:
            return False
        except OSError as error:
            raise _cannot("write", self.path / name, error) from error
        return True

    def _entries(self, under: str, *, folders: bool) -> list[str]:
        # filesystems such as s3fs keep listings, but what other workers recorded since has to be seen
        self.path.fs.invalidate_cache()
        try:
            return sorted(p.name for p in (self.path / under).iterdir() if p.is_dir() == folders)
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as error:
            raise _cannot("list", self.path / under, error) from error

    @contextmanager
    def writer(self, name: str) -> Iterator[BinaryIO]:
        try:
            with self._written(name, "wb") as file:
                yield file
        except OSError as error:
            raise _cannot("write", self.path / name, error) from error

    @contextmanager
    def reader(self, name: str) -> Iterator[BinaryIO]:
        try:
            with self._open(name, "rb") as file:
                yield file
        except OSError as error:
            raise _cannot("read", self.path / name, error) from error

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


def _cannot(verb: str, path: object, error: OSError) -> StagingError:
    return StagingError(
        f"Staging: cannot {verb} {path}: {error.strerror or error}. What was sealed or collected before is kept. "
        "Check the path and its permissions ([batch] staging or staging=), then clear the task."
    )
