"""The answers of a job as the page shows them: joined with their requests, filtered, cut, and within limits."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from airflow_provider_batch.core.answers.first_reading import FirstReading
from airflow_provider_batch.core.answers.outcome import Outcome
from airflow_provider_batch.core.answers.result_files import read_rows
from airflow_provider_batch.core.answers.unsuccessful import write_unsuccessful
from airflow_provider_batch.core.ledger.ledger import Ledger, seal
from airflow_provider_batch.core.ledger.records import Created, RetryRound
from airflow_provider_batch.core.provider.limits import Limits
from airflow_provider_batch.core.requests.request import Request
from airflow_provider_batch.core.sealing.sealer import Sealer
from airflow_provider_batch.staging.local import LocalFolder
from airflow_provider_batch.worker.collected_answers import MAX_TEXT, CollectedAnswers, input_text
from airflow_provider_batch.worker.limited_folder import LimitedFolder, ReadLimitError
from tests.core.building import CHAT, NOW, add_row, chat_line, manifest_of, seal_all, settle


def chat(custom_id: str, text: str) -> Request:
    """Return a rendered chat request."""
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": text}]
    return Request(custom_id, "gpt-5-mini", json.dumps({"model": "gpt-5-mini", "messages": messages}).encode(), 1)


class Job:
    """A job in a folder, with one shard of some requests."""

    def __init__(self, path: Path, requests: list[Request]) -> None:
        self.folder = LocalFolder(path / "job")
        (self.shard,) = seal_all(self.folder, requests)
        self.ledger: Ledger = seal(self.folder, manifest_of([self.shard]))
        self.ledger.add(Created(self.shard.name, 1, "batch_1", NOW))

    def collect(self, output: list[bytes], errors: list[bytes] = [], **fields: Any) -> None:  # noqa: B006
        """Settle the batch with these lines, as a worker does: with the file of the rows that did not succeed."""
        settled = settle(self.folder, self.shard, output, errors, **fields)
        reading = FirstReading(self.folder, settled, read_rows(self.folder, self.shard), CHAT, None)
        outcomes: dict[str, int] = {}
        for _, answer in reading:
            outcomes[answer.outcome] = outcomes.get(answer.outcome, 0) + 1
        name = f"g001/collected/{self.shard.name}.1/unsuccessful.jsonl"
        rows = [reading.unsuccessful[line] for line in sorted(reading.unsuccessful)]
        sha256 = write_unsuccessful(self.folder, name, rows)
        self.ledger.add(
            msgspec.structs.replace(settled, outcomes=outcomes, unsuccessful_file=name, unsuccessful_sha256=sha256)
        )

    def answers(self, *, seconds: float = 60, max_bytes: int = 1 << 30) -> CollectedAnswers:
        """Return the answers, read within these limits."""
        folder = LimitedFolder(self.folder, seconds=seconds, max_bytes=max_bytes)
        return CollectedAnswers(self.ledger, self.ledger.state(), folder)


@pytest.fixture
def job(tmp_path: Path) -> Job:
    """Provide a job of six rows whose batch has ended."""
    job = Job(tmp_path, [chat(name, f"What is {name}?") for name in "abcdef"])
    job.collect(
        [chat_line("c", "Gamma"), chat_line("a", "Alpha"), chat_line("b", "")],
        [chat_line("d", status=400), chat_line("e", status=500)],
    )
    return job


def test_answers_are_joined_with_their_requests_row_by_row(job: Job) -> None:
    page = job.answers().page(0, 10)
    rows = {row.custom_id: (row.outcome, row.input, row.response, row.message) for row in page.answers}
    assert rows == {
        "c": ("succeeded", "What is c?", "Gamma", None),
        "a": ("succeeded", "What is a?", "Alpha", None),
        "b": ("incomplete", "What is b?", None, "The answer is empty."),
        "d": ("failed", "What is d?", None, "no"),
        "e": ("failed", "What is e?", None, "no"),
        "f": ("missing", "What is f?", None, rows["f"][3]),
    }
    assert [row.custom_id for row in page.answers][:2] == ["c", "a"]
    assert (page.more, page.problem) == (False, None)
    first = page.answers[0]
    assert (first.model, first.shard, first.attempt) == ("gpt-5-mini-2025-08-07", "s0001", 1)


def test_answers_are_paged_and_filtered_by_outcome_and_text(job: Job) -> None:
    answers = job.answers()
    first, rest = answers.page(0, 2), answers.page(2, 10)
    assert (len(first.answers), first.more) == (2, True)
    assert (len(rest.answers), rest.more) == (4, False)
    assert {row.custom_id for row in answers.page(0, 10, Outcome.FAILED).answers} == {"d", "e"}
    assert [row.custom_id for row in answers.page(0, 10, Outcome.SUCCEEDED, "ALPH").answers] == ["a"]
    assert [row.custom_id for row in answers.page(0, 10, text="is empty").answers] == ["b"]
    assert answers.page(0, 10, Outcome.REFUSED).answers == []


def test_a_row_that_a_retry_round_took_up_is_not_shown_as_failed(job: Job) -> None:
    sealer = Sealer(job.folder, "g001/retry-1", CHAT, Limits(), name_format="r01-{:04d}")
    add_row(sealer, chat("e", "What is e?"), [], 5, 7)
    job.ledger.add(RetryRound(1, [("s0001", 1)], sealer.finish(), NOW))
    answers = job.answers()
    assert "e" not in {row.custom_id for row in answers.page(0, 10).answers}
    assert [row[0] for row in answers.failed_rows()] == ["d", "b", "f"]


def test_the_reasons_are_grouped_with_an_example_and_say_what_is_going_to_be_retried(job: Job) -> None:
    errors = job.answers().errors()
    groups = {group.custom_id: group for group in errors.groups}
    assert errors.problem is None
    assert (groups["d"].rows, groups["d"].message, groups["d"].outcome) == (2, "no", "failed")
    assert groups["d"].retrying == 1
    assert groups["b"].code == "empty"
    assert groups["f"].retrying == 1


def test_failed_rows_are_listed_with_their_message_and_attempt(job: Job) -> None:
    rows = {row[0]: row[1:] for row in job.answers().failed_rows()}
    assert rows["d"] == ("failed", "no", 1, "gpt-5-mini")
    assert rows.keys() == {"b", "d", "e", "f"}


def test_the_first_request_is_shown_as_it_was_sealed(job: Job) -> None:
    request = job.answers().first_request()
    assert request is not None
    assert (request.custom_id, request.cut) == ("a", False)
    assert json.loads(request.text)["messages"][1]["content"] == "What is a?"


def test_long_texts_are_cut(tmp_path: Path) -> None:
    job = Job(tmp_path, [chat("a", "x" * 1_000_000)])
    job.collect([chat_line("a", "y" * 1_000_000)])
    (row,) = job.answers().page(0, 1).answers
    assert row.input is not None
    assert row.response is not None
    assert (len(row.input), len(row.response), row.response[-1]) == (MAX_TEXT, MAX_TEXT, "…")
    request = job.answers().first_request()
    assert request is not None
    assert request.cut
    assert len(request.text) == 20_000


@pytest.mark.parametrize("limits", [{"seconds": -1.0}, {"max_bytes": 10}])
def test_what_takes_too_long_to_read_is_said_and_never_shown_as_empty(job: Job, limits: dict[str, Any]) -> None:
    answers = job.answers(**limits)
    page, errors = answers.page(0, 10), answers.errors()
    assert (page.answers, page.more) == ([], True)
    assert page.problem is not None
    assert "took too long" in page.problem
    assert errors.problem is not None
    with pytest.raises(ReadLimitError):
        next(answers.failed_rows())


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ({"messages": [{"role": "user", "content": "one"}, {"role": "assistant", "content": "two"}]}, "one"),
        ({"messages": [{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "image_url"}]}]}, "a"),
        ({"messages": [{"role": "system", "content": "only"}]}, "only"),
        ({"input": "an input"}, "an input"),
        ({"input": ["first", "second"]}, "first\nsecond"),
        ({"input": [{"role": "user", "content": [{"type": "input_text", "text": "b"}]}]}, "b"),
        ({"prompt": "a prompt"}, "a prompt"),
        ({"messages": []}, "[]"),
        ({}, None),
        (["odd"], None),
    ],
)
def test_the_input_of_a_request_is_its_last_user_message_or_its_input(body: Any, text: str | None) -> None:
    assert input_text(body) == text
