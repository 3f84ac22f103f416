"""The eval cases of the demo can be graded, and their graders call the expected answers right."""

from __future__ import annotations

import asyncio
import re
import sqlite3
from contextlib import closing
from importlib.resources import files
from pathlib import Path
from typing import Any

import msgspec

from airflow_provider_batch.demo import eval_cases
from airflow_provider_batch.evals.cases import Case, count_tags, read_cases
from airflow_provider_batch.evals.tables import CASE_COLUMNS
from airflow_provider_batch.local.answers.offline import OfflineResponder
from airflow_provider_batch.local.answers.responder import ModelRequest
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


def right_cases(responder: OfflineResponder, model: str) -> set[str]:
    """Return the cases that the offline responder gets right, without those that a judge grades."""

    async def reply_to(text: str) -> str:
        body: dict[str, Any] = {"model": model, "messages": [{"role": "user", "content": text}]}
        reply = await responder.answer(ModelRequest("/v1/chat/completions", body))
        return str(reply.body["choices"][0]["message"]["content"])

    async def reply_to_all() -> list[tuple[Case, str]]:
        return [(case, await reply_to(case.input)) for case in read() if case.grader.text != "judge"]

    replies = asyncio.run(reply_to_all())
    return {case.case_id for case, text in replies if case.grader.grade(case, answer(text)).passed}


def test_the_page_states_how_many_cases_the_offline_responder_gets_right() -> None:
    responder = OfflineResponder(lambda _: True)
    page = " ".join((Path(__file__).parents[2] / "docs/dags/nightly_eval.md").read_text(encoding="utf-8").split())

    (stated,) = re.findall(r"is right in (\d+) of the 400 cases .*?, `gpt-5-nano`, .*? in (\d+) ", page)

    assert [int(count) for count in stated] == [
        len(right_cases(responder, model)) for model in ("gpt-5-mini", "gpt-5-nano")
    ]


def test_the_planted_regression_breaks_all_cases_of_its_tag_from_the_second_run_on_and_no_others() -> None:
    seen: set[bytes] = set()

    def first_time(key: bytes) -> bool:
        is_new = key not in seen
        seen.add(key)
        return is_new

    model, tag = eval_cases.PLANTED_MODEL, eval_cases.PLANTED_TAG
    responder = OfflineResponder(first_time, {(model, eval_cases.PLANTED_SKILL)})
    tagged = {case.case_id for case in read() if tag in case.tags}

    first, second, third = (right_cases(responder, model) for _ in range(3))

    assert tagged <= first
    assert second == third == first - tagged
    assert right_cases(responder, "gpt-5-nano") == right_cases(responder, "gpt-5-nano")
