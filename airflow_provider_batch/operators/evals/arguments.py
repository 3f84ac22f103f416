"""Parsers of the template fields that the operators of evals share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from airflow_provider_batch.core.arguments import (
    check_templated,
    parse_bool,
    parse_choice,
    parse_mapping,
    parse_names,
    parse_share,
    parse_templated,
    parse_text,
    require_conn_id,
    require_table_name,
    require_text,
)
from airflow_provider_batch.evals.compare import DEFAULT_ALPHA
from airflow_provider_batch.evals.imports.sources import FORMATS, check_address

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import BaseOperator

#: what the gate does if a run does not pass
ACTIONS = FAIL, WARN = ("fail", "warn")


def _parse_names_or_none(name: str, value: Any) -> list[str] | None:
    return parse_names(name, value) or None


def _parse_words(name: str, value: Any) -> str:
    return parse_text(name, value) or ""


def _require_address(name: str, value: Any) -> str:
    address = require_text(name, value)
    check_address(address)
    return address


def _parse_text_mapping(name: str, value: Any) -> dict[str, str]:
    return {key: require_text(f"{name}[{key!r}]", item) for key, item in parse_mapping(name, value).items()}


_PARSERS: Mapping[str, Callable[[str, Any], Any]] = {
    "cases_sql": require_text,
    "answers": require_text,
    "judgements": parse_text,
    "embeddings": parse_text,
    "preferences": parse_text,
    "run": require_text,
    "title": _parse_words,
    "note": _parse_words,
    "prefix": _parse_words,
    "variants": _parse_names_or_none,
    "action": partial(parse_choice, choices=ACTIONS),
    "file": _require_address,
    "format": partial(parse_choice, choices=FORMATS),
    "table": require_table_name,
    "name": _parse_words,
    "scorer": _parse_words,
    "scorer_options": _parse_text_mapping,
    "grader": _parse_words,
    "columns": _parse_text_mapping,
    "transcript": parse_bool,
    "allow_partial": parse_bool,
    "alpha": partial(parse_share, example=DEFAULT_ALPHA),
    "warehouse_conn_id": require_conn_id,
}


def check_fields(operator: BaseOperator) -> None:
    """Check the template fields of an operator as far as they are known while the DAG is parsed. Raises InputError."""
    check_templated(operator, {name: _PARSERS[name] for name in operator.template_fields})


def parse_fields(operator: BaseOperator) -> None:
    """Convert the template fields of an operator once they are rendered. Raises InputError."""
    parse_templated(operator, {name: _PARSERS[name] for name in operator.template_fields})
