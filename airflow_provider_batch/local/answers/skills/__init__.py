"""Small programs with which the offline responder answers questions that can be computed.

A skill reads a question, and returns its answer, or None if it does not understand the question. It computes every
answer from the question alone: there is no list of answers.

dates       adds to dates, names weekdays and months, converts formats
arithmetic  determinants, real roots of polynomials, comparison of weights
words       initials, the n-th word, counting, comparing lists, replacing letters
moves       follows walks on a grid, swaps, and things that are moved
verdict     compares an answer with the expected one, for a judge (its answer fills a schema, so it is not in `SKILLS`)
"""

from __future__ import annotations

from collections.abc import Callable, Collection

from airflow_provider_batch.local.answers.skills.arithmetic import answer_arithmetic
from airflow_provider_batch.local.answers.skills.dates import answer_dates
from airflow_provider_batch.local.answers.skills.moves import answer_moves
from airflow_provider_batch.local.answers.skills.words import answer_words

#: the skills by name
SKILLS: dict[str, Callable[[str], str | None]] = {
    "dates": answer_dates,
    "arithmetic": answer_arithmetic,
    "words": answer_words,
    "moves": answer_moves,
}
#: what smaller models lack, by a part of their names, so that models differ
_MISSING = {"nano": frozenset({"arithmetic", "moves"})}
#: longer questions are not read, in characters
_MAX_LENGTH = 10_000


def skills_of(model: str) -> frozenset[str]:
    """Return the names of the skills that a model has."""
    missing = (skills for part, skills in _MISSING.items() if part in model)
    return frozenset(SKILLS).difference(*missing)


def solve(question: str, skills: Collection[str]) -> tuple[str, str] | None:
    """Return the answer to a question and the name of the skill that found it, or None if no skill understands it."""
    if len(question) > _MAX_LENGTH:
        return None
    for name in SKILLS:
        answer = SKILLS[name](question) if name in skills else None
        if answer is not None:
            return answer, name
    return None
