"""Checks of staging: whether it can be reached and written, and whether a file can be created exclusively."""

from __future__ import annotations

import secrets
import shutil
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from airflow.providers.common.compat.sdk import conf

from airflow_provider_batch.cli.doctor.check import Check, Status
from airflow_provider_batch.core.ledger.folder import Folder
from airflow_provider_batch.exceptions import InputError, StagingError
from airflow_provider_batch.staging.layout import check_reachable, is_local, open_folder, remove_folder, staging_root
from airflow_provider_batch.staging.local import LocalFolder

#: folder below the staging root for the files of the check, which removes it
PROBE_FOLDER = ".doctor"
#: workers that create the same file at the same time
_RACERS = 4
_WARNING_BYTES = 2 << 30
_PROBLEM_BYTES = 200 << 20
_EXCLUSIVE_FIX = (
    "Jobs could pay twice there. Use a local disk, or S3, Google Cloud Storage or Azure Blob Storage with a current "
    "version of s3fs, gcsfs or adlfs."
)


def check_staging(argument: str | None) -> Iterator[Check]:
    """Check the staging root. Whatever the check writes, it removes."""
    try:
        root = staging_root(argument)
    except InputError as error:
        yield Check("staging", Status.PROBLEM, str(error))
        return
    try:
        check_reachable(root, allow_local=False)
    except StagingError as error:
        yield Check("staging", Status.PROBLEM, str(error))
    else:
        yield Check("staging", Status.OK, _sharing(root))
    yield from _check_folder(root)
    yield from _check_space(root)


def _sharing(root: str) -> str:
    if not is_local(root):
        return f"Staging is {root}, which every worker can reach."
    if conf.getboolean("openai_batch", "allow_local_staging", fallback=False):
        return f"Staging is the local path {root}, which every worker mounts, as allow_local_staging says."
    return f"Staging is the local disk ({root}). All tasks run on this machine with {conf.get('core', 'executor')}."


def _check_folder(root: str) -> Iterator[Check]:
    created_root = is_local(root) and not _path_of(root).exists()
    try:
        folder = open_folder(f"{root.rstrip('/')}/{PROBE_FOLDER}/{secrets.token_hex(8)}")
    except StagingError as error:
        yield Check("staging", Status.PROBLEM, str(error))
        return
    try:
        yield from _check_creation(folder)
    except StagingError as error:
        yield Check("staging", Status.PROBLEM, str(error))
    finally:
        with suppress(StagingError):
            remove_folder(folder)
        if isinstance(folder, LocalFolder):
            for path in (folder.path.parent, *([_path_of(root)] if created_root else [])):
                with suppress(OSError):
                    path.rmdir()


def _check_creation(folder: Folder) -> Iterator[Check]:
    if not folder.create("probe", b"first"):
        yield Check(
            "staging", Status.PROBLEM, "A new file could not be created: the store says that it exists already."
        )
        return
    if folder.create("probe", b"second") or folder.read("probe") != b"first":
        message = "The store replaced a file that must be created only once: it ignores the exclusive mode."
        yield Check("exclusive create", Status.PROBLEM, message, _EXCLUSIVE_FIX)
        return
    with ThreadPoolExecutor(_RACERS) as pool:
        wins = sum(pool.map(lambda racer: folder.create("race", str(racer).encode()), range(_RACERS)))
    if wins != 1:
        message = (
            f"{_RACERS} workers created the same file at the same time, and {wins} of them succeeded instead of one."
        )
        yield Check("exclusive create", Status.PROBLEM, message, _EXCLUSIVE_FIX)
        return
    yield Check("exclusive create", Status.OK, "Of several workers that create the same file, exactly one succeeds.")
    if folder.names("") != ["probe", "race"]:
        message = "The listing of a folder does not show its new files."
        yield Check("staging", Status.PROBLEM, message, "Use a store whose listings are consistent, such as S3.")
    try:
        remove_folder(folder)
    except StagingError as error:
        fix = "Jobs run nevertheless, but `airflow-batch jobs clean` cannot remove them. Allow workers to delete."
        yield Check("staging", Status.WARNING, str(error), fix)


def _check_space(root: str) -> Iterator[Check]:
    paths = {"temporary folder": Path(tempfile.gettempdir())}
    if is_local(root):
        paths["staging"] = _path_of(root)
    for name, path in paths.items():
        existing = next(folder for folder in (path, *path.parents) if folder.exists())
        free = shutil.disk_usage(existing).free
        if free >= _WARNING_BYTES:
            yield Check("disk", Status.OK, f"{free / 1e9:,.1f} GB are free for {name} ({existing}).")
            continue
        status = Status.PROBLEM if free < _PROBLEM_BYTES else Status.WARNING
        message = f"Only {free / 1e6:,.0f} MB are free for {name} ({existing}). A full input file has 200 MB."
        yield Check("disk", status, message, "Free some space, or move it: [openai_batch] staging, or TMPDIR.")


def _path_of(root: str) -> Path:
    folder = open_folder(root)
    assert isinstance(folder, LocalFolder)
    return folder.path
