"""Every argument of the operators, of `batch_job` and of the presets, with values of every wrong kind.

While the DAG is parsed, an argument accepts the kinds of values that `ACCEPTED` lists for it. Every other value is an
error of this package that names the argument. Nothing else may be raised: the author would see a traceback into our
code. What is accepted can be serialised, and works or is refused with such an error before anything is billed when the
task runs.
"""

from __future__ import annotations

import inspect
import json
import math
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum, StrEnum
from fractions import Fraction
from pathlib import Path, PurePosixPath
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from airflow_provider_batch.exceptions import BatchError, InputError
from airflow_provider_batch.local.process import LocalServer
from airflow_provider_batch.presets import classify, embed, extract, summarize, translate
from tests.airflow.jobs import call_counter, run_job

pytestmark = pytest.mark.usefixtures("airflow_home")

REFERENCE: dict[str, Any] = {
    "job_uid": "j",
    "ledger": "file:///nowhere",
    "openai_conn_id": "openai_default",
    "requests": 1,
    "shards": 1,
    "estimate": {"low_usd": None, "high_usd": None},
}
SUBMIT: dict[str, Any] = {
    "task_id": "submit",
    "sql": "SELECT 1 AS id",
    "custom_id": "{{ row.id }}",
    "model": "gpt-5-mini",
    "prompt": "{{ row.id }}",
}


class Kind(Enum):
    NUMBER = 3


class Word(StrEnum):
    FAILED = "failed"


class Model(BaseModel):
    a: int


#: a value of each kind; a callable makes the value inside a DAG
VALUES: dict[str, Any] = {
    "None": None,
    "empty text": "",
    "blank text": " \n",
    "text": "maybe",
    "switch text": "no",
    "number text": "3",
    "negative number text": "-3",
    "fraction text": "0.5",
    "duration text": "90 min",
    "time text": "2030-01-01T00:00:00",
    "long text": "x" * 100_000,
    "half of a surrogate pair": "\ud800",
    "NUL": "a\x00b",
    "template": "{{ params.x }}",
    "open template": "{{ row.id",
    "forgotten braces": "row.id",
    "bytes": b"3",
    "zero": 0,
    "number": 3,
    "negative number": -3,
    "huge number": 10**40,
    "fraction": 0.5,
    "NaN": math.nan,
    "infinity": math.inf,
    "Decimal": Decimal("0.5"),
    "complex number": 1j,
    "true": True,
    "false": False,
    "empty list": [],
    "list of names": ["failed"],
    "list of numbers": [1, 2],
    "list of pairs": [("a", "b")],
    "list of None": [None],
    "tuple": ("failed", "expired"),
    "set": {"failed"},
    "generator": lambda: (name for name in ("failed",)),
    "empty dict": {},
    "dict of texts": {"a": "b"},
    "dict of numbers": {"a": 1},
    "dict of None": {"a": None},
    "dict of lists": {"a": [1]},
    "dict with a number as key": {1: 2},
    "timedelta": timedelta(hours=1),
    "negative timedelta": -timedelta(hours=1),
    "longest timedelta": timedelta.max,
    "datetime": datetime(2030, 1, 1, tzinfo=UTC),
    "date": date(2030, 1, 1),
    "path": PurePosixPath("/tmp/x"),
    "null text": "null",
    "duration in ISO format": "PT1H",
    "address": "s3://bucket/folder",
    "API key": "sk-proj-abc",
    "naive datetime": datetime(2030, 1, 1),
    "time of day": time(6),
    "fraction object": Fraction(1, 2),
    "member of an enum": Kind.NUMBER,
    "member of a text enum": Word.FAILED,
    "object": object(),
    "pydantic model": Model,
    "pydantic object": Model(a=1),
    "class": int,
    "exception": ValueError("x"),
    "function": lambda: len,
    "another task": lambda: other_task(),
    "output of another task": lambda: other_task().output,
    "list with the output of another task": lambda: [other_task().output],
    "value of the form": lambda: _dag().param("x"),
}

