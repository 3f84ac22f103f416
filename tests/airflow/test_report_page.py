"""The report of a task, found again from its task instance alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from tests.airflow.jobs import DagRunResult, run_dag
from tests.airflow.test_page import run_of
from tests.evals.nights import steady, write_nights


@pytest.fixture
def reported(
    tmp_path: Path, airflow_home: Path, connect: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., DagRunResult]:
    """Runs a DAG that reports on graded nights."""
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


def leave(value: object) -> None:
    """Let XCom of the newest report task say something else."""
    from airflow.models.xcom import XComModel
    from airflow.utils.session import create_session
    from sqlalchemy import update

    from airflow_provider_batch.links.batch import REPORT_KEY

    dag_id, run_id = run_of("report")
    of_run = (XComModel.dag_id == dag_id) & (XComModel.run_id == run_id) & (XComModel.key == REPORT_KEY)
    with create_session() as session:
        session.execute(update(XComModel).where(of_run).values(value=value))


def test_it_lies_in_the_task_s_own_folder_of_staging(reported: Callable[..., DagRunResult], tmp_path: Path) -> None:
    from airflow_provider_batch.plugins.lookup import load_report

    result = reported()

    (file,) = (tmp_path / "staging").rglob("*.html")
    assert result.return_values["report"]["report"] == file.as_uri()
    assert result.return_values["report"]["bytes"] == file.stat().st_size
    assert load_report(*run_of("report"), "report", -1) == file.read_bytes()
    assert load_report(*run_of("report"), "other", -1) is None
    assert load_report(run_of("report")[0], "another run", "report", -1) is None


@pytest.mark.parametrize(
    "name",
    ["../../../secret.html", "/etc/passwd", "secret.html", "report-0123456789abcdef.html/../secret.html", 7, None],
)
def test_nothing_that_xcom_says_leads_out_of_that_folder(
    reported: Callable[..., DagRunResult], tmp_path: Path, name: object
) -> None:
    from airflow_provider_batch.plugins.lookup import load_report

    reported()
    (file,) = (tmp_path / "staging").rglob("*.html")
    (file.parent / "secret.html").write_bytes(b"secret")
    (file.parent / "report-0123456789abcdef.html").mkdir()
    (tmp_path / "staging" / "secret.html").write_bytes(b"secret")
    leave(name)

    assert load_report(*run_of("report"), "report", -1) is None


def test_a_run_that_was_not_graded_fails_in_plain_words(reported: Callable[..., DagRunResult]) -> None:
    error = reported("nowhere").error("report")

    assert "run 'nowhere' has not been graded" in error


def test_jobs_in_staging_are_listed_without_the_reports(reported: Callable[..., Any], tmp_path: Path) -> None:
    from airflow_provider_batch.cli.jobs.find import all_jobs

    reported()

    assert list(all_jobs((tmp_path / "staging").as_uri())) == []
