"""Budgets that jobs share, with the local batch server: who may send what, and what is counted."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_batch.local.faults import Call, Fault, Kind
from airflow_provider_batch.local.process import LocalServer
from tests.airflow.jobs import client_of, end_batches, run_job
from tests.airflow.test_runner import batches_of, seal_job

LOG = logging.getLogger(__name__)
#: each output token costs one dollar, and each request reserves $100 as long as no answer is known
PRICED: dict[str, Any] = {
    "prices": {"gpt-5-mini": {"input": 0, "output": 1_000_000}},
    "output_tokens_high": {"gpt-5-mini": 100.0},
    "output_caps": {"gpt-5-mini": 100},
}


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Use a folder of the test as the staging root of the deployment."""
    monkeypatch.setenv("AIRFLOW__OPENAI_BATCH__STAGING", (tmp_path / "staging").as_uri())
    return tmp_path / "staging"


@pytest.fixture
def set_budget(slow_server: LocalServer, connect: Callable[..., None], root: Path) -> Callable[..., None]:
    """Return a function that gives the connection a budget. The server takes ten minutes for a batch."""

    def set_usd(usd: float, per: str = "month") -> None:
        extra = {"batch_budget": {"usd": usd, "per": per}}
        connect("openai_default", conn_type="openai", password="local", host=slow_server.base_url, extra=extra)

    return set_usd


def seal(path: Path, *prompts: str, requests: int = 1, **fields: Any) -> Any:
    return seal_job(path, list(prompts), requests=requests, **(PRICED | fields))


def worker_of(ledger: Any, *, later: timedelta = timedelta(), **policy: Any) -> Any:
    from airflow_provider_batch.core.ledger.ledger import open_ledger
    from airflow_provider_batch.core.lifecycle.steps import Policy
    from airflow_provider_batch.hooks.batch import BatchHook
    from airflow_provider_batch.worker.runner import Runner

    own_ledger = open_ledger(ledger.folder)
    assert own_ledger is not None
    policy = {"backoff": timedelta(0)} | policy
    return Runner(own_ledger, BatchHook(), Policy(**policy), LOG, clock=lambda: datetime.now(UTC) + later)


def advance(ledger: Any, **options: Any) -> Any:
    """Let a new worker do what can be done now, and return how the job pauses."""
    worker = worker_of(ledger, **options)
    return worker.run(worker.observe())


def accounts(root: Path) -> dict[str, Any]:
    """Return the newest balance of every budget and period, by the name of the period."""
    from airflow_provider_batch.staging.layout import budget_folders
    from airflow_provider_batch.worker.budget_log import read_newest

    newest = [read_newest(folder) for folder in budget_folders(str(root))]
    return {entry[1].period: entry[1] for entry in newest if entry is not None}


def account(root: Path) -> Any:
    (balance,) = accounts(root).values()
    return balance


def cost_of(ledger: Any) -> Decimal:
    state = worker_of(ledger).ledger.state()
    return sum((Decimal(settled.cost_usd) for _, _, settled in state.settled_submissions()), Decimal(0))


def test_two_jobs_share_the_budget_of_their_connection(
    slow_server: LocalServer, set_budget: Callable[..., None], root: Path, tmp_path: Path
) -> None:
    from airflow_provider_batch.core.lifecycle.steps import Finish, Wait

    set_budget(250)
    client = client_of(slow_server)
    first, second = seal(tmp_path / "a", "Say 1.", "Say 2."), seal(tmp_path / "b", "Say 3.")
    advance(first)
    pause = advance(second)

    assert (len(batches_of(client, first)), len(batches_of(client, second))) == (2, 0)
    assert isinstance(pause, Wait)
    assert pause.withheld == ("s0001",)
    assert account(root).reserved == 200

    end_batches(slow_server)
    advance(first)
    assert account(root).reserved == 0
    assert account(root).spent == cost_of(first) > 0

    advance(second)
    assert len(batches_of(client, second)) == 1
    end_batches(slow_server)
    assert isinstance(advance(second), Finish)
    assert account(root).spent == cost_of(first) + cost_of(second)


