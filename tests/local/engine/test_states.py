"""The fields of a batch in every state, and the outcome when it is cancelled or expires in that state.

All tests share one server whose states take minutes or hours of its own clock. The tests advance that clock.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import openai
import pytest
from openai import OpenAI

from airflow_provider_batch.local.process import LocalServer
from tests.local.conftest import make_client
from tests.local.driving import FINAL_STATUSES, answers, chat, chats, failures, submit, wait

if TYPE_CHECKING:
    from openai.types import Batch

#: seconds of the server's clock. The window of a batch that nothing disturbs ends while it is finalizing.
WINDOW, VALIDATING, IN_PROGRESS, FINALIZING = 86_400, 300, 86_000, 600


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalServer]:
    state = tmp_path_factory.mktemp("state")
    with LocalServer(
        state, admin=True, validating=VALIDATING, in_progress=IN_PROGRESS, finalizing=FINALIZING
    ) as running:
        yield running


@pytest.fixture(scope="module")
def client(server: LocalServer) -> Iterator[OpenAI]:
    with make_client(server) as running_client:
        yield running_client


def counts(batch: Batch) -> tuple[int, int, int]:
    assert batch.request_counts is not None
    return batch.request_counts.total, batch.request_counts.completed, batch.request_counts.failed


def tokens(batch: Batch) -> tuple[int, int, int]:
    assert batch.usage is not None
    return batch.usage.input_tokens, batch.usage.output_tokens, batch.usage.total_tokens


def files(batch: Batch) -> tuple[str | None, str | None]:
    return batch.output_file_id, batch.error_file_id


def until(client: OpenAI, batch: Batch, status: str) -> Batch:
    return wait(client, batch, lambda current: current.status == status)


def in_progress(server: LocalServer, client: OpenAI, lines: Sequence[dict[str, Any] | str]) -> Batch:
    batch = submit(client, lines)
    server.advance(VALIDATING)
    return until(client, batch, "in_progress")


def finalizing(server: LocalServer, client: OpenAI) -> Batch:
    """Return a batch with two answers and an error, whose result files do not exist yet."""
    batch = in_progress(server, client, [*chats(2), chat("bad", "[[fail:400]]")])
    server.advance(IN_PROGRESS)
    return until(client, batch, "finalizing")


def partly_answered(server: LocalServer, client: OpenAI) -> Batch:
    """Return a batch of 100 requests, of which two were answered and one has failed."""
    batch = in_progress(server, client, [chat("bad", "[[fail:400]]"), *chats(99)])
    server.advance(3.5 * IN_PROGRESS / 100)
    return wait(client, batch, lambda current: counts(current) == (100, 2, 1))


def advance_to_end(server: LocalServer, client: OpenAI, batch: Batch) -> Batch:
    """Advance the clock until the batch has ended, and return it."""

    def has_ended(current: Batch) -> bool:
        if current.status not in FINAL_STATUSES:
            server.advance(FINALIZING)
        return current.status in FINAL_STATUSES

    return wait(client, batch, has_ended)


def listed_result_files(client: OpenAI, batch: Batch) -> set[str | None]:
    """Return the ids of the batch's result files that the server lists."""
    return {file.id for file in client.files.list(purpose="batch_output") if batch.id in file.filename}


def check_partial(client: OpenAI, batch: Batch, code: str) -> None:
    """Check that three requests ran before the batch ended, that the rest never ran, and that all counts agree."""
    succeeded, failed = answers(client, batch), failures(client, batch)
    assert set(succeeded) == {"row-0", "row-1"}
    assert failed.pop("bad")["response"]["status_code"] == 400
    assert set(failed) == {f"row-{number}" for number in range(2, 99)}
    assert {line["error"]["code"] for line in failed.values()} == {code}
    assert [line for line in failed.values() if line["response"] is not None] == []
    assert counts(batch) == (100, 2, 1), "requests that never ran are neither completed nor failed"
    input_tokens = sum(body["usage"]["prompt_tokens"] for body in succeeded.values())
    output_tokens = sum(body["usage"]["completion_tokens"] for body in succeeded.values())
    assert tokens(batch) == (input_tokens, output_tokens, input_tokens + output_tokens)
    assert batch.finalizing_at is None
    assert batch.completed_at is None


# validating and finalizing


def test_a_validating_batch_has_no_counts(client: OpenAI) -> None:
    batch = client.batches.retrieve(submit(client, chats(3)).id)

    assert batch.status == "validating"
    assert counts(batch) == (0, 0, 0)
    assert files(batch) == (None, None)
    assert (batch.errors, batch.model, batch.in_progress_at) == (None, None, None)
    assert batch.expires_at == batch.created_at + WINDOW