LINES = {
    *("text", "switch text", "number text", "negative number text", "fraction text", "duration text", "time text"),
    *("forgotten braces", "null text", "duration in ISO format", "member of a text enum"),
}
TEXTS = {*LINES, "long text", "address", "API key"}
EMPTY = {"None", "empty text", "blank text"}
RUNTIME = {"output of another task", "value of the form"}
TEMPLATED = {"template", *RUNTIME}
SWITCH = {*EMPTY, "switch text", "true", "false", "zero"}
COUNT = {"number text", "number"}
CONN_ID = {*LINES, *TEMPLATED} - {"duration text"}
FRACTION = {"fraction text", "fraction", "Decimal", "fraction object"}
NAMES = {"empty list", "list of names", "tuple"}
DICTS = {"empty dict", "dict of texts", "dict of numbers", "dict of None", "dict of lists"}
DURATION = {"zero", *COUNT, *FRACTION, "duration text", "duration in ISO format", "timedelta"}

#: the kinds that each argument accepts; an empty dict is what a form sends for an editor that was left empty
ACCEPTED: dict[str, set[str]] = {
    "submit.sql": {*TEXTS, *TEMPLATED},
    "submit.rows": {
        *("address", "path", "empty list", *TEMPLATED, "another task", "list with the output of another task"),
    },
    "submit.files": {*EMPTY, "empty dict", "address", "list with the output of another task", *RUNTIME},
    "submit.files_as": set(),
    "submit.files_root": {*EMPTY, "empty dict", *TEXTS, "path", *TEMPLATED},
    "submit.custom_id": RUNTIME,
    "submit.warehouse_conn_id": CONN_ID,
    "submit.max_rows": {*EMPTY, *COUNT, "zero", *TEMPLATED},
    "submit.parameters": {
        *(*EMPTY, *NAMES, *DICTS, *TEMPLATED),
        *("list of numbers", "list of pairs", "list of None", "list with the output of another task"),
    },
    # a row template, whose text goes to the provider as it stands
    "submit.model": {*TEXTS, "NUL", *TEMPLATED} - {"forgotten braces"},
    "submit.endpoint": TEMPLATED,
    "submit.system": {*EMPTY, "empty dict", *TEXTS, "NUL", *TEMPLATED} - {"forgotten braces"},
    "submit.prompt": RUNTIME,
    # the class `int` is a schema, too
    "submit.output_schema": {*EMPTY, "empty dict", "class", "pydantic model", *RUNTIME},
    "submit.max_output_tokens": {*EMPTY, *COUNT},
    "submit.body": {*EMPTY, *DICTS, *RUNTIME},
    "submit.request": {*EMPTY, "empty dict", *RUNTIME},
    "submit.carry": {*EMPTY, "empty dict", *TEXTS, *NAMES, "set", "generator"},
    "submit.max_cost_usd": {*EMPTY, *COUNT, *FRACTION, "zero", *TEMPLATED},
    "submit.max_run_cost_usd": {*EMPTY, *COUNT, *FRACTION, "zero", *TEMPLATED},
    "submit.prices": {*EMPTY, "empty dict"},
    "submit.openai_conn_id": CONN_ID,
    "submit.staging": {*EMPTY, "empty dict", "address", "path", *TEMPLATED},
    "submit.allow_local_staging": SWITCH,
    "submit.limits": {*EMPTY, "empty dict"},
    "submit.completion_window": {*LINES, "API key"} - {"time text"},
    "submit.metadata": {*EMPTY, "empty dict", "dict of texts", "dict of numbers", *TEMPLATED},
    "submit.deduplicate": {*SWITCH, *TEMPLATED},
    "submit.reuse_from": {*EMPTY, "empty dict", *TEXTS, *TEMPLATED} - {"address"},
    "submit.canary": {*EMPTY, *COUNT, "zero", *TEMPLATED},
    "submit.ignore_canary": {*SWITCH, *TEMPLATED},
    "submit.stop_after_canary": {*SWITCH, *TEMPLATED},
    "submit.resubmit": {*SWITCH, *TEMPLATED},
    "submit.retention": {*EMPTY, "empty dict", "duration text", "duration in ISO format", "timedelta"},
    "submit.delete_remote_files": set(),
    "submit.preview": {*SWITCH, *TEMPLATED},
    "submit.on_empty": set(),
    "submit.lane": {*TEMPLATED},
    "wait.job": {"template", "value of the form"},
    "wait.max_attempts": COUNT,
    "wait.retry_on": {*EMPTY, "empty dict", *NAMES, "set", "generator", "member of a text enum"},
    "wait.on_incomplete": set(),
    "wait.row_retry_delay": {*EMPTY, "empty dict", *DURATION},
    # a plain number is in seconds, and a deadline of less than a minute is refused
    "wait.deadline": {
        *(
            "duration text",
            "duration in ISO format",
            "timedelta",
            "time text",
            "datetime",
            "naive datetime",
            *TEMPLATED,
        ),
    },
    "wait.at_deadline": set(),
    "wait.at_deadline_rows": COUNT,
    "wait.deferrable": SWITCH,
    "wait.poke_interval": {*EMPTY, "empty dict", *DURATION},
    "wait.cancel_on_kill": SWITCH,
    "land.job": {"template", "value of the form"},
    "land.table": {*TEXTS, *TEMPLATED} - {"address"},
    "land.warehouse_conn_id": CONN_ID,
    # the names of fields, which a JSON Schema may spell in any way
    "land.columns": {
        *(*EMPTY, *TEXTS, *NAMES, "empty dict", "dict of texts", "dict of lists"),
        *("template", "open template", "half of a surrogate pair", "NUL"),
    },
    "land.key": {*EMPTY, *DICTS, *TEMPLATED},
    "land.create_table": SWITCH,
    "land.max_failure_rate": {*FRACTION, "zero"},
    "land.history": SWITCH,
    "land.keep_last_success": SWITCH,
    "land.store_response": SWITCH,
    "land.results_file": {*EMPTY, "empty dict", *TEMPLATED},
    "land.sink": {"None", "forgotten braces", "class", "pydantic model", "function"},
    "land.partial": SWITCH,
    "approve.job": {"template", "value of the form"},
    "approve.above_usd": {*EMPTY, *COUNT, *FRACTION, "zero", *TEMPLATED},
    "approve.subject": {*EMPTY, "empty dict", *TEXTS, *TEMPLATED},
}
TEXT, OPTIONAL_TEXT = {*TEXTS, *TEMPLATED}, {*EMPTY, "empty dict", *TEXTS, *TEMPLATED}
VARIANTS = {*OPTIONAL_TEXT, *NAMES, "set", "generator", "list with the output of another task"}
MODULES = VARIANTS - TEMPLATED - {"list with the output of another task"}
ACCEPTED |= {
    **dict.fromkeys(
        ("cases.cases_sql", "grade.cases_sql", "grade.answers", "report.cases_sql", "report.answers"), TEXT
    ),
    **{f"{task_id}.run": TEXT for task_id in ("grade", "gate", "accept", "report")},
    **{f"{task_id}.prefix": OPTIONAL_TEXT for task_id in ("grade", "gate", "accept", "report")},
    **{f"{task_id}.warehouse_conn_id": CONN_ID for task_id in ("cases", "grade", "gate", "accept", "report")},
    **dict.fromkeys(
        (
            "grade.judgements",
            "grade.embeddings",
            "report.judgements",
            "report.embeddings",
            "report.preferences",
            "report.title",
            "accept.note",
        ),
        OPTIONAL_TEXT,
    ),
    **dict.fromkeys(("grade.variants", "accept.variants"), VARIANTS),
    **dict.fromkeys(("cases.grader_modules", "grade.grader_modules"), MODULES),
    "grade.alpha": {*FRACTION, *TEMPLATED},
    "grade.baseline_runs": COUNT,
    "gate.action": TEMPLATED,
    "gate.max_unanswered": {*FRACTION, "zero"},
}


