"""What a batch shows in every state, and what becomes of it when it is cancelled or its window ends there.

One server whose states take hours of its own clock; the tests move the clock.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import openai
import pytest
from openai import OpenAI
from openai.types import Batch

from airflow_provider_batch.local.process import LocalServer
from tests.local.conftest import make_client
from tests.local.driving import FINAL_STATUSES, answers, chat, chats, failures, submit, wait

#: seconds of the server's clock; a batch that goes its way undisturbed is finalized when its window ends
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
    with make_client(server) as opened:
        yield opened


def counts(batch: Batch) -> tuple[int, int, int]:
    assert batch.request_counts is not None
    return batch.request_counts.total, batch.request_counts.completed, batch.request_counts.failed


def tokens(batch: Batch) -> tuple[int, int, int]:
    assert batch.usage is not None
    return batch.usage.input_tokens, batch.usage.output_tokens, batch.usage.total_tokens


def files(batch: Batch) -> tuple[str | None, str | None]:
    return batch.output_file_id, batch.error_file_id


def until(client: OpenAI, batch: Batch, status: str) -> Batch:
    return wait(client, batch, lambda seen: seen.status == status)


def in_progress(server: LocalServer, client: OpenAI, lines: Sequence[dict[str, Any] | str]) -> Batch:
    batch = submit(client, lines)
    server.advance(VALIDATING)
    return until(client, batch, "in_progress")


def finalizing(server: LocalServer, client: OpenAI) -> Batch:
    """Two answers and an error, not yet to be read."""
    batch = in_progress(server, client, [*chats(2), chat("bad", "[[fail:400]]")])
    server.advance(IN_PROGRESS)
    return until(client, batch, "finalizing")


def some_done(server: LocalServer, client: OpenAI) -> Batch:
    """Of 100 requests two are answered and one has failed."""
    batch = in_progress(server, client, [chat("bad", "[[fail:400]]"), *chats(99)])
    server.advance(3.5 * IN_PROGRESS / 100)
    return wait(client, batch, lambda seen: counts(seen) == (100, 2, 1))


def ended_soon(server: LocalServer, client: OpenAI, batch: Batch) -> Batch:
    """The batch once it has been finalized or cancelled."""

    def over(seen: Batch) -> bool:
        if seen.status not in FINAL_STATUSES:
            server.advance(FINALIZING)
        return seen.status in FINAL_STATUSES

    return wait(client, batch, over)


def written(client: OpenAI, batch: Batch) -> set[str | None]:
    """The ids of the batch's result files that the server lists."""
    return {file.id for file in client.files.list(purpose="batch_output") if batch.id in file.filename}


def check_partial(client: OpenAI, batch: Batch, code: str) -> None:
    """Three were asked before it ended, the rest never ran, and every number says so."""
    done, rest = answers(client, batch), failures(client, batch)
    assert set(done) == {"row-0", "row-1"}
    assert rest.pop("bad")["response"]["status_code"] == 400
    assert set(rest) == {f"row-{number}" for number in range(2, 99)}
    assert {line["error"]["code"] for line in rest.values()} == {code}
    assert [line for line in rest.values() if line["response"] is not None] == []
    assert counts(batch) == (100, 2, 1), "what never ran is neither completed nor failed"
    came = sum(body["usage"]["prompt_tokens"] for body in done.values())
    went = sum(body["usage"]["completion_tokens"] for body in done.values())
    assert tokens(batch) == (came, went, came + went)
    assert batch.finalizing_at is None
    assert batch.completed_at is None


# the states on the way


def test_while_it_is_validated_nothing_is_counted(client: OpenAI) -> None:
    batch = client.batches.retrieve(submit(client, chats(3)).id)

    assert batch.status == "validating"
    assert counts(batch) == (0, 0, 0)
    assert files(batch) == (None, None)
    assert (batch.errors, batch.model, batch.in_progress_at) == (None, None, None)
    assert batch.expires_at == batch.created_at + WINDOW


def test_while_it_is_finalized_all_is_done_and_nothing_can_be_read(server: LocalServer, client: OpenAI) -> None:
    batch = finalizing(server, client)

    assert counts(batch) == (3, 2, 1)
    assert files(batch) == (None, None)
    assert batch.finalizing_at is not None
    assert written(client, batch) == set()
    ended = ended_soon(server, client, batch)
    assert written(client, batch) == set(files(ended))
    assert (ended.finalizing_at, ended.in_progress_at) == (batch.finalizing_at, batch.in_progress_at)
    assert [client.batches.retrieve(batch.id) for _ in range(3)] == [ended] * 3, "it never changes again"


