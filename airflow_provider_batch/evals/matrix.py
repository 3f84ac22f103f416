"""All answers of a graded run, cases x models, and how two runs differ, as the page in Airflow shows them.

`EvalReportOperator` writes it next to the report, as compressed JSON, because Airflow's API server has no access to the
warehouse. Prompts and answers are untrusted text, and are cut.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator
from datetime import datetime

import msgspec

from airflow_provider_batch.evals.report import RunView
from airflow_provider_batch.exceptions import StagingError

#: maximum length of a text, in characters, and number of cases
MAX_TEXT = 2_000
MAX_CASES = 5_000
#: number of characters in all answers after which no further case is added
MAX_CHARACTERS = 20_000_000
#: maximum size of the JSON, in bytes. The limits above keep a file that was not tampered with below.
MAX_SIZE = 250_000_000
_LEVEL = 6


class CaseAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """An answer to a case, with its grade."""

    model: str
    repeat: int
    #: None if there is no answer
    text: str | None
    #: from 0 to 1
    score: float
    #: whether the answer is right
    passed: bool
    #: whether there is an answer, and if a judge grades it, a verdict on it
    answered: bool
    outcome: str | None
    grader: str
    reason: str | None


class Case(msgspec.Struct, frozen=True, kw_only=True):
    """A case with the answers of all models."""

    case_id: str
    tags: list[str]
    #: None if `cases_sql` no longer returns the case
    prompt: str | None
    expected: str | None
    #: sorted by model and repeat
    answers: list[CaseAnswer]

    def score(self, model: str) -> float | None:
        """Return the mean score of a model, or None if it answered nothing."""
        return _mean_score(_answers_of(self, model))

    def is_wrong(self, model: str) -> bool:
        """Return whether at least one answer of a model is wrong."""
        return any(answer.model == model and answer.answered and not answer.passed for answer in self.answers)

    def contains(self, text: str) -> bool:
        """Return whether the case or an answer to it has this text, regardless of upper and lower case."""
        parts = (self.case_id, self.prompt, self.expected, *self.tags, *(answer.text for answer in self.answers))
        return any(text in part.casefold() for part in parts if part)


class CaseChange(msgspec.Struct, frozen=True, kw_only=True):
    """A case that was right before and is wrong now, or the other way round."""

    case_id: str
    model: str
    #: "worse" or "better"
    change: str
    score_before: float
    score_now: float
    #: number of baseline runs in which the case was answered, and in which it was right
    runs_before: int
    right_before: int


class Matrix(msgspec.Struct, frozen=True, kw_only=True):
    """The answers of a run, and its history."""

    title: str
    run: str
    sealed_at: datetime | None
    #: number of answers that no model wrote
    stub_answers: int
    models: list[str]
    #: newest first, including this run
    runs: list[RunView]
    #: those that are least likely to be chance first
    changes: list[CaseChange]
    #: sorted by case_id
    cases: list[Case]
    #: number of cases, whether they are in `cases` or were left out
    cases_total: int


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """A case and a model in two runs."""

    case_id: str
    model: str
    #: of the later run, or of the earlier one if it no longer has the case
    prompt: str | None
    expected: str | None
    before: list[CaseAnswer]
    now: list[CaseAnswer]

    @property
    def score_before(self) -> float | None:
        """Mean score of the earlier run, or None without an answer."""
        return _mean_score(self.before)

    @property
    def score_now(self) -> float | None:
        """Mean score of the later run, or None without an answer."""
        return _mean_score(self.now)

    @property
    def change(self) -> str:
        """`better` if more of the answers are right, `worse`, `same`, or `unanswered` if a run has no answer."""
        before, now = _share_right(self.before), _share_right(self.now)
        if before is None or now is None:
            return "unanswered"
        return "same" if now == before else "better" if now > before else "worse"


def cut_text(value: object) -> str | None:
    """Return a value as a text of at most `MAX_TEXT` characters that UTF-8 can encode."""
    if value is None:
        return None
    text = str(value).encode("utf-8", "replace").decode("utf-8")
    return text if len(text) <= MAX_TEXT else f"{text[:MAX_TEXT]}…"


def encode(matrix: Matrix) -> bytes:
    """Return the content of the file. The same matrix always gives the same bytes."""
    return zlib.compress(msgspec.json.encode(matrix), _LEVEL)


def decode(content: bytes) -> Matrix:
    """Return the matrix in a file.

    :raises StagingError: if the file is damaged, or larger than this version writes.
    """
    decompressor = zlib.decompressobj()
    try:
        text = decompressor.decompress(content, MAX_SIZE)
        if not decompressor.eof:
            raise StagingError("The file with the answers of this eval is damaged. Clear the report task to write it.")
        return msgspec.json.decode(text, type=Matrix)
    except (zlib.error, msgspec.DecodeError) as error:
        raise StagingError(
            f"The file with the answers of this eval is damaged ({error}). Clear the report task to write it."
        ) from error


def differences(before: Matrix, now: Matrix) -> Iterator[Difference]:
    """Yield each case and model of two runs, sorted by case_id and model."""
    earlier = {case.case_id: case for case in before.cases}
    later = {case.case_id: case for case in now.cases}
    models = sorted({*before.models, *now.models})
    for case_id in sorted({*earlier, *later}):
        old, new = earlier.get(case_id), later.get(case_id)
        newest = new or old
        assert newest is not None
        for model in models:
            yield Difference(
                case_id=case_id,
                model=model,
                prompt=newest.prompt,
                expected=newest.expected,
                before=_answers_of(old, model),
                now=_answers_of(new, model),
            )


def _answers_of(case: Case | None, model: str) -> list[CaseAnswer]:
    return [answer for answer in case.answers if answer.model == model] if case else []


def _mean_score(answers: Iterable[CaseAnswer]) -> float | None:
    """Return the mean score of the answers that came, or None if there are none."""
    scores = [answer.score for answer in answers if answer.answered]
    return sum(scores) / len(scores) if scores else None


def _share_right(answers: Iterable[CaseAnswer]) -> float | None:
    """Return which share of the answers that came is right, or None if there are none."""
    passed = [answer.passed for answer in answers if answer.answered]
    return sum(passed) / len(passed) if passed else None


def group_answers(rows: Iterable[tuple[str, CaseAnswer]]) -> dict[str, list[CaseAnswer]]:
    """Return answers by case_id, as many as fit. Rows are sorted by case."""
    groups: dict[str, list[CaseAnswer]] = {}
    characters = 0
    for case_id, answer in rows:
        if case_id not in groups and (len(groups) == MAX_CASES or characters >= MAX_CHARACTERS):
            break
        groups.setdefault(case_id, []).append(answer)
        characters += sum(len(text) for text in (answer.text, answer.grader, answer.reason) if text)
    return groups
