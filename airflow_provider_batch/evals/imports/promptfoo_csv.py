"""Tests of promptfoo in a table, with assertions in the columns `__expected`, `__expected2` and so on."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from airflow_provider_batch.evals.imports.promptfoo_asserts import split_values

_LISTS = ("contains-all", "contains-any", "icontains-all", "icontains-any")
#: assertions that may have a number in parentheses
_WITH_THRESHOLD = (
    "answer-relevance",
    "classifier",
    "context-faithfulness",
    "context-recall",
    "context-relevance",
    "cost",
    "latency",
    "levenshtein",
    "perplexity",
    "perplexity-score",
    "rouge-n",
    "similar",
    "starts-with",
)
_DEFAULT_THRESHOLD = 0.75
_OTHER_KINDS = [
    "agent-rubric",
    "bleu",
    "contains",
    "contains-html",
    "contains-json",
    "contains-sql",
    "contains-xml",
    "conversation-relevance",
    "equals",
    "factuality",
    "finish-reason",
    "g-eval",
    "gleu",
    "guardrails",
    "icontains",
    "is-html",
    "is-json",
    "is-refusal",
    "is-sql",
    "is-valid-function-call",
    "is-valid-openai-function-call",
    "is-valid-openai-tools-call",
    "is-xml",
    "javascript",
    "llm-rubric",
    "meteor",
    "model-graded-closedqa",
    "model-graded-factuality",
    "moderation",
    "pi",
    "python",
    "regex",
    "ruby",
    "search-rubric",
    "similar:cosine",
    "similar:dot",
    "similar:euclidean",
    "tool-call-f1",
    "webhook",
    "word-count",
]
_ASSERTION = re.compile(
    "(not-)?({})(?:\\(([0-9]+(?:\\.[0-9]+)?)\\))?(?::(.*))?".format(
        "|".join(sorted((*_LISTS, *_WITH_THRESHOLD, *_OTHER_KINDS), key=len, reverse=True))
    ),
    re.DOTALL,
)
_PREFIXES = {
    "javascript:": "javascript",
    "fn:": "javascript",
    "eval:": "javascript",
    "grade:": "llm-rubric",
    "llm-rubric:": "llm-rubric",
    "python:": "python",
    "file://": "script",
}


def tests_of_rows(rows: Iterator[tuple[int, Mapping[str, str]]]) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield the line and the test of each row, as it would be written in YAML."""
    for line, row in rows:
        test: dict[str, Any] = {"vars": {}, "assert": [], "options": {}, "metadata": {}}
        for name, value in row.items():
            _add_cell(test, name.strip(), value)
        yield line, test


def parse_expected(text: str) -> dict[str, Any]:
    """Return the assertion that a cell means. Text that names no assertion has to equal the answer."""
    for prefix, kind in _PREFIXES.items():
        if text.startswith(prefix):
            return {"type": kind, "value": text[len(prefix) :].strip()}
    match = _ASSERTION.fullmatch(text)
    if match is None:
        return {"type": "equals", "value": text}
    negation, kind, threshold, value = match.groups()
    assertion: dict[str, Any] = {"type": (negation or "") + kind}
    if value is not None:
        assertion["value"] = split_values(value) if kind in _LISTS else value.strip()
    if kind in _WITH_THRESHOLD:
        assertion["threshold"] = _DEFAULT_THRESHOLD if threshold is None else float(threshold)
    return assertion


def _add_cell(test: dict[str, Any], name: str, value: str) -> None:
    if name.startswith("__expected"):
        if value.strip():
            test["assert"].append(parse_expected(value.strip()))
    elif name in ("__prefix", "__suffix"):
        test["options"][name[2:]] = value
    elif name == "__threshold":
        if value.strip():
            test["threshold"] = _number(value)
    elif name.startswith("__metadata:"):
        if value.strip():
            key = name.removeprefix("__metadata:")
            test["metadata"][key.removesuffix("[]")] = value.split(",") if key.endswith("[]") else value
    elif name.startswith("__config:"):
        # its number sets an option of an assertion in another column
        test["options"][name] = value
    elif name not in ("__description", "__metric", "__metadata", "__providerOutput"):
        test["vars"][name] = value


def _number(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text
