"""The final pass: at the deadline, rows without an answer are sent synchronously, within limits."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from airflow_provider_batch.exceptions import InputError, StoppedError
from airflow_provider_batch.local.faults import Call, Fault, Kind
from airflow_provider_batch.local.process import LocalServer
from tests.airflow.jobs import Ticket, query, run_job
from tests.airflow.test_runner import seal_job

pytestmark = pytest.mark.usefixtures("server")
SECOND = timedelta(seconds=1)
STUCK = Fault(kind=Kind.STUCK)


@pytest.fixture
def server(faulty_server: LocalServer) -> LocalServer:
    """Return a server whose batches never end on their own; the connection `openai_default` points to it."""
    faulty_server.set_faults(STUCK)
    return faulty_server


@pytest.fixture
def tickets() -> list[Ticket]:
    return [(f"T-{n}", f"Ticket {n} {uuid4()}", "The invoice is wrong", "billing") for n in range(1, 6)]


def final_pass_wait(**wait: Any) -> dict[str, Any]:
    """Return the arguments of a sensor with a final pass, whose deadline is in two seconds."""
    return {"deadline": 2 * SECOND, "poke_interval": 1, "at_deadline": "sync", **wait}


def stuck_and(*faults: Fault) -> tuple[Fault, ...]:
    """Return the fault of batches that never end, and these faults."""
    return (STUCK, *faults)


# A job in Airflow


def test_rows_without_an_answer_at_the_deadline_are_sent_and_land_at_the_standard_price(
    warehouse: Path, count_calls: Callable[[], dict[str, int]]
) -> None:
    result = run_job(wait=final_pass_wait(), carry=["label"])

    assert result.states == {"submit": "success", "wait": "success", "land": "success"}
    assert count_calls() == {"synchronous": 5, "upload": 1, "create": 1}
    assert result.return_values["wait"]["final_pass"] == {"sent": 5, "left_out": {}}
    assert result.return_values["wait"]["outcomes"] == {"succeeded": 5}
    land_result = result.return_values["land"]
    assert land_result["outcomes"] == {"succeeded": 5}
    rows = query(
        warehouse, "SELECT outcome, label, attempt, batch_id, input_tokens, output_tokens, cost_usd FROM answers"
    )
    for outcome, label, attempt, batch_id, input_tokens, output_tokens, cost in rows:
        assert (outcome, label, attempt, batch_id) == ("succeeded", "billing", 2, None)
        assert float(cost) == pytest.approx((input_tokens * 0.25 + output_tokens * 2) / 1e6)
    assert land_result["cost_usd"] == land_result["standard_cost_usd"]


def test_without_a_final_pass_nothing_is_sent_at_the_deadline(
    warehouse: Path, count_calls: Callable[[], dict[str, int]]
) -> None:
    result = run_job(wait=final_pass_wait(at_deadline="collect"))

    assert count_calls()["synchronous"] == 0
    assert result.return_values["land"]["outcomes"] == {"cancelled": 5}
    assert "final_pass" not in result.return_values["wait"]


def test_rows_answered_before_the_deadline_are_not_sent_again(
    warehouse: Path, server: LocalServer, count_calls: Callable[[], dict[str, int]]
) -> None:
    server.set_faults(Fault(kind=Kind.STUCK, skip=1))

    result = run_job(wait=final_pass_wait(deadline=4 * SECOND), limits={"requests": 3})

    assert count_calls() == {"synchronous": 2, "upload": 2, "create": 2}
    assert result.return_values["land"]["outcomes"] == {"succeeded": 5}
    assert query(warehouse, "SELECT count(*) FROM answers WHERE batch_id IS NULL") == [(2,)]


def test_rows_beyond_at_deadline_rows_are_left_out_and_reported(
    warehouse: Path, count_calls: Callable[[], dict[str, int]], capfd: pytest.CaptureFixture[str]
) -> None:
    result = run_job(wait=final_pass_wait(at_deadline_rows=3))

    assert count_calls()["synchronous"] == 3
    assert result.return_values["wait"]["final_pass"] == {"sent": 3, "left_out": {"at_deadline_rows": 2}}
    assert result.return_values["land"]["outcomes"] == {"succeeded": 3, "cancelled": 2}
    assert "2 rows were not sent because at_deadline_rows allows no more" in capfd.readouterr().out


def test_the_final_pass_stays_within_the_budget(warehouse: Path, count_calls: Callable[[], dict[str, int]]) -> None:
    # With its cap, a row costs up to $0.0001 in a batch and $0.0002 at the standard price, plus a little for its input.
    result = run_job(wait=final_pass_wait(), max_output_tokens=100, max_cost_usd=0.00065)

    assert count_calls()["synchronous"] == 3
    assert result.return_values["wait"]["final_pass"] == {"sent": 3, "left_out": {"max_cost_usd": 2}}
    # one row was sent first, because nothing showed what a row costs; the batch with the other rows was never created
    assert result.return_values["land"]["outcomes"] == {"succeeded": 3, "pending": 2}
    assert float(result.return_values["land"]["cost_usd"]) <= 0.00065


def test_what_was_spent_before_counts_towards_the_budget(
    warehouse: Path, server: LocalServer, count_calls: Callable[[], dict[str, int]]
) -> None:
    server.set_faults(Fault(kind=Kind.STUCK, skip=1))
    prices = {"gpt-5-mini": {"input": 1000, "output": 0}}
    low = run_job(preview=True, prices=prices).return_values["submit"]["estimate"]["low_usd"]

    result = run_job(
        wait=final_pass_wait(deadline=4 * SECOND), limits={"requests": 3}, prices=prices, max_cost_usd=low * 1.01
    )

    # A batch of one row was answered, and one of another row is stuck.
    left_out = result.return_values["wait"]["final_pass"]["left_out"]
    assert float(result.return_values["land"]["cost_usd"]) <= low * 1.01
    assert 1 <= count_calls()["synchronous"] == 4 - sum(left_out.values())


def test_the_final_pass_retries_a_request_that_was_rate_limited(
    warehouse: Path, server: LocalServer, count_calls: Callable[[], dict[str, int]]
) -> None:
    server.set_faults(
        *stuck_and(Fault(kind=Kind.STATUS, calls=frozenset({Call.SYNCHRONOUS}), status=429, times=3, retry_after=0.2))
    )

    result = run_job(wait=final_pass_wait())

    assert count_calls()["synchronous"] == 8
    assert result.return_values["land"]["outcomes"] == {"succeeded": 5}


@pytest.mark.parametrize(
    "fault",
    [
        Fault(kind=Kind.STATUS, calls=frozenset({Call.SYNCHRONOUS}), status=429, retry_after=3600),
        Fault(kind=Kind.STATUS, calls=frozenset({Call.SYNCHRONOUS}), status=500),
        Fault(kind=Kind.DROP, calls=frozenset({Call.SYNCHRONOUS})),
    ],
    ids=["429", "500", "dropped"],
)
def test_a_request_that_fails_in_the_final_pass_lands_as_failed_and_is_not_retried(
    warehouse: Path, server: LocalServer, count_calls: Callable[[], dict[str, int]], fault: Fault
) -> None:
    server.set_faults(*stuck_and(fault))

    result = run_job(wait=final_pass_wait())

    assert count_calls()["synchronous"] == 5
    assert result.states["wait"] == "success"
    assert result.return_values["land"]["outcomes"] == {"failed": 5}


def test_an_account_error_ends_the_final_pass_and_the_job_lands(
    warehouse: Path, server: LocalServer, count_calls: Callable[[], dict[str, int]]
) -> None:
    server.set_faults(
        *stuck_and(Fault(kind=Kind.STATUS, calls=frozenset({Call.SYNCHRONOUS}), status=429, code="insufficient_quota"))
    )
    numbers = "(SELECT 1 n UNION SELECT 2 UNION SELECT 3 UNION SELECT 4)"
    update(warehouse, f"INSERT INTO tickets SELECT id || 'b' || n, title || n, body, label FROM tickets, {numbers}")

    result = run_job(wait=final_pass_wait())

    assert count_calls()["synchronous"] == 16
    assert result.states["wait"] == "success"
    assert result.return_values["wait"]["final_pass"] == {"sent": 0, "left_out": {"unsent": 25}}
    assert result.return_values["land"]["outcomes"] == {"cancelled": 25}


@pytest.mark.parametrize("wait", [{"deferrable": False}, {"deferrable": False, "mode": "reschedule"}])
def test_the_final_pass_works_without_a_triggerer(warehouse: Path, wait: dict[str, Any]) -> None:
    assert run_job(wait=final_pass_wait(**wait)).return_values["land"]["outcomes"] == {"succeeded": 5}


@pytest.mark.parametrize(
    ("wait", "message"), [({"at_deadline": "async"}, "at_deadline"), ({"at_deadline_rows": 0}, "at_deadline_rows")]
)
def test_invalid_arguments_of_the_final_pass_are_rejected_when_the_dag_is_parsed(
    wait: dict[str, Any], message: str
) -> None:
    from airflow_provider_batch.sensors.batch import BatchSensor

    with pytest.raises(InputError, match=message):
        BatchSensor(task_id="wait", job={}, **wait)


# One worker after another


ROWS = 40


@pytest.fixture
def ledger(tmp_path: Path, server: LocalServer) -> Any:
    """Return the ledger of a sealed job of 40 rows in two shards, whose deadline passes before any upload."""
    ledger = seal_job(tmp_path, [f"{n} {uuid4()}" for n in range(ROWS)], requests=25)
    pass_deadline(ledger)
    return ledger


def pass_deadline(ledger: Any) -> None:
    """Set the deadline to the current time."""
    from airflow_provider_batch.core.ledger.records import Deadline

    now = datetime.now(UTC)
    ledger.add(Deadline(now, now))


def worker(ledger: Any, *, later: timedelta = timedelta(), rows: int = 1_000, **options: Any) -> Any:
    """Return a runner that shares only the job's folder with other runners."""
    from airflow_provider_batch.core.ledger.ledger import open_ledger
    from airflow_provider_batch.core.lifecycle.steps import Policy
    from airflow_provider_batch.hooks.batch import BatchHook
    from airflow_provider_batch.worker.runner import Runner

    worker_ledger = open_ledger(ledger.folder)
    assert worker_ledger is not None
    policy = Policy(backoff=timedelta(0), at_deadline_rows=rows)
    log = logging.getLogger(__name__)
    return Runner(worker_ledger, BatchHook(), policy, log, clock=lambda: datetime.now(UTC) + later, **options)


