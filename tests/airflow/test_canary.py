"""The canary sends a few requests synchronously, so that a mistake in all requests costs no more than those."""

from __future__ import annotations

import json
import logging
import re
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

from airflow_provider_batch.core.formatting import format_usd
from airflow_provider_batch.exceptions import InputError, JobHeldError, StoppedError
from airflow_provider_batch.local.faults import Call, Fault, Kind
from airflow_provider_batch.local.process import LocalServer
from tests.airflow.jobs import Ticket, query, run_job, submit_arguments

pytestmark = pytest.mark.usefixtures("server")
SCHEMA = {"title": "Ticket", "type": "object", "properties": {"label": {"type": "string", "enum": ["bug", "billing"]}}}
#: query whose rows use one of two models
TWO_MODELS = "SELECT id, title, body, CASE WHEN id < 'T-3' THEN 'gpt-5-nano' ELSE 'gpt-5-mini' END AS m FROM tickets"


@pytest.fixture
def server(faulty_server: LocalServer) -> LocalServer:
    """A server without faults so far. `openai_default` points to it."""
    return faulty_server


@pytest.fixture
def tickets() -> list[Ticket]:
    return [(f"T-{n}", f"Ticket {n} {uuid4()}", "The invoice is wrong", "billing") for n in range(1, 6)]


@dataclass
class Instance:
    """The part of a task instance that an operator uses. It is the same for all tries of a task in a DAG run."""

    task: Any = None
    dag_id: str = "dag"
    task_id: str = "submit"
    run_id: str = field(default_factory=lambda: f"manual__{uuid4()}")
    map_index: int = -1
    max_tries: int = 0
    xcoms: dict[str, Any] = field(default_factory=dict)

    @property
    def ti_key(self) -> Instance:
        return self

    def xcom_push(self, key: str, value: Any) -> None:
        self.xcoms[key] = json.loads(json.dumps(value))


def submit_job(instance: Instance, *, stopped: bool = False, **arguments: Any) -> dict[str, Any]:
    """Run one try of a submit task, by default with the canary. Return its reference."""
    from airflow_provider_batch.operators.batch import BatchSubmitOperator

    operator = BatchSubmitOperator(**submit_arguments(**{"canary": ..., **arguments}))
    if stopped:
        operator.on_kill()
    context: Any = {"ti": instance, "run_id": instance.run_id}
    return operator.execute(context)


def state_of(reference: dict[str, Any]) -> Any:
    """Return the state of a submitted job."""
    from airflow_provider_batch.core.ledger.ledger import open_ledger
    from airflow_provider_batch.staging.layout import open_folder

    ledger = open_ledger(open_folder(reference["ledger"]))
    assert ledger is not None
    return ledger.state()


def test_some_requests_are_sent_synchronously_first_and_land_like_all_others(
    warehouse: Path, count_calls: Callable[[], dict[str, int]], capfd: pytest.CaptureFixture[str]
) -> None:
    result = run_job(canary=..., output_schema=SCHEMA, carry=["label"], land={"columns": {"answer": "label"}})

    assert result.state == "success"
    assert count_calls() == {"synchronous": 2, "upload": 1, "create": 1}
    assert result.return_values["land"]["outcomes"] == {"succeeded": 5}
    rows = query(
        warehouse, "SELECT custom_id, outcome, label, answer, attempt, batch_id IS NULL FROM answers ORDER BY 1"
    )
    assert [row[0] for row in rows] == ["T-1", "T-2", "T-3", "T-4", "T-5"]
    assert sum(row[5] for row in rows) == 2
    assert all(row[1:3] == ("succeeded", "billing") and row[3] and row[4] == 1 for row in rows)
    log = capfd.readouterr().out
    assert "Canary: 2 of 2 requests answered, mean output" in log
    assert "Canary: sending 2 requests at the standard price before anything is uploaded" in log


