"""All answers of a run next to its report, and how two runs differ."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from airflow_provider_batch.evals import matrix as module
from airflow_provider_batch.evals.matrix import Matrix, decode, differences, encode
from airflow_provider_batch.evals.read_matrix import read_matrix
from airflow_provider_batch.evals.read_report import ReportTables
from airflow_provider_batch.exceptions import StagingError
from tests.evals.nights import CASES_SQL, regressing, steady, write_nights


@pytest.fixture
def read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[Matrix]]:
    """Return a function that writes nights and returns the matrix of each of them."""
    from airflow_provider_batch.warehouse.connect import sql_hook

    path = tmp_path / "warehouse.sqlite"
    monkeypatch.setenv("AIRFLOW_CONN_WAREHOUSE", json.dumps({"conn_type": "sqlite", "host": str(path)}))

    def write_and_read(**models: object) -> list[Matrix]:
        runs = write_nights(path, models, cases=20)  # type: ignore[arg-type]
        tables = ReportTables(
            sql_hook("warehouse"), cases_sql=CASES_SQL, answers="eval_answers", judgements=None, prefix="eval_"
        )
        tables.record_costs(runs[0], [])
        return [read_matrix(tables, tables.read(run, "nightly_eval")) for run in runs]

    return write_and_read


def test_it_has_every_case_with_the_answers_of_all_models(read: Callable[..., list[Matrix]]) -> None:
    _, matrix = read(a=steady(0.9), b=steady(0.5))

    assert (matrix.models, matrix.cases_total, len(matrix.cases)) == (["a", "b"], 20, 20)
    case = matrix.cases[0]
    assert (case.case_id, case.expected, case.tags) == ("c000", "42", ["arithmetic", "hard"])
    assert case.prompt == "Question 0: what is 0 plus 42?"
    assert [answer.model for answer in case.answers] == ["a", "b"]
    assert {answer.text for case in matrix.cases for answer in case.answers} == {"42", "It is 41, I believe."}
    assert next(run.run for run in matrix.runs if run.name == "a") == matrix.run


def test_a_right_answer_with_a_partial_score_is_not_wrong(read: Callable[..., list[Matrix]]) -> None:
    _, matrix = read(a=steady(1))
    case = matrix.cases[0]
    for passed in (True, False):
        answers = [msgspec.structs.replace(answer, score=0.8, passed=passed) for answer in case.answers]
        assert msgspec.structs.replace(case, answers=answers).is_wrong("a") is not passed


def test_a_file_has_all_of_it_and_a_damaged_one_is_refused(read: Callable[..., list[Matrix]]) -> None:
    _, matrix = read(a=steady(0.9))
    content = encode(matrix)

    assert decode(content) == matrix
    for damaged in (b"", content[:-10], b"<html>", content[:20] + b"?" + content[21:]):
        with pytest.raises(StagingError, match="damaged"):
            decode(damaged)


def test_a_file_that_unpacks_to_more_than_a_matrix_can_have_is_refused(
    read: Callable[..., list[Matrix]], monkeypatch: pytest.MonkeyPatch
) -> None:
    content = encode(read(a=steady(0.9))[0])
    monkeypatch.setattr(module, "MAX_SIZE", 1_000)

    with pytest.raises(StagingError, match="damaged"):
        decode(content)


def test_it_is_bounded(read: Callable[..., list[Matrix]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_CASES", 3)
    monkeypatch.setattr(module, "MAX_TEXT", 5)

    _, matrix = read(a=steady(0.5))

    assert [case.case_id for case in matrix.cases] == ["c000", "c001", "c002"]
    assert matrix.cases_total == 20
    assert matrix.cases[0].prompt == "Quest…"


def test_two_runs_differ_in_the_cases_that_changed(read: Callable[..., list[Matrix]]) -> None:
    before, now = read(a=regressing(1, since=1, loss=1))

    changes = {difference.case_id: difference.change for difference in differences(before, now)}
    worse = {case for case, change in changes.items() if change == "worse"}
    assert worse == {change.case_id for change in now.changes if change.change == "worse"}
    assert worse >= {"c000", "c005", "c010", "c015"}
    difference = next(difference for difference in differences(before, now) if difference.case_id == "c000")
    assert ([answer.text for answer in difference.before], [answer.text for answer in difference.now]) == (
        ["42"],
        ["I cannot work that out."],
    )


def test_two_runs_differ_if_more_or_fewer_answers_are_right_whatever_their_scores_are(
    read: Callable[..., list[Matrix]],
) -> None:
    _, now = read(a=steady(1))

    def with_answers(*grades: tuple[float, bool]) -> Matrix:
        (answer,) = now.cases[0].answers
        answers = [msgspec.structs.replace(answer, score=score, passed=passed) for score, passed in grades]
        return msgspec.structs.replace(now, cases=[msgspec.structs.replace(now.cases[0], answers=answers)])

    def change(before: Matrix, now: Matrix) -> str:
        return next(differences(before, now)).change

    assert change(with_answers((0.9, True)), with_answers((0.8, True))) == "same"
    assert change(with_answers((0.3, True)), with_answers((0.6, False))) == "worse"
    assert change(with_answers((0.6, True), (0.6, False)), with_answers((0.6, True), (0.6, True))) == "better"


def test_a_case_or_a_model_that_only_one_run_has_is_unanswered_in_the_other(
    read: Callable[..., list[Matrix]],
) -> None:
    before, now = read(a=steady(1))
    without = msgspec.structs.replace(before, cases=before.cases[1:])

    assert next(differences(without, now)).change == "unanswered"
    assert next(differences(now, without)).prompt == "Question 0: what is 0 plus 42?"


def test_a_search_finds_prompts_answers_and_tags(read: Callable[..., list[Matrix]]) -> None:
    _, matrix = read(a=steady(0.5))

    assert [case.case_id for case in matrix.cases if case.contains("what is 7 plus")] == ["c007"]
    assert {case.case_id for case in matrix.cases if case.contains("arithmetic")} == {"c000", "c005", "c010", "c015"}
    assert 0 < sum(case.contains("i believe") for case in matrix.cases) < 20