def outcomes(ledger: Any) -> dict[str, int]:
    """Return the number of rows that land, by outcome."""
    from airflow_provider_batch.core.landing.landing import Landing
    from airflow_provider_batch.core.ledger.ledger import open_ledger

    landing_ledger = open_ledger(ledger.folder)
    assert landing_ledger is not None
    landing = Landing(
        ledger.folder,
        landing_ledger.state(),
        key={},
        columns={},
        store_response=False,
        run_id="r",
        landed_at=datetime.now(UTC),
    )
    list(landing)
    return landing.outcomes


def test_rows_that_were_never_sent_are_on_their_first_attempt_in_the_final_pass(
    ledger: Any, count_calls: Callable[[], dict[str, int]]
) -> None:
    from airflow_provider_batch.core.lifecycle.steps import Finish

    runner = worker(ledger)
    assert isinstance(runner.run({}), Finish)

    assert count_calls() == {"synchronous": ROWS, "upload": 0, "create": 0}
    assert outcomes(ledger) == {"succeeded": ROWS}
    assert {shard.spec.attempt for shard in runner.ledger.state().final_pass_shards} == {1}
    assert isinstance(worker(ledger).run({}), Finish)
    assert count_calls()["synchronous"] == 0


def test_unsent_rows_beyond_at_deadline_rows_are_left_out(
    ledger: Any, count_calls: Callable[[], dict[str, int]]
) -> None:
    worker(ledger, rows=30).run({})

    assert count_calls() == {"synchronous": 30, "upload": 0, "create": 0}
    assert outcomes(ledger) == {"succeeded": 30, "pending": 10}
    worker(ledger, rows=30).run({})
    assert count_calls() == {"synchronous": 0, "upload": 0, "create": 0}


