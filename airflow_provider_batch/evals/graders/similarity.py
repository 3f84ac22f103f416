"""Graders that measure how similar an answer is to the expected text."""

from __future__ import annotations

from collections import Counter
from typing import Any

from airflow_provider_batch.evals.graders.subject import Grade, Subject, UndecidableError, excerpt
from airflow_provider_batch.evals.graders.texts import normalise, normalise_answer
from airflow_provider_batch.exceptions import InputError

#: `levenshtein` compares texts up to this product of their lengths, in characters: 100,000 with 40,000, for example
MAX_PRODUCT = 4_000_000_000

_ARTICLES = frozenset({"a", "an", "the"})


def levenshtein(minimum: str, subject: Subject) -> Grade:
    """Grade by 1 minus the edit distance divided by the length of the longer text.

    :raises UndecidableError: if the texts are too long to be compared.
    """
    answer, expected = subject.text.strip(), subject.expected.strip()
    if len(answer) * len(expected) > MAX_PRODUCT:
        raise UndecidableError(f"too long to be compared: {len(answer):,} and {len(expected):,} characters")
    return _similarity(load_rapidfuzz().Levenshtein.normalized_similarity(answer, expected), minimum, subject)


def token_f1(minimum: str, subject: Subject) -> Grade:
    """Grade by the F1 score of the words that the answer and the expected text share, without English articles.

    :raises UndecidableError: if the answer is too long.
    """
    answer, expected = _words(normalise_answer(subject)), _words(normalise(subject.expected))
    shared, total = (answer & expected).total(), answer.total() + expected.total()
    return _similarity(2 * shared / total if total else 1.0, minimum, subject)


def load_rapidfuzz() -> Any:
    """Return the module `rapidfuzz.distance`.

    :raises InputError: if it is not installed.
    """
    try:
        import rapidfuzz.distance
    except ImportError:
        raise InputError(
            "The grader 'levenshtein' needs rapidfuzz, which is not installed here. Install it on every worker with "
            "`pip install 'airflow-provider-batch[evals]'`. Nothing was graded."
        ) from None
    return rapidfuzz.distance


def _similarity(score: float, minimum: str, subject: Subject) -> Grade:
    passed = score >= float(minimum)
    reason = f"similarity {score:.3f}, at least {minimum} needed"
    return Grade(score, passed, reason if passed else f"{reason}: {excerpt(subject.text)}")


def _words(normalised: str) -> Counter[str]:
    return Counter(word for word in normalised.split() if word not in _ARTICLES)
