"""A retry of submit on a machine that does not have the disk of the earlier attempt."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from airflow.triggers.base import BaseTrigger

from tests.airflow.jobs import run_dag, submit_arguments

pytestmark = pytest.mark.usefixtures("warehouse")


def run_twice(lose_disk: Callable[[], object], **changes: Any) -> Any:
    """Run submit twice in one task instance, as a retry does. In between, the disk is lost."""
    from airflow.sdk import DAG

    from airflow_provider_batch.operators.batch import BatchSubmitOperator

    class SubmitTwice(BatchSubmitOperator):
        def execute(self, context: Any) -> Any:
            super().execute(context)
            lose_disk()
            return super().execute(context)

    with DAG("unshared_disk", schedule=None) as dag:
        SubmitTwice(**submit_arguments(**changes))
    return run_dag(dag)


@pytest.mark.skipif(not hasattr(BaseTrigger, "on_kill"), reason="needs the task state store of Airflow 3.3")
def test_nothing_is_uploaded_if_an_earlier_attempt_sealed_the_job_elsewhere(
    tmp_path: Path, count_calls: Callable[[], dict[str, int]]
) -> None:
    calls_of_the_first_attempt: list[dict[str, int]] = []

    def lose_disk() -> None:
        calls_of_the_first_attempt.append(count_calls())
        shutil.rmtree(tmp_path / "staging")

    result = run_twice(lose_disk, staging=str(tmp_path / "staging"))

    assert "there is no job in" in result.error()
    assert "Nothing was uploaded" in result.error()
    assert calls_of_the_first_attempt[0]["create"] == 1
    assert count_calls()["create"] == 0


def test_a_retry_on_the_same_disk_continues(tmp_path: Path, count_calls: Callable[[], dict[str, int]]) -> None:
    assert run_twice(lambda: None, staging=str(tmp_path / "staging")).state == "success"
    assert count_calls()["create"] == 1


def test_every_row_is_sent_again_if_a_person_wants_it(
    tmp_path: Path, count_calls: Callable[[], dict[str, int]]
) -> None:
    result = run_twice(lambda: shutil.rmtree(tmp_path / "staging"), staging=str(tmp_path / "staging"), resubmit=True)

    assert result.state == "success"
    assert count_calls()["create"] == 2
