"""Grade one answer, for tests of graders."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

from airflow_provider_batch.evals.cases import Case
from airflow_provider_batch.evals.graders import Grade, check_grader
from airflow_provider_batch.evals.grading import Answer


def answer(
    text: str | None,
    outcome: str = "succeeded",
    *,
    cost_usd: Decimal | None = Decimal("0.001"),
    output_tokens: int | None = 5,
) -> Answer:
    """Return an answer to a case."""
    return Answer("mini", "a", 1, outcome, text, cost_usd, 10, output_tokens, None)


def grade(grader: str | list[Any], expected: str | None, given: str | Answer, verdict: Grade | None = None) -> Grade:
    """Grade an answer. A grader that is not text stands for its JSON."""
    text = grader if isinstance(grader, str) else json.dumps(grader)
    case = Case("a", "?", expected, check_grader(text, expected), ())
    return case.grader.grade(case, answer(given) if isinstance(given, str) else given, verdict)
