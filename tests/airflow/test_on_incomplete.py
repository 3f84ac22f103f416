"""Answers that were cut off at the output cap: kept, or retried with a higher cap."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.airflow.jobs import make_tickets, query, run_job

#: output cap of the first attempt, in tokens; the local server's answer needs more, but at most four times as much
FIRST_CAP = 20


@pytest.fixture
def path(tmp_path: Path, connect: Callable[..., None]) -> Path:
    path = tmp_path / "warehouse.sqlite"
    make_tickets(path, [("short", "a", "b", "x"), ("long", "many words " * 8, "[[cutoff]]", "x")])
    connect("warehouse", conn_type="sqlite", host=str(path))
    return path


def sent_caps(path: Path) -> list[list[int]]:
    """Return the cap of each request in each input file in staging, in the order of the attempts."""
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
def test_by_default_an_answer_that_was_cut_off_lands_unchanged(path: Path) -> None:
    result = run_job(sql="SELECT * FROM tickets WHERE id = 'short'", max_output_tokens=FIRST_CAP, wait=wait())

    assert result.state == "success"
    assert query(path, "SELECT outcome, error_code, attempt, output_tokens FROM answers") == [
        ("incomplete", "length", 1, FIRST_CAP)
    ]
    assert sent_caps(path) == [[FIRST_CAP]]


@pytest.mark.usefixtures("offline")
def test_with_raise_cap_the_cap_doubles_with_each_attempt_until_the_answer_is_complete(path: Path) -> None:
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
    # the answers that were cut off took all of their cap
    tokens_before = sum(FIRST_CAP * 2**doublings for doublings in range(attempt - 1))
    assert FIRST_CAP < tokens - tokens_before <= FIRST_CAP * 2 ** (attempt - 1)
    assert sent_caps(path) == [[FIRST_CAP * 2**doublings] for doublings in range(attempt)]
    # The hash is that of the original request, so the same row has the same hash in the next job.
    run_job(
        sql="SELECT * FROM tickets WHERE id = 'short'",
        max_output_tokens=FIRST_CAP,
        wait=wait(),
        land={"table": "next_answers"},
    )
    assert query(path, "SELECT request_sha256 FROM next_answers") == [(digest,)]


@pytest.mark.usefixtures("offline")
def test_the_cap_is_raised_at_most_until_max_attempts_and_the_best_answer_lands(path: Path) -> None:
    # [[cutoff]] in a prompt cuts its answer off regardless of the cap.
    result = run_job(max_output_tokens=1_000, wait=wait(on_incomplete="raise_cap", max_attempts=2))

    assert query(path, "SELECT custom_id, outcome, attempt FROM answers ORDER BY 1") == [
        ("long", "incomplete", 2),
        ("short", "succeeded", 1),
    ]
    assert sent_caps(path) == [[1_000, 1_000], [2_000]]
    assert result.return_values["land"]["retried"] == 1


@pytest.mark.usefixtures("offline")
def test_a_row_whose_request_has_no_cap_is_not_retried(path: Path) -> None:
    result = run_job(wait=wait(on_incomplete="raise_cap"))

    assert result.state == "success"
    assert query(path, "SELECT custom_id, outcome, attempt FROM answers ORDER BY 1") == [
        ("long", "incomplete", 1),
        ("short", "succeeded", 1),
    ]
    assert sent_caps(path) == [[None, None]]


@pytest.mark.usefixtures("airflow_home")
def test_an_invalid_value_is_refused_while_the_dag_is_parsed() -> None:
    from airflow_provider_batch.exceptions import InputError
    from airflow_provider_batch.sensors.batch import BatchSensor

    with pytest.raises(InputError, match="on_incomplete: Expected 'keep' or 'raise_cap', got 'raise'"):
        BatchSensor(task_id="wait", job={}, on_incomplete="raise")
