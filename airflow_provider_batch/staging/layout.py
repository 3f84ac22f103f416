"""Where jobs are stored: the staging root and the folders below it.

Staging is a folder on a local disk or a prefix in an object store. Below its root, each job has the folder
`<dag_id>/<task_id>/<run_id>.<hash>`, `.learned` holds what jobs learned about a connection for later jobs, and
`.budgets` holds what jobs have spent and reserved from the budgets that they share.

The ledger requires one thing of a store: a file can be created *exclusively*. On a local disk a hard link does this; a
record then exists completely or not at all, even after kill -9. In an object store a conditional put does it, which
fsspec requests for mode "xb" (s3fs `IfNoneMatch`, gcsfs `ifGenerationMatch=0`, adlfs likewise).

Large files are streamed: directly to a local disk, or as a multipart upload to an object store, without a temporary
file.
"""

from __future__ import annotations

import hashlib
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import msgspec
from airflow.configuration import AIRFLOW_HOME
from airflow.providers.common.compat.sdk import conf

from airflow_provider_batch.core.arguments import parse_location, shorten
from airflow_provider_batch.core.documentation import docs_page
from airflow_provider_batch.core.ledger.folder import Folder
from airflow_provider_batch.core.ledger.job import JobKey
from airflow_provider_batch.core.lifecycle.shared_budget import Per, SharedBudget
from airflow_provider_batch.exceptions import InputError, StagingError, UnusableStagingError
from airflow_provider_batch.staging.errors import staging_error
from airflow_provider_batch.staging.local import LocalFolder
from airflow_provider_batch.staging.object_store import ObjectFolder

#: folder below the staging root for what jobs learned; the folder of a DAG never starts with a dot
LESSONS_FOLDER = ".learned"
#: folder below the staging root for shared budgets, with one folder per budget, and in it one per period
BUDGETS_FOLDER = ".budgets"
#: folder below the staging root for the file with which every submit checks the store
PROBE_FOLDER = ".probe"

#: executors that run every task on this machine
LOCAL_EXECUTORS = frozenset({"LocalExecutor", "SequentialExecutor"})


def staging_root(argument: str | None = None) -> str:
    """Return the staging URI.

    It is the operator's argument or, without it, the config option `[openai_batch] staging` or a folder in
    AIRFLOW_HOME.

    :raises InputError: if it is a relative path.
    """
    root = parse_staging("staging", argument) or parse_staging(
        "config [openai_batch] staging", conf.get("openai_batch", "staging", fallback="")
    )
    return root or (Path(AIRFLOW_HOME) / "batch_staging").absolute().as_uri()


def page_roots() -> list[str]:
    """Return the staging URIs from which the page in Airflow may read: the configured one, and those of `page_staging`.

    :raises InputError: if one of them is a relative path.
    """
    option = "page_staging"
    others = conf.get("openai_batch", option, fallback="").split(",")
    roots = [parse_staging(f"config [openai_batch] {option}", other.strip()) for other in others]
    return list(dict.fromkeys([staging_root(), *(root for root in roots if root is not None)]))


def parse_staging(name: str, value: Any) -> str | None:
    """Return the address of the staging root. None and blank text are None.

    :param name: the argument or the option that holds the value, as errors name it.
    :raises InputError: for anything else, and for a path that does not begin at the root of the disk.
    """
    root = parse_location(name, value)
    if root is None or not is_local(root):
        return root
    parts = urlsplit(root)
    # file://var/batch has the host "var"
    if parts.netloc not in ("", "localhost") or not parts.path.startswith("/"):
        raise InputError(
            f"{name}: {shorten(root)} is not an absolute path. The tasks of a job may run in different working "
            "directories. Each would then look for the job in another folder, and could send it again. Nothing was "
            "uploaded. Give an absolute path such as '/var/lib/airflow/batch_staging', or the address of an object "
            "store such as 's3://bucket/batch'."
        )
    return root


def check_reachable(root: str, *, allow_local: bool) -> None:
    """Check that the next task can reach staging, even if it runs on another machine.

    :param allow_local: whether the author says that every worker mounts the local path.
    :raises UnusableStagingError: if staging is a local disk and an executor may use other machines.
    """
    if not is_local(root) or allow_local or conf.getboolean("openai_batch", "allow_local_staging", fallback=False):
        return
    executors = [name.rsplit(".", 1)[-1].rsplit(":", 1)[-1] for name in conf.getlist("core", "executor")]
    remote_executors = [name for name in executors if name not in LOCAL_EXECUTORS]
    if remote_executors:
        raise UnusableStagingError(
            f"Staging is the local disk ({root}), but {', '.join(remote_executors)} may run the next task on another "
            "machine, which would not find the job. Nothing was uploaded. Set [openai_batch] staging (or staging=) to "
            "an object store such as s3://bucket/batch, or allow_local_staging=True if every worker mounts this path."
        )


def check_budgets_reachable(*, allow_local: bool) -> None:
    """Check that every task reaches the accounts of shared budgets, which are below the configured staging root.

    :param allow_local: whether the author says that every worker mounts that root.
    :raises UnusableStagingError: if the root is a local disk and an executor may use other machines.
    """
    try:
        check_reachable(staging_root(), allow_local=allow_local)
    except StagingError as error:
        raise UnusableStagingError(
            "The job shares a budget with others. Its account is below the configured staging root, even if the job "
            f"has a staging folder of its own. {error}"
        ) from error