def test_the_jobs_of_a_run_share_its_budget_and_other_runs_have_their_own(
    slow_server: LocalServer, root: Path, tmp_path: Path
) -> None:
    from airflow_provider_batch.core.ledger.job import JobKey

    client = client_of(slow_server)
    ledgers = [
        seal(tmp_path / str(number), f"Say {number}.", key=JobKey("dag", task, run), max_run_cost_usd=150.0)
        for number, (task, run) in enumerate([("answer", "monday"), ("judge", "monday"), ("answer", "tuesday")])
    ]
    for ledger in ledgers:
        advance(ledger)
    assert [len(batches_of(client, ledger)) for ledger in ledgers] == [1, 0, 1]


def test_without_a_shared_budget_nothing_is_accounted(slow_server: LocalServer, root: Path, tmp_path: Path) -> None:
    advance(seal(tmp_path / "a", "Say 1."))
    assert not root.exists()


def test_a_budget_of_the_config_applies_to_connections_without_their_own(
    slow_server: LocalServer, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW__OPENAI_BATCH__CONNECTION_BUDGET", '{"usd": 99, "per": "month"}')
    ledger = seal(tmp_path / "a", "Say 1.")
    assert advance(ledger).withheld == ("s0001",)
    assert batches_of(client_of(slow_server), ledger) == []


@pytest.mark.parametrize("kind", [Kind.DROP, Kind.COMMIT_THEN_STATUS])
def test_an_unconfirmed_creation_keeps_its_reservation_until_it_was_looked_up(
    kind: Kind, slow_server: LocalServer, set_budget: Callable[..., None], root: Path, tmp_path: Path
) -> None:
    set_budget(150)
    client = client_of(slow_server)
    first, second = seal(tmp_path / "a", "Say 1."), seal(tmp_path / "b", "Say 2.")
    slow_server.set_faults(Fault(kind=kind, calls=frozenset({Call.CREATE}), times=1))
    advance(first)
    assert account(root).reserved == 100
    advance(second)
    assert batches_of(client, second) == []

    slow_server.set_faults()
    advance(first, later=timedelta(seconds=121))
    # whether it existed or was created again, there is one batch and one reservation
    assert len(batches_of(client, first)) == 1
    assert account(root).reserved == 100


def test_a_refused_creation_releases_its_reservation(
    slow_server: LocalServer, set_budget: Callable[..., None], root: Path, tmp_path: Path
) -> None:
    set_budget(150)
    ledger = seal(tmp_path / "a", "Say 1.")
    slow_server.set_faults(Fault(kind=Kind.STATUS, calls=frozenset({Call.CREATE}), status=401, times=1))
    advance(ledger)
    assert (account(root).reserved, account(root).spent) == (Decimal(0), Decimal(0))


def test_a_batch_that_two_workers_collect_is_counted_once(
    slow_server: LocalServer, set_budget: Callable[..., None], root: Path, tmp_path: Path
) -> None:
    set_budget(150)
    ledger = seal(tmp_path / "a", "Say 1.")
    advance(ledger)
    end_batches(slow_server)
    workers = [worker_of(ledger) for _ in range(2)]
    observations = [worker.observe() for worker in workers]
    for worker, observed in zip(workers, observations, strict=True):
        worker.run(observed)
    assert account(root).spent == cost_of(ledger) > 0
    assert account(root).reserved == 0


def test_a_batch_whose_cost_is_unknown_keeps_what_was_reserved_for_it(
    slow_server: LocalServer, set_budget: Callable[..., None], root: Path, tmp_path: Path
) -> None:
    set_budget(150)
    ledger = seal(tmp_path / "a", "Say 1.")
    slow_server.set_faults(Fault(kind=Kind.LINE_FIELD, path="response.body.usage", json="null"))
    advance(ledger)
    end_batches(slow_server)
    advance(ledger)
    assert (account(root).reserved, account(root).spent) == (Decimal(0), Decimal(100))


def test_a_job_without_a_price_holds_nothing_and_stops_nobody(
    slow_server: LocalServer, set_budget: Callable[..., None], root: Path, tmp_path: Path
) -> None:
    """The connection got its budget after the job was sealed; otherwise submit refuses the job."""
    set_budget(150)
    client = client_of(slow_server)
    unpriced = seal(tmp_path / "a", "Say 1.", prices={})
    advance(unpriced)
    priced = seal(tmp_path / "b", "Say 2.")
    advance(priced)
    assert len(batches_of(client, priced)) == 1


def test_a_batch_counts_in_the_period_in_which_it_was_created(
    slow_server: LocalServer, set_budget: Callable[..., None], root: Path, tmp_path: Path
) -> None:
    set_budget(150, "hour")
    first, second = seal(tmp_path / "a", "Say 1."), seal(tmp_path / "b", "Say 2.")
    advance(first)
    # an hour later, the reservation of the last hour does not count
    advance(second, later=timedelta(hours=1))
    end_batches(slow_server)
    advance(first, later=timedelta(hours=1))
    advance(second, later=timedelta(hours=1))
    balances = [balance for _, balance in sorted(accounts(root).items())]
    assert [balance.spent for balance in balances] == [cost_of(first), cost_of(second)]
    assert [balance.reserved for balance in balances] == [0, 0]


def test_a_running_batch_is_counted_as_soon_as_the_connection_has_a_budget(
    slow_server: LocalServer, set_budget: Callable[..., None], root: Path, tmp_path: Path
) -> None:
    ledger = seal(tmp_path / "a", "Say 1.")
    advance(ledger)
    set_budget(150)
    advance(ledger)
    assert account(root).reserved == 100
    assert advance(seal(tmp_path / "b", "Say 2.")).withheld == ("s0001",)


def test_rows_that_no_budget_covered_until_the_deadline_land_as_withheld_and_say_why(
    slow_server: LocalServer, root: Path, tmp_path: Path
) -> None:
    from airflow_provider_batch.core.landing.landing import Landing
    from airflow_provider_batch.core.ledger.records import Deadline
    from airflow_provider_batch.core.lifecycle.steps import Finish

    first, second = (seal(tmp_path / name, f"Say {name}.", max_run_cost_usd=150.0) for name in ("a", "b"))
    advance(first)
    second.add(Deadline(datetime.now(UTC) + timedelta(hours=1), datetime.now(UTC)))
    advance(second)
    late = worker_of(second, later=timedelta(hours=2))
    pause = late.run({})
    assert pause == Finish(("s0001",))
    late.finish(pause)

    state = second.state()
    landing = Landing(
        second.folder, state, key={}, columns={}, store_response=False, run_id="run", landed_at=datetime.now(UTC)
    )
    assert len(list(landing)) == 1
    (reason,) = landing.totals.most_common_reasons(9)
    assert (reason.outcome, reason.code) == ("withheld", "shared_budget")
    assert "The budget of run 'run' of DAG 'dag' ($150.00) has $50.00 left" in reason.message
    assert f"job {first.manifest.job_uid[:8]} (dag.submit in run run) holds $100.00" in reason.message


def test_a_shard_that_fits_in_part_is_divided(
    slow_server: LocalServer, set_budget: Callable[..., None], root: Path, tmp_path: Path
) -> None:
    set_budget(250)
    ledger = seal(tmp_path / "a", *(f"Say {number}." for number in range(5)), requests=5)
    advance(ledger)
    batches = batches_of(client_of(slow_server), ledger)
    # one request, as long as no answer shows what requests cost
    assert sum(batch.request_counts.total for batch in batches) == 1
    assert account(root).reserved == 100


# Whole jobs, and the command line


def test_submit_refuses_a_job_that_the_budget_can_never_cover_or_that_has_no_price(
    serve: Callable[..., LocalServer], connect: Callable[..., None], warehouse: Path, root: Path
) -> None:
    server = serve()
    extra = {"batch_budget": {"usd": 0.001, "per": "month"}}
    connect("openai_default", conn_type="openai", password="local", host=server.base_url, extra=extra)
    expensive = {"gpt-5-mini": {"input": 1_000_000, "output": 1_000_000}}
    error = run_job(prices=expensive).error()
    assert "but the budget per month of connection 'openai_default' is $0.001. Nothing was uploaded." in error
    error = run_job(prices=expensive, max_run_cost_usd=0.0005).error()
    assert "but max_run_cost_usd is $0.0005. Nothing was uploaded. Raise max_run_cost_usd" in error
    error = run_job(model="house-model-1").error()
    assert "no price is known for house-model-1" in error
    assert client_of(server).batches.list().data == []


@pytest.mark.parametrize("budget", [{"usd": 50}, "fifty", {"usd": 50, "per": "year"}])
def test_submit_refuses_a_connection_whose_budget_is_invalid(
    serve: Callable[..., LocalServer], connect: Callable[..., None], warehouse: Path, root: Path, budget: Any
) -> None:
    server = serve()
    extra = {"batch_budget": budget}
    connect("openai_default", conn_type="openai", password="local", host=server.base_url, extra=extra)
    error = run_job().error()
    assert (
        "openai_conn_id: batch_budget in the extra of connection 'openai_default': Expected an object such as" in error
    )


def test_the_canary_and_all_batches_of_a_job_are_counted(
    serve: Callable[..., LocalServer], connect: Callable[..., None], warehouse: Path, root: Path
) -> None:
    server = serve()
    extra = {"batch_budget": {"usd": 10, "per": "month"}}
    connect("openai_default", conn_type="openai", password="local", host=server.base_url, extra=extra)
    job = run_job(canary=2, max_run_cost_usd=5)
    assert job.state == "success"
    balances = accounts(root)
    assert len(balances) == 2
    for balance in balances.values():
        assert balance.reserved == 0
        assert balance.spent == Decimal(job.return_values["land"]["cost_usd"]) > 0


def test_the_command_shows_the_budgets_and_releases_what_a_dead_job_holds(
    slow_server: LocalServer,
    set_budget: Callable[..., None],
    root: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from airflow_provider_batch.cli import main

    def budget(*arguments: str) -> str:
        capsys.readouterr()
        assert main.main(["budget", *arguments]) == 0
        return capsys.readouterr().out

    assert "No job has used a budget" in budget()
    set_budget(150)
    dead = seal(tmp_path / "a", "Say 1.", max_run_cost_usd=120.0)
    advance(dead)
    uid = dead.manifest.job_uid

    (connection, run) = json.loads(budget("--json"))
    assert (connection["kind"], connection["conn_id"], connection["per"]) == ("connection", "openai_default", "month")
    assert (connection["limit"], connection["reserved"], connection["remaining"]) == ("150", "100", "50")
    assert (run["kind"], run["dag_id"], run["run_id"], run["remaining"]) == ("run", "dag", "run", "20.0")
    assert connection["jobs"][0]["reservations"] == {"s0001.1": "100"}
    text = budget()
    assert "limit $150.00, spent $0.00, reserved $100.00, left $50.00" in text
    assert f"{uid[:8]}  $0.00   $100.00  dag.submit in run run" in text

    assert main.main(["budget", "release", "ffffffffffff"]) == 1
    assert "no job with a uid that starts with 'ffffffffffff'" in capsys.readouterr().err
    assert main.main(["budget", "release", uid]) == 1  # not confirmed
    assert "Released" in budget("release", uid[:8], "--yes")
    assert all(balance.reserved == 0 for balance in accounts(root).values())
    assert "nothing to release" in budget("release", uid, "--yes")

    # the job was not dead: it counts its running batch again
    advance(dead)
    assert [balance.reserved for balance in accounts(root).values()] == [100, 100]


def test_the_budgets_are_not_taken_for_jobs(
    slow_server: LocalServer, set_budget: Callable[..., None], root: Path, tmp_path: Path
) -> None:
    from airflow_provider_batch.staging.layout import job_folders

    set_budget(150)
    advance(seal(tmp_path / "a", "Say 1."))
    assert list(job_folders(str(root))) == []