def test_an_answer_to_the_canary_costs_the_standard_price(warehouse: Path) -> None:
    summary = run_job(canary=2).return_values["land"]

    rows = query(warehouse, "SELECT input_tokens, output_tokens, cost_usd, batch_id IS NULL FROM answers")
    for input_tokens, output_tokens, cost, is_canary in rows:
        standard_cost = (input_tokens * 0.25 + output_tokens * 2) / 1e6
        assert float(cost) == pytest.approx(standard_cost if is_canary else standard_cost / 2)
    assert float(summary["cost_usd"]) == pytest.approx(sum(float(row[2]) for row in rows))
    assert float(summary["standard_cost_usd"]) == pytest.approx(sum(row[0] * 0.25 + row[1] * 2 for row in rows) / 1e6)


NUMBERS = (
    "WITH RECURSIVE numbers(id) AS (SELECT 1 UNION ALL SELECT id + 1 FROM numbers WHERE id < 200) "
    "SELECT id FROM numbers"
)


def test_images_that_cost_more_than_the_ceiling_are_refused_before_anything_is_sent(
    warehouse: Path, count_calls: Callable[[], dict[str, int]]
) -> None:
    image = {"type": "image_url", "image_url": {"url": "https://example.com/{{ row.id }}.png"}}
    prompt = [{"type": "text", "text": "What is in picture {{ row.id }}?"}, image]
    # 200 images of at least 25,501 tokens: $0.38
    with pytest.raises(
        AirflowFailException, match=r"at least \$0\.\d+ .* max_cost_usd is \$0\.05. Nothing was uploaded"
    ):
        submit_job(Instance(), sql=NUMBERS, prompt=prompt, model="gpt-4o-mini", max_output_tokens=20, max_cost_usd=0.05)
    assert not sum(count_calls().values())


def test_a_job_that_costs_more_than_the_ceiling_is_refused_by_what_the_canary_reports(
    warehouse: Path, count_calls: Callable[[], dict[str, int]]
) -> None:
    arguments: dict[str, Any] = {
        "sql": NUMBERS,
        # 50,000 spaces are few tokens, but the local server reports one token per four bytes.
        "prompt": f"{{{{ row.id }}}}{' ' * 50_000}.",
        "model": "gpt-4o-mini",
        "max_output_tokens": 20,
        "max_cost_usd": 0.08,
    }
    # 200 prompts of 12,500 tokens: $0.19
    assert submit_job(Instance(), canary=0, **arguments)["estimate"]["low_usd"] < 0.08

    with pytest.raises(
        AirflowFailException,
        match=r"at least \$0\.\d+ \(most likely \$0\.19\d*\), but max_cost_usd is \$0\.08. Nothing was uploaded",
    ):
        submit_job(Instance(), **arguments)


def test_the_reference_contains_the_estimate_based_on_the_answers_to_the_canary(warehouse: Path) -> None:
    initial = submit_job(Instance(), canary=0)["estimate"]
    reference = submit_job(Instance())
    corrected = reference["estimate"]

    assert state_of(reference).estimate.low_usd == corrected["low_usd"]
    width = corrected["output_tokens_high"] / corrected["output_tokens_low"]
    assert width < initial["output_tokens_high"] / initial["output_tokens_low"]
    assert corrected["input_tokens"] != initial["input_tokens"]  # the server counts differently


def test_with_stop_after_canary_only_the_canary_is_sent_and_its_answers_are_shown(
    warehouse: Path, count_calls: Callable[[], dict[str, int]]
) -> None:
    instance = Instance()
    reference = submit_job(instance, stop_after_canary=True, output_schema=SCHEMA)

    assert count_calls() == {"synchronous": 2, "upload": 0, "create": 0}
    assert reference["canary_requests"] == 2
    assert reference["canary_cost_usd"] > 0
    requests = instance.xcoms["preview"]
    assert len({request["custom_id"] for request in requests}) == 2
    assert {request["answer"]["outcome"] for request in requests} == {"succeeded"}
    assert all(json.loads(request["answer"]["text"])["label"] for request in requests)
    total = sum(request["answer"]["cost_usd"] for request in requests)
    assert total == pytest.approx(reference["canary_cost_usd"])
    text = instance.xcoms["preview_text"]
    assert "2 requests were sent already, to see what comes back: 2 succeeded. That cost " in text
    assert "Nothing else has been sent" in text
    assert "Its answer: **succeeded**" in text

    # another try shows the same answers, and sends nothing
    assert submit_job(instance, stop_after_canary=True, output_schema=SCHEMA)["job_uid"] == reference["job_uid"]
    assert instance.xcoms["preview"] == requests
    assert count_calls() == {"synchronous": 0, "upload": 0, "create": 0}