def test_a_finalizing_batch_has_all_its_counts_and_no_result_files(server: LocalServer, client: OpenAI) -> None:
    batch = finalizing(server, client)

    assert counts(batch) == (3, 2, 1)
    assert files(batch) == (None, None)
    assert batch.finalizing_at is not None
    assert listed_result_files(client, batch) == set()
    final = advance_to_end(server, client, batch)
    assert listed_result_files(client, batch) == set(files(final))
    assert (final.finalizing_at, final.in_progress_at) == (batch.finalizing_at, batch.in_progress_at)
    assert [client.batches.retrieve(batch.id) for _ in range(3)] == [final] * 3, "an ended batch never changes"


# expired batches


def test_an_expired_batch_has_its_answers_and_lists_the_rest_as_expired(server: LocalServer, client: OpenAI) -> None:
    batch = partly_answered(server, client)
    server.advance(WINDOW)
    final = wait(client, batch)

    assert final.status == "expired"
    assert final.expired_at is not None
    assert final.expired_at >= batch.created_at + WINDOW
    check_partial(client, final, "batch_expired")


def test_a_batch_that_expires_without_an_answer_has_only_an_error_file(server: LocalServer, client: OpenAI) -> None:
    batch = submit(client, chats(3))
    server.advance(WINDOW)
    final = wait(client, batch)

    assert final.status == "expired"
    assert final.output_file_id is None
    assert {name: line["error"]["code"] for name, line in failures(client, final).items()} == {
        f"row-{number}": "batch_expired" for number in range(3)
    }
    assert counts(final) == (3, 0, 0)
    assert tokens(final) == (0, 0, 0)


def test_a_batch_completes_although_its_window_ends_while_it_is_finalizing(server: LocalServer, client: OpenAI) -> None:
    final = advance_to_end(server, client, finalizing(server, client))

    assert final.status == "completed"
    assert (final.completed_at or 0) > (final.expires_at or 0)
    assert set(answers(client, final)) == {"row-0", "row-1"}


# cancelled batches


def test_a_cancelled_batch_has_its_answers_and_lists_the_rest_as_cancelled(server: LocalServer, client: OpenAI) -> None:
    batch = partly_answered(server, client)
    cancelling = client.batches.cancel(batch.id)

    assert cancelling.status == "cancelling"
    assert cancelling.cancelling_at is not None
    assert files(cancelling) == (None, None)
    final = advance_to_end(server, client, cancelling)
    assert final.status == "cancelled"
    assert final.cancelled_at is not None
    assert final.cancelled_at >= cancelling.cancelling_at
    check_partial(client, final, "batch_cancelled")


@pytest.mark.parametrize("lines", [chats(3), [chat("a", "hello"), "{", "{}"]], ids=["good", "bad"])
def test_a_batch_that_is_cancelled_while_validating_runs_nothing_and_does_not_fail(
    server: LocalServer, client: OpenAI, lines: list[dict[str, Any] | str]
) -> None:
    cancelling = client.batches.cancel(submit(client, lines).id)
    final = advance_to_end(server, client, cancelling)

    assert final.status == "cancelled"
    assert (final.in_progress_at, final.model, final.errors) == (None, None, None)
    assert files(final) == (None, None)
    assert counts(final) == (0, 0, 0)
    assert tokens(final) == (0, 0, 0)


def test_a_batch_that_is_cancelled_while_finalizing_keeps_every_answer(server: LocalServer, client: OpenAI) -> None:
    batch = finalizing(server, client)
    cancelling = client.batches.cancel(batch.id)
    assert cancelling.status == "cancelling"
    assert cancelling.finalizing_at is not None
    final = advance_to_end(server, client, cancelling)

    assert final.status == "cancelled"
    assert final.completed_at is None
    assert set(answers(client, final)) == {"row-0", "row-1"}
    assert set(failures(client, final)) == {"bad"}
    assert counts(final) == (3, 2, 1)


def test_a_second_cancel_changes_nothing(server: LocalServer, client: OpenAI) -> None:
    batch = in_progress(server, client, chats(3))
    first = client.batches.cancel(batch.id)
    server.advance(5)

    assert client.batches.cancel(batch.id) == first
    final = advance_to_end(server, client, first)
    assert final.status == "cancelled"
    assert client.batches.cancel(batch.id) == final


@pytest.mark.parametrize("status", ["completed", "failed", "expired"])
def test_a_batch_that_has_ended_cannot_be_cancelled(server: LocalServer, client: OpenAI, status: str) -> None:
    if status == "completed":
        batch = finalizing(server, client)
    else:
        batch = submit(client, [chat("a", "hello"), "{"] if status == "failed" else chats(2))
    if status == "expired":
        server.advance(WINDOW)
    final = advance_to_end(server, client, batch)
    assert final.status == status

    with pytest.raises(openai.ConflictError) as error:
        client.batches.cancel(batch.id)
    assert error.value.body == {
        "message": f"Cannot cancel a batch with status '{status}'.",
        "type": "invalid_request_error",
        "param": None,
        "code": None,
    }
    assert client.batches.retrieve(batch.id) == final
