"""The canary: the first requests are asked synchronously, and what is wrong with all of them costs nothing more."""

from __future__ import annotations

import json
import logging
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType
from typing import Any
from uuid import uuid4

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException

from airflow_provider_batch.exceptions import InputError, JobHeldError, StoppedError
from airflow_provider_batch.local.faults import Call, Fault, Kind
from airflow_provider_batch.local.process import LocalServer
from tests.airflow.jobs import Ticket, query, run_job, submit_arguments

pytestmark = pytest.mark.usefixtures("server")
SCHEMA = {"title": "Ticket", "type": "object", "properties": {"label": {"type": "string", "enum": ["bug", "billing"]}}}
#: half of the rows go to each
TWO_MODELS = "SELECT id, title, body, CASE WHEN id < 'T-3' THEN 'gpt-5-nano' ELSE 'gpt-5-mini' END AS m FROM tickets"


@pytest.fixture
def server(faulty_server: LocalServer) -> LocalServer:
    """A server on which nothing goes wrong yet; `openai_default` leads to it."""
    return faulty_server


@pytest.fixture
def tickets() -> list[Ticket]:
    return [(f"T-{n}", f"Ticket {n} {uuid4()}", "The invoice is wrong", "billing") for n in range(1, 6)]


@dataclass
class Instance:
    """What an operator uses of its task instance, which Airflow gives the same for every attempt at one run."""

    task: Any = None
    dag_id: str = "dag"
    task_id: str = "submit"
    run_id: str = field(default_factory=lambda: f"manual__{uuid4()}")
    map_index: int = -1
    max_tries: int = 0

    @property
    def ti_key(self) -> Instance:
        return self

    def xcom_push(self, key: str, value: Any) -> None:
        json.dumps(value)


def attempt(instance: Instance, *, stopped: bool = False, **arguments: Any) -> dict[str, Any]:
    """One attempt at submit, with the canary by default."""
    from airflow_provider_batch.operators.batch import BatchSubmitOperator

    operator = BatchSubmitOperator(**submit_arguments(**{"canary": ..., **arguments}))
    if stopped:
        operator.on_kill()
    context: Any = {"ti": instance, "run_id": instance.run_id}
    return operator.execute(context)


def records(reference: dict[str, Any]) -> Any:
    """The state of a submitted job."""
    from airflow_provider_batch.core.ledger.ledger import open_ledger
    from airflow_provider_batch.staging.layout import open_folder

    ledger = open_ledger(open_folder(reference["ledger"]))
    assert ledger is not None
    return ledger.state()


def test_two_requests_are_asked_first_and_land_like_all_others(
    warehouse: Path, count_calls: Callable[[], dict[str, int]], capfd: pytest.CaptureFixture[str]
) -> None:
    result = run_job(canary=..., output_schema=SCHEMA, carry=["label"], land={"columns": {"answer": "label"}})

    assert result.state == "success"
    assert count_calls() == {"synchronous": 2, "upload": 1, "create": 1}
    account = result.return_values["land"]
    assert account["outcomes"] == {"succeeded": 5}
    rows = query(
        warehouse, "SELECT custom_id, outcome, label, answer, attempt, batch_id IS NULL FROM answers ORDER BY 1"
    )
    assert [(row[0], row[5]) for row in rows] == [("T-1", 1), ("T-2", 1), ("T-3", 0), ("T-4", 0), ("T-5", 0)]
    assert all(row[1:3] == ("succeeded", "billing") and row[3] and row[4] == 1 for row in rows)
    said = capfd.readouterr().out
    assert "Canary: 2 of 2 requests answered, mean output" in said
    assert "Canary: sending 2 requests at the standard price" in said


def test_an_answer_to_the_canary_costs_the_standard_price(warehouse: Path) -> None:
    account = run_job(canary=2).return_values["land"]

    rows = query(warehouse, "SELECT input_tokens, output_tokens, cost_usd, batch_id IS NULL FROM answers")
    for came, went, cost, canary in rows:
        assert float(cost) == pytest.approx((came * 0.25 + went * 2) / 1e6 / (1 if canary else 2))
    assert float(account["cost_usd"]) == pytest.approx(sum(float(row[2]) for row in rows))
    assert float(account["standard_cost_usd"]) == pytest.approx(sum(r[0] * 0.25 + r[1] * 2 for r in rows) / 1e6)


