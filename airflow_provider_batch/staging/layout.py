"""Staging: where jobs lie, on a local disk or in an object store.

The ledger needs one thing of a store: that a file can be created *exclusively*. A local disk gives it with a hard
link (a record is there whole or not at all, also after kill -9); object stores give it with a conditional put,
which fsspec's mode "xb" asks for (s3fs `IfNoneMatch`, gcsfs `ifGenerationMatch=0`, adlfs likewise).

Large files stream: to a local disk as they come, to an object store as a multipart upload, part by part, with no
temporary file on the way.
"""

from __future__ import annotations

import hashlib
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote, urlsplit

from airflow.configuration import AIRFLOW_HOME
from airflow.providers.common.compat.sdk import conf

from airflow_provider_batch.core.ledger.folder import Folder
from airflow_provider_batch.core.ledger.job import JobKey
from airflow_provider_batch.exceptions import StagingError
from airflow_provider_batch.staging.local import LocalFolder
from airflow_provider_batch.staging.object_store import ObjectFolder
from airflow_provider_batch.staging.path_folder import cannot

#: folder of a staging root that holds what jobs learned; no DAG's folder begins with a dot
LESSONS_FOLDER = ".learned"

#: executors whose tasks all see the disk of this machine
LOCAL_EXECUTORS = frozenset({"LocalExecutor", "SequentialExecutor"})


def staging_root(argument: str | None = None) -> str:
    """The staging URI: the operator's argument, else config `[openai_batch] staging`, else a folder in AIRFLOW_HOME."""
    configured = argument or conf.get("openai_batch", "staging", fallback="") or ""
    return str(configured) if configured else (Path(AIRFLOW_HOME) / "batch_staging").absolute().as_uri()


def check_reachable(root: str, *, allow_local: bool) -> None:
    """Refuse a local disk where the next task may run on another machine.

    :raises StagingError: before anything is uploaded.
    """
    if not is_local(root) or allow_local or conf.getboolean("openai_batch", "allow_local_staging", fallback=False):
        return
    executors = [name.rsplit(".", 1)[-1].rsplit(":", 1)[-1] for name in conf.getlist("core", "executor")]
    foreign = [name for name in executors if name not in LOCAL_EXECUTORS]
    if foreign:
        raise StagingError(
            f"Staging is the local disk ({root}), but {', '.join(foreign)} may run the next task on another machine, "
            "which would not find the job. Nothing was uploaded. Set [openai_batch] staging (or staging=) to an "
            "object store such as s3://bucket/batch, or allow_local_staging=True if every worker mounts this path."
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
        if dag == LESSONS_FOLDER:
            continue
        for task in base.folders(dag):
            for run in base.folders(f"{dag}/{task}"):
                yield open_folder("/".join((root.rstrip("/"), dag, task, run)))


def find_staging_root(folder: Folder, key: JobKey) -> str | None:
    """The staging root that the folder of the job with this key lies in; None if it was put elsewhere."""
    root = folder.uri.rsplit("/", 3)[0]
    return root if job_folder(root, key).uri == folder.uri else None


def lessons_folder(root: str, conn_id: str) -> Folder:
    """The folder under a staging root for what jobs learned of a connection."""
    digest = hashlib.sha256(conn_id.encode()).hexdigest()[:16]
    return open_folder("/".join((root.rstrip("/"), LESSONS_FOLDER, f"{_safe(conn_id)[:60]}.{digest}")))


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
        raise cannot("remove", folder.uri, error) from error


def open_folder(uri: str) -> Folder:
    """A job's folder by the address that its reference carries."""
    if is_local(uri):
        return LocalFolder(Path(unquote(urlsplit(uri).path)) if uri.startswith("file:") else Path(uri))
    return ObjectFolder(uri)


def _safe(part: str) -> str:
    cleaned = re.sub(r"[^A-Za-z0-9_=+-]+", "_", part)[:120]
    return cleaned or "_"
