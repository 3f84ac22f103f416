"""Checks of this machine and its Airflow: versions, plugin, triggerer, encoding."""

from __future__ import annotations

import locale
import os
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, requires, version

from airflow import plugins_manager
from airflow.jobs.job import Job
from airflow.providers.common.compat.sdk import conf
from airflow.utils.session import create_session
from packaging.requirements import Requirement
from sqlalchemy import select

from airflow_provider_batch.cli.doctor.check import Check, Status
from airflow_provider_batch.core.formatting import format_age
from airflow_provider_batch.plugins.batch import BatchPlugin

PACKAGE = "airflow-provider-batch"
_NO_DATABASE_FIX = (
    "Run `airflow jobs check --job-type TriggererJob` where the scheduler runs, or look at the health of the "
    "triggerer on Airflow's home page."
)


def check_installation() -> Iterator[Check]:
    """Check the versions of the packages, the plugin, and the encoding of this process."""
    yield from _check_versions()
    yield _plugin_check()
    yield _encoding_check()


def _check_versions() -> Iterator[Check]:
    versions, mismatches = [], []
    for text in requires(PACKAGE) or []:
        requirement = Requirement(text)
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        try:
            installed = version(requirement.name)
        except PackageNotFoundError:
            mismatches.append(f"{requirement.name} is not installed")
            continue
        if not requirement.specifier.contains(installed, prereleases=True):
            mismatches.append(f"{requirement.name} is {installed}, but {requirement.specifier} is required")
        if requirement.name in ("apache-airflow", "apache-airflow-providers-openai", "openai"):
            versions.append(f"{requirement.name} {installed}")
    python = f"Python {sys.version_info.major}.{sys.version_info.minor}"
    if mismatches:
        fix = f"Install matching versions: pip install --upgrade {PACKAGE}, with Airflow's constraints."
        yield Check("versions", Status.PROBLEM, f"{'; '.join(mismatches)}.", fix)
    else:
        yield Check("versions", Status.OK, f"{PACKAGE} {version(PACKAGE)}, {', '.join(versions)}, {python}.")


def _plugin_check() -> Check:
    try:
        errors = plugins_manager.get_import_errors()
        names = {str(plugin["name"]) for plugin in plugins_manager.get_plugin_info(["name"])}
    except Exception as error:  # noqa: BLE001 - any plugin of the installation may fail here
        message = f"The plugins of Airflow cannot be loaded here: {type(error).__name__}: {error}"
        return Check("plugin", Status.UNKNOWN, message, "Run `airflow plugins` on the API server.")
    for source, problem in errors.items():
        if "batch" in source:
            return Check("plugin", Status.PROBLEM, f"The plugin of the page LLM batch cannot be loaded: {problem}")
    if BatchPlugin.name in names:
        return Check("plugin", Status.OK, "The plugin with the page LLM batch is loaded.")
    fix = f"Install {PACKAGE} in the environment of the API server too, and restart it."
    return Check("plugin", Status.WARNING, "Airflow does not load the plugin with the page LLM batch.", fix)


def _encoding_check() -> Check:
    encodings = {
        "the file system": sys.getfilesystemencoding(),
        "the locale": locale.getpreferredencoding(False),
        "the output": getattr(sys.__stdout__, "encoding", None) or "utf-8",
    }
    others = [f"{name} has {encoding}" for name, encoding in encodings.items() if not _is_utf8(encoding)]
    if not others:
        return Check("encoding", Status.OK, "File system, locale and output have UTF-8.")
    message = f"The encoding of this process is not UTF-8 everywhere: {', '.join(others)}."
    return Check("encoding", Status.WARNING, message, "Set LANG=C.UTF-8 or PYTHONUTF8=1 for Airflow's processes.")


def _is_utf8(encoding: str) -> bool:
    return encoding.lower().replace("-", "").replace("_", "") == "utf8"


def check_triggerer() -> Iterator[Check]:
    """Check in Airflow's database whether a triggerer runs. Waiting jobs need one."""
    url = conf.get("database", "sql_alchemy_conn", fallback="")
    if url.startswith("sqlite:///") and not os.path.exists(url.removeprefix("sqlite:///")):
        yield _unknown_triggerer("this Airflow has no database")
        return
    try:
        with create_session() as session:
            jobs = session.scalars(
                select(Job).where(Job.job_type == "TriggererJob").order_by(Job.latest_heartbeat.desc()).limit(20)
            ).all()
            alive = [job for job in jobs if job.is_alive()]
            heartbeat = jobs[0].latest_heartbeat if jobs else None
    except Exception as error:  # noqa: BLE001 - a worker may have neither a driver nor a database
        yield _unknown_triggerer(f"Airflow's database cannot be read here ({type(error).__name__})")
        return
    if alive:
        number = "A triggerer runs" if len(alive) == 1 else f"{len(alive)} triggerers run"
        yield Check("triggerer", Status.OK, f"{number}.")
        return
    age = format_age(heartbeat, datetime.now(UTC)) if heartbeat else ""
    history = f"The last one was seen {age}." if age else "None has ever run."
    fix = "Start `airflow triggerer`. BatchSensor waits in it; without one, jobs stay deferred."
    yield Check("triggerer", Status.PROBLEM, f"No triggerer is running. {history}", fix)


def _unknown_triggerer(reason: str) -> Check:
    return Check("triggerer", Status.UNKNOWN, f"This cannot be checked from here: {reason}.", _NO_DATABASE_FIX)
