"""Reads an answer that should be JSON. The schema decides which JSON it is."""

from __future__ import annotations

from typing import Any

import msgspec

from airflow_provider_batch.core.answers.embedded_json import (
    inner_text,
    json_texts,
    names_property,
    property_names,
    resembles_answer,
    unwrapped_texts,
)
from airflow_provider_batch.core.schema.judge import SchemaJudge

#: how many wrappers around an answer are removed
_MAX_WRAPPERS = 5


def read_structured(text: str, judge: SchemaJudge) -> tuple[Any, str | None]:
    """Return (the value of an answer, None), or (None, a description of the problem).

    A text that is valid as it is counts as it is. Otherwise it must contain exactly one valid JSON value with a
    property of the schema, as `embedded_json` describes, and nothing after it that may be meant as the answer. The
    content of a wrapper counts only if nothing outside the wrapper is valid or resembles an answer.
    """
    value, complaint = judge.judge(text)
    for _ in range(_MAX_WRAPPERS):
        if complaint is None:
            return value, None
        inner = inner_text(text)
        if inner is None:
            break
        text = inner
        value, inner_complaint = judge.judge(text)
        if inner_complaint is None or text.startswith(("{", "[")):
            complaint = inner_complaint
    return _read_embedded(text, judge, complaint) if complaint else (value, None)


def _read_embedded(text: str, judge: SchemaJudge, complaint: str) -> tuple[Any, str | None]:
    """Return the same for a text that is not valid as it is, for the reason in `complaint`."""
    texts = json_texts(text)
    if len(texts) == 1 and texts[0] != text:
        complaint = judge.judge(texts[0])[1] or complaint
    names, title = property_names(judge.schema), str(judge.schema.get("title", ""))
    if judge.wrapper is not None:
        names |= {judge.wrapper}
    for _ in range(_MAX_WRAPPERS + 1):
        values: dict[bytes, Any] = {}
        has_rival = False
        for candidate in texts:
            value, problem = judge.judge(candidate)
            if problem is None:
                if names_property(candidate, names):
                    values[msgspec.json.encode(value, order="deterministic")] = value
                    has_rival = False
            elif resembles_answer(candidate, names):
                complaint, has_rival = problem, True
        if len(values) > 1:
            return None, f"The answer contains {len(values)} different JSON values that match the schema."
        if has_rival:
            return None, complaint
        if values:
            return next(iter(values.values())), None
        texts = [inner for outer in texts for inner in unwrapped_texts(outer, names, title)]
    return None, complaint
