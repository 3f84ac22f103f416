"""The folder of a job is found from its submit task, and an edited XCom opens nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from uuid import uuid4

import msgspec
import pytest
from sqlalchemy import update

from airflow_provider_batch.core.ledger.job import JobKey
from airflow_provider_batch.links.batch import LEDGER_KEY, REPORT_KEY
from airflow_provider_batch.plugins.lookup import find_job, load_report
from airflow_provider_batch.staging.layout import job_folder
from tests.plugins.ledgers import seal_job
from tests.plugins.rows import Run, Task, add_runs


@pytest.fixture
def key(airflow_home: Path) -> JobKey:
    return JobKey(f"lookup_{uuid4().hex[:8]}", "submit", "manual__2026-11-20T10:00:00+00:00", 3)


def add_tasks(key: JobKey, address: Any, **others: Any) -> None:
    """Add the run of a job, whose submit task and others pushed these addresses."""
    submit = Task(key.task_id, xcoms={LEDGER_KEY: address}, map_index=key.map_index)
    tasks = [Task(task_id, xcoms={LEDGER_KEY: value}, map_index=key.map_index) for task_id, value in others.items()]
    add_runs([Run(key.dag_id, key.run_id, [submit, *tasks])])


def test_every_task_of_a_job_leads_to_it(key: JobKey, staging: str) -> None:
    address = seal_job(staging, key).folder.uri
    add_tasks(key, address, wait=address, land=address)
    for task_id in ("submit", "wait", "land"):
        ledger = find_job(msgspec.structs.replace(key, task_id=task_id))
        assert ledger is not None
        assert ledger.manifest.key == key
    assert find_job(msgspec.structs.replace(key, task_id="other")) is None
    assert find_job(msgspec.structs.replace(key, map_index=4)) is None


def test_an_address_that_was_edited_in_the_ui_without_changing_it_still_leads_to_the_job(
    key: JobKey, staging: str
) -> None:
    address = seal_job(staging, key).folder.uri
    add_tasks(key, f'"{address}"')  # Airflow's UI stores the JSON text of a value
    assert find_job(key) is not None


def test_a_job_that_is_not_sealed_is_not_found(key: JobKey, staging: str) -> None:
    add_tasks(key, job_folder(staging, key).uri)
    assert find_job(key) is None


def test_a_job_below_another_root_is_found_only_if_the_configuration_names_the_root(
    key: JobKey, staging: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "other"
    add_tasks(key, seal_job(root.as_uri(), key).folder.uri)
    assert find_job(key) is None
    monkeypatch.setenv("AIRFLOW__OPENAI_BATCH__PAGE_STAGING", f"/srv/unused, {root}")
    assert find_job(key) is not None


def test_the_address_of_another_job_opens_nothing(key: JobKey, staging: str) -> None:
    neighbour = msgspec.structs.replace(key, map_index=4)
    add_tasks(key, seal_job(staging, neighbour).folder.uri)
    seal_job(staging, key)
    assert find_job(key) is None


@pytest.mark.parametrize(
    "address",
    [
        None,
        7,
        1e999,
        [],
        {"ledger": "/"},
        {"__classname__": "os.system", "__version__": 1, "__data__": "true"},
        '{"__classname__": "os.system", "__version__": 1, "__data__": "true"}',
        "",
        "/",
        "\0",
        "\ud800",
        "[" * 100_000,
        "1" * 5_000,
        "file:///etc/passwd",
        "file:///proc/self/fd/0",
        "s3://nowhere/batch",
        "nowhere://folder",
        "memory://a\0b",
        "https://[::1",
    ],
)
def test_an_edited_xcom_opens_nothing(key: JobKey, staging: str, address: Any) -> None:
    from airflow.models.xcom import XComModel
    from airflow.utils.session import create_session

    seal_job(staging, key)
    add_tasks(key, "", report="")
    with create_session() as session:
        session.execute(update(XComModel).where(XComModel.dag_id == key.dag_id).values(value=address))
        report = XComModel.task_id == "report"
        session.execute(update(XComModel).where(XComModel.dag_id == key.dag_id, report).values(key=REPORT_KEY))
    assert find_job(key) is None
    assert load_report(msgspec.structs.replace(key, task_id="report")) is None