def _dag() -> Any:
    from airflow.sdk.definitions._internal.contextmanager import DagContext

    return DagContext.get_current()


def other_task() -> Any:
    from airflow.providers.standard.operators.empty import EmptyOperator

    return EmptyOperator(task_id="other")


def operators() -> dict[str, tuple[type, dict[str, Any]]]:
    from airflow_provider_batch.operators.batch import BatchResultsOperator, BatchSubmitOperator
    from airflow_provider_batch.sensors.batch import BatchSensor
    from airflow_provider_batch.task_groups import batch_job

    assert callable(batch_job)  # an error may say that batch_job takes an argument
    return {
        "submit": (BatchSubmitOperator, SUBMIT),
        "wait": (BatchSensor, {"task_id": "wait", "job": REFERENCE}),
        "land": (BatchResultsOperator, {"task_id": "land", "job": REFERENCE, "table": "answers"}),
    }


def other_operators() -> dict[str, tuple[type, dict[str, Any]]]:
    from airflow_provider_batch.operators import evals
    from airflow_provider_batch.operators.approval import JobApprovalOperator

    return {
        "approve": (JobApprovalOperator, {"task_id": "approve", "subject": "Send?", "job": REFERENCE, "above_usd": 1}),
        "cases": (evals.EvalCasesOperator, {"task_id": "cases"}),
        "grade": (evals.EvalGradeOperator, {"task_id": "grade"}),
        "gate": (evals.EvalGateOperator, {"task_id": "gate"}),
        "accept": (evals.EvalAcceptOperator, {"task_id": "accept"}),
        "report": (evals.EvalReportOperator, {"task_id": "report"}),
    }