# the end of the window


def test_an_expired_batch_has_what_was_answered_and_names_the_rest(server: LocalServer, client: OpenAI) -> None:
    batch = some_done(server, client)
    server.advance(WINDOW)
    ended = wait(client, batch)

    assert ended.status == "expired"
    assert ended.expired_at is not None
    assert ended.expired_at >= batch.created_at + WINDOW
    check_partial(client, ended, "batch_expired")


def test_a_batch_that_expires_with_nothing_done_has_an_error_file_only(server: LocalServer, client: OpenAI) -> None:
    batch = submit(client, chats(3))
    server.advance(WINDOW)
    ended = wait(client, batch)

    assert ended.status == "expired"
    assert ended.output_file_id is None
    assert {name: line["error"]["code"] for name, line in failures(client, ended).items()} == {
        f"row-{number}": "batch_expired" for number in range(3)
    }
    assert counts(ended) == (3, 0, 0)
    assert tokens(ended) == (0, 0, 0)


def test_a_window_that_ends_while_it_is_finalized_expires_nothing(server: LocalServer, client: OpenAI) -> None:
    ended = ended_soon(server, client, finalizing(server, client))

    assert ended.status == "completed"
    assert (ended.completed_at or 0) > (ended.expires_at or 0)
    assert set(answers(client, ended)) == {"row-0", "row-1"}


# cancelled


def test_a_batch_cancelled_on_its_way_has_what_was_answered_and_names_the_rest(
    server: LocalServer, client: OpenAI
) -> None:
    batch = some_done(server, client)
    cancelling = client.batches.cancel(batch.id)

    assert cancelling.status == "cancelling"
    assert cancelling.cancelling_at is not None
    assert files(cancelling) == (None, None)
    ended = ended_soon(server, client, cancelling)
    assert ended.status == "cancelled"
    assert ended.cancelled_at is not None
    assert ended.cancelled_at >= cancelling.cancelling_at
    check_partial(client, ended, "batch_cancelled")


@pytest.mark.parametrize("lines", [chats(3), [chat("a", "hello"), "{", "{}"]], ids=["good", "bad"])
def test_a_batch_cancelled_while_it_is_validated_ran_nothing_and_never_fails(
    server: LocalServer, client: OpenAI, lines: list[dict[str, Any] | str]
) -> None:
    cancelling = client.batches.cancel(submit(client, lines).id)
    ended = ended_soon(server, client, cancelling)

    assert ended.status == "cancelled"
    assert (ended.in_progress_at, ended.model, ended.errors) == (None, None, None)
    assert files(ended) == (None, None)
    assert counts(ended) == (0, 0, 0)
    assert tokens(ended) == (0, 0, 0)


def test_a_batch_cancelled_while_it_is_finalized_is_cancelled_with_every_answer(
    server: LocalServer, client: OpenAI
) -> None:
    batch = finalizing(server, client)
    cancelling = client.batches.cancel(batch.id)
    assert cancelling.status == "cancelling"
    assert cancelling.finalizing_at is not None
    ended = ended_soon(server, client, cancelling)

    assert ended.status == "cancelled"
    assert ended.completed_at is None
    assert set(answers(client, ended)) == {"row-0", "row-1"}
    assert set(failures(client, ended)) == {"bad"}
    assert counts(ended) == (3, 2, 1)


def test_cancelling_again_changes_nothing(server: LocalServer, client: OpenAI) -> None:
    batch = in_progress(server, client, chats(3))
    first = client.batches.cancel(batch.id)
    server.advance(5)

    assert client.batches.cancel(batch.id) == first
    ended = ended_soon(server, client, first)
    assert ended.status == "cancelled"
    assert client.batches.cancel(batch.id) == ended


@pytest.mark.parametrize("status", ["completed", "failed", "expired"])
def test_a_batch_that_has_ended_cannot_be_cancelled(server: LocalServer, client: OpenAI, status: str) -> None:
    if status == "completed":
        batch = finalizing(server, client)
    else:
        batch = submit(client, [chat("a", "hello"), "{"] if status == "failed" else chats(2))
    if status == "expired":
        server.advance(WINDOW)
    ended = ended_soon(server, client, batch)
    assert ended.status == status

    with pytest.raises(openai.ConflictError) as caught:
        client.batches.cancel(batch.id)
    assert caught.value.body == {
        "message": f"Cannot cancel a batch with status '{status}'.",
        "type": "invalid_request_error",
        "param": None,
        "code": None,
    }
    assert client.batches.retrieve(batch.id) == ended
