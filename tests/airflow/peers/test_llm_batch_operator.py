"""`LLMBatchOperator` of the common.ai provider: its examples, failed rows, and every way in which a batch can end."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

import pytest
from pydantic import BaseModel, Field

from airflow_provider_batch.local.faults import Call, Fault, Kind
from tests.airflow.jobs import DagRunResult, run_dag
from tests.airflow.peers.driving import Platform, new_dag

REVIEWS = [
    "Absolutely loved it, would buy again.",
    "Broke after one use, very disappointed.",
    "Does what it says on the box. Nothing special.",
    "Shipping took three weeks but the product itself is great.",
]
#: The server creates the batch, but answers with an error that the SDK does not retry.
LOST_RESPONSE = Fault(kind=Kind.COMMIT_THEN_STATUS, status=400, calls=frozenset({Call.CREATE}), times=1)
#: The server answers a create only when the batch has had time to end. The operator polls immediately and then after at
#: least 30 s.
DELAYED_RESPONSE = Fault(kind=Kind.STALL, calls=frozenset({Call.CREATE}), seconds=0.5)


class Sentiment(BaseModel):
    label: Literal["positive", "negative", "neutral"]
    confidence: float = Field(ge=0, le=1)
    reason: str


@pytest.fixture
def results(tmp_path: Path) -> str:
    return f"{tmp_path.as_uri()}/{{{{ dag.dag_id }}}}/{{{{ run_id }}}}"


def run_operator(
    results: str, requests: list[Any] = REVIEWS, *, deferrable: bool = True, **arguments: Any
) -> DagRunResult:
    with new_dag() as dag:
        from airflow.providers.common.ai.operators.llm_batch import LLMBatchOperator

        LLMBatchOperator(
            task_id="batch",
            requests=requests,
            result_path=results,
            llm_conn_id="pydanticai_default",
            model_id="openai:gpt-5-mini",
            retry_delay=timedelta(0),
            timeout=60,
            deferrable=deferrable,
            **arguments,
        )
    return run_dag(dag)


def rows(uri: str) -> list[dict[str, Any]]:
    """Return the rows of a result file, in the order of the requests."""
    lines = Path(uri.removeprefix("file://")).read_text(encoding="utf-8").splitlines()
    return sorted((json.loads(line) for line in lines), key=lambda row: row["index"])


def counts(result: DagRunResult) -> dict[str, int]:
    """Return the counts in the operator's manifest that are not 0."""
    return {name: count for name, count in result.return_values["batch"]["counts"].items() if count}


def test_the_example_of_its_documentation_gets_structured_answers(
    quick: Platform, results: str, deferrable: bool
) -> None:
    quick.server.set_faults(DELAYED_RESPONSE)

    result = run_operator(
        results,
        [f"Review: {review!r}" for review in REVIEWS],
        system_prompt="Classify the sentiment of this product review.",
        output_type=Sentiment,
        deferrable=deferrable,
    )

    assert counts(result) == {"succeeded": 4}
    manifest = result.return_values["batch"]
    assert manifest["terminal_reason"] == "succeeded"
    assert manifest["batch_id"] == quick.batch(status="completed", completed=4).id
    answers = rows(manifest["result_uri"])
    assert [row["status"] for row in answers] == ["success"] * 4
    for row, review in zip(answers, REVIEWS, strict=True):
        assert review in Sentiment.model_validate(row["output"]).reason
        assert (row["finish_reason"], row["error"]) == ("stop", None)
        assert row["usage"]["input_tokens"] > 0
        assert row["usage"]["output_tokens"] > 0


def test_an_output_type_that_is_not_an_object_and_additional_parameters_are_supported(
    quick: Platform, results: str
) -> None:
    result = run_operator(
        results,
        system_prompt="Extract up to three keywords from the review.",
        output_type=list[str],
        max_tokens=2048,
        request_params={"reasoning_effort": "low", "user": "reviews-pipeline"},
        fail_on_partial_error=True,
    )

    assert counts(result) == {"succeeded": 4}
    for row in rows(result.return_values["batch"]["result_uri"]):
        assert all(isinstance(keyword, str) for keyword in row["output"])


def test_requests_of_the_decorator_can_have_their_own_settings(quick: Platform, results: str) -> None:
    from airflow.sdk import task

    with new_dag() as dag:

        @task.llm_batch(
            llm_conn_id="pydanticai_default",
            model_id="openai:gpt-4.1-mini",
            result_path=results,
            system_prompt="Summarize the review in one short sentence.",
            max_tokens=60,
            deferrable=True,
        )
        def batch() -> list[dict[str, Any]]:
            return [
                {"prompt": f"Review: {REVIEWS[0]!r}"},
                {"prompt": f"Review: {REVIEWS[1]!r}", "system_prompt": "Summarize the review in French."},
                {"prompt": f"Review: {REVIEWS[2]!r}", "max_tokens": 120, "params": {"temperature": 0.9}},
            ]

        batch()

    result = run_dag(dag)

    assert counts(result) == {"succeeded": 3}
    outputs = [row["output"] for row in rows(result.return_values["batch"]["result_uri"])]
    assert len(set(outputs)) == 3