def check_exclusive_mode(root: str) -> None:
    """Check that the object store refuses to create a file that exists. A local disk always does.

    :raises UnusableStagingError: if it replaces the file.
    """
    if is_local(root):
        return
    folder = ObjectFolder(f"{root.rstrip('/')}/{PROBE_FOLDER}")
    if folder.is_exclusive("exclusive"):
        return
    raise UnusableStagingError(
        f"Staging is {root}, but the store replaced a file that must be created only once: it, or the library that "
        f"reads it ({folder.store.library}), ignores conditional uploads. Two workers could then create the same "
        "batch, and the job would be paid for twice. Nothing was uploaded. Install a current version of the library, "
        "as the extras s3, gcs and azure of this package do. If it is current, the store is at fault: "
        f"{docs_page('operations/object-stores')} says what a store must do."
    )


def is_local(uri: str) -> bool:
    """Return whether a staging URI is a path on this machine."""
    return urlsplit(uri).scheme in ("", "file")


def job_folder(root: str, key: JobKey) -> Folder:
    """Return the folder of the job with this key. It is always inside `root`, for any key."""
    digest = job_digest(key)
    run = f"{_safe_name(key.run_id)[:60]}.{key.map_index}" if key.map_index >= 0 else _safe_name(key.run_id)[:60]
    return open_folder("/".join((root.rstrip("/"), _safe_name(key.dag_id), _safe_name(key.task_id), f"{run}.{digest}")))


def job_digest(key: JobKey) -> str:
    """Return the last part of the name of a job's folder, after the last dot. It identifies the key."""
    return hashlib.sha256(key.canonical()).hexdigest()[:16]


def job_folders(
    root: str, dag_id: str | None = None, task_id: str | None = None, run_id: str | None = None
) -> Iterator[Folder]:
    """Yield the folders below a staging root that may hold a job, for one DAG or for all.

    :param run_id: run_id or its first characters.
    """
    start = "" if run_id is None else _safe_name(run_id)[:60]
    base = open_folder(root)
    for dag in base.folders("") if dag_id is None else [_safe_name(dag_id)]:
        # listings of a local disk omit names with a leading dot, those of an object store do not
        if dag in (LESSONS_FOLDER, BUDGETS_FOLDER, PROBE_FOLDER):
            continue
        for task in base.folders(dag) if task_id is None else [_safe_name(task_id)]:
            for run in base.folders(f"{dag}/{task}"):
                if run.startswith(start):
                    yield open_folder("/".join((root.rstrip("/"), dag, task, run)))


def find_staging_root(folder: Folder, key: JobKey) -> str | None:
    """Return the staging root of the folder of the job with this key, or None if the folder is not below one."""
    root = folder.uri.rsplit("/", 3)[0]
    return root if job_folder(root, key).uri == folder.uri else None


def lessons_folder(root: str, conn_id: str) -> Folder:
    """Return the folder below a staging root for what jobs learned about a connection."""
    digest = hashlib.sha256(conn_id.encode()).hexdigest()[:16]
    return open_folder("/".join((root.rstrip("/"), LESSONS_FOLDER, f"{_safe_name(conn_id)[:60]}.{digest}")))


def budget_folder(root: str, budget: SharedBudget, period: str) -> Folder:
    """Return the folder below a staging root for the account of a shared budget in one period."""
    owner = [budget.dag_id, budget.run_id] if budget.per is Per.RUN else [budget.conn_id]
    digest = hashlib.sha256(msgspec.json.encode(owner)).hexdigest()[:16]
    name = f"{'run' if budget.per is Per.RUN else 'connection'}.{_safe_name('.'.join(owner))[:60]}.{digest}"
    return open_folder("/".join((root.rstrip("/"), BUDGETS_FOLDER, name, period)))


def budget_folders(root: str) -> Iterator[Folder]:
    """Yield the folders of all shared budgets and periods below a staging root."""
    base = open_folder(root)
    for budget in base.folders(BUDGETS_FOLDER):
        for period in base.folders(f"{BUDGETS_FOLDER}/{budget}"):
            yield open_folder("/".join((root.rstrip("/"), BUDGETS_FOLDER, budget, period)))


def remove_folder(folder: Folder) -> None:
    """Remove a job's folder and everything in it.

    :raises StagingError: if a part of it cannot be removed.
    """
    try:
        if isinstance(folder, LocalFolder):
            shutil.rmtree(folder.path)
        elif isinstance(folder, ObjectFolder):
            folder.remove_everything()
        else:
            raise TypeError(f"{type(folder).__name__} is not a staging folder")
    except OSError as error:
        raise staging_error("remove", folder.uri, error) from error


def open_folder(uri: str) -> Folder:
    """Return the folder with this URI, as a job's reference carries it."""
    if is_local(uri):
        return LocalFolder(Path(unquote(urlsplit(uri).path)) if uri.startswith("file:") else Path(uri))
    return ObjectFolder(uri)


def _safe_name(part: str) -> str:
    return re.sub(r"[^A-Za-z0-9_=+-]+", "_", part)[:120] or "_"
