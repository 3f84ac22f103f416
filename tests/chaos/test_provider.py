"""The chaos suite recognizes rows that were paid for again, whatever form their answers have."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import pytest
from openai import OpenAI

from airflow_provider_batch.local.faults import Fault, Kind
from airflow_provider_batch.local.process import LocalServer
from airflow_provider_batch.testing import StartBatchServer
from tests.chaos.faults import UNUSABLE_LINES
from tests.chaos.provider import count_sent_again, prompt_digest, read_batches
from tests.local.driving import CHAT, answers, chat, jsonl, upload, wait

if TYPE_CHECKING:
    from openai.types import Batch

ROWS = ("1", "2", "3")


def run_batch(server: LocalServer, custom_ids: Sequence[str], job_uid: str = "job-1") -> Batch:
    """Run a batch to completion, and return it."""
    with OpenAI(base_url=server.base_url, api_key="local") as client:
        batch = client.batches.create(
            input_file_id=upload(client, jsonl(chat(name, f"prompt {name}") for name in custom_ids)),
            endpoint=CHAT,
            completion_window="24h",
            metadata={"job_uid": job_uid},
        )
        return wait(client, batch)


@pytest.mark.parametrize("dialects", [(), ("ogx",), ("response-text",), ("one-file",)])
def test_a_row_that_is_sent_after_its_answer_is_counted(
    start_batch_server: StartBatchServer, dialects: tuple[str, ...]
) -> None:
    server = start_batch_server(dialects=dialects)
    run_batch(server, ROWS)
    run_batch(server, ROWS, job_uid="job-2")
    run_batch(server, ("2",))
    run_batch(server, ("2", "4"))

    batches = read_batches(server.state, {"job-1"})
    assert [sorted(batch.answered_ids) for batch in batches] == [["1", "2", "3"], ["2"], ["2", "4"]]
    assert count_sent_again(batches) == 2


@pytest.mark.parametrize(("path", "text"), UNUSABLE_LINES)
def test_an_answer_that_no_reader_can_use_counts_as_an_answer(
    start_batch_server: StartBatchServer, path: str, text: str
) -> None:
    server = start_batch_server(admin=True)
    server.set_faults(Fault(kind=Kind.LINE_FIELD, path=path, json=text))
    run_batch(server, ROWS)
    run_batch(server, ("2",))

    assert count_sent_again(read_batches(server.state, {"job-1"})) == 1


@pytest.mark.parametrize(
    "fault", [Fault(kind=kind) for kind in (Kind.ERROR, Kind.STATUS_0, Kind.MISSING_LINE, Kind.BROKEN_LINE)]
)
def test_a_row_without_an_answer_in_a_file_may_be_sent_again(
    start_batch_server: StartBatchServer, fault: Fault
) -> None:
    server = start_batch_server(admin=True)
    server.set_faults(fault)
    run_batch(server, ROWS)
    server.set_faults()
    run_batch(server, ROWS)

    first, second = read_batches(server.state, {"job-1"})
    assert (first.answered_ids, second.answered_ids) == (frozenset(), frozenset(ROWS))
    assert count_sent_again([first, second]) == 0


def test_the_answer_to_a_prompt_contains_its_digest(batch_server: LocalServer) -> None:
    batch = run_batch(batch_server, ROWS)
    with OpenAI(base_url=batch_server.base_url, api_key="local") as client:
        for custom_id, body in answers(client, batch).items():
            assert prompt_digest(f"prompt {custom_id}") in body["choices"][0]["message"]["content"]