def test_each_kind_of_failed_row_is_reported_as_such_and_the_other_rows_are_kept(quick: Platform, results: str) -> None:
    prompts = [
        "Fine.",
        "Too many. [[fail:429]]",
        "Too slow. [[request-timeout]]",
        "Not this. [[refuse]]",
        "Not so. [[invalid-json]]",
        "Not all. [[cutoff]]",
    ]

    result = run_operator(results, prompts, output_type=Sentiment)

    assert counts(result) == {"succeeded": 1, "errored": 2, "invalid_output": 3}
    assert result.return_values["batch"]["terminal_reason"] == "partial"
    success, too_many, too_slow, refusal, not_json, cut_off = rows(result.return_values["batch"]["result_uri"])
    assert success["status"] == "success"
    assert (too_many["status"], too_many["error"]["provider_code"]) == ("error", "rate_limit_exceeded")
    assert (too_slow["status"], too_slow["error"]["provider_code"]) == ("error", "request_timeout")
    assert (refusal["status"], refusal["raw_output"]) == ("invalid_output", None)
    assert (not_json["status"], not_json["finish_reason"]) == ("invalid_output", "stop")
    assert "not JSON" in not_json["raw_output"]
    assert (cut_off["status"], cut_off["finish_reason"]) == ("invalid_output", "length")


def test_with_fail_on_partial_error_one_failed_row_fails_the_task_after_all_requests_were_processed(
    quick: Platform, results: str
) -> None:
    from airflow.providers.common.ai.exceptions import LLMBatchPartialFailureError

    result = run_operator(results, ["Fine.", "Gone. [[fail:500]]"], fail_on_partial_error=True)

    assert type(result.errors["batch"]) is LLMBatchPartialFailureError
    assert "errored=1" in result.error("batch")
    batch = quick.batch(status="completed")
    assert batch.request_counts is not None
    assert (batch.request_counts.completed, batch.request_counts.failed) == (1, 1)


def test_a_failed_batch_is_reported_with_the_message_of_the_platform(
    quick: Platform, results: str, deferrable: bool
) -> None:
    from airflow.providers.common.ai.exceptions import LLMBatchJobError

    message = "Enqueued token limit reached for gpt-5-mini in organization org-1."
    quick.server.set_faults(Fault(kind=Kind.FAIL_BATCH, code="token_limit_exceeded", message=message), DELAYED_RESPONSE)

    result = run_operator(results, deferrable=deferrable)

    assert type(result.errors["batch"]) is LLMBatchJobError
    assert f"token_limit_exceeded: {message}" in result.error("batch")


def test_the_attempt_after_a_failed_batch_submits_another_batch(quick: Platform, results: str) -> None:
    quick.server.set_faults(Fault(kind=Kind.FAIL_BATCH, code="token_limit_exceeded", times=1))

    result = run_operator(results, retries=1)

    assert counts(result) == {"succeeded": 4}
    assert [batch.status for batch in quick.batches()] == ["completed", "failed"]


def test_a_batch_is_found_after_the_response_to_its_creation_was_lost(quick: Platform, results: str) -> None:
    quick.server.set_faults(LOST_RESPONSE)

    result = run_operator(results, retries=1)

    assert counts(result) == {"succeeded": 4}
    assert result.return_values["batch"]["batch_id"] == quick.batch(status="completed").id


def test_answers_from_before_the_end_of_the_window_are_kept(slow: Platform, results: str) -> None:
    slow.server.set_faults(LOST_RESPONSE)

    result = run_operator(results, retries=1, on_retry_callback=lambda _: slow.expire_half_done())

    assert counts(result) == {"succeeded": 2, "expired": 2}
    assert result.return_values["batch"]["terminal_reason"] == "expired"
    first, second, third, fourth = rows(result.return_values["batch"]["result_uri"])
    assert (first["status"], second["status"]) == ("success", "success")
    assert (third["error"]["provider_code"], fourth["error"]["provider_code"]) == ("batch_expired", "batch_expired")


def test_answers_from_before_a_cancel_are_kept(slow: Platform, results: str, tmp_path: Path) -> None:
    from airflow.providers.common.ai.exceptions import LLMBatchCancelledError

    slow.server.set_faults(LOST_RESPONSE)

    result = run_operator(results, retries=1, on_retry_callback=lambda _: slow.cancel_half_done())

    assert type(result.errors["batch"]) is LLMBatchCancelledError
    assert "was cancelled before 2 of 4 requests completed" in result.error("batch")
    (result_file,) = tmp_path.rglob("*.jsonl")
    assert [row["status"] for row in rows(f"file://{result_file}")] == ["success", "success", "cancelled", "cancelled"]


def test_an_answer_that_contains_a_line_separator_is_missing(quick: Platform, results: str) -> None:
    quick.server.set_faults(DELAYED_RESPONSE)

    result = run_operator(results, ["A plain review.", "A review in two lines. [[separators]]"])

    assert counts(result) == {"succeeded": 1, "missing": 1}
