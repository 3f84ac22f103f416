"""Graded answers are kept in a temporary file, and rows are written in chunks."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_batch.evals import spool as module
from airflow_provider_batch.evals.cases import Case
from airflow_provider_batch.evals.graders import parse_grader
from airflow_provider_batch.evals.grading import GradedAnswer, grade_answers, scores
from airflow_provider_batch.evals.spool import Spool
from airflow_provider_batch.evals.summary import summaries
from airflow_provider_batch.warehouse import replaced_tables
from tests.evals.answers import answer
from tests.evals.conftest import Evals

if TYPE_CHECKING:
    import pytest


@given(st.lists(st.text()))
def test_items_can_be_read_again_and_while_others_are_added(items: list[str]) -> None:
    with Spool(str) as spool:
        for count, item in enumerate(items, start=1):
            spool.append(item)
            assert len(spool) == count
            assert next(iter(spool)) == items[0]
        assert list(spool) == items
        assert list(zip(spool, spool, strict=True)) == list(zip(items, items, strict=True))


def test_a_large_spool_is_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MAX_MEMORY", 1_000)
    items = [str(number) * 10 for number in range(1_000)]
    with Spool(str) as spool:
        for item in items:
            spool.append(item)
        assert list(spool) == items


def test_a_spool_gives_the_same_result_as_a_list() -> None:
    cases = [Case("a", "?", "x", parse_grader("exact"), ("t",))]
    answers = [answer("x"), answer("y", cost_usd=None), answer(None, "expired", cost_usd=None)]
    in_list = grade_answers(cases, answers, judgements=None).answers
    with Spool(GradedAnswer) as spool:
        assert grade_answers(cases, answers, judgements=None, into=spool).answers is spool
        assert list(spool) == list(in_list)
        assert summaries(spool) == summaries(in_list)
        assert scores(spool) == scores(in_list)


def test_a_run_of_many_rows_is_written_in_chunks_and_in_one_transaction(
    evals_anywhere: Evals, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replaced_tables, "_CHUNK_ROWS", 7)
    evals = evals_anywhere
    cases = [(f"c{number:02}", str(number), "numeric", "") for number in range(20)]
    evals.cases(*cases)
    evals.land("one", "mini", [(case_id, expected) for case_id, expected, *_ in cases])
    evals.grade("one")
    evals.grade("one")
    assert evals.table("eval_grades", "case_id, passed", "1") == [(case_id, 1) for case_id, *_ in cases]
