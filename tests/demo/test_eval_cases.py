"""The cases that are shipped: 400 that can be graded, whose expected answers their own graders call right."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from importlib.resources import files
from pathlib import Path

import msgspec

from airflow_provider_batch.demo import eval_cases
from airflow_provider_batch.evals.cases import Case, count_tags, read_cases
from airflow_provider_batch.evals.tables import CASE_COLUMNS

CASES = eval_cases.load()


def read() -> list[Case]:
    return read_cases(CASE_COLUMNS, map(msgspec.structs.astuple, CASES))


def test_there_are_400_and_every_one_can_be_graded() -> None:
    assert len(read()) == 400
    assert {case.grader.kind for case in read()} == {"exact", "normalised", "regex", "json", "numeric", "judge"}
    assert len({case.input for case in CASES}) == 400


def test_no_tag_is_of_a_handful_of_cases_only() -> None:
    tags = count_tags(read())
    assert len(tags) >= 15
    assert min(tags.values()) >= 8
    assert all(case.tags for case in read())


def test_what_is_expected_is_right_and_another_cases_answer_is_not() -> None:
    plain = [case for case in read() if case.grader.kind in ("exact", "normalised", "numeric", "json")]
    for case in plain:
        assert case.grader.grade(case.expected, case.expected or "").score == 1, case.case_id
        assert case.grader.grade(case.expected, "I do not know.").score == 0, case.case_id


def test_seeding_twice_leaves_exactly_these_cases(tmp_path: Path) -> None:
    warehouse = tmp_path / "warehouse.sqlite"
    assert eval_cases.seed(warehouse) == eval_cases.seed(warehouse) == 400
    with closing(sqlite3.connect(warehouse)) as connection:
        rows = connection.execute(f"SELECT {', '.join(CASE_COLUMNS)} FROM eval_cases ORDER BY rowid").fetchall()
    assert rows == [msgspec.structs.astuple(case) for case in CASES]


def test_licence_and_source_lie_beside_them() -> None:
    demo = files("airflow_provider_batch.demo")
    assert "Copyright (c) 2023 OpenAI" in demo.joinpath("eval_cases.LICENSE").read_text()
    told = demo.joinpath("eval_cases.md").read_text()
    for source in {case.case_id.rpartition("-")[0] for case in CASES}:
        count = sum(case.case_id.rpartition("-")[0] == source for case in CASES)
        assert f"| `{source}`, {count} |" in told
    assert len(demo.joinpath("eval_cases.jsonl").read_bytes()) < 300_000
