"""The grader `similar:0.8`, which compares the meaning of texts by their embeddings, which are in another table."""

from __future__ import annotations

import hashlib
import math
from array import array
from collections.abc import Iterator, Mapping
from operator import mul

from airflow_provider_batch.evals.graders.subject import Grade, Subject, UndecidableError, excerpt, wrong
from airflow_provider_batch.evals.graders.texts import values_of

#: number of characters of a text that are embedded. Embedding models take about 8,000 tokens.
MAX_CHARACTERS = 6_000

#: by `text_id`: the embedding of a text
Vectors = Mapping[str, "array[float]"]


def embedded_part(text: str) -> str:
    """Return the part of a text that is embedded: its beginning, without white space around it."""
    return text.strip()[:MAX_CHARACTERS].rstrip()


def text_id(text: str) -> str:
    """Return the id of the embedding of a text. Texts with the same embedded part have the same id."""
    return hashlib.sha256(embedded_part(text).encode("utf-8", "surrogatepass")).hexdigest()


def texts_of(answer: str, expected: str) -> Iterator[str]:
    """Yield the texts whose embeddings `similar` needs to grade an answer: none for an empty answer."""
    if embedded_part(answer):
        yield answer
        yield from values_of(expected)


def similar(minimum: str, subject: Subject) -> Grade:
    """Grade by the cosine similarity of the answer and the most similar expected text.

    :raises UndecidableError: if the embeddings of two texts have different lengths.
    """
    if not embedded_part(subject.text):
        return wrong("the answer is empty")
    vectors = subject.vectors
    assert vectors is not None, "grading passes the embeddings"
    answer = vectors[text_id(subject.text)]
    score, value = max((_cosine(answer, vectors[text_id(text)]), text) for text in values_of(subject.expected))
    passed = score >= float(minimum)
    reason = f"similarity {score:.3f} to {excerpt(value)}, at least {minimum} needed"
    return Grade(score, passed, reason if passed else f"{reason}: {excerpt(subject.text)}")


def _cosine(left: array[float], right: array[float]) -> float:
    """Return the cosine of the angle between two vectors, where a negative one counts as 0."""
    if len(left) != len(right):
        raise UndecidableError(f"the embeddings have {len(left):,} and {len(right):,} dimensions")
    lengths = math.hypot(*left) * math.hypot(*right)
    # Rounding makes the cosine of equal vectors differ from 1 in the last digits.
    return min(max(round(sum(map(mul, left, right)) / lengths, 6), 0.0), 1.0) if lengths else 0.0