def refusal(task_id: str, argument: str, value: Any) -> str | None:
    """Return the error for a value of an argument, or None if it is accepted. Other errors than ours are raised."""
    from airflow.sdk import DAG
    from airflow.serialization.serialized_objects import DagSerialization

    kind, arguments = {**operators(), **other_operators()}[task_id]
    if argument == "rows":  # instead of `sql`
        arguments = {name: item for name, item in arguments.items() if name != "sql"}
    with DAG("wrong_arguments", schedule=None, params={"x": 1}) as dag:
        made = value() if inspect.isfunction(value) else value
        try:
            kind(**{**arguments, argument: made})
        except InputError as error:
            return str(error)
    DagSerialization.to_dict(dag)
    return None


def problem_of(task_id: str, argument: str, value: Any) -> tuple[str | None, str | None]:
    """Return the error of ours for a value, or None, and what a person would not understand about the verdict."""
    try:
        message = refusal(task_id, argument, value)
    except Exception as error:  # noqa: BLE001 - every other error is a finding
        return None, repr(error)
    if message is None:
        return None, None
    is_clear = argument in message and f"Task '{task_id}'" in message and len(message) < 2_000
    return message, None if is_clear else message


def arguments_of(function: Callable[..., Any]) -> list[str]:
    parameters = inspect.signature(function).parameters.values()
    return [parameter.name for parameter in parameters if parameter.kind is not parameter.VAR_KEYWORD]


def test_each_argument_accepts_or_refuses_a_value_of_each_kind(record_property: Callable[[str, object], None]) -> None:
    verdicts: Counter[str] = Counter()
    accepted: dict[str, set[str]] = {}
    unclear: list[tuple[str, ...]] = []
    for task_id, (operator, _) in {**operators(), **other_operators()}.items():
        for argument in arguments_of(operator):
            kinds = accepted[f"{task_id}.{argument}"] = set()
            for kind, value in VALUES.items():
                message, problem = problem_of(task_id, argument, value)
                if message is None:
                    kinds.add(kind)
                if problem is not None:
                    unclear.append((task_id, argument, kind, problem[:200]))
                verdicts["accepted" if message is None else "refused"] += 1

    assert unclear == []
    assert {name: sorted(kinds) for name, kinds in accepted.items()} == {
        name: sorted(kinds) for name, kinds in ACCEPTED.items()
    }
    record_property("measurements", f"Values of {len(VALUES)} kinds for {len(accepted)} arguments: {dict(verdicts)}")


