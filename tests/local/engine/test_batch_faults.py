"""Faults of whole batches: a batch fails at validation despite valid input, or is stuck until its window ends."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from openai import OpenAI

from airflow_provider_batch.local.faults import Fault, Kind
from airflow_provider_batch.local.process import LocalServer
from tests.local.conftest import Serve, make_client
from tests.local.driving import chat, chats, failures, problems, run, submit, wait

if TYPE_CHECKING:
    from openai.types import Batch

Faulty = tuple[LocalServer, OpenAI]


def message(batch: Batch) -> str | None:
    assert batch.errors is not None
    assert batch.errors.data is not None
    return batch.errors.data[0].message


def counts(batch: Batch) -> tuple[int, int, int]:
    assert batch.request_counts is not None
    return batch.request_counts.total, batch.request_counts.completed, batch.request_counts.failed


def is_in_progress(batch: Batch) -> bool:
    return batch.status == "in_progress"


# failed batches


def test_a_batch_fails_with_token_limit_exceeded_by_default(faulty: Faulty) -> None:
    server, client = faulty
    server.set_faults(Fault(kind=Kind.FAIL_BATCH))
    batch = run(client, chats(3))

    assert batch.status == "failed"
    assert problems(batch) == [("token_limit_exceeded", None, None)]
    assert message(batch) == (
        "Enqueued token limit reached for gpt-5-mini in organization org-local. Limit: 2,000,000 enqueued tokens."
        " Please try again once some in_progress batches have been completed."
    )
    assert batch.failed_at is not None
    assert batch.in_progress_at is None
    assert counts(batch) == (0, 0, 0)
    assert (batch.output_file_id, batch.error_file_id) == (None, None)


def test_a_batch_can_fail_as_if_its_input_file_did_not_exist(faulty: Faulty) -> None:
    server, client = faulty
    server.set_faults(Fault(kind=Kind.FAIL_BATCH, code="invalid_request"))
    batch = run(client, chats(1))

    assert problems(batch) == [("invalid_request", "file_id", None)]
    assert (message(batch) or "").startswith(f"Cannot find file {batch.input_file_id}, or organization")
    assert client.files.retrieve(batch.input_file_id).status == "processed"


@pytest.mark.parametrize(
    ("code", "fault_message", "expected_message"),
    [
        ("billing_hard_limit_reached", None, "Billing hard limit has been reached."),
        ("insufficient_quota", None, "You exceeded your current quota, please check your plan and billing details."),
        ("insufficient_quota", "No more money.", "No more money."),
        ("never_heard_of", None, "The batch failed with never_heard_of."),
        (None, "Limit: 5 enqueued tokens.", "Limit: 5 enqueued tokens."),
    ],
)
def test_a_batch_fails_with_the_code_and_message_of_the_fault(
    faulty: Faulty, code: str | None, fault_message: str | None, expected_message: str
) -> None:
    server, client = faulty
    server.set_faults(Fault(kind=Kind.FAIL_BATCH, code=code, message=fault_message))
    batch = run(client, chats(1))

    assert problems(batch) == [(code or "token_limit_exceeded", None, None)]
    assert message(batch) == expected_message


def test_a_batch_that_a_fault_fails_reports_no_problems_of_its_lines(faulty: Faulty) -> None:
    server, client = faulty
    server.set_faults(Fault(kind=Kind.FAIL_BATCH))

    assert problems(run(client, [chat("a", "hello"), "{", "{}"])) == [("token_limit_exceeded", None, None)]


def test_a_fault_skips_and_hits_the_configured_number_of_batches(faulty: Faulty) -> None:
    server, client = faulty
    server.set_faults(Fault(kind=Kind.FAIL_BATCH, skip=1, times=2))

    assert [run(client, chats(1)).status for _ in range(4)] == ["completed", "failed", "failed", "completed"]


def test_a_batch_that_drew_a_fault_fails_after_a_restart_without_it(serve: Serve) -> None:
    server, client = serve(admin=True, validating=600)
    server.set_faults(Fault(kind=Kind.FAIL_BATCH, code="billing_hard_limit_reached"))
    faulty_batch = submit(client, chats(1))
    server.set_faults()
    healthy_batch = submit(client, chats(1))
    server.kill()

    with LocalServer(server.state) as restarted, make_client(restarted) as reader:
        assert problems(wait(reader, faulty_batch)) == [("billing_hard_limit_reached", None, None)]
        assert wait(reader, healthy_batch).status == "completed"


# stuck batches


def test_a_stuck_batch_answers_nothing_and_expires(faulty: Faulty) -> None:
    server, client = faulty
    server.set_faults(Fault(kind=Kind.STUCK, times=1))
    stuck = wait(client, submit(client, chats(3)), is_in_progress)
    assert run(client, chats(3)).status == "completed", "the fault hits only the first batch"

    stuck = client.batches.retrieve(stuck.id)
    assert stuck.status == "in_progress"
    assert counts(stuck) == (3, 0, 0)
    server.advance(86_400)
    final = wait(client, stuck)
    assert final.status == "expired"
    assert final.output_file_id is None
    assert counts(final) == (3, 0, 0)
    assert {name: line["error"]["code"] for name, line in failures(client, final).items()} == {
        f"row-{number}": "batch_expired" for number in range(3)
    }


def test_a_stuck_batch_can_be_cancelled(faulty: Faulty) -> None:
    server, client = faulty
    server.set_faults(Fault(kind=Kind.STUCK))
    batch = wait(client, submit(client, chats(2)), is_in_progress)

    final = wait(client, client.batches.cancel(batch.id))
    assert final.status == "cancelled"
    assert {line["error"]["code"] for line in failures(client, final).values()} == {"batch_cancelled"}


def test_a_stuck_batch_stays_stuck_after_a_restart_without_the_fault(serve: Serve) -> None:
    server, client = serve(admin=True)
    server.set_faults(Fault(kind=Kind.STUCK))
    stuck = wait(client, submit(client, chats(2)), is_in_progress)
    server.kill()
    server.start()

    assert run(client, chats(2)).status == "completed"
    assert client.batches.retrieve(stuck.id).status == "in_progress"
    server.advance(86_400)
    assert wait(client, stuck).status == "expired"
