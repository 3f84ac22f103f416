"""Cases: what is asked, what is expected, and by which grader; checked before anything is asked."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from airflow_provider_batch.evals.graders import Grader, parse_grader
from airflow_provider_batch.evals.tables import CASE_COLUMNS
from airflow_provider_batch.exceptions import InputError

#: problems that one error lists
_TOLD = 10

#: the custom_id of a second answer to case `a` is `a~2`, so no case may be called that
_REPEAT = re.compile(r"~\d+\Z")


class Case(msgspec.Struct, frozen=True):
    """One case of an eval."""

    case_id: str
    input: str
    #: None where the grader needs none
    expected: str | None
    grader: Grader
    #: in the order they were given, each once
    tags: tuple[str, ...]

    @property
    def input_sha256(self) -> str:
        """Of the question alone: an answer belongs to it."""
        return _sha256(self.input)

    @property
    def case_sha256(self) -> str:
        """Of question, expected answer and grader: two grades with the same one can be compared."""
        return _sha256(self.input, self.expected, self.grader.text)


def read_cases(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> list[Case]:
    """The cases that a query gave, in the order of their ids.

    :param columns: the query's columns; `case_id, input, expected, grader, tags`, in any order and case, and others.
    :raises InputError: if there are none, a column is missing, or a case cannot be graded. It names up to ten of them.
    """
    places = {name.casefold(): place for place, name in enumerate(columns)}
    missing = [name for name in CASE_COLUMNS if name not in places]
    if missing:
        raise InputError(
            f"The cases have no column {', '.join(missing)}. cases_sql must give {', '.join(CASE_COLUMNS)}; for one "
            "that you have no use for, select '' under that name. Nothing was asked."
        )
    cases: list[Case] = []
    problems: list[str] = []
    count = 0
    for row in rows:
        count += 1
        case_id, *others = (row[places[name]] for name in CASE_COLUMNS)
        name = "" if case_id is None else str(case_id)
        problem = _problem_of_id(name)
        if problem:
            problems.append(f"row {count}: {problem}")
            continue
        try:
            cases.append(_case(name, *others))
        except InputError as error:
            problems.append(f"case {name!r}: {error}")
    twice = sorted(name for name, times in Counter(case.case_id for case in cases).items() if times > 1)
    problems.extend(f"case {name!r}: this case_id is given more than once" for name in twice)
    if problems:
        more = f"\n  and {len(problems) - _TOLD:,} more" if len(problems) > _TOLD else ""
        listed = "\n  ".join(problems[:_TOLD])
        raise InputError(
            f"{len(problems):,} of {count:,} cases cannot be graded:\n  {listed}{more}\nNothing was asked and nothing "
            "was graded. Mend the cases, then run this task again."
        )
    if not cases:
        raise InputError("There are no cases: cases_sql gave no rows. Nothing was asked and nothing was graded.")
    return sorted(cases, key=lambda case: case.case_id)


def tags_of(cases: Iterable[Case]) -> dict[str, int]:
    """How many cases have each tag, by tag."""
    return dict(sorted(Counter(tag for case in cases for tag in case.tags).items()))


def _problem_of_id(case_id: str) -> str:
    if not case_id.strip():
        return "the case_id is empty"
    if _REPEAT.search(case_id):
        return f"the case_id {case_id!r} ends like that of a repeat (~ and a number); name it otherwise"
    return ""


def _case(case_id: str, question: Any, expected: Any, grader: Any, tags: Any) -> Case:
    if question is None or not str(question).strip():
        raise InputError("the input is empty")
    parsed = parse_grader("" if grader is None else str(grader))
    wanted = None if expected is None else str(expected)
    parsed.check(wanted)
    named = [tag.strip() for tag in ("" if tags is None else str(tags)).split(",")]
    return Case(case_id, str(question), wanted, parsed, tuple(dict.fromkeys(tag for tag in named if tag)))


def _sha256(*parts: str | None) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()