def test_a_preview_of_many_canary_requests_shows_some_of_each_model_and_the_cost_of_all(warehouse: Path) -> None:
    instance = Instance()
    sql = f"SELECT id, CASE WHEN id <= 80 THEN 'gpt-5-nano' ELSE 'gpt-5-mini' END AS m FROM ({NUMBERS})"
    reference = submit_job(
        instance, sql=sql, prompt="Number {{ row.id }}", model="{{ row.m }}", canary=20, stop_after_canary=True
    )

    assert reference["canary_requests"] == 40
    models = [request["body"]["model"] for request in instance.xcoms["preview"]]
    assert models == ["gpt-5-nano"] * 5 + ["gpt-5-mini"] * 5
    cost = format_usd(reference["canary_cost_usd"])
    text = instance.xcoms["preview_text"]
    assert f"40 requests were sent already, to see what comes back: 40 succeeded. That cost {cost}, " in text
    assert "10 of them are shown below" in text


def test_a_preview_after_a_clear_says_that_other_requests_were_sent_before(warehouse: Path) -> None:
    instance = Instance()
    submit_job(instance)
    instance.max_tries += 1

    submit_job(instance, stop_after_canary=True)

    text = instance.xcoms["preview_text"]
    assert "2 requests were sent already, " in text
    assert "Other requests of this job were sent before it was cleared" in text


def test_with_stop_after_canary_and_no_canary_nothing_is_sent(
    warehouse: Path, count_calls: Callable[[], dict[str, int]]
) -> None:
    instance = Instance()
    reference = submit_job(instance, stop_after_canary="yes", canary=0)

    assert count_calls() == {"synchronous": 0, "upload": 0, "create": 0}
    assert (reference["canary_requests"], reference["canary_cost_usd"]) == (0, 0)
    assert [request["custom_id"] for request in instance.xcoms["preview"]] == [f"T-{n}" for n in range(1, 6)]
    assert "Its answer" not in instance.xcoms["preview_text"]


def test_the_wait_sends_the_rest_of_a_job_that_stopped_after_its_canary(
    warehouse: Path, count_calls: Callable[[], dict[str, int]]
) -> None:
    result = run_job(canary=..., stop_after_canary=True)

    assert count_calls() == {"synchronous": 2, "upload": 1, "create": 1}
    assert result.return_values["land"]["outcomes"] == {"succeeded": 5}


def test_each_model_has_a_separate_canary(warehouse: Path, count_calls: Callable[[], dict[str, int]]) -> None:
    reference = submit_job(Instance(), sql=TWO_MODELS, model="{{ row.m }}", canary="1")

    assert count_calls() == {"synchronous": 2, "upload": 2, "create": 2}
    shards = state_of(reference).manifest.shards
    assert [(shard.name, shard.model, shard.requests, shard.synchronous) for shard in shards] == [
        ("c0001", "gpt-5-nano", 1, True),
        ("c0002", "gpt-5-mini", 1, True),
        ("s0001", "gpt-5-nano", 1, False),
        ("s0002", "gpt-5-mini", 2, False),
    ]


def test_a_wrong_parameter_stops_the_job_and_a_try_after_the_fix_starts_a_new_generation(
    warehouse: Path, count_calls: Callable[[], dict[str, int]]
) -> None:
    instance = Instance()
    with pytest.raises(AirflowFailException) as raised:
        submit_job(instance, body={"temperature": "hot"})

    error = str(raised.value)
    assert error.startswith("CanaryError: The canary of gpt-5-mini (2 requests sent before all others) got no usable ")
    assert re.search(r"answer: 2 failed \(custom_id 'T-\d', 'T-\d'\)", error)
    assert "temperature" in error
    assert "Nothing was uploaded" in error
    assert "canary=0" in error
    assert count_calls() == {"synchronous": 2, "upload": 0, "create": 0}

    reference = submit_job(instance)

    assert count_calls() == {"synchronous": 2, "upload": 1, "create": 1}
    state = state_of(reference)
    assert (state.manifest.generation, state.manifest.job_uid) == (2, reference["job_uid"])
    assert state.canary_verdict.void == ""


