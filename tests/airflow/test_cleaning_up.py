"""Removal of files that are no longer needed: at the provider, and in staging after the retention."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_batch.cli import main
from airflow_provider_batch.local.faults import Call, Fault, Kind
from airflow_provider_batch.local.process import LocalServer
from tests.airflow.clearing import ClearedJob
from tests.airflow.jobs import Ticket, client_of, query, run_job


@pytest.fixture
def tickets() -> list[Ticket]:
    return [(f"T-{n}", f"Ticket {n}", f"text {n}", "bug") for n in range(1, 4)]


def files(server: LocalServer) -> int:
    return len(list(client_of(server).files.list()))


def test_files_at_the_provider_are_kept_by_default(warehouse: Path, server: LocalServer) -> None:
    run_job(limits={"requests": 2})
    assert files(server) == 4


def test_after_collect_deletes_the_files_at_the_provider(warehouse: Path, server: LocalServer) -> None:
    job = ClearedJob()
    first = job.run(limits={"requests": 2}, delete_remote_files="after_collect")
    assert first.state == "success"
    assert files(server) == 0

    second = job.clear("land")
    assert second.state == "success"
    assert query(warehouse, "SELECT count(*) FROM answers WHERE outcome = 'succeeded'") == [(3,)]


def test_a_file_that_cannot_be_deleted_does_not_fail_the_landing_and_the_next_one_tries_again(
    warehouse: Path, server: LocalServer, capfd: pytest.CaptureFixture[str]
) -> None:
    server.set_faults(Fault(kind=Kind.STATUS, calls=frozenset({Call.DELETE}), status=403))
    job = ClearedJob()
    first = job.run(delete_remote_files="after_collect")
    assert first.state == "success"
    assert files(server) == 2
    assert "Some files were not deleted at the provider. Clear this task to try again." in capfd.readouterr().out

    server.set_faults()
    job.clear("land")
    assert files(server) == 0


def test_the_retention_of_a_job_takes_precedence_over_the_config(
    warehouse: Path, server: LocalServer, capsys: pytest.CaptureFixture[str]
) -> None:
    kept_uid = run_job().return_values["submit"]["job_uid"]
    removed_uid = run_job(retention=timedelta(0)).return_values["submit"]["job_uid"]
    capsys.readouterr()

    assert main.main(["jobs", "clean"]) == 0
    text = capsys.readouterr().out
    assert f"kept  {kept_uid[:8]}" in text
    assert f"removed  {removed_uid[:8]}" in text


@pytest.mark.parametrize("options", [{"retention": 30}, {"delete_remote_files": "always"}])
def test_invalid_options_are_rejected_when_the_dag_is_parsed(airflow_home: Path, options: dict[str, Any]) -> None:
    from airflow_provider_batch.exceptions import InputError

    with pytest.raises(InputError, match=next(iter(options))):
        run_job(**options)
