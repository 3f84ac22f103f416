"""What one run of a DAG teaches the next: files that fit the provider's queue, and an honest range of the price."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_batch.cli import main
from airflow_provider_batch.local.process import LocalServer
from tests.airflow.clearing import ClearedJob
from tests.airflow.jobs import Ticket, run_job

ROWS = 24


@pytest.fixture
def tickets() -> list[Ticket]:
    return [(f"T-{n}", f"Ticket {n}", "The invoice is wrong", "billing") for n in range(ROWS)]


@pytest.fixture
def room(warehouse: Path, connect: Callable[..., None], tmp_path: Path) -> Any:
    """The tokens of a queue that has room for less than half of the job."""
    room = int(run_job(preview=True).return_values["submit"]["estimate"]["input_tokens"] * 0.4)
    with LocalServer(tmp_path / "full", in_progress=0, enqueued_token_limit=room) as full:
        connect("openai_default", conn_type="openai", password="local", host=full.base_url)
        yield room


def said(capsys: pytest.CaptureFixture[str]) -> str:
    return "\n".join(line for line in capsys.readouterr().out.splitlines() if "Learned: " in line)


def test_the_next_job_is_cut_into_files_that_fit_the_limit_that_this_one_was_told(
    room: int, capsys: pytest.CaptureFixture[str]
) -> None:
    job = ClearedJob()
    first = job.run()
    assert first.return_values["submit"]["shards"] == 1
    assert first.return_values["wait"]["retry_rounds"] > 0
    assert f"gpt-5-mini may have {room:,} enqueued tokens at connection openai_default" in said(capsys)

    second = ClearedJob().run()

    assert second.return_values["submit"]["shards"] > 2
    assert second.return_values["wait"]["retry_rounds"] == 0
    assert second.return_values["land"]["outcomes"] == {"succeeded": ROWS}
    assert f"the provider limits model gpt-5-mini to {room:,} enqueued tokens" in said(capsys)
    # what the jobs learned lies beside them and is none
    assert main.main(["jobs", "show", "--json"]) == 0
    assert capsys.readouterr().out.count('"job_uid"') == 2


@pytest.mark.parametrize("stated", ["argument", "connection", "connection without a limit"])
def test_a_limit_that_a_person_states_comes_before_a_learned_one(
    room: int, connect: Callable[..., None], capsys: pytest.CaptureFixture[str], stated: str
) -> None:
    ClearedJob().run()
    capsys.readouterr()
    of_all = None if "without" in stated else 1_000_000
    if stated != "argument":
        connect("openai_default", conn_type="openai", password="k", extra={"batch_limits": {"tokens": of_all}})

    result = run_job(preview=True, limits={"tokens": of_all} if stated == "argument" else {})

    assert result.return_values["submit"]["shards"] == 1
    assert "enqueued tokens" not in said(capsys)


def test_the_answers_of_earlier_jobs_of_the_task_narrow_the_estimate_and_not_the_budget(
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
    assert f"is based on {ROWS} answers from earlier jobs of this task" in said(capsys)
    assert ClearedJob().run().return_values["submit"]["estimate"]["earlier_answers"] == 0


def test_a_memory_that_cannot_be_kept_or_read_fails_nothing(
    warehouse: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "staging").mkdir()
    (tmp_path / "staging" / ".learned").write_text("a file where the folder should be")

    result = ClearedJob().run()

    assert result.state == "success"
    out = capsys.readouterr().out
    assert "Could not read what earlier jobs learned; this job continues without it: Staging: cannot list" in out
    assert "Could not save what this job learned for the next one: Staging: cannot write" in out