def test_a_stopped_job_is_stopped_again_if_nothing_was_fixed(
    warehouse: Path, count_calls: Callable[[], dict[str, int]]
) -> None:
    instance = Instance()
    for _ in range(2):
        with pytest.raises(AirflowFailException, match="CanaryError"):
            submit_job(instance, body={"temperature": "hot"})
        assert count_calls() == {"synchronous": 2, "upload": 0, "create": 0}


def test_a_model_that_refuses_its_canary_stops_the_job_even_if_another_model_answers(
    warehouse: Path, count_calls: Callable[[], dict[str, int]]
) -> None:
    with pytest.raises(AirflowFailException, match=r"canary of gpt-5-nano .*temperature"):
        submit_job(
            Instance(),
            sql=TWO_MODELS,
            model="{{ row.m }}",
            body={"temperature": "{{ 'hot' if row.m == 'gpt-5-nano' else 1 }}"},
            canary=1,
        )

    assert count_calls() == {"synchronous": 2, "upload": 0, "create": 0}


def test_a_model_that_refuses_all_its_requests_in_the_job_does_not_stop_the_other_model(
    warehouse: Path, count_calls: Callable[[], dict[str, int]]
) -> None:
    result = run_job(
        sql=f"SELECT * FROM ({TWO_MODELS}) WHERE id > 'T-1'",
        model="{{ row.m }}",
        body={"temperature": "{{ 'hot' if row.m == 'gpt-5-nano' else 1 }}"},
        canary=2,
    )

    assert result.return_values["land"]["outcomes"] == {"succeeded": 3, "failed": 1}
    assert count_calls() == {"synchronous": 2, "upload": 1, "create": 1}


def test_a_refused_new_row_does_not_stop_a_job_whose_other_answers_are_reused(
    warehouse: Path, count_calls: Callable[[], dict[str, int]]
) -> None:
    arguments: dict[str, Any] = {"sql": "SELECT * FROM tickets", "reuse_from": "answers"}
    assert run_job(**arguments, canary=2).state == "success"
    update(warehouse, "UPDATE tickets SET body = '[[fail:400]]' WHERE id = 'T-1'")
    count_calls()

    result = run_job(**arguments, canary=2)

    assert result.return_values["land"]["outcomes"] == {"succeeded": 4, "failed": 1}
    assert count_calls() == {"synchronous": 1, "upload": 0, "create": 0}


def test_submit_fails_if_the_only_request_is_refused(
    warehouse: Path, count_calls: Callable[[], dict[str, int]]
) -> None:
    with pytest.raises(AirflowFailException, match="temperature"):
        submit_job(Instance(), sql="SELECT * FROM tickets LIMIT 1", body={"temperature": "hot"}, canary=20)

    assert count_calls() == {"synchronous": 1, "upload": 0, "create": 0}


def test_a_canary_with_one_refused_row_does_not_stop_the_job(
    warehouse: Path, count_calls: Callable[[], dict[str, int]]
) -> None:
    update(warehouse, "UPDATE tickets SET body = '[[fail:400]]' WHERE id = 'T-1'")

    result = run_job(canary=2)

    assert result.return_values["land"]["outcomes"] == {"succeeded": 4, "failed": 1}
    assert count_calls() == {"synchronous": 2, "upload": 1, "create": 1}


def test_refusals_with_a_code_that_concerns_single_rows_do_not_stop_the_job(
    warehouse: Path, server: LocalServer, count_calls: Callable[[], dict[str, int]]
) -> None:
    code = "context_length_exceeded"
    server.set_faults(Fault(kind=Kind.STATUS, calls=frozenset({Call.SYNCHRONOUS}), status=400, code=code))

    submit_job(Instance())

    assert count_calls() == {"synchronous": 2, "upload": 1, "create": 1}


