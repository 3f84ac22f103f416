"""Answers that were cut off at the output cap: kept, or asked again with a higher one."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.airflow.jobs import make_tickets, query, run_job

#: of a made-up answer to a ticket; it needs more than the first, and no more than four times as much
FIRST_CAP = 20


@pytest.fixture
def path(tmp_path: Path, connect: Callable[..., None]) -> Path:
    path = tmp_path / "warehouse.sqlite"
    make_tickets(path, [("short", "a", "b", "x"), ("long", "many words " * 8, "[[cutoff]]", "x")])
    connect("warehouse", conn_type="sqlite", host=str(path))
    return path


def asked(path: Path) -> list[list[int]]:
    """The cap of each request of each input file, as it lies in staging: those of the later attempts last."""
    files = sorted((path.parent / "staging").rglob("*.jsonl"), key=lambda file: file.stat().st_mtime_ns)
    caps = []
    for file in files:
        lines = [json.loads(line) for line in file.read_text("utf-8").splitlines()]
        if lines and "body" in lines[0]:
            caps.append([line["body"].get("max_completion_tokens") for line in lines])
    return caps


def wait(**arguments: Any) -> dict[str, Any]:
    return {"row_retry_delay": timedelta(0), "max_attempts": 3} | arguments


@pytest.mark.usefixtures("offline")
def test_by_default_what_was_cut_off_lands_as_it_is(path: Path) -> None:
    result = run_job(sql="SELECT * FROM tickets WHERE id = 'short'", max_output_tokens=FIRST_CAP, wait=wait())

    assert result.state == "success"
    assert query(path, "SELECT outcome, error_code, attempt, output_tokens FROM answers") == [
        ("incomplete", "length", 1, FIRST_CAP)
    ]
    assert asked(path) == [[FIRST_CAP]]


@pytest.mark.usefixtures("offline")
def test_asked_again_each_time_with_twice_the_cap_until_it_is_whole(path: Path) -> None:
    run_job(
        sql="SELECT * FROM tickets WHERE id = 'short'",
        max_output_tokens=FIRST_CAP,
        wait=wait(on_incomplete="raise_cap"),
    )

    ((outcome, attempt, tokens, digest),) = query(
        path, "SELECT outcome, attempt, output_tokens, request_sha256 FROM answers"
    )
    assert outcome == "succeeded"
    assert attempt > 1
    assert FIRST_CAP < tokens <= FIRST_CAP * 2 ** (attempt - 1)
    assert asked(path) == [[FIRST_CAP * 2**times] for times in range(attempt)]
    # The request is still the one that was asked first: the same row has the same hash in the next job.
    run_job(
        sql="SELECT * FROM tickets WHERE id = 'short'",
        max_output_tokens=FIRST_CAP,
        wait=wait(),
        land={"table": "kept"},
    )
    assert query(path, "SELECT request_sha256 FROM kept") == [(digest,)]


@pytest.mark.usefixtures("offline")
def test_no_more_often_than_max_attempts_and_the_best_answer_lands(path: Path) -> None:
    # [[cutoff]] in a prompt cuts its answer off whatever the cap.
    result = run_job(max_output_tokens=1_000, wait=wait(on_incomplete="raise_cap", max_attempts=2))

    assert query(path, "SELECT custom_id, outcome, attempt FROM answers ORDER BY 1") == [
        ("long", "incomplete", 2),
        ("short", "succeeded", 1),
    ]
    assert asked(path) == [[1_000, 1_000], [2_000]]
    assert result.return_values["land"]["retried"] == 1


@pytest.mark.usefixtures("offline")
def test_a_row_whose_request_states_no_cap_is_not_asked_again(path: Path) -> None:
    result = run_job(wait=wait(on_incomplete="raise_cap"))

    assert result.state == "success"
    assert query(path, "SELECT custom_id, outcome, attempt FROM answers ORDER BY 1") == [
        ("long", "incomplete", 1),
        ("short", "succeeded", 1),
    ]
    assert asked(path) == [[None, None]]


@pytest.mark.usefixtures("airflow_home")
def test_a_word_that_is_none_is_refused_while_the_dag_is_parsed() -> None:
    from airflow_provider_batch.exceptions import InputError
    from airflow_provider_batch.sensors.batch import BatchSensor

    with pytest.raises(InputError, match="on_incomplete: Expected keep or raise_cap, got 'raise'"):
        BatchSensor(task_id="wait", job={}, on_incomplete="raise")
