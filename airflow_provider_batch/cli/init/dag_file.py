"""The text of a DAG file. Whatever a person answered is a Python literal in it, never code."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import date
from typing import Any

import msgspec

from airflow_provider_batch.exceptions import InputError

#: what a job can do, with the words for the docstring of the DAG
TASKS = {
    "classify": "Label each row",
    "extract": "Extract fields from each row",
    "translate": "Translate each row",
    "summarize": "Summarize each row",
    "embed": "Compute a vector for each row",
    "prompt": "Send each row with a prompt",
}
MODEL = "gpt-5-mini"
_INDENT = "    "
_QUERY = re.compile(r"\s*\(*\s*(select|with|values|from|table)\s", re.IGNORECASE)


class Answers(msgspec.Struct, frozen=True, kw_only=True):
    """What the DAG does, as the person answered."""

    task: str
    dag_id: str
    #: a table, or a query
    source: str
    key: str
    text: str
    table: str
    labels: tuple[str, ...] = ()
    #: description of each field, by its name
    fields: Mapping[str, str] = {}
    language: str = ""
    prompt: str = ""
    model: str = ""
    openai_conn_id: str = "openai_default"
    warehouse_conn_id: str = "warehouse"
    max_cost_usd: float = 5
    schedule: str | None = None
    start: date = date(2026, 1, 1)


def dag_source(answers: Answers) -> str:
    """Return the text of the DAG file, as `ruff format` would write it.

    :raises InputError: if a name cannot be part of a template or of a query.
    """
    is_preset = answers.task != "prompt"
    lines = [
        f'"""{TASKS[answers.task]} of a query through the Batch API, and write the answers back to the warehouse."""',
        "",
        "from __future__ import annotations",
        "",
        *(["from datetime import datetime", ""] if answers.schedule else []),
        "from airflow.sdk import DAG",
        "",
        *([f"from airflow_provider_batch.presets import {answers.task}"] if is_preset else []),
        "from airflow_provider_batch.task_groups import batch_job",
        "",
        "with DAG(",
        *_indent(1, [f"{literal(answers.dag_id)},", *_schedule_lines(answers)]),
        _INDENT + "# A retry is safe: it continues the job, and sends nothing that was sent before.",
        *_indent(1, ['default_args={"retries": 3},', 'tags=["batch"],']),
        "):",
        _INDENT + "batch_job(",
        *_indent(2, _job_lines(answers)),
        _INDENT + ")",
    ]
    return "\n".join(lines) + "\n"


def is_query(source: str) -> bool:
    """Return whether a source of rows is a query, and not the name of a table."""
    return _QUERY.match(source) is not None


def literal(value: Any) -> str:
    """Return the Python literal of text or a number, with the quotes that `ruff format` prefers."""
    text = repr(value)
    if not isinstance(value, str):
        return text
    double, single = value.count('"'), value.count("'")
    if double > single:
        return text if text[0] == "'" else f"'{text[1:-1]}'"
    body = text[1:-1].replace("\\'", "'") if text[0] == "'" else text[1:-1]
    return f'"{body.replace(chr(34), chr(92) + chr(34)) if text[0] == chr(39) else body}"'


def format_amount(amount: float) -> str:
    """Return the literal of an amount, without decimals if it has none."""
    return str(int(amount)) if amount == int(amount) else repr(amount)


def _schedule_lines(answers: Answers) -> list[str]:
    if not answers.schedule:
        return ["schedule=None,"]
    start = answers.start
    return [
        f"schedule={literal(answers.schedule)},",
        f"start_date=datetime({start.year}, {start.month}, {start.day}),",
        "catchup=False,",
        "is_paused_upon_creation=True,",
    ]


def _job_lines(answers: Answers) -> Iterator[str]:
    prompt = _prompt(answers)
    if answers.openai_conn_id != "openai_default":
        yield f"openai_conn_id={literal(answers.openai_conn_id)},"
    yield f"warehouse_conn_id={literal(answers.warehouse_conn_id)},"
    yield f"sql={literal(_query(answers, prompt))},"
    yield f"custom_id={literal(_column_template(answers.key))},"
    yield f"table={literal(answers.table)},"
    yield "# Nothing is uploaded if even the low end of the estimate is higher."
    yield f"max_cost_usd={format_amount(answers.max_cost_usd)},"
    if answers.task == "prompt":
        yield f"model={literal(answers.model or MODEL)},"
        yield f"prompt={literal(prompt)},"
        return
    yield f"**{answers.task}("
    yield from _indent(1, [f"{literal(prompt)},", *_preset_lines(answers)])
    yield "),"


def _preset_lines(answers: Answers) -> Iterator[str]:
    if answers.task == "classify":
        yield "labels=["
        yield from (f"{_INDENT}{literal(label)}," for label in answers.labels)
        yield "],"
    elif answers.task == "extract":
        yield "fields={"
        yield from (f"{_INDENT}{literal(name)}: {literal(text)}," for name, text in answers.fields.items())
        yield "},"
    elif answers.task == "translate":
        yield f"to={literal(answers.language)},"
    if answers.model:
        yield f"model={literal(answers.model)},"


def _prompt(answers: Answers) -> str:
    text = _column_template(answers.text)
    if answers.task != "prompt":
        return text
    return answers.prompt if re.search(r"\{\{.*\brow\b", answers.prompt, re.DOTALL) else f"{answers.prompt}\n\n{text}"


def _query(answers: Answers, prompt: str) -> str:
    if is_query(answers.source):
        return answers.source
    columns = dict.fromkeys([answers.key, answers.text, *re.findall(r"\brow\.([A-Za-z_]\w*)", prompt)])
    table = ".".join(_identifier("table", part) for part in answers.source.split("."))
    return f"SELECT {', '.join(_identifier('column', column) for column in columns)} FROM {table}"


def _identifier(kind: str, name: str) -> str:
    _check_name(kind, name)
    return name if re.fullmatch(r"[A-Za-z_]\w*", name, re.ASCII) else '"{}"'.format(name.replace('"', '""'))


def _column_template(column: str) -> str:
    _check_name("column", column)
    return (
        f"{{{{ row.{column} }}}}" if re.fullmatch(r"[A-Za-z_]\w*", column, re.ASCII) else f"{{{{ row['{column}'] }}}}"
    )


def _check_name(kind: str, name: str) -> None:
    if not name.strip() or re.search(r"[{}'\\\n\r\0]", name):
        raise InputError(
            f"{name!r} cannot be the name of a {kind} here. Give it another name in a query, and enter the query: "
            "SELECT ... AS name FROM ... Nothing was written."
        )


def _indent(depth: int, lines: Any) -> Iterator[str]:
    return (f"{_INDENT * depth}{line}" for line in lines)
