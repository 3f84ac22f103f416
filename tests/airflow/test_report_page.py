"""The lookup of a report from the task instance that wrote it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import msgspec
import pytest

from tests.airflow.jobs import DagRunResult, run_dag
from tests.airflow.test_page import key_of, run_of
from tests.evals.nights import steady, write_nights


@pytest.fixture
def run_report(
    tmp_path: Path, airflow_home: Path, connect: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., DagRunResult]:
    """Run a DAG that reports on graded nights."""
    path = tmp_path / "warehouse.sqlite"
    connect("warehouse", conn_type="sqlite", host=str(path))
    monkeypatch.setenv("AIRFLOW__OPENAI_BATCH__STAGING", (tmp_path / "staging").as_uri())
    runs = write_nights(path, {"gpt-5-mini": steady(0.8)})

    def run(run: str = runs[-1]) -> DagRunResult:
        from airflow.sdk import DAG

        from airflow_provider_batch.operators.evals.report import EvalReportOperator

        with DAG(f"evals_{uuid4().hex[:8]}", schedule=None) as dag:
            EvalReportOperator(task_id="report", run=run)
        return run_dag(dag)

    return run


def overwrite_xcom(value: object) -> None:
    """Overwrite the file name that the newest report task pushed to XCom."""
    from airflow.models.xcom import XComModel
    from airflow.utils.session import create_session
    from sqlalchemy import update

    from airflow_provider_batch.links.batch import REPORT_KEY

    dag_id, run_id = run_of("report")
    report_of_run = (XComModel.dag_id == dag_id) & (XComModel.run_id == run_id) & (XComModel.key == REPORT_KEY)
    with create_session() as session:
        session.execute(update(XComModel).where(report_of_run).values(value=value))


def test_a_report_is_found_only_for_the_task_instance_that_wrote_it(
    run_report: Callable[..., DagRunResult], tmp_path: Path
) -> None:
    from airflow_provider_batch.plugins.lookup import load_report

    result = run_report()

    (file,) = (tmp_path / "staging").rglob("*.html")
    assert result.return_values["report"]["report"] == file.as_uri()
    assert result.return_values["report"]["bytes"] == file.stat().st_size
    assert load_report(key_of("report")) == file.read_bytes()
    assert load_report(msgspec.structs.replace(key_of("report"), task_id="other")) is None
    assert load_report(msgspec.structs.replace(key_of("report"), run_id="another run")) is None


@pytest.mark.parametrize(
    "name",
    ["../../../secret.html", "/etc/passwd", "secret.html", "report-0123456789abcdef.html/../secret.html", 7, None],
)
def test_an_xcom_value_cannot_lead_to_another_file(
    run_report: Callable[..., DagRunResult], tmp_path: Path, name: object
) -> None:
    from airflow_provider_batch.plugins.lookup import load_report

    run_report()
    (file,) = (tmp_path / "staging").rglob("*.html")
    (file.parent / "secret.html").write_bytes(b"secret")
    (file.parent / "report-0123456789abcdef.html").mkdir()
    (tmp_path / "staging" / "secret.html").write_bytes(b"secret")
    overwrite_xcom(name)

    assert load_report(key_of("report")) is None


def test_reporting_on_a_run_that_was_not_graded_fails_with_a_clear_message(
    run_report: Callable[..., DagRunResult],
) -> None:
    error = run_report("nowhere").error("report")

    assert "run 'nowhere' has not been graded" in error


def test_reports_in_staging_are_not_listed_as_jobs(run_report: Callable[..., Any], tmp_path: Path) -> None:
    from airflow_provider_batch.cli.jobs.find import all_jobs

    run_report()

    assert list(all_jobs((tmp_path / "staging").as_uri())) == []
