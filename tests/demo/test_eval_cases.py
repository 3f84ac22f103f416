"""The eval cases of the demo can be graded, and their graders call the expected answers right."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from importlib.resources import files
from pathlib import Path

import msgspec

from airflow_provider_batch.demo import eval_cases
from airflow_provider_batch.evals.cases import Case, count_tags, read_cases
from airflow_provider_batch.evals.tables import CASE_COLUMNS
from tests.evals.answers import answer

CASES = eval_cases.load()


def read() -> list[Case]:
    return read_cases(CASE_COLUMNS, map(msgspec.structs.astuple, CASES))


def test_all_400_cases_can_be_graded() -> None:
    assert len(read()) == 400
    graders = {case.grader.text.partition(":")[0] for case in read()}
    assert graders == {"exact", "normalised", "regex", "json", "numeric", "judge"}
    assert len({case.input for case in CASES}) == 400


def test_every_tag_has_at_least_8_cases() -> None:
    tags = count_tags(read())
    assert len(tags) >= 15
    assert min(tags.values()) >= 8
    assert all(case.tags for case in read())


def test_the_expected_answer_is_right_and_a_different_one_is_wrong() -> None:
    cases = [case for case in read() if case.grader.text.startswith(("exact", "normalised", "numeric", "json"))]
    for case in cases:
        assert case.grader.grade(case, answer(case.expected)).passed, case.case_id
        assert not case.grader.grade(case, answer("I do not know.")).passed, case.case_id


def test_seeding_twice_writes_exactly_these_cases(tmp_path: Path) -> None:
    warehouse = tmp_path / "warehouse.sqlite"
    assert eval_cases.seed(warehouse) == eval_cases.seed(warehouse) == 400
    with closing(sqlite3.connect(warehouse)) as connection:
        rows = connection.execute(f"SELECT {', '.join(CASE_COLUMNS)} FROM eval_cases ORDER BY rowid").fetchall()
    assert rows == [msgspec.structs.astuple(case) for case in CASES]


def test_licence_and_sources_are_documented() -> None:
    demo = files("airflow_provider_batch.demo")
    assert "Copyright (c) 2023 OpenAI" in demo.joinpath("eval_cases.LICENSE").read_text()
    page = demo.joinpath("eval_cases.md").read_text()
    for source in {case.case_id.rpartition("-")[0] for case in CASES}:
        count = sum(case.case_id.rpartition("-")[0] == source for case in CASES)
        assert f"| `{source}`, {count} |" in page
    assert len(demo.joinpath("eval_cases.jsonl").read_bytes()) < 300_000