#: the kinds that the arguments of `batch_job` itself accept
ACCEPTED_BY_GROUP: dict[str, set[str]] = {
    "results_conn_id": {*EMPTY, "empty dict", *CONN_ID},
    "outlets": {*EMPTY, "empty list", "empty dict", "false", "zero"},
    "approve_above_usd": {*EMPTY, *COUNT, *FRACTION, "zero", *TEMPLATED},
    "approvers": {*EMPTY, "empty dict"},
    "map_index_template": {*EMPTY, "empty dict", *TEXTS, "template"},
    "notify": {"None", "empty list", "function"},
}


def group_problem(argument: str, value: Any) -> str | None:
    """Return the error of ours for a value of an argument of `batch_job`, or None if it is accepted."""
    from airflow.sdk import DAG

    from airflow_provider_batch.task_groups import batch_job

    arguments = {name: item for name, item in SUBMIT.items() if name != "task_id"} | {"table": "answers"}
    with DAG("wrong_group", schedule=None, params={"x": 1}):
        try:
            batch_job(**{**arguments, argument: value() if inspect.isfunction(value) else value})
        except InputError as error:
            return str(error)
    return None


def test_batch_job_accepts_what_its_operators_accept() -> None:
    for name, kinds in ACCEPTED.items():
        task_id, argument = name.split(".")
        if task_id not in operators() or argument in ("job", "rows"):
            continue
        refused = next(kind for kind in VALUES if kind not in kinds)
        message = group_problem(argument, VALUES[refused])
        assert message is not None, (argument, refused)
        assert argument in message
        # fields need an output schema
        for kind in sorted(kinds - RUNTIME)[:1] if argument != "columns" else ():
            assert group_problem(argument, VALUES[kind]) is None, (argument, kind)


def test_each_argument_of_batch_job_itself_accepts_or_refuses_a_value_of_each_kind() -> None:
    from airflow_provider_batch.task_groups import _GROUP_ARGUMENTS

    accepted = {
        name: {kind for kind, value in VALUES.items() if group_problem(name, value) is None}
        for name in _GROUP_ARGUMENTS - {"trigger_rule"}  # Airflow itself checks this one
    }
    assert accepted == ACCEPTED_BY_GROUP


def test_each_argument_of_a_preset_accepts_or_refuses_a_value_of_each_kind() -> None:
    presets: dict[Callable[..., Any], dict[str, Any]] = {
        classify: {"text": "{{ row.body }}", "labels": ["a", "b"]},
        extract: {"text": "{{ row.body }}", "fields": ["a"]},
        translate: {"text": "{{ row.body }}", "to": "German"},
        summarize: {"text": "{{ row.body }}"},
        embed: {"text": "{{ row.body }}"},
    }
    for preset, arguments in presets.items():
        for argument in arguments_of(preset):
            for kind, value in VALUES.items():
                if kind not in RUNTIME | {"another task", "list with the output of another task"}:
                    made = value() if inspect.isfunction(value) else value
                    with suppress(InputError):
                        preset(**{**arguments, argument: made})


# What is accepted, when its task runs


@dataclass
class TaskInstance:
    """What the operators use of a task instance. Running each value as a task of its own would take minutes."""

    task_id: str
    dag_id: str = "wrong_arguments"
    run_id: str = "run"
    map_index: int = -1
    max_tries: int = 0
    try_number: int = 1
    id: str = "attempt"
    task: Any = None

    def xcom_push(self, key: str, value: Any) -> None:
        json.dumps(value)


def run_error(task_id: str, argument: str, value: Any, defaults: dict[str, Any], run_id: str) -> BaseException | None:
    """Return the error of a task with a value of an argument, or None if the task succeeds."""
    from airflow.sdk import DAG

    kind, arguments = operators()[task_id]
    arguments = {**arguments, **defaults}
    if argument == "rows":
        del arguments["sql"]
    with DAG("wrong_arguments", schedule=None, params={"x": 1}):
        operator: Any = kind(**{**arguments, argument: value() if inspect.isfunction(value) else value})
    context = {
        "ti": TaskInstance(task_id, run_id=run_id, task=operator),
        "run_id": run_id,
        "params": {"x": 1},
        "dag_run": SimpleNamespace(conf={}),
    }
    try:
        operator.render_template_fields(context)
        operator.execute(context)
    except Exception as error:  # noqa: BLE001 - the test judges it
        return error
    return None