@pytest.mark.parametrize(
    ("status", "code"), [(401, "invalid_api_key"), (403, None), (429, "insufficient_quota"), (402, None)]
)
def test_a_refused_account_holds_the_job_and_the_next_try_continues_it(
    warehouse: Path, server: LocalServer, count_calls: Callable[[], dict[str, int]], status: int, code: str | None
) -> None:
    server.set_faults(Fault(kind=Kind.STATUS, calls=frozenset({Call.SYNCHRONOUS}), status=status, code=code))
    instance = Instance()
    with pytest.raises(JobHeldError, match=f"HTTP {status}") as raised:
        submit_job(instance)
    assert count_calls() == {"synchronous": 2, "upload": 0, "create": 0}
    server.set_faults()

    reference = submit_job(instance)

    assert f"Job {reference['job_uid']} is held" in str(raised.value)
    assert count_calls() == {"synchronous": 2, "upload": 1, "create": 1}
    assert state_of(reference).manifest.generation == 1


def test_a_request_refused_by_a_rate_limit_is_repeated_shortly_after(
    warehouse: Path, server: LocalServer, count_calls: Callable[[], dict[str, int]]
) -> None:
    server.set_faults(Fault(kind=Kind.STATUS, calls=frozenset({Call.SYNCHRONOUS}), status=429, times=2))

    state = state_of(submit_job(Instance()))

    assert count_calls() == {"synchronous": 4, "upload": 1, "create": 1}
    assert state.shards["c0001"].submissions[0].settled.outcomes == {"succeeded": 2}


@pytest.mark.parametrize(
    "fault",
    [
        Fault(kind=Kind.STATUS, calls=frozenset({Call.SYNCHRONOUS}), status=429, retry_after=60),
        Fault(kind=Kind.DROP, calls=frozenset({Call.SYNCHRONOUS})),
        Fault(kind=Kind.HTML, calls=frozenset({Call.SYNCHRONOUS})),
    ],
    ids=["429", "dropped connection", "html"],
)
def test_requests_that_keep_failing_for_a_transient_reason_are_retried_in_a_batch(
    warehouse: Path, server: LocalServer, count_calls: Callable[[], dict[str, int]], fault: Fault
) -> None:
    server.set_faults(fault)

    result = run_job(canary=2)

    assert result.return_values["land"]["outcomes"] == {"succeeded": 5}
    assert result.return_values["land"]["retried"] == 2
    assert count_calls() == {"synchronous": 2, "upload": 2, "create": 2}
    assert query(warehouse, "SELECT count(*) FROM answers WHERE batch_id IS NULL") == [(0,)]


