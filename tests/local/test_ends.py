"""Batches that end early: cancelled or expired, with what was answered until then."""

from __future__ import annotations

from openai import OpenAI
from openai.types import Batch

from tests.local.conftest import Serve
from tests.local.driving import answers, chats, failures, submit, wait


def _some_done(batch: Batch) -> bool:
    return batch.request_counts is not None and batch.request_counts.completed >= 3


def _check_partial(client: OpenAI, batch: Batch, rows: int, code: str) -> None:
    done, rest = answers(client, batch), failures(client, batch)
    assert set(done) | set(rest) == {f"row-{number}" for number in range(rows)}
    assert not set(done) & set(rest)
    assert len(done) >= 3
    assert rest
    for line in rest.values():
        assert line["response"] is None
        assert line["error"]["code"] == code
    assert batch.request_counts is not None
    counts = batch.request_counts
    assert (counts.total, counts.completed, counts.failed) == (rows, len(done), 0)
    assert batch.usage is not None
    assert batch.usage.input_tokens == sum(body["usage"]["prompt_tokens"] for body in done.values())


def test_a_cancelled_batch_keeps_its_answers_and_names_what_never_ran(serve: Serve) -> None:
    _, client = serve(in_progress=30, finalizing=0.3)
    batch = wait(client, submit(client, chats(300)), _some_done)

    cancelling = client.batches.cancel(batch.id)
    assert cancelling.status == "cancelling"
    assert cancelling.cancelling_at is not None
    assert client.batches.cancel(batch.id).status == "cancelling", "a second cancel changes nothing"
    ended = wait(client, cancelling)
    assert ended.status == "cancelled"
    assert ended.cancelled_at is not None
    _check_partial(client, ended, 300, "batch_cancelled")
    assert client.batches.cancel(batch.id).status == "cancelled"


def test_a_batch_cancelled_while_it_is_validated_has_no_files(serve: Serve) -> None:
    _, client = serve(validating=30)
    batch = submit(client, chats(3))

    client.batches.cancel(batch.id)
    ended = wait(client, batch)
    assert ended.status == "cancelled"
    assert (ended.output_file_id, ended.error_file_id) == (None, None)


def test_at_the_end_of_its_window_a_batch_expires_with_what_it_has(serve: Serve) -> None:
    _, client = serve(in_progress=600, window=2)
    batch = submit(client, chats(3000))
    assert batch.expires_at == batch.created_at + 2

    ended = wait(client, batch)
    assert ended.status == "expired"
    assert ended.expired_at is not None
    assert ended.expired_at >= batch.expires_at
    _check_partial(client, ended, 3000, "batch_expired")