def test_a_value_that_is_accepted_works_or_is_refused_before_anything_is_billed(
    warehouse: Path, server: LocalServer, record_property: Callable[[str, object], None]
) -> None:
    from airflow.providers.common.compat.sdk import AirflowException

    finished_job = run_job(deduplicate=False, land={"table": "first"}).return_values["submit"]
    count_calls = call_counter(server)
    defaults: dict[str, dict[str, Any]] = {
        "submit": {"sql": "SELECT id, body AS text FROM tickets", "preview": True},
        "wait": {"job": finished_job},
        "land": {"job": finished_job},
    }
    verdicts: Counter[str] = Counter()
    unclear = []
    for name, kinds in ACCEPTED.items():
        task_id, argument = name.split(".")
        if task_id not in defaults or argument in ("preview", "sink"):
            continue
        similar = LINES - {"text", "number text", "null text"} if "text" in kinds else set()
        for kind in sorted(kinds - similar - RUNTIME - {"another task", "list with the output of another task"}):
            error = run_error(task_id, argument, VALUES[kind], defaults[task_id], f"{name} {kind}")
            verdicts["works" if error is None else "refused"] += 1
            if error is not None and not isinstance(error, (AirflowException, BatchError)):
                unclear.append((name, kind, repr(error)[:200]))

    assert unclear == []
    assert count_calls() == {"upload": 0, "create": 0, "synchronous": 0}
    record_property("measurements", f"Values that were accepted and then run: {dict(verdicts)}")


#: arguments whose values have an inner structure
NESTED_ARGUMENTS = [
    *(("submit", name) for name in ("prices", "limits", "metadata", "reuse_from", "body", "prompt", "parameters")),
    *(("submit", name) for name in ("output_schema", "carry", "system")),
    *(("land", name) for name in ("columns", "key", "job")),
    *(("wait", name) for name in ("retry_on", "job")),
]
KEYS = [
    *("input", "output", "requests", "tokens", "table", "conn_id", "messages", "role", "content", "type", "text"),
    *("model", "gpt-5-mini", "a.b", "properties", "required", "items", "enum", "anyOf", "$ref", "", 3, None, "job_uid"),
]
NESTED = st.recursive(
    st.sampled_from([value for value in VALUES.values() if not inspect.isfunction(value)]),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.sampled_from(KEYS), children, max_size=3),
    max_leaves=8,
)


@settings(max_examples=500)
@example(("submit", "output_schema"), {"anyOf": []})
@example(("submit", "output_schema"), {"anyOf": [True]})
@given(st.sampled_from(NESTED_ARGUMENTS), NESTED)
def test_a_nested_value_is_accepted_or_an_error_of_ours(argument: tuple[str, str], value: Any) -> None:
    refusal(*argument, value)


@pytest.mark.parametrize(
    ("task_id", "argument", "value", "meaning"),
    [
        ("submit", "carry", "stars", ["stars"]),
        ("submit", "carry", ("a", "b", "a"), ["a", "b"]),
        ("submit", "max_output_tokens", "64", 64),
        ("submit", "allow_local_staging", "no", False),
        ("submit", "retention", "30d", timedelta(days=30)),
        ("wait", "max_attempts", "2", 2),
        ("wait", "retry_on", "failed", ["failed"]),
        ("wait", "retry_on", None, ["cancelled", "expired", "failed", "invalid_output", "missing"]),
        ("wait", "retry_on", [], []),
        ("wait", "row_retry_delay", 300, timedelta(minutes=5)),
        ("wait", "row_retry_delay", "1h 30m", timedelta(minutes=90)),
        ("wait", "row_retry_delay", timedelta(0), timedelta(0)),
        ("wait", "deadline", 3600, 3600),
        ("wait", "deadline", "30h", "30h"),
        ("wait", "cancel_on_kill", "no", False),
        ("wait", "cancel_on_kill", "", True),
        ("wait", "deferrable", "false", False),
        ("wait", "poke_interval", "60", 60.0),
        ("land", "max_failure_rate", "0.5", 0.5),
        ("land", "history", "yes", True),
        ("land", "create_table", "off", False),
    ],
)
def test_an_argument_takes_the_obvious_meaning_of_text_and_numbers(
    task_id: str, argument: str, value: Any, meaning: Any
) -> None:
    operator, arguments = operators()[task_id]

    assert getattr(operator(**{**arguments, argument: value}), argument) == meaning