def test_the_reference_carries_the_estimate_that_the_answers_gave(warehouse: Path) -> None:
    guessed = attempt(Instance(), canary=0)["estimate"]
    reference = attempt(Instance())
    measured = reference["estimate"]

    assert records(reference).estimate.low_usd == measured["low_usd"]
    width = measured["output_tokens_high"] / measured["output_tokens_low"]
    assert width < guessed["output_tokens_high"] / guessed["output_tokens_low"]
    assert measured["input_tokens"] == guessed["input_tokens"]


def test_each_model_has_a_canary_of_its_own(warehouse: Path, count_calls: Callable[[], dict[str, int]]) -> None:
    reference = attempt(Instance(), sql=TWO_MODELS, model="{{ row.m }}", canary="1")

    assert count_calls() == {"synchronous": 2, "upload": 2, "create": 2}
    shards = records(reference).manifest.shards
    assert [(one.name, one.model, one.requests, one.synchronous) for one in shards] == [
        ("c0001", "gpt-5-nano", 1, True),
        ("c0002", "gpt-5-mini", 1, True),
        ("s0001", "gpt-5-nano", 1, False),
        ("s0002", "gpt-5-mini", 2, False),
    ]


def test_a_wrong_parameter_stops_the_job_and_the_attempt_after_mending_it_starts_anew(
    warehouse: Path, count_calls: Callable[[], dict[str, int]]
) -> None:
    instance = Instance()
    with pytest.raises(AirflowFailException) as stopped:
        attempt(instance, body={"temperature": "hot"})

    error = str(stopped.value)
    assert error.startswith("CanaryError: The canary (2 requests sent before all others) was refused by gpt-5-mini")
    assert "temperature" in error
    assert "Nothing was uploaded" in error
    assert "canary=0" in error
    assert count_calls() == {"synchronous": 2, "upload": 0, "create": 0}

    reference = attempt(instance)

    assert count_calls() == {"synchronous": 2, "upload": 1, "create": 1}
    state = records(reference)
    assert (state.manifest.generation, state.manifest.job_uid) == (2, reference["job_uid"])
    assert state.canary_verdict.void == ""


def test_a_job_that_was_stopped_is_stopped_again_if_nothing_was_mended(
    warehouse: Path, count_calls: Callable[[], dict[str, int]]
) -> None:
    instance = Instance()
    for _ in range(2):
        with pytest.raises(AirflowFailException, match="CanaryError"):
            attempt(instance, body={"temperature": "hot"})
        assert count_calls() == {"synchronous": 2, "upload": 0, "create": 0}


def test_a_model_that_refuses_stops_the_job_although_another_one_answers(
    warehouse: Path, count_calls: Callable[[], dict[str, int]]
) -> None:
    with pytest.raises(AirflowFailException, match=r"refused by gpt-5-nano: .*temperature"):
        attempt(
            Instance(),
            sql=TWO_MODELS,
            model="{{ row.m }}",
            body={"temperature": "{{ 'hot' if row.m == 'gpt-5-nano' else 1 }}"},
            canary=1,
        )

    assert count_calls() == {"synchronous": 2, "upload": 0, "create": 0}


def test_a_refusal_of_all_that_a_model_is_asked_stops_nothing_where_others_were_asked_of_another_one(
    warehouse: Path, count_calls: Callable[[], dict[str, int]]
) -> None:
    result = run_job(
        sql=TWO_MODELS,
        model="{{ row.m }}",
        body={"temperature": "{{ 'hot' if row.m == 'gpt-5-nano' else 1 }}"},
        canary=2,
    )

    assert result.return_values["land"]["outcomes"] == {"succeeded": 3, "failed": 2}
    assert count_calls() == {"synchronous": 4, "upload": 1, "create": 1}


def test_a_refused_new_row_stops_nothing_where_the_rest_is_known_from_last_night(
    warehouse: Path, count_calls: Callable[[], dict[str, int]]
) -> None:
    known: dict[str, Any] = {"sql": "SELECT * FROM tickets", "reuse_from": "answers"}
    assert run_job(**known, canary=2).state == "success"
    update(warehouse, "UPDATE tickets SET body = '[[fail:400]]' WHERE id = 'T-1'")
    count_calls()

    result = run_job(**known, canary=2)

    assert result.return_values["land"]["outcomes"] == {"succeeded": 4, "failed": 1}
    assert count_calls() == {"synchronous": 1, "upload": 0, "create": 0}


def test_a_refusal_of_the_whole_of_a_small_job_is_told_by_submit(
    warehouse: Path, count_calls: Callable[[], dict[str, int]]
) -> None:
    with pytest.raises(AirflowFailException, match="temperature"):
        attempt(Instance(), body={"temperature": "hot"}, canary=20)

    assert count_calls() == {"synchronous": 5, "upload": 0, "create": 0}


