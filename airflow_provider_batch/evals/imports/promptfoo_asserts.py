"""The assertions of promptfoo as graders.

A test of promptfoo passes if all its assertions pass or, with a threshold, if their weighted mean score reaches it. The
column `grader` means the same, so weights and thresholds are taken over as they are.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from airflow_provider_batch.core.arguments import shorten
from airflow_provider_batch.evals.imports.drafts import GraderSpec
from airflow_provider_batch.evals.imports.messages import NotImportableError
from airflow_provider_batch.evals.imports.templates import render
from airflow_provider_batch.evals.imports.values import text_of
from airflow_provider_batch.evals.imports.yaml_values import read_yaml
from airflow_provider_batch.exceptions import InputError

#: keys of an assertion that do not change whether an answer passes, or that only choose a model as the judge
_IGNORED_KEYS = frozenset({"metric", "description", "provider"})
_KEYS = frozenset({"type", "value", "threshold", "weight"}) | _IGNORED_KEYS

_NOT = "not-"

#: assertions that a model decides, by our grader
_JUDGED = {
    "llm-rubric": "llm-rubric",
    "model-graded-closedqa": "llm-rubric",
    "factuality": "factuality",
    "model-graded-factuality": "factuality",
}

_SEPARATORS = re.compile(r"[,\s]*")
_UNQUOTED = re.compile(r"[^,]*")
_QUOTED = re.compile(r'"((?:\\["\\]|""|\\(?!["\\])|[^"\\])*)"\s*')
_ESCAPED = re.compile(r'\\["\\]|""')


def map_assertion(
    assertion: Mapping[str, Any], values: Mapping[str, Any], read: Callable[[str], Any]
) -> Iterator[GraderSpec]:
    """Yield the graders of an assertion, or of all assertions in a set.

    :param values: the variables of the test, for templates in expected values.
    :param read: returns the content of a file that the assertion names: text, or the value of a JSON or YAML file.
    :raises NotImportableError: if no grader does the same.
    """
    kind = str(assertion.get("type", ""))
    weight = _weight(assertion)
    if kind == "assert-set":
        yield from _map_set(assertion, weight, values, read)
        return
    unknown = sorted(set(assertion) - _KEYS)
    if unknown:
        raise NotImportableError(f"the assertion {kind!r} has the option {unknown[0]!r}, which has no counterpart")
    base = kind.removeprefix(_NOT)
    if base in _JUDGED and kind != base:
        raise NotImportableError(f"there is no negation of a judge, but the assertion is {kind!r}")
    value = _render(assertion.get("value"), values, read)
    grader, expected = _map(base, value, assertion.get("threshold"))
    yield GraderSpec(f"{_NOT}{grader}" if kind != base else grader, expected, weight)


def check_judges(specs: list[GraderSpec]) -> None:
    """Raise NotImportableError if a judge would have to decide more than one question about an answer."""
    count = sum(spec.is_judged for spec in specs)
    if count > 1:
        raise NotImportableError(f"it has {count} assertions that a model decides, and a case has one judge")


def _map_set(
    assertion: Mapping[str, Any], weight: float, values: Mapping[str, Any], read: Callable[[str], Any]
) -> Iterator[GraderSpec]:
    """Yield the graders of a set. Without a threshold of its own, its score is the weighted mean of its assertions."""
    if assertion.get("threshold") is not None:
        raise NotImportableError("a set of assertions with a threshold of its own has no counterpart")
    parts = assertion.get("assert")
    if not isinstance(parts, list) or not all(isinstance(part, Mapping) for part in parts):
        raise NotImportableError("a set of assertions has no list of assertions")
    total = sum(_weight(part) for part in parts)
    for part in parts:
        for spec in map_assertion(part, values, read):
            yield GraderSpec(spec.grader, spec.expected, spec.weight * weight / total)


def _weight(assertion: Mapping[str, Any]) -> float:
    weight = assertion.get("weight", 1)
    if isinstance(weight, bool) or not isinstance(weight, (int, float)) or weight <= 0:
        raise NotImportableError(f"an assertion has the weight {weight!r}, and a weight must be above 0 here")
    return weight


def _render(value: Any, values: Mapping[str, Any], read: Callable[[str], Any]) -> Any:
    if isinstance(value, str):
        return read(value) if value.startswith("file://") else render(value, values, "an expected value")
    if isinstance(value, list):
        return [_render(item, values, read) if isinstance(item, str) else item for item in value]
    return value


def _map(base: str, value: Any, threshold: Any) -> tuple[str, str | None]:
    """Return the grader and its expected value for an assertion without its prefix `not-`."""
    if base in ("contains", "icontains", "starts-with", "regex"):
        return base, _require_text(base, value)
    if base in ("contains-any", "contains-all", "icontains-any", "icontains-all"):
        return base, json.dumps(_require_texts(base, value), ensure_ascii=False)
    if base == "equals":
        is_json = isinstance(value, (list, Mapping))
        return ("json" if is_json else "exact"), text_of(value)
    if base == "is-json":
        return ("is-json", None) if value in (None, "") else ("json-schema", _require_schema(value))
    if base == "contains-json":
        if value not in (None, ""):
            raise NotImportableError("contains-json with a schema has no counterpart; json-schema reads whole answers")
        return "contains-json", None
    if base in _JUDGED:
        has_minimum = base == "llm-rubric" and threshold is not None
        minimum = f":{_require_number(base, threshold)}" if has_minimum else ""
        return f"{_JUDGED[base]}{minimum}", _require_text(base, value)
    if base in ("similar", "similar:cosine"):
        minimum = "0.75" if threshold is None else _require_number(base, threshold)
        texts = [_require_text(base, item) for item in (value if isinstance(value, list) else [value])]
        return f"similar:{minimum}", texts[0] if len(texts) == 1 else json.dumps(texts, ensure_ascii=False)
    if base == "is-refusal":
        return "refusal", None
    if base == "cost":
        return f"max-cost:{_require_number(base, threshold)}", None
    if base == "levenshtein":
        raise NotImportableError(
            "levenshtein counts edits in promptfoo, and its counterpart here measures similarity from 0 to 1"
        )
    raise NotImportableError(f"there is no grader for the assertion {base!r}")


def _require_text(base: str, value: Any) -> str:
    text = text_of(value) if isinstance(value, (str, int, float)) and not isinstance(value, bool) else None
    if not text:
        raise NotImportableError(f"the assertion {base!r} has no text as its value")
    return text


def _require_texts(base: str, value: Any) -> list[str]:
    items = split_values(value) if isinstance(value, str) else value
    if not isinstance(items, list) or not items:
        raise NotImportableError(f"the assertion {base!r} has no list as its value")
    return [text_of(item) or "" for item in items]


def _require_number(base: str, value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value < 0:
        raise NotImportableError(f"the assertion {base!r} has no number as its threshold")
    return text_of(value) or ""


def _require_schema(value: Any) -> str:
    if isinstance(value, str):  # in a cell of a table
        try:
            value = read_yaml(value.encode(), "the schema")
        except InputError as error:
            raise NotImportableError(f"the schema of is-json cannot be read: {error}") from None
    if not isinstance(value, Mapping):
        raise NotImportableError("the schema of is-json is not an object")
    return json.dumps(value, ensure_ascii=False)


def split_values(text: str) -> list[str]:
    """Return values separated by commas.

    A value in double quotes may contain commas. In it, a quote is doubled or follows a backslash.

    :raises NotImportableError: if a quoted value does not end, or something other than a comma follows it.
    """
    values: list[str] = []
    position = _end_of(_SEPARATORS, text, 0)
    while position < len(text):
        quoted = _QUOTED.match(text, position)
        if quoted:
            values.append(_ESCAPED.sub(lambda escaped: escaped[0][1], quoted[1]))
            position = quoted.end()
            if position < len(text) and text[position] != ",":
                raise NotImportableError(f"the list {shorten(text)} has no comma after a quoted value")
        elif text[position] == '"':
            raise NotImportableError(f"the list {shorten(text)} has a quoted value that does not end")
        else:
            end = _end_of(_UNQUOTED, text, position)
            values.append(text[position:end].strip())
            position = end
        position = _end_of(_SEPARATORS, text, position)
    return values


def _end_of(pattern: re.Pattern[str], text: str, position: int) -> int:
    """Return where the match of a pattern at a position ends, which may be empty."""
    match = pattern.match(text, position)
    return position if match is None else match.end()
