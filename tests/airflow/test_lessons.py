"""Lessons from a DAG run for the next one: shards that fit the provider's queue, and a better cost estimate."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_batch.cli import main
from airflow_provider_batch.local.faults import Fault, Kind
from airflow_provider_batch.local.process import LocalServer
from tests.airflow.clearing import ClearedJob
from tests.airflow.jobs import Ticket, run_job

ROWS = 24


@pytest.fixture
def tickets() -> list[Ticket]:
    return [(f"T-{n}", f"Ticket {n}", "The invoice is wrong", "billing") for n in range(ROWS)]


@pytest.fixture
def queue_capacity(warehouse: Path, connect: Callable[..., None], tmp_path: Path) -> Any:
    """Start a server whose queue holds less than half of the job. The value is its capacity in tokens."""
    capacity = int(run_job(preview=True).return_values["submit"]["estimate"]["input_tokens"] * 0.4)
    with LocalServer(tmp_path / "full", in_progress=0, enqueued_token_limit=capacity) as server:
        connect("openai_default", conn_type="openai", password="local", host=server.base_url)
        yield capacity


def learned_lines(capsys: pytest.CaptureFixture[str]) -> str:
    return "\n".join(line for line in capsys.readouterr().out.splitlines() if "Learned: " in line)


def test_the_shards_of_the_next_job_fit_the_limit_that_the_provider_reported_to_this_one(
    queue_capacity: int, capsys: pytest.CaptureFixture[str]
) -> None:
    job = ClearedJob()
    first = job.run()
    assert first.return_values["submit"]["shards"] == 1
    assert first.return_values["wait"]["retry_rounds"] > 0
    assert f"gpt-5-mini may have {queue_capacity:,} enqueued tokens at connection openai_default" in learned_lines(
        capsys
    )

    second = ClearedJob().run()

    assert second.return_values["submit"]["shards"] > 2
    assert second.return_values["wait"]["retry_rounds"] == 0
    assert second.return_values["land"]["outcomes"] == {"succeeded": ROWS}
    assert f"the provider limits model gpt-5-mini to {queue_capacity:,} enqueued tokens" in learned_lines(capsys)
    # The lessons are stored next to the jobs but are not listed as a job.
    assert main.main(["jobs", "list", "--json"]) == 0
    assert capsys.readouterr().out.count('"job_uid"') == 2


@pytest.mark.parametrize("source", ["argument", "connection", "connection without a limit"])
def test_a_configured_limit_takes_precedence_over_a_learned_one(
    queue_capacity: int, connect: Callable[..., None], capsys: pytest.CaptureFixture[str], source: str
) -> None:
    ClearedJob().run()
    capsys.readouterr()
    token_limit = None if "without" in source else 1_000_000
    if source != "argument":
        connect("openai_default", conn_type="openai", password="k", extra={"batch_limits": {"tokens": token_limit}})

    result = run_job(preview=True, limits={"tokens": token_limit} if source == "argument" else {})

    assert result.return_values["submit"]["shards"] == 1
    assert "enqueued tokens" not in learned_lines(capsys)


def test_answers_from_earlier_jobs_of_the_task_narrow_the_estimate_but_do_not_affect_the_budget(
    warehouse: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    job = ClearedJob()
    first = job.run().return_values["submit"]["estimate"]
    assert first["earlier_answers"] == 0
    capsys.readouterr()

    second = job.run(max_cost_usd=first["low_usd"] * 1.01)

    estimate = second.return_values["submit"]["estimate"]
    assert estimate["earlier_answers"] == ROWS
    assert estimate["output_tokens_high"] - estimate["output_tokens_low"] < (
        first["output_tokens_high"] - first["output_tokens_low"]
    )
    assert estimate["high_usd"] < first["high_usd"]
    assert estimate["low_usd"] > first["low_usd"] * 1.01
    assert second.states["submit"] == "success"
    assert f"is based on {ROWS} answers from earlier jobs of this task" in learned_lines(capsys)
    assert ClearedJob().run().return_values["submit"]["estimate"]["earlier_answers"] == 0


def test_lessons_that_cannot_be_saved_or_loaded_do_not_fail_the_job(
    warehouse: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "staging").mkdir()
    (tmp_path / "staging" / ".learned").write_text("a file where the folder should be")

    result = ClearedJob().run()

    assert result.state == "success"
    log = capsys.readouterr().out
    assert "Could not read what earlier jobs learned; this job continues without it: Staging: cannot list" in log
    assert "Could not save what this job learned for the next one: Staging: cannot write" in log


def test_the_input_tokens_that_earlier_jobs_reported_correct_the_estimate_of_the_next_one(
    warehouse: Path, faulty_server: LocalServer, capsys: pytest.CaptureFixture[str]
) -> None:
    faulty_server.set_faults(Fault(kind=Kind.LINE_FIELD, path="response.body.usage.prompt_tokens", json="5000"))
    job = ClearedJob()
    first = job.run().return_values["submit"]["estimate"]
    assert first["input_tokens"] < 100 * ROWS
    capsys.readouterr()

    second = job.run(max_cost_usd=first["low_usd"] * 1.01)

    estimate = second.return_values["submit"]["estimate"]
    assert estimate["input_tokens"] == pytest.approx(5_000 * ROWS, rel=0.02)
    assert estimate["low_usd"] > 10 * first["low_usd"]
    assert second.states["submit"] == "success"  # what earlier jobs learned refuses nothing
    assert "times the estimated input tokens with model gpt-5-mini, so the estimate is corrected" in learned_lines(
        capsys
    )
