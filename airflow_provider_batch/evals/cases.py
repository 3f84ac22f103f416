"""The cases of an eval: what to send to the models, what to expect, and how to grade the answer.

Cases come from a query. They are all checked before any request is sent.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any

import msgspec

from airflow_provider_batch.evals.graders import Grader, check_grader
from airflow_provider_batch.evals.tables import CASE_COLUMNS
from airflow_provider_batch.exceptions import InputError

#: maximum number of problems that an error message lists
_MAX_PROBLEMS = 10

#: The second answer to the case `a` has the custom_id `a~2`, so a case_id must not end with `~` and a number.
_REPEAT_SUFFIX = re.compile(r"~\d+\Z")


class Case(msgspec.Struct, frozen=True):
    """One case of an eval."""

    case_id: str
    input: str
    #: None if the grader needs no expected value
    expected: str | None
    grader: Grader
    #: in the order in which the column lists them, each once
    tags: tuple[str, ...]

    @property
    def input_sha256(self) -> str:
        """Hash of the question alone. An answer belongs to the question with this hash."""
        return _sha256(self.input)

    @property
    def case_sha256(self) -> str:
        """Hash of question, expected answer and grader. Only grades with the same hash can be compared."""
        return _sha256(self.input, self.expected, self.grader.text)


def read_cases(columns: Sequence[str], rows: Iterable[Sequence[Any]], grader_modules: Sequence[str] = ()) -> list[Case]:
    """Return the cases in a query's result, sorted by case_id.

    :param columns: the query's columns. They must include `case_id, input, expected, grader, tags`, in any order and in
        upper or lower case; other columns are ignored.
    :param grader_modules: modules whose functions the grader `python` may call.
    :raises InputError: if there are no cases, a column is missing, or a case cannot be graded. The message lists up to
        ten problems.
    """
    positions = {name.casefold(): position for position, name in enumerate(columns)}
    missing = [name for name in CASE_COLUMNS if name not in positions]
    if missing:
        raise InputError(
            f"cases_sql does not return the {'column' if len(missing) == 1 else 'columns'} {', '.join(missing)}. It "
            f"must return {', '.join(CASE_COLUMNS)}. For a column that you do not use, select '' under its name. "
            "Nothing was sent."
        )
    cases: list[Case] = []
    problems: list[str] = []
    count = 0
    for row in rows:
        count += 1
        raw_id, *values = (row[positions[name]] for name in CASE_COLUMNS)
        case_id = "" if raw_id is None else str(raw_id)
        problem = _case_id_problem(case_id)
        if problem:
            problems.append(f"row {count}: {problem}")
            continue
        try:
            cases.append(_build_case(case_id, *values, grader_modules=grader_modules))
        except InputError as error:
            problems.append(f"case {case_id!r}: {error}")
    repeated_ids = sorted(case_id for case_id, times in Counter(case.case_id for case in cases).items() if times > 1)
    problems.extend(f"case {case_id!r}: this case_id appears more than once" for case_id in repeated_ids)
    if problems:
        remainder = f"\n  and {len(problems) - _MAX_PROBLEMS:,} more" if len(problems) > _MAX_PROBLEMS else ""
        problem_list = "\n  ".join(problems[:_MAX_PROBLEMS])
        raise InputError(
            f"{len(problems):,} of {count:,} cases cannot be graded:\n  {problem_list}{remainder}\nNothing was sent or "
            "graded. Fix the cases, then clear this task to run it again."
        )
    if not cases:
        raise InputError("There are no cases: cases_sql returned no rows. Nothing was sent or graded.")
    return sorted(cases, key=lambda case: case.case_id)


def count_tags(cases: Iterable[Case]) -> dict[str, int]:
    """Return the number of cases per tag."""
    return dict(sorted(Counter(tag for case in cases for tag in case.tags).items()))


def _case_id_problem(case_id: str) -> str:
    if not case_id.strip():
        return "the case_id is empty"
    if _REPEAT_SUFFIX.search(case_id):
        return f"the case_id {case_id!r} ends with ~ and a number, which marks repeats; rename the case"
    return ""


def _build_case(
    case_id: str, question: Any, expected: Any, grader: Any, tags: Any, *, grader_modules: Sequence[str]
) -> Case:
    if question is None or not str(question).strip():
        raise InputError("the input is empty")
    expected_text = None if expected is None else str(expected)
    parsed_grader = check_grader("" if grader is None else str(grader), expected_text, grader_modules)
    names = [tag.strip() for tag in ("" if tags is None else str(tags)).split(",")]
    return Case(case_id, str(question), expected_text, parsed_grader, tuple(dict.fromkeys(tag for tag in names if tag)))


@lru_cache(maxsize=10_000)
def _sha256(*parts: str | None) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()