@pytest.mark.parametrize(
    ("task_id", "argument", "advice"),
    [
        ("submit", "system_prompt", "Did you mean 'system'?"),
        ("submit", "output_type", "Did you mean 'output_schema'?"),
        ("submit", "llm_conn_id", "Did you mean 'openai_conn_id'?"),
        ("submit", "input_sql", "Did you mean 'sql'?"),
        ("submit", "promt", "Did you mean 'prompt'?"),
        ("submit", "temperature", 'body={"temperature": …}'),
        ("submit", "reasoning_effort", 'body={"reasoning_effort": …}'),
        ("submit", "unheard_of", "Its arguments are "),
        ("wait", "dead_line", "Did you mean 'deadline'?"),
        ("wait", "max_retries", "Did you mean 'max_attempts'?"),
        ("land", "output_table", "Did you mean 'table'?"),
        ("land", "keep_last_sucess", "Did you mean 'keep_last_success'?"),
        ("submit", "input_text", "Did you mean 'prompt'?"),
        ("submit", "response_kwargs", "Did you mean 'body'?"),
        ("submit", "file_id", "builds and uploads the input files itself"),
        ("submit", "wait_for_completion", "BatchSensor(task_id='wait', job=submit.output)"),
        ("submit", "api_key", "in the Airflow connection that openai_conn_id names"),
        ("submit", "deadline", "It is an argument of BatchSensor."),
        ("submit", "table", "It is an argument of BatchResultsOperator."),
        ("submit", "timeout", "Did you mean 'deadline', which is an argument of BatchSensor?"),
        ("submit", "poll_interval", "Did you mean 'poke_interval', which is an argument of BatchSensor?"),
        ("submit", "approve_above_usd", "It is an argument of batch_job."),
        ("submit", "require_approval", "Did you mean 'approve_above_usd', which is an argument of batch_job?"),
        ("wait", "poll_interval", "Did you mean 'poke_interval'?"),
        ("wait", "table", "It is an argument of BatchResultsOperator."),
        ("wait", "temperature", 'in the body of BatchSubmitOperator: body={"temperature": …}'),
        ("land", "output_schema", "It is an argument of BatchSubmitOperator."),
        ("land", "fail_on_partial_error", "Did you mean 'max_failure_rate'?"),
    ],
)
def test_an_unknown_argument_is_refused_with_what_to_write(task_id: str, argument: str, advice: str) -> None:
    operator, arguments = operators()[task_id]

    with pytest.raises(InputError) as error:
        operator(**arguments, **{argument: 0})
    assert str(error.value).startswith(f"Task '{task_id}': {operator.__name__} has no argument '{argument}'. ")
    assert advice in str(error.value)


def test_arguments_of_every_airflow_task_and_of_subclasses_are_accepted() -> None:
    for operator, arguments in operators().values():
        subclass: Any = type("Own", (operator,), {})
        assert subclass(**arguments, retries=3, retry_delay=timedelta(1), doc_md="x", pool="p").retries == 3


def test_arguments_from_default_args_are_checked_too() -> None:
    from airflow.sdk import DAG

    from airflow_provider_batch.sensors.batch import BatchSensor

    with DAG("defaults", schedule=None, default_args={"soft_fail": True, "deadline": "30h"}):
        with pytest.raises(InputError, match="soft_fail and never_fail are not supported"):
            BatchSensor(task_id="wait", job=REFERENCE)
        assert BatchSensor(task_id="other", job=REFERENCE, soft_fail=False).deadline == "30h"