def test_a_canary_in_which_one_row_alone_is_refused_stops_nothing(
    warehouse: Path, count_calls: Callable[[], dict[str, int]]
) -> None:
    update(warehouse, "UPDATE tickets SET body = '[[fail:400]]' WHERE id = 'T-1'")

    result = run_job(canary=2)

    assert result.return_values["land"]["outcomes"] == {"succeeded": 4, "failed": 1}
    assert count_calls() == {"synchronous": 2, "upload": 1, "create": 1}


def test_refusals_that_speak_of_each_row_alone_stop_nothing(
    warehouse: Path, server: LocalServer, count_calls: Callable[[], dict[str, int]]
) -> None:
    code = "context_length_exceeded"
    server.set_faults(Fault(kind=Kind.STATUS, calls=frozenset({Call.SYNCHRONOUS}), status=400, code=code))

    attempt(Instance())

    assert count_calls() == {"synchronous": 2, "upload": 1, "create": 1}


@pytest.mark.parametrize(
    ("status", "code"), [(401, "invalid_api_key"), (403, None), (429, "insufficient_quota"), (402, None)]
)
def test_an_account_that_refuses_holds_the_job_and_the_next_attempt_goes_on_with_it(
    warehouse: Path, server: LocalServer, count_calls: Callable[[], dict[str, int]], status: int, code: str | None
) -> None:
    server.set_faults(Fault(kind=Kind.STATUS, calls=frozenset({Call.SYNCHRONOUS}), status=status, code=code))
    instance = Instance()
    with pytest.raises(JobHeldError, match=f"HTTP {status}") as held:
        attempt(instance)
    assert count_calls() == {"synchronous": 2, "upload": 0, "create": 0}
    server.set_faults()

    reference = attempt(instance)

    assert f"Job {reference['job_uid']} is held" in str(held.value)
    assert count_calls() == {"synchronous": 2, "upload": 1, "create": 1}
    assert records(reference).manifest.generation == 1


def test_a_request_that_was_turned_away_for_a_moment_is_asked_again_at_once(
    warehouse: Path, server: LocalServer, count_calls: Callable[[], dict[str, int]]
) -> None:
    server.set_faults(Fault(kind=Kind.STATUS, calls=frozenset({Call.SYNCHRONOUS}), status=429, times=2))

    state = records(attempt(Instance()))

    assert count_calls() == {"synchronous": 4, "upload": 1, "create": 1}
    assert state.shards["c0001"].submissions[0].settled.outcomes == {"succeeded": 2}


@pytest.mark.parametrize(
    "fault",
    [
        Fault(kind=Kind.STATUS, calls=frozenset({Call.SYNCHRONOUS}), status=429, retry_after=60),
        Fault(kind=Kind.STATUS, calls=frozenset({Call.SYNCHRONOUS}), status=500),
        Fault(kind=Kind.DROP, calls=frozenset({Call.SYNCHRONOUS})),
        Fault(kind=Kind.HTML, calls=frozenset({Call.SYNCHRONOUS})),
    ],
    ids=["429", "500", "dropped", "html"],
)
def test_what_fails_for_a_passing_reason_is_left_to_a_batch(
    warehouse: Path, server: LocalServer, count_calls: Callable[[], dict[str, int]], fault: Fault
) -> None:
    server.set_faults(fault)

    result = run_job(canary=2)

    assert result.return_values["land"]["outcomes"] == {"succeeded": 5}
    assert result.return_values["land"]["retried"] == 2
    assert count_calls() == {"synchronous": 2, "upload": 2, "create": 2}
    assert query(warehouse, "SELECT count(*) FROM answers WHERE batch_id IS NULL") == [(0,)]