def test_a_worker_killed_before_it_records_answers_loses_only_the_requests_in_flight(
    ledger: Any, count_calls: Callable[[], dict[str, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    from airflow_provider_batch.core.ledger.state import Phase
    from airflow_provider_batch.core.lifecycle.steps import CLAIM_LIFETIME, SHARD_REQUESTS, Finish, Wait
    from airflow_provider_batch.core.sealing.final_pass import FINAL_PASS_CONCURRENCY
    from airflow_provider_batch.worker import synchronous

    write, calls = synchronous.write_responses, []

    def killed_at_the_third_call(*arguments: Any) -> Any:
        calls.append(arguments)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return write(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(synchronous, "write_responses", killed_at_the_third_call)
        with pytest.raises(KeyboardInterrupt):
            worker(ledger).run({})
    recorded = 2 * SHARD_REQUESTS
    shards = worker(ledger).ledger.state().final_pass_shards
    # of the shards that the worker had claimed, it may not have sent every request
    claimed = sum(shard.requests for shard in shards if shard.phase is Phase.CREATING)
    lost = count_calls()["synchronous"] - recorded
    assert 0 < lost <= claimed <= FINAL_PASS_CONCURRENCY

    pause = worker(ledger).run({})
    assert isinstance(pause, Wait)
    assert count_calls()["synchronous"] == ROWS - recorded - claimed

    assert isinstance(worker(ledger, later=CLAIM_LIFETIME).run({}), Finish)
    assert count_calls()["synchronous"] == claimed
    assert outcomes(ledger) == {"succeeded": ROWS}


def test_a_worker_that_must_stop_sends_nothing_and_the_next_one_continues(
    ledger: Any, count_calls: Callable[[], dict[str, int]]
) -> None:
    with pytest.raises(StoppedError, match="40 of 40 synchronous requests were not sent"):
        worker(ledger, stopping=lambda: True).run({})
    assert count_calls()["synchronous"] == 0

    worker(ledger).run({})

    assert count_calls()["synchronous"] == ROWS
    assert outcomes(ledger) == {"succeeded": ROWS}


def test_two_workers_in_the_final_pass_send_each_row_once(
    ledger: Any, count_calls: Callable[[], dict[str, int]]
) -> None:
    from airflow_provider_batch.core.lifecycle.next_steps import next_steps

    first, second = worker(ledger), worker(ledger)
    (seal_step,), _ = next_steps(second.ledger.state(), {}, second.policy, datetime.now(UTC))
    first._carry_out([seal_step])
    second._carry_out([seal_step])
    send_steps, _ = next_steps(second.ledger.state(), {}, second.policy, datetime.now(UTC))
    first.run({})

    for step in send_steps:
        second._carry_out([step])

    assert count_calls()["synchronous"] == ROWS
    assert outcomes(ledger) == {"succeeded": ROWS}


def test_nothing_is_sent_half_an_hour_after_the_deadline(
    ledger: Any, count_calls: Callable[[], dict[str, int]]
) -> None:
    from airflow_provider_batch.core.lifecycle.steps import FINAL_PASS_WINDOW, Finish

    assert isinstance(worker(ledger, later=FINAL_PASS_WINDOW).run({}), Finish)

    assert count_calls()["synchronous"] == 0
    assert outcomes(ledger) == {"pending": ROWS}


def test_rows_of_a_batch_that_does_not_end_are_left_out(
    tmp_path: Path, server: LocalServer, count_calls: Callable[[], dict[str, int]]
) -> None:
    from airflow_provider_batch.core.ledger.records import CancelRequested
    from airflow_provider_batch.core.lifecycle.next_steps import next_steps
    from airflow_provider_batch.core.lifecycle.steps import CANCEL_GRACE, Finish, Upload, Wait

    ledger = seal_job(tmp_path, [f"{n} {uuid4()}" for n in range(4)], requests=2)
    runner = worker(ledger)
    steps, _ = next_steps(runner.ledger.state(), {}, runner.policy, datetime.now(UTC))
    assert isinstance(steps[0], Upload)
    runner._carry_out(steps[:1])
    runner._carry_out(next_steps(runner.ledger.state(), {}, runner.policy, datetime.now(UTC))[0][:1])
    pass_deadline(ledger)
    # Pretend that the provider accepted the cancellation and takes long to carry it out.
    ledger.add(CancelRequested("s0001", 1, "deadline", datetime.now(UTC)))
    count_calls()

    waiting = worker(ledger)
    assert isinstance(waiting.run(waiting.observe()), Wait)
    assert count_calls()["synchronous"] == 0

    later = worker(ledger, later=CANCEL_GRACE)
    assert isinstance(later.run(later.observe()), Finish)

    assert count_calls()["synchronous"] == 2
    assert outcomes(ledger) == {"succeeded": 2, "pending": 2}
    assert later.ledger.state().retry_rounds[0].left_out == {"unsettled": 2}


def update(warehouse: Path, sql: str) -> None:
    with closing(sqlite3.connect(warehouse)) as connection, connection:
        connection.execute(sql)
