"""The flex tier: the canary and the final pass use it, at the price of a batch, and the log says when they cannot."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from airflow_provider_batch.local.faults import Call, Fault, Kind
from airflow_provider_batch.local.process import LocalServer
from tests.airflow.jobs import Ticket, query, run_job

SECOND = timedelta(seconds=1)
STUCK = Fault(kind=Kind.STUCK)
#: US dollars per token of gpt-5-mini at the standard price
INPUT, OUTPUT = 0.25e-6, 2e-6


@pytest.fixture
def serve_flex(serve: Callable[..., LocalServer], connect: Callable[..., None]) -> Callable[..., LocalServer]:
    """Return a function that starts a batch server; the connection `openai_default` says that it has the flex tier."""

    def start(**options: Any) -> LocalServer:
        server = serve("flex", **options)
        connect(
            "openai_default", conn_type="openai", password="local", host=server.base_url, extra={"batch_flex": True}
        )
        return server

    return start


@pytest.fixture
def server(serve_flex: Callable[..., LocalServer]) -> LocalServer:
    return serve_flex()


@pytest.fixture
def tickets() -> list[Ticket]:
    return [(f"T-{n}", f"Ticket {n} {uuid4()}", "The invoice is wrong", "billing") for n in range(1, 6)]


def costs(warehouse: Path) -> list[tuple[float, float]]:
    """Return for each row of the results table what it cost, and what it would cost at the standard price."""
    rows = query(warehouse, "SELECT cost_usd, input_tokens, output_tokens FROM answers WHERE outcome = 'succeeded'")
    return [(float(cost), tokens * INPUT + output * OUTPUT) for cost, tokens, output in rows]


def at_deadline(choice: str, **wait: Any) -> dict[str, Any]:
    return {"deadline": 2 * SECOND, "poke_interval": 1, "at_deadline": choice, **wait}


def test_the_canary_runs_on_flex_at_the_price_of_a_batch(
    warehouse: Path, server: LocalServer, count_calls: Callable[[], dict[str, int]], capfd: pytest.CaptureFixture[str]
) -> None:
    result = run_job(canary=2)

    assert count_calls() == {"synchronous": 2, "upload": 1, "create": 1}
    assert all(cost == pytest.approx(standard / 2) for cost, standard in costs(warehouse))
    summary = result.return_values["land"]
    assert float(summary["cost_usd"]) == pytest.approx(float(summary["standard_cost_usd"]) / 2)
    assert "Canary: sending 2 requests on flex, at the price of a batch" in capfd.readouterr().out


def test_a_canary_that_flex_does_not_take_is_sent_at_the_standard_price(
    warehouse: Path,
    serve_flex: Callable[..., LocalServer],
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from airflow_provider_batch.worker import synchronous

    server = serve_flex(flex_unavailable=1)
    hasty = synchronous.CANARY._replace(flex=synchronous.Tries((0.01,), 10.0))
    monkeypatch.setattr(synchronous, "CANARY", hasty)

    run_job(canary=2)

    assert server.calls()["synchronous"] == 6  # two on flex and one at the standard price, for each request
    assert sorted(cost == pytest.approx(standard) for cost, standard in costs(warehouse)) == [False] * 3 + [True] * 2
    log = capfd.readouterr().out
    assert "the flex tier did not take 2 of 2 requests (HTTP 429: Resource unavailable" in log
    assert "They were sent at the standard price." in log


def test_a_model_that_the_server_refuses_on_flex_is_sent_at_the_standard_price(
    warehouse: Path, serve_flex: Callable[..., LocalServer], capfd: pytest.CaptureFixture[str]
) -> None:
    server = serve_flex(flex_models=("gpt-5",))

    result = run_job(canary=2)

    assert server.calls()["synchronous"] == 4
    assert result.return_values["land"]["outcomes"] == {"succeeded": 5}
    assert "did not take 2 of 2 requests (HTTP 400" in capfd.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [({"model": "gpt-4.1-mini"}, "gpt-4.1-mini has no flex tier here"), ({"body": {"service_tier": "default"}}, "")],
)
def test_a_request_that_cannot_or_must_not_go_to_flex_does_not(
    warehouse: Path, server: LocalServer, arguments: dict[str, Any], reason: str, capfd: pytest.CaptureFixture[str]
) -> None:
    result = run_job(canary=2, **arguments)

    assert server.calls()["synchronous"] == 2
    summary = result.return_values["land"]
    assert float(summary["cost_usd"]) > float(summary["standard_cost_usd"]) / 2
    assert reason in capfd.readouterr().out


def test_a_server_that_does_not_say_that_it_has_flex_gets_no_service_tier(
    warehouse: Path, serve: Callable[..., LocalServer]
) -> None:
    serve("other", flex_unavailable=1)

    summary = run_job(canary=2).return_values["land"]

    assert float(summary["cost_usd"]) > float(summary["standard_cost_usd"]) / 2
    assert summary["outcomes"] == {"succeeded": 5}


@pytest.mark.parametrize("choice", ["flex", "sync"])
def test_the_final_pass_runs_on_flex_at_the_price_of_a_batch(
    warehouse: Path, server: LocalServer, choice: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from airflow_provider_batch.worker import runner

    monkeypatch.setattr(runner, "FLEX_MARGIN", timedelta(hours=-1))
    server.set_faults(STUCK)

    result = run_job(wait=at_deadline(choice, deadline=6 * SECOND))

    assert result.return_values["wait"]["final_pass"] == {"sent": 5, "left_out": {}}
    assert result.return_values["land"]["outcomes"] == {"succeeded": 5}
    assert all(cost == pytest.approx(standard / 2) for cost, standard in costs(warehouse))


def test_close_to_the_deadline_the_final_pass_no_longer_waits_for_flex(warehouse: Path, server: LocalServer) -> None:
    server.set_faults(STUCK)

    run_job(wait=at_deadline("sync"))

    assert all(cost == pytest.approx(standard) for cost, standard in costs(warehouse))


@pytest.mark.parametrize(("choice", "rows"), [("flex", 0), ("sync", 5)])
def test_what_flex_does_not_take_goes_on_at_the_standard_price_only_if_the_author_says_sync(
    warehouse: Path,
    serve_flex: Callable[..., LocalServer],
    choice: str,
    rows: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from airflow_provider_batch.worker import runner, synchronous

    monkeypatch.setattr(runner, "FLEX_MARGIN", timedelta(hours=-1))
    monkeypatch.setattr(synchronous, "ROWS", synchronous.ROWS._replace(flex=synchronous.Tries((0.01,), 10.0)))
    server = serve_flex(flex_unavailable=1)
    server.set_faults(STUCK)

    land = run_job(wait=at_deadline(choice, deadline=6 * SECOND)).return_values["land"]

    assert server.calls()["synchronous"] == 10 + rows
    assert land["outcomes"] == ({"succeeded": 5} if rows else {"expired": 5})
    if not rows:
        assert float(land["cost_usd"]) == 0
        assert land["reasons"][0]["code"] == "flex_unavailable"
        assert "5 rows have no answer" in land["receipt"]


def test_without_flex_a_final_pass_on_flex_leaves_the_rows_as_they_are_and_says_so(
    warehouse: Path, server: LocalServer, capfd: pytest.CaptureFixture[str]
) -> None:
    server.set_faults(STUCK)

    result = run_job(model="gpt-4.1-mini", wait=at_deadline("flex"))

    assert server.calls().get("synchronous", 0) == 0
    assert result.return_values["land"]["outcomes"] == {"cancelled": 5}
    assert "no model of this job has the flex tier at connection 'openai_default'" in capfd.readouterr().out


def test_a_flex_request_that_was_cut_off_is_not_repeated(
    warehouse: Path, server: LocalServer, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    from airflow_provider_batch.worker import runner

    monkeypatch.setattr(runner, "FLEX_MARGIN", timedelta(hours=-1))
    server.set_faults(STUCK, Fault(kind=Kind.DROP, calls=frozenset({Call.SYNCHRONOUS})))

    land = run_job(wait=at_deadline("sync", deadline=6 * SECOND)).return_values["land"]

    assert server.calls()["synchronous"] == 5
    assert land["outcomes"] == {"failed": 5}
    assert (land["cost_usd"], land["lanes"], land["without_usage"]) == (None, {}, 5)
    assert query(warehouse, "SELECT DISTINCT cost_usd, input_tokens FROM answers") == [(None, None)]
    assert "requests got no answer, but may have been billed. The cost is unknown." in capfd.readouterr().out


@pytest.mark.parametrize(
    ("fault", "may_be_billed"),
    [
        ({"kind": Kind.DROP}, True),
        ({"kind": Kind.TRUNCATE}, True),
        ({"kind": Kind.HANG, "seconds": 30}, True),
        ({"kind": Kind.STATUS, "status": 504}, True),
        ({"kind": Kind.STATUS, "status": 500}, False),
        ({"kind": Kind.STATUS, "status": 503}, False),
        ({"kind": Kind.STATUS, "status": 429}, False),
        ({"kind": Kind.REDIRECT, "status": 307, "location": "http://127.0.0.1:9/v1"}, False),
    ],
)
def test_only_a_request_that_was_sent_and_not_refused_may_have_been_billed(
    server: LocalServer, offline: None, fault: dict[str, Any], may_be_billed: bool
) -> None:
    from airflow_provider_batch.hooks.batch import BatchHook

    server.set_faults(Fault(calls=frozenset({Call.SYNCHRONOUS}), **fault))
    body = {"model": "gpt-5-mini", "messages": [{"role": "user", "content": "Say hello."}]}

    response = BatchHook().send_request("/v1/chat/completions", body, 1.0)

    assert response.status != 200
    assert response.may_be_billed is may_be_billed


def test_a_request_that_could_not_connect_was_not_billed(connect: Callable[..., None], offline: None) -> None:
    from airflow_provider_batch.hooks.batch import BatchHook

    connect("openai_default", conn_type="openai", password="local", host="http://127.0.0.1:9/v1")

    assert BatchHook().send_request("/v1/chat/completions", {}).may_be_billed is False


# A job that is sent on flex


@pytest.mark.parametrize("lane", ["flex", "auto"])
def test_a_small_job_goes_straight_to_flex(
    warehouse: Path, server: LocalServer, count_calls: Callable[[], dict[str, int]], lane: str
) -> None:
    result = run_job(lane=lane, canary=2)

    assert count_calls() == {"synchronous": 5, "upload": 0, "create": 0}
    land = result.return_values["land"]
    assert land["outcomes"] == {"succeeded": 5}
    assert land["lanes"] == {"flex": 5}
    assert all(cost == pytest.approx(standard / 2) for cost, standard in costs(warehouse))
    assert land["receipt"].endswith("5 answers: 5 on flex (100% at the batch price). Deadline met, 30.0 h early.")


def test_auto_sends_a_job_of_more_rows_in_a_batch(
    warehouse: Path, count_calls: Callable[[], dict[str, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    from airflow_provider_batch.worker import build

    monkeypatch.setattr(build, "AUTO_LANE_ROWS", 4)

    land = run_job(lane="auto", canary=2).return_values["land"]

    assert count_calls() == {"synchronous": 2, "upload": 1, "create": 1}
    assert land["lanes"] == {"flex": 2, "batch": 3}


def test_rows_that_flex_does_not_take_go_to_a_batch_and_this_is_not_an_attempt(
    warehouse: Path, serve_flex: Callable[..., LocalServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    from airflow_provider_batch.worker import synchronous

    monkeypatch.setattr(synchronous, "ROWS", synchronous.ROWS._replace(flex=synchronous.Tries((), 10.0)))
    server = serve_flex(flex_unavailable=1)

    land = run_job(lane="flex", canary=0, wait={"max_attempts": 1}).return_values["land"]

    assert (server.calls()["synchronous"], server.calls()["create"]) == (5, 1)
    assert (land["outcomes"], land["lanes"]) == ({"succeeded": 5}, {"batch": 5})
    assert query(warehouse, "SELECT DISTINCT attempt FROM answers") == [(1,)]


@pytest.mark.parametrize(
    "arguments", [{"model": "gpt-4.1-mini"}, {"endpoint": "/v1/completions", "max_output_tokens": 100}]
)
def test_what_has_no_flex_tier_goes_to_a_batch_and_the_log_says_so(
    warehouse: Path,
    count_calls: Callable[[], dict[str, int]],
    arguments: dict[str, Any],
    capfd: pytest.CaptureFixture[str],
) -> None:
    land = run_job(lane="flex", canary=0, **arguments).return_values["land"]

    assert count_calls() == {"synchronous": 0, "upload": 1, "create": 1}
    assert land["outcomes"] == {"succeeded": 5}
    assert "no flex tier, so" in capfd.readouterr().out


def test_a_job_on_flex_stays_within_its_ceiling(warehouse: Path, count_calls: Callable[[], dict[str, int]]) -> None:
    # with its cap, a row costs up to $0.0001 on flex
    land = run_job(lane="flex", canary=0, max_output_tokens=100, max_cost_usd=0.00042).return_values["land"]

    assert float(land["cost_usd"]) <= 0.00042
    assert land["outcomes"]["succeeded"] >= 4


def test_a_row_that_was_answered_after_a_lost_request_has_an_unknown_cost(warehouse: Path, server: LocalServer) -> None:
    server.set_faults(Fault(kind=Kind.DROP, calls=frozenset({Call.SYNCHRONOUS}), times=1))

    land = run_job(lane="flex", canary=0).return_values["land"]

    assert (land["outcomes"], land["lanes"]) == ({"succeeded": 5}, {"flex": 4, "batch": 1})
    assert (land["cost_usd"], land["without_usage"]) == (None, 1)
    rows = query(warehouse, "SELECT attempt, cost_usd IS NULL FROM answers ORDER BY attempt")
    assert rows == [(1, False)] * 4 + [(2, True)]
