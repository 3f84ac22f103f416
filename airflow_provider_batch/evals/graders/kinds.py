"""Every kind of grader by name: what it needs, and the function that grades."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from airflow_provider_batch.evals.graders import (
    embeddings,
    expressions,
    functions,
    json_values,
    limits,
    numbers,
    similarity,
    texts,
)
from airflow_provider_batch.evals.graders.subject import Grade, Subject
from airflow_provider_batch.exceptions import InputError

#: the grader that compares embeddings
SIMILAR = "similar"

#: the grader that calls a function
PYTHON = "python"


@dataclass(frozen=True)
class Kind:
    """A kind of grader."""

    #: (text after the colon, answer) -> grade
    grade: Callable[[str, Subject], Grade]
    #: raises InputError if the text after the colon is invalid; None if there cannot be one
    check_argument: Callable[[str], object] | None = None
    #: (text after the colon, expected value or '') -> raises InputError if the grader cannot work with it
    check_expected: Callable[[str, str], object] | None = None
    needs_expected: bool = True
    #: whether the grader reads the text of the answer, so that an answer without a usable text is wrong
    needs_text: bool = True


def _check_comparison(argument: str) -> None:
    if argument not in ("", "exact", texts.NORMALISED):
        raise InputError(f"the grader 'one-of:{argument}' needs exact or normalised after its colon, or no colon")


def _check_levenshtein(argument: str) -> None:
    limits.parse_share("levenshtein", argument)


def _check_similar(argument: str) -> None:
    limits.parse_share(SIMILAR, argument)


def _check_token_f1(argument: str) -> None:
    limits.parse_share("token-f1", argument)


#: in the order in which an error message lists them
KINDS: dict[str, Kind] = {
    "exact": Kind(texts.exact),
    "normalised": Kind(texts.normalised),
    "regex": Kind(expressions.regex, check_expected=lambda _, expected: expressions.compile_expression(expected)),
    "json": Kind(json_values.json_value, check_argument=json_values.parse_path),
    "numeric": Kind(
        numbers.numeric,
        check_argument=numbers.parse_tolerance,
        check_expected=lambda _, expected: numbers.parse_number(expected),
    ),
    "contains": Kind(texts.contains, check_expected=texts.require_text),
    "contains-any": Kind(texts.contains_any, check_expected=texts.require_texts),
    "contains-all": Kind(texts.contains_all, check_expected=texts.require_texts),
    "icontains": Kind(texts.icontains, check_expected=texts.require_text),
    "icontains-any": Kind(texts.icontains_any, check_expected=texts.require_texts),
    "icontains-all": Kind(texts.icontains_all, check_expected=texts.require_texts),
    "starts-with": Kind(texts.starts_with, check_expected=texts.require_text),
    "one-of": Kind(
        texts.one_of,
        check_argument=_check_comparison,
        check_expected=lambda _, expected: texts.values_of(expected),
    ),
    "is-json": Kind(json_values.is_json, needs_expected=False),
    "contains-json": Kind(json_values.contains_json, needs_expected=False),
    "json-schema": Kind(
        json_values.json_schema, check_expected=lambda _, expected: json_values.compile_schema(expected)
    ),
    "levenshtein": Kind(
        similarity.levenshtein,
        check_argument=_check_levenshtein,
        check_expected=lambda *_: similarity.load_rapidfuzz(),
    ),
    "token-f1": Kind(similarity.token_f1, check_argument=_check_token_f1),
    SIMILAR: Kind(embeddings.similar, check_argument=_check_similar, check_expected=texts.require_texts),
    "max-cost": Kind(limits.max_cost, check_argument=limits.parse_cost, needs_expected=False, needs_text=False),
    "max-tokens": Kind(limits.max_tokens, check_argument=limits.parse_tokens, needs_expected=False, needs_text=False),
    "refusal": Kind(limits.refusal, needs_expected=False, needs_text=False),
    PYTHON: Kind(functions.python, check_argument=functions.check_name, needs_expected=False),
}
