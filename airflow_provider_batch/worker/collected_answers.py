"""Reads the answers of a job from staging for a person, before any landing: joined with their requests, row by row.

Only what is asked for is read, within the limits of a `LimitedFolder`. A row that a retry round took up is not in the
submission that it failed in any more, so that no failure is shown that vanishes later.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any, NamedTuple

import msgspec

from airflow_provider_batch.core.answers.outcome import Answer, Outcome
from airflow_provider_batch.core.answers.result_files import read_answers, read_rows, read_unsuccessful_with_texts
from airflow_provider_batch.core.formatting import format_count
from airflow_provider_batch.core.ledger.job import RowIndex, Shard
from airflow_provider_batch.core.ledger.ledger import Ledger
from airflow_provider_batch.core.ledger.records import Settled
from airflow_provider_batch.core.ledger.state import JobState, ShardState
from airflow_provider_batch.core.lifecycle.attempts import has_attempts_left, is_retryable
from airflow_provider_batch.core.lifecycle.cleared_wait import policy_of
from airflow_provider_batch.core.schema.judge import SchemaJudge
from airflow_provider_batch.core.sealing.invalid_rows import read_invalid_rows
from airflow_provider_batch.worker.limited_folder import LimitedFolder, ReadLimitError

#: maximum number of characters of a text that is shown, and of a request
MAX_TEXT, MAX_REQUEST = 10_000, 20_000
#: maximum number of characters of a message by which rows are grouped, of groups, and of rows that are read for them
MAX_MESSAGE, MAX_GROUPS, MAX_ROWS = 500, 20, 5_000
#: maximum size of a request whose line is read
_MAX_LINE = 4 << 20


class AnswerRow(msgspec.Struct, frozen=True):
    """A request and its answer. Long texts are cut."""

    custom_id: str
    outcome: Outcome
    #: the model that answered, or that was asked
    model: str
    #: text of the last message of the user, or of the input; None if it was not read
    input: str | None
    response: str | None
    #: why the row did not succeed
    message: str | None
    shard: str
    attempt: int


class Answers(msgspec.Struct, frozen=True):
    """Some of the answers of a job."""

    answers: list[AnswerRow]
    #: whether there are more of them
    more: bool
    #: why some may be missing, as a sentence
    problem: str | None = None


class ErrorGroup(msgspec.Struct, frozen=True):
    """Rows that did not succeed for the same reason."""

    outcome: Outcome
    code: str | None
    message: str
    rows: int
    #: number of them that the wait is going to retry
    retrying: int
    #: one of them
    custom_id: str


class Errors(msgspec.Struct, frozen=True):
    """Why rows did not succeed, the most frequent reasons first."""

    groups: list[ErrorGroup]
    problem: str | None = None


class RequestText(msgspec.Struct, frozen=True):
    """The body of a request, formatted for people."""

    custom_id: str
    text: str
    cut: bool


class _Item(NamedTuple):
    shard: ShardState
    settled: Settled
    line: int
    row: RowIndex
    answer: Answer


class CollectedAnswers:
    """The answers of a job in staging."""

    def __init__(self, ledger: Ledger, state: JobState, folder: LimitedFolder) -> None:
        self._manifest, self._state, self._folder = ledger.manifest, state, folder
        schema = ledger.manifest.author_schema
        self._judge = SchemaJudge(schema) if schema is not None else None

    def page(self, offset: int, limit: int, outcome: Outcome | None = None, text: str = "") -> Answers:
        """Return some of the answers, in the order in which the provider wrote them.

        :param outcome: only those with this outcome.
        :param text: only those whose custom_id, response or message contains this text, in upper or lower case.
        """
        items, problem = list[_Item](), None
        try:
            for item in islice(self._matches(outcome, text.casefold()), offset, offset + limit + 1):
                items.append(item)
        except ReadLimitError:
            problem = "Reading took too long, so there may be more answers than these. Narrow the filter."
        page_items = items[:limit]
        inputs: dict[tuple[str, int], str | None] = {}
        try:
            for spec in {item.shard.name: item.shard.spec for item in page_items}.values():
                lines = {item.line for item in page_items if item.shard.name == spec.name}
                for line, request in self._requests(spec, lines):
                    inputs[spec.name, line] = input_text(request)
        except ReadLimitError:
            problem = problem or "Reading took too long, so the requests of some answers are not shown."
        rows = [_answer_row(item, inputs.get((item.shard.name, item.line))) for item in page_items]
        return Answers(rows, len(items) > limit or (problem is not None and len(items) < limit), problem)

    def _matches(self, outcome: Outcome | None, text: str) -> Iterator[_Item]:
        for item in self._items(outcome):
            answer = item.answer
            if outcome is not None and answer.outcome is not outcome:
                continue
            texts = (item.row.custom_id, answer.text, answer.error_message) if text else ()
            if not text or any(text in part.casefold() for part in texts if part):
                yield item

    def errors(self) -> Errors:
        """Return why rows did not succeed."""
        counts: Counter[tuple[Outcome, str | None, str]] = Counter()
        retrying: Counter[tuple[Outcome, str | None, str]] = Counter()
        examples: dict[tuple[Outcome, str | None, str], str] = {}
        problem, rows = None, 0
        try:
            for rows, item in enumerate(self._unsuccessful(), 1):
                key = (item.answer.outcome, item.answer.error_code, _cut(item.answer.error_message or "", MAX_MESSAGE))
                counts[key] += 1
                retrying[key] += self._will_be_retried(item)
                examples.setdefault(key, item.row.custom_id)
                if rows == MAX_ROWS:
                    problem = f"Only the first {format_count(rows, 'row')} that did not succeed were counted."
                    break
        except ReadLimitError:
            problem = f"Reading took too long, so only {format_count(rows, 'row')} were counted."
        groups = [
            ErrorGroup(*key, rows=count, retrying=retrying[key], custom_id=examples[key])
            for key, count in counts.most_common(MAX_GROUPS)
        ]
        return Errors(groups, problem)

    def failed_rows(self) -> Iterator[tuple[str, str, str, int, str]]:
        """Yield custom_id, outcome, message, attempts and model of every row that has ended without a success."""
        for item in self._unsuccessful():
            answer, spec = item.answer, item.shard.spec
            message = answer.error_message or answer.error_code or ""
            yield item.row.custom_id, answer.outcome, message, spec.attempt, answer.model or spec.model
        if self._manifest.invalid_file is not None:
            for row in read_invalid_rows(self._folder, self._manifest.invalid_file):
                yield row.row.custom_id, Outcome.INVALID_INPUT, row.message, 0, row.model or ""

    def first_request(self) -> RequestText | None:
        """Return the first request that was rendered, or None if the job sends none."""
        for shard in self._manifest.shards:
            with self._folder.reader(shard.file) as file:
                line = file.readline(_MAX_LINE)
            try:
                request = msgspec.json.decode(line)
                text = msgspec.json.format(msgspec.json.encode(request["body"]), indent=2).decode()
                return RequestText(request["custom_id"], _cut(text, MAX_REQUEST), len(text) > MAX_REQUEST)
            except (msgspec.DecodeError, UnicodeError, KeyError, TypeError):
                return None
        return None

    def _items(self, outcome: Outcome | None) -> Iterator[_Item]:
        if outcome is not None and outcome is not Outcome.SUCCEEDED:
            yield from self._unsuccessful(outcome)
            return
        for shard, submission, settled in self._state.settled_submissions():
            if outcome is None or settled.outcomes.get(outcome):
                rows, retried = read_rows(self._folder, shard.spec), self._retried_ids(shard.name, submission.number)
                answers = read_answers(self._folder, shard.spec, settled, rows, self._manifest.endpoint, self._judge)
                yield from self._join(shard, settled, rows, retried, answers)

    def _unsuccessful(self, outcome: Outcome | None = None) -> Iterator[_Item]:
        for shard, submission, settled in self._state.settled_submissions():
            if set(settled.outcomes) - {Outcome.SUCCEEDED} and (outcome is None or settled.outcomes.get(outcome)):
                rows, retried = read_rows(self._folder, shard.spec), self._retried_ids(shard.name, submission.number)
                answers = read_unsuccessful_with_texts(
                    self._folder, shard.spec, settled, rows, self._manifest.endpoint, self._judge
                )
                yield from self._join(shard, settled, rows, retried, answers)

    def _join(
        self,
        shard: ShardState,
        settled: Settled,
        rows: list[RowIndex],
        retried: set[str],
        answers: Iterator[tuple[int, Answer]],
    ) -> Iterator[_Item]:
        for line, answer in answers:
            self._folder.spend(0)
            if rows[line].custom_id not in retried and rows[line].needed:
                yield _Item(shard, settled, line, rows[line], answer)

    def _retried_ids(self, shard: str, number: int) -> set[str]:
        """Return the custom_ids of the rows of a submission that a retry round took up."""
        names = {
            part.name
            for retry_round in self._state.retry_rounds
            if (shard, number) in retry_round.sources
            for part in retry_round.shards
        }
        return {row.custom_id for name in names for row in read_rows(self._folder, self._state.shards[name].spec)}

    def _will_be_retried(self, item: _Item) -> bool:
        state, policy = self._state, policy_of(self._state)
        return (
            not (state.is_wait_over or state.is_cancelled)
            and (item.shard.name, item.settled.number) not in state.retried_submissions
            and has_attempts_left(state, item.shard, item.settled, policy)
            and is_retryable(item.answer, item.settled, policy)
        )

    def _requests(self, shard: Shard, lines: set[int]) -> Iterator[tuple[int, Any]]:
        """Yield the body of the requests at these lines of a shard."""
        with self._folder.reader(shard.file) as file:
            for number, line in enumerate(islice(file, max(lines) + 1)):
                if number in lines:
                    try:
                        yield number, msgspec.json.decode(line)["body"]
                    except (msgspec.DecodeError, UnicodeError, KeyError, TypeError):
                        continue


def input_text(body: Any) -> str | None:
    """Return the text of the last message of the user in a request, or of its input or prompt; None if it has none."""
    if not isinstance(body, Mapping):
        return None
    content = body.get("messages", body.get("input", body.get("prompt")))
    if isinstance(content, list) and content and all(isinstance(entry, Mapping) for entry in content):
        messages = [entry for entry in content if entry.get("role") == "user"] or content
        content = messages[-1].get("content", messages[-1].get("text"))
    text = _text_of(content)
    return None if text is None else _cut(text, MAX_TEXT)


def _text_of(content: Any) -> str | None:
    if content is None or isinstance(content, str):
        return content
    if isinstance(content, list):
        texts = [part.get("text") if isinstance(part, Mapping) else part for part in content]
        if any(isinstance(text, str) for text in texts):
            return "\n".join(text for text in texts if isinstance(text, str))
    return msgspec.json.encode(content).decode()


def _answer_row(item: _Item, request: str | None) -> AnswerRow:
    answer = item.answer
    response = answer.text
    if response is None and answer.value is not None:
        response = msgspec.json.encode(answer.value).decode()
    return AnswerRow(
        item.row.custom_id,
        answer.outcome,
        answer.model or item.shard.model,
        request,
        None if response is None else _cut(response, MAX_TEXT),
        None if answer.error_message is None else _cut(answer.error_message, MAX_TEXT),
        item.shard.name,
        item.shard.spec.attempt,
    )


def _cut(text: str, characters: int) -> str:
    return text if len(text) <= characters else text[: characters - 1] + "…"