def test_a_request_that_is_not_answered_in_time_expires_and_the_job_continues(
    warehouse: Path, server: LocalServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    from airflow_provider_batch.worker import synchronous

    hasty = synchronous.CANARY._replace(standard=synchronous.Tries((), 0, timeout=0.5))
    monkeypatch.setattr(synchronous, "CANARY", hasty)
    server.set_faults(Fault(kind=Kind.COMMIT_THEN_HANG, calls=frozenset({Call.SYNCHRONOUS}), seconds=30))

    state = state_of(submit_job(Instance()))

    assert state.shards["c0001"].submissions[0].settled.outcomes == {"expired": 2}
    assert state.shards["s0001"].submissions[0].batch_id


@pytest.mark.parametrize(
    ("marker", "outcome", "arguments", "advice"),
    [
        ("", "2 incomplete", {"max_output_tokens": 1}, "Raise max_output_tokens"),
        ("[[cutoff]]", "2 incomplete", {}, "Raise max_output_tokens"),
        ("[[empty]]", "2 incomplete", {}, "Check with one request by hand"),
        ("[[refuse]]", "2 refused", {}, "Change the prompt or the system message"),
        ("[[filter]]", "2 refused", {}, "Change the prompt or the system message"),
        ("[[invalid-json]]", "2 invalid_output", {"output_schema": SCHEMA}, "Compare the answers with output_schema"),
        ("[[fail:400]]", "2 failed", {}, "Fix what the message names"),
    ],
)
def test_submit_fails_if_no_request_of_the_canary_gets_a_usable_answer(
    warehouse: Path,
    count_calls: Callable[[], dict[str, int]],
    marker: str,
    outcome: str,
    arguments: dict[str, Any],
    advice: str,
) -> None:
    update(warehouse, f"UPDATE tickets SET body = body || '{marker}'")

    with pytest.raises(AirflowFailException) as raised:
        submit_job(Instance(), **arguments)

    error = str(raised.value)
    assert re.search(rf"got no usable answer: {outcome} \(custom_id 'T-\d', 'T-\d'\)", error)
    assert "Nothing was uploaded" in error
    assert "The canary cost" in error
    assert advice in error
    assert "ignore_canary=True" in error
    assert count_calls() == {"synchronous": 2, "upload": 0, "create": 0}


def test_a_server_that_fails_on_every_request_fails_the_try_and_airflow_may_retry_it(
    warehouse: Path, server: LocalServer, count_calls: Callable[[], dict[str, int]]
) -> None:
    from airflow_provider_batch.exceptions import CanaryError

    server.set_faults(Fault(kind=Kind.STATUS, calls=frozenset({Call.SYNCHRONOUS}), status=500))
    instance = Instance()
    with pytest.raises(CanaryError, match=r"2 failed .*HTTP 500 to what they do not support"):
        submit_job(instance)
    assert count_calls() == {"synchronous": 2, "upload": 0, "create": 0}
    server.set_faults()

    submit_job(instance)

    assert count_calls() == {"synchronous": 2, "upload": 1, "create": 1}


def test_one_usable_answer_is_enough_to_continue_and_the_log_says_what_the_others_were(
    warehouse: Path,
    server: LocalServer,
    count_calls: Callable[[], dict[str, int]],
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    fault = Fault(kind=Kind.STATUS, calls=frozenset({Call.SYNCHRONOUS}), status=400, code="invalid_value", times=1)
    server.set_faults(fault)

    submit_job(Instance())

    assert count_calls() == {"synchronous": 2, "upload": 1, "create": 1}
    assert "Canary: 1 succeeded, 1 failed. invalid_value: " in capfd.readouterr().out + caplog.text


@pytest.mark.parametrize("ignore_canary", [True, "true"])
def test_the_author_can_send_all_requests_in_spite_of_the_canary(
    warehouse: Path,
    count_calls: Callable[[], dict[str, int]],
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
    ignore_canary: Any,
) -> None:
    update(warehouse, "UPDATE tickets SET body = body || '[[invalid-json]]'")
    arguments: dict[str, Any] = {"output_schema": SCHEMA, "canary": 2}
    instance = Instance()
    with pytest.raises(AirflowFailException, match="2 invalid_output"):
        submit_job(instance, **arguments)
    count_calls()

    state = state_of(submit_job(instance, **arguments, ignore_canary=ignore_canary))

    assert count_calls() == {"synchronous": 2, "upload": 1, "create": 1}
    assert state.shards["g002-c0001"].submissions[0].settled.outcomes == {"invalid_output": 2}
    log = capfd.readouterr().out + caplog.text
    assert "ignore_canary is set, so the job continues in spite of this: The canary of gpt-5-mini" in log


def test_a_wrong_value_of_ignore_canary_is_refused_while_the_dag_is_parsed() -> None:
    from airflow_provider_batch.operators.batch import BatchSubmitOperator

    with pytest.raises(InputError, match="ignore_canary"):
        BatchSubmitOperator(**submit_arguments(ignore_canary="no way"))


def test_an_estimate_above_the_budget_after_the_canary_stops_the_job_until_the_budget_is_raised(
    warehouse: Path, count_calls: Callable[[], dict[str, int]]
) -> None:
    long_answers: dict[str, Any] = {
        "prices": {"gpt-5-mini": {"input": 0, "output": 1000}},
        "output_schema": {"type": "object", "properties": {f"field_{n}": {"type": "string"} for n in range(60)}},
    }
    low = submit_job(Instance(), **long_answers)["estimate"]["low_usd"]
    initial_low = submit_job(Instance(), **long_answers, canary=0)["estimate"]["low_usd"]
    assert initial_low < low, "the answers are too short for this test"
    count_calls()
    instance = Instance()
    with pytest.raises(
        AirflowFailException, match=r"BudgetError: Judging by the answers to the canary .* Nothing was uploaded"
    ):
        submit_job(instance, **long_answers, max_cost_usd=(initial_low + low) / 2)
    assert count_calls() == {"synchronous": 2, "upload": 0, "create": 0}

    reference = submit_job(instance, **long_answers, max_cost_usd=low * 100)

    assert count_calls() == {"synchronous": 2, "upload": 1, "create": 1}
    assert state_of(reference).manifest.generation == 2


def test_a_worker_that_is_being_stopped_sends_nothing_and_the_next_try_continues(
    warehouse: Path, count_calls: Callable[[], dict[str, int]]
) -> None:
    instance = Instance()
    with pytest.raises(StoppedError, match="2 of 2 synchronous requests"):
        submit_job(instance, stopped=True)
    assert count_calls() == {"synchronous": 0, "upload": 0, "create": 0}

    submit_job(instance)

    assert count_calls() == {"synchronous": 2, "upload": 1, "create": 1}


@contextmanager
def killed_at(monkeypatch: pytest.MonkeyPatch, module: ModuleType, function: str) -> Iterator[None]:
    """Kill the worker when it calls a function of a module."""

    def kill(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(module, function, kill)
        with pytest.raises(KeyboardInterrupt):
            yield


def test_requests_are_sent_again_if_the_worker_is_killed_before_it_records_their_answers(
    warehouse: Path, count_calls: Callable[[], dict[str, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    from airflow_provider_batch.worker import synchronous

    instance = Instance()
    with killed_at(monkeypatch, synchronous, "write_responses"):
        submit_job(instance)
    assert count_calls() == {"synchronous": 2, "upload": 0, "create": 0}

    state = state_of(submit_job(instance))

    assert count_calls() == {"synchronous": 2, "upload": 1, "create": 1}
    assert state.shards["c0001"].submissions[0].settled.outcomes == {"succeeded": 2}


def test_the_next_worker_gives_the_verdict_if_the_first_is_killed_before_it(
    warehouse: Path, count_calls: Callable[[], dict[str, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    from airflow_provider_batch.worker import runner

    instance = Instance()
    with killed_at(monkeypatch, runner, "judge_canary"):
        submit_job(instance, body={"temperature": "hot"})

    with pytest.raises(AirflowFailException, match="CanaryError"):
        submit_job(instance, body={"temperature": "hot"})
    assert count_calls() == {"synchronous": 2, "upload": 0, "create": 0}


def test_a_job_with_a_single_row_needs_no_batch(warehouse: Path, count_calls: Callable[[], dict[str, int]]) -> None:
    result = run_job(sql="SELECT * FROM tickets LIMIT 1", canary=20)

    assert result.state == "success"
    assert result.return_values["land"]["outcomes"] == {"succeeded": 1}
    assert count_calls() == {"synchronous": 1, "upload": 0, "create": 0}


def test_the_canary_is_at_most_a_quarter_of_a_small_job(
    warehouse: Path, count_calls: Callable[[], dict[str, int]]
) -> None:
    submit_job(Instance(), canary=20)

    assert count_calls() == {"synchronous": 2, "upload": 1, "create": 1}


def test_a_preview_sends_no_canary(warehouse: Path, count_calls: Callable[[], dict[str, int]]) -> None:
    reference = submit_job(Instance(), preview=True)

    assert (reference["shards"], reference["requests"]) == (1, 5)
    assert count_calls() == {"synchronous": 0, "upload": 0, "create": 0}


@pytest.mark.parametrize("endpoint", ["/v1/responses", "/v1/embeddings", "/v1/completions", "/v1/moderations"])
def test_the_canary_works_with_every_endpoint(
    warehouse: Path, count_calls: Callable[[], dict[str, int]], endpoint: str
) -> None:
    model = {"/v1/embeddings": "text-embedding-3-small", "/v1/moderations": "omni-moderation-latest"}
    cap = 200 if endpoint == "/v1/completions" else None
    arguments: dict[str, Any] = {
        "endpoint": endpoint,
        "model": model.get(endpoint, "gpt-5-mini"),
        "max_output_tokens": cap,
    }
    state = state_of(submit_job(Instance(), **arguments))

    assert count_calls() == {"synchronous": 2, "upload": 1, "create": 1}
    assert state.shards["c0001"].submissions[0].settled.outcomes == {"succeeded": 2}


@pytest.mark.parametrize("canary", [21, -1, 1.5, "many", True])
def test_a_canary_that_is_not_a_number_from_0_to_20_is_refused_while_the_dag_is_parsed(canary: Any) -> None:
    from airflow_provider_batch.operators.batch import BatchSubmitOperator

    with pytest.raises(InputError, match="canary"):
        BatchSubmitOperator(**submit_arguments(canary=canary))


def test_azure_has_no_canary_by_default(offline: None, connect: Callable[..., None]) -> None:
    from airflow_provider_batch.hooks.batch import BatchHook

    connect("azure", conn_type="openai", password="k", host="https://res.openai.azure.com/openai/v1/")

    assert BatchHook(conn_id="azure").canary == 0
    assert BatchHook().canary == 5


def test_the_job_summary_shows_the_estimate_after_the_canary(warehouse: Path) -> None:
    from airflow_provider_batch.core.lifecycle.summary import summarize
    from airflow_provider_batch.worker.open_job import open_job

    reference = submit_job(Instance())
    summary = summarize(open_job(reference))

    assert summary.estimate.high_usd == reference["estimate"]["high_usd"]
    first = summary.shards[0]
    assert (first.name, first.status, first.batch_id) == ("c0001", "answered", None)


def test_if_two_workers_send_the_same_canary_the_answers_of_the_first_are_kept(warehouse: Path, tmp_path: Path) -> None:
    from airflow_provider_batch.core.ledger.ledger import open_ledger
    from airflow_provider_batch.core.lifecycle.next_steps import next_steps
    from airflow_provider_batch.core.lifecycle.steps import Policy
    from airflow_provider_batch.hooks.batch import BatchHook
    from airflow_provider_batch.staging.layout import open_folder
    from airflow_provider_batch.worker.runner import Runner

    instance = Instance()
    with pytest.raises(StoppedError):
        submit_job(instance, stopped=True)
    (seal,) = tmp_path.glob("staging/**/seal.json")
    workers = []
    for _ in range(2):
        ledger = open_ledger(open_folder(str(seal.parent.parent)))
        assert ledger is not None
        workers.append(Runner(ledger, BatchHook(), Policy(), logging.getLogger(__name__)))
    (step,), _ = next_steps(workers[1].ledger.state(), {}, Policy(), datetime.now(UTC))
    workers[0].run({})

    workers[1]._carry_out([step])

    state = workers[1].ledger.state()
    assert len(state.shards["c0001"].submissions) == 1
    assert len(state.shards["s0001"].submissions) == 1
    settled = state.shards["c0001"].submissions[0].settled
    assert settled is not None
    assert settled.outcomes == {"succeeded": 2}


def test_a_canary_whose_sealed_file_was_changed_is_not_sent(warehouse: Path, tmp_path: Path) -> None:
    from airflow_provider_batch.exceptions import StagingError

    instance = Instance()
    with pytest.raises(StoppedError):
        submit_job(instance, stopped=True)
    (file,) = tmp_path.glob("staging/**/c0001.jsonl")
    file.write_bytes(file.read_bytes() + b"\n")

    with pytest.raises(StagingError, match=r"c0001\.jsonl is not the file that was sealed"):
        submit_job(instance)


def update(warehouse: Path, sql: str) -> None:
    with closing(sqlite3.connect(warehouse)) as connection, connection:
        connection.execute(sql)


def test_the_client_of_the_canary_never_repeats_a_request(
    warehouse: Path, server: LocalServer, count_calls: Callable[[], dict[str, int]]
) -> None:
    from airflow_provider_batch.hooks.batch import BatchHook

    server.set_faults(Fault(kind=Kind.STATUS, calls=frozenset({Call.SYNCHRONOUS}), status=500))

    response = BatchHook().send_request(
        "/v1/chat/completions", {"model": "m", "messages": [{"role": "user", "content": "a"}]}
    )

    assert response.status == 500
    assert isinstance(json.loads(response.body)["error"]["message"], str)
    assert count_calls() == {"synchronous": 1, "upload": 0, "create": 0}