def test_a_request_that_is_not_answered_in_time_is_left_to_a_batch(
    warehouse: Path, server: LocalServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("airflow_provider_batch.hooks.batch.SYNCHRONOUS_TIMEOUT", 0.5)
    server.set_faults(Fault(kind=Kind.COMMIT_THEN_HANG, calls=frozenset({Call.SYNCHRONOUS}), seconds=30))

    state = records(attempt(Instance()))

    assert state.shards["c0001"].submissions[0].settled.outcomes == {"expired": 2}
    assert state.shards["s0001"].submissions[0].batch_id


def test_answers_that_fit_no_schema_are_told_and_stop_nothing(
    warehouse: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    update(warehouse, "UPDATE tickets SET body = '[[invalid-json]]' WHERE id < 'T-3'")

    state = records(attempt(Instance(), output_schema=SCHEMA))

    assert state.shards["c0001"].submissions[0].settled.outcomes == {"invalid_output": 2}
    assert state.shards["s0001"].submissions[0].batch_id
    assert "no answer is valid against the output_schema" in capfd.readouterr().out + caplog.text


def test_a_measured_price_over_the_budget_stops_the_job_until_the_budget_is_raised(
    warehouse: Path, count_calls: Callable[[], dict[str, int]]
) -> None:
    update(warehouse, "UPDATE tickets SET body = replace(hex(zeroblob(2000)), '0', 'word ')")
    prices = {"gpt-5-mini": {"input": 0, "output": 1000}}
    low = attempt(Instance(), prices=prices)["estimate"]["low_usd"]
    guessed = attempt(Instance(), prices=prices, canary=0)["estimate"]["low_usd"]
    assert guessed < low, "else the answers are too short for this test"
    count_calls()
    instance = Instance()
    with pytest.raises(
        AirflowFailException, match=r"BudgetError: Judging by the answers to the canary .* Nothing was uploaded"
    ):
        attempt(instance, prices=prices, max_cost_usd=(guessed + low) / 2)
    assert count_calls() == {"synchronous": 2, "upload": 0, "create": 0}

    reference = attempt(instance, prices=prices, max_cost_usd=low * 10)

    assert count_calls() == {"synchronous": 2, "upload": 1, "create": 1}
    assert records(reference).manifest.generation == 2


def test_a_worker_that_was_told_to_end_asks_nothing_and_its_successor_goes_on(
    warehouse: Path, count_calls: Callable[[], dict[str, int]]
) -> None:
    instance = Instance()
    with pytest.raises(StoppedError, match="2 of 2 requests of the canary"):
        attempt(instance, stopped=True)
    assert count_calls() == {"synchronous": 0, "upload": 0, "create": 0}

    attempt(instance)

    assert count_calls() == {"synchronous": 2, "upload": 1, "create": 1}


@contextmanager
def killed_at(monkeypatch: pytest.MonkeyPatch, module: ModuleType, function: str) -> Iterator[None]:
    """Kill the worker in the moment in which it calls a function of a module."""

    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(module, function, killed)
        with pytest.raises(KeyboardInterrupt):
            yield


def test_a_worker_killed_between_the_answers_and_their_record_asks_these_requests_once_more(
    warehouse: Path, count_calls: Callable[[], dict[str, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    from airflow_provider_batch.worker import synchronous

    instance = Instance()
    with killed_at(monkeypatch, synchronous, "write_responses"):
        attempt(instance)
    assert count_calls() == {"synchronous": 2, "upload": 0, "create": 0}

    state = records(attempt(instance))

    assert count_calls() == {"synchronous": 2, "upload": 1, "create": 1}
    assert state.shards["c0001"].submissions[0].settled.outcomes == {"succeeded": 2}


def test_a_worker_killed_before_the_verdict_leaves_it_to_the_next(
    warehouse: Path, count_calls: Callable[[], dict[str, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    from airflow_provider_batch.worker import runner

    instance = Instance()
    with killed_at(monkeypatch, runner, "judge_canary"):
        attempt(instance, body={"temperature": "hot"})

    with pytest.raises(AirflowFailException, match="CanaryError"):
        attempt(instance, body={"temperature": "hot"})
    assert count_calls() == {"synchronous": 2, "upload": 0, "create": 0}


def test_a_job_as_small_as_its_canary_needs_no_batch(
    warehouse: Path, count_calls: Callable[[], dict[str, int]]
) -> None:
    result = run_job(canary=20)

    assert result.state == "success"
    assert result.return_values["land"]["outcomes"] == {"succeeded": 5}
    assert count_calls() == {"synchronous": 5, "upload": 0, "create": 0}


def test_a_preview_asks_no_canary(warehouse: Path, count_calls: Callable[[], dict[str, int]]) -> None:
    reference = attempt(Instance(), preview=True)

    assert (reference["shards"], reference["requests"]) == (1, 5)
    assert count_calls() == {"synchronous": 0, "upload": 0, "create": 0}


@pytest.mark.parametrize("endpoint", ["/v1/responses", "/v1/embeddings", "/v1/completions", "/v1/moderations"])
def test_every_endpoint_has_its_canary(
    warehouse: Path, count_calls: Callable[[], dict[str, int]], endpoint: str
) -> None:
    model = {"/v1/embeddings": "text-embedding-3-small", "/v1/moderations": "omni-moderation-latest"}
    cap = 200 if endpoint == "/v1/completions" else None
    asked: dict[str, Any] = {"endpoint": endpoint, "model": model.get(endpoint, "gpt-5-mini"), "max_output_tokens": cap}
    state = records(attempt(Instance(), **asked))

    assert count_calls() == {"synchronous": 2, "upload": 1, "create": 1}
    assert state.shards["c0001"].submissions[0].settled.outcomes == {"succeeded": 2}


@pytest.mark.parametrize("canary", [21, -1, 1.5, "many", True])
def test_a_canary_that_is_no_number_from_0_to_20_is_refused_while_the_dag_is_parsed(canary: Any) -> None:
    from airflow_provider_batch.operators.batch import BatchSubmitOperator

    with pytest.raises(InputError, match="canary"):
        BatchSubmitOperator(**submit_arguments(canary=canary))


def test_azure_has_no_canary_unless_the_author_asks_for_one(offline: None, connect: Callable[..., None]) -> None:
    from airflow_provider_batch.hooks.batch import BatchHook

    connect("azure", conn_type="openai", password="k", host="https://res.openai.azure.com/openai/v1/")

    assert BatchHook(conn_id="azure").canary == 0
    assert BatchHook().canary == 2


def test_page_and_command_line_show_the_measured_estimate(warehouse: Path) -> None:
    from airflow_provider_batch.core.lifecycle.summary import summarize
    from airflow_provider_batch.worker.open_job import open_job

    reference = attempt(Instance())
    summary = summarize(open_job(reference))

    assert summary.estimate.high_usd == reference["estimate"]["high_usd"]
    first = summary.shards[0]
    assert (first.name, first.status, first.batch_id) == ("c0001", "answered", None)


def test_two_workers_that_ask_the_same_canary_keep_the_answers_of_the_first(warehouse: Path, tmp_path: Path) -> None:
    from airflow_provider_batch.core.ledger.ledger import open_ledger
    from airflow_provider_batch.core.lifecycle.next_steps import next_steps
    from airflow_provider_batch.core.lifecycle.steps import Policy
    from airflow_provider_batch.hooks.batch import BatchHook
    from airflow_provider_batch.staging.layout import open_folder
    from airflow_provider_batch.worker.runner import Runner

    instance = Instance()
    with pytest.raises(StoppedError):
        attempt(instance, stopped=True)
    (seal,) = tmp_path.glob("staging/**/seal.json")
    workers = []
    for _ in range(2):
        ledger = open_ledger(open_folder(str(seal.parent.parent)))
        assert ledger is not None
        workers.append(Runner(ledger, BatchHook(), Policy(), logging.getLogger(__name__)))
    (planned,), _ = next_steps(workers[1].ledger.state(), {}, Policy(), datetime.now(UTC))
    workers[0].run({})

    workers[1]._carry_out([planned])

    state = workers[1].ledger.state()
    assert len(state.shards["c0001"].submissions) == 1
    assert len(state.shards["s0001"].submissions) == 1
    settled = state.shards["c0001"].submissions[0].settled
    assert settled is not None
    assert settled.outcomes == {"succeeded": 2}


def test_the_sealed_canary_is_never_asked_if_it_was_changed(warehouse: Path, tmp_path: Path) -> None:
    from airflow_provider_batch.exceptions import StagingError

    instance = Instance()
    with pytest.raises(StoppedError):
        attempt(instance, stopped=True)
    (file,) = tmp_path.glob("staging/**/c0001.jsonl")
    file.write_bytes(file.read_bytes() + b"\n")

    with pytest.raises(StagingError, match=r"c0001\.jsonl is not the file that was sealed"):
        attempt(instance)


def update(warehouse: Path, sql: str) -> None:
    with closing(sqlite3.connect(warehouse)) as connection, connection:
        connection.execute(sql)


def test_the_client_of_the_canary_never_repeats_a_request_itself(
    warehouse: Path, server: LocalServer, count_calls: Callable[[], dict[str, int]]
) -> None:
    from airflow_provider_batch.hooks.batch import BatchHook

    server.set_faults(Fault(kind=Kind.STATUS, calls=frozenset({Call.SYNCHRONOUS}), status=500))

    asked = BatchHook().send_request(
        "/v1/chat/completions", {"model": "m", "messages": [{"role": "user", "content": "a"}]}
    )

    assert asked.status == 500
    assert isinstance(json.loads(asked.body)["error"]["message"], str)
    assert count_calls() == {"synchronous": 1, "upload": 0, "create": 0}
