"""Functions that the grader `python` calls in tests."""

from __future__ import annotations

from typing import Any

from airflow_provider_batch.evals.graders.subject import GradedCase

NUMBER = 5

RESULTS: dict[str, Any] = {
    "true": True,
    "half": 0.5,
    "quarter": 0.25,
    "one": 1,
    "score": {"score": 0.2, "passed": True, "reason": "polite"},
    "passed": {"passed": False},
    "only-score": {"score": 0.75},
    "none": None,
    "two": 2,
    "nan": float("nan"),
    "text": "yes",
    "typo": {"pass": True},
    "reason": {"reason": "?"},
    "word": {"score": 1, "passed": "yes"},
}


def look_up(answer: str, case: GradedCase) -> Any:
    """Return a result by the answer."""
    return RESULTS[answer]


def names_its_tag(answer: str, case: GradedCase) -> bool:
    """Return whether the answer has the tag and the expected value of the case, and its question."""
    return answer == f"{case.case_id} {case.input} {case.expected} {','.join(case.tags)}"
