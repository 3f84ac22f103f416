"""The command `airflow-batch init`."""

from __future__ import annotations

import argparse
import re
import shlex
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from airflow_provider_batch.cli.init.dag_file import MODEL, TASKS, Answers, dag_source, format_amount, is_query
from airflow_provider_batch.exceptions import BatchError, InputError

DESCRIPTION = (
    "Write a first DAG from the answers to a few questions. An option answers its question; with --yes, or without a "
    "terminal, nothing is asked. An existing file is never overwritten, and nothing is sent."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `airflow-batch init` to a parser."""
    parser.add_argument("file", nargs="?", metavar="FILE", help="file to write (default: DAG_ID.py)")
    parser.add_argument("--yes", action="store_true", help="ask nothing, and use the defaults")
    parser.add_argument("--task", choices=TASKS, help="what to do with each row (default: classify)")
    parser.add_argument("--source", metavar="TABLE", help="table with the rows, or a query")
    parser.add_argument("--key", metavar="COLUMN", help="column that identifies a row (default: id)")
    parser.add_argument("--text", metavar="COLUMN", help="column with the text (default: body)")
    parser.add_argument("--labels", metavar="A,B,C", help="labels, for classify")
    parser.add_argument("--fields", metavar="A,B,C", help="fields, for extract: names, or NAME=DESCRIPTION")
    parser.add_argument("--to", metavar="LANGUAGE", help="language, for translate")
    parser.add_argument("--prompt", help="prompt, for prompt; {{ row.COLUMN }} stands for the value of a column")
    parser.add_argument("--table", help="results table, which is created if it does not exist")
    parser.add_argument(
        "--warehouse-conn-id", metavar="CONN_ID", help="connection to the warehouse (default: warehouse)"
    )
    parser.add_argument(
        "--conn-id", default="openai_default", help="connection to the provider (default: openai_default)"
    )
    parser.add_argument("--model", default="", help=f"model (default: {MODEL}; for embed, the preset's)")
    parser.add_argument("--max-cost-usd", metavar="USD", help="ceiling on the price of a run (default: 5)")
    parser.add_argument("--schedule", help="when to run, such as @daily or '0 3 * * *' (default: no schedule)")
    parser.add_argument("--dag-id", help="id of the DAG (default: name of the file, or TASK_TABLE)")


def run(arguments: argparse.Namespace) -> int:
    """Run the command and return the exit code of the process."""
    try:
        answers = _collect_answers(arguments)
        path = Path(arguments.file or answers.dag_id)
        if path.suffix != ".py":  # Airflow loads no other files
            path = path.with_name(f"{path.name}.py")
        source = dag_source(answers)
        _check(source, path)
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("x", encoding="utf-8") as file:
            file.write(source)
    except BatchError as error:
        print(error, file=sys.stderr)
        return 1
    except FileExistsError:
        print(f"{path} exists already, and was not changed. Pass another FILE.", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"Cannot write {path}: {error.strerror or error}.", file=sys.stderr)
        return 1
    except (EOFError, KeyboardInterrupt):
        print("\nNothing was written.", file=sys.stderr)
        return 1
    print("\n".join(_next_steps(path, answers)))
    return 0


def _collect_answers(arguments: argparse.Namespace) -> Answers:
    is_silent = arguments.yes or not sys.stdin.isatty()

    def answer(name: str, question: str, default: str | None = None) -> str:
        value = getattr(arguments, name)
        if value is None and not is_silent:
            value = input(f"{question}{f' [{default}]' if default else ''}: ").strip()
        value = value or default
        if not value:
            raise InputError(f"There is no answer to the question: {question}. Pass --{name.replace('_', '-')}.")
        return str(value)

    task = answer("task", f"What to do with each row ({', '.join(TASKS)})", "classify")
    if task not in TASKS:
        raise InputError(f"{task!r} is none of {', '.join(TASKS)}. Nothing was written.")
    warehouse_conn_id = answer("warehouse_conn_id", "Airflow connection to the warehouse", "warehouse")
    source = answer("source", "Table with the rows, or a query")
    key = answer("key", "Column that identifies a row", "id")
    text = answer("text", "Column with the text", "body")
    labels = _split(answer("labels", "Labels, separated by commas")) if task == "classify" else []
    fields = (
        _split(answer("fields", "Fields, separated by commas: NAME or NAME=DESCRIPTION")) if task == "extract" else []
    )
    language = answer("to", "Language to translate into") if task == "translate" else ""
    prompt_question = "Prompt, with {{ row.COLUMN }} for the value of a column"
    prompt = answer("prompt", prompt_question) if task == "prompt" else ""
    stem = re.sub(r"\W+", "_", source.rpartition(".")[2] if not is_query(source) else "rows", flags=re.ASCII).strip("_")
    dag_id = arguments.dag_id or (Path(arguments.file).stem if arguments.file else f"{task}_{stem}")
    return Answers(
        task=task,
        dag_id=_check_dag_id(dag_id),
        source=source,
        key=key,
        text=text,
        labels=tuple(labels),
        fields={name.strip(): text.strip() for name, _, text in (field.partition("=") for field in fields)},
        language=language,
        prompt=prompt,
        table=answer("table", "Results table", f"{stem}_{task}_results"),
        model=arguments.model,
        openai_conn_id=arguments.conn_id,
        warehouse_conn_id=warehouse_conn_id,
        max_cost_usd=_amount(answer("max_cost_usd", "Most that a run may cost, in US dollars", "5")),
        schedule=_schedule(answer("schedule", "Schedule, such as @daily", "none")),
        start=datetime.now(UTC).date(),
    )


def _split(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _amount(text: str) -> float:
    try:
        amount = float(text.removeprefix("$"))
    except ValueError:
        amount = -1.0
    if not 0 <= amount < float("inf"):
        raise InputError(f"The ceiling must be an amount in US dollars, such as 5, not {text!r}. Nothing was written.")
    return amount


def _schedule(text: str) -> str | None:
    """Return the schedule, or None for none. Airflow would refuse a wrong one only when it loads the file."""
    from airflow.timetables.trigger import CronTriggerTimetable

    if text.lower() in ("none", "manual"):
        return None
    if text not in ("@once", "@continuous"):
        try:
            CronTriggerTimetable(text, timezone="UTC").validate()
        except Exception as error:
            raise InputError(
                f"The schedule {text!r} is neither a cron expression nor one of @hourly, @daily, @weekly, @monthly: "
                f"{error} Nothing was written."
            ) from error
    return text


def _check_dag_id(dag_id: str) -> str:
    if not re.fullmatch(r"[\w.-]{1,200}", dag_id):
        raise InputError(
            f"{dag_id!r} cannot be the id of a DAG: it may have letters, digits, dots, hyphens and underscores. Pass "
            "--dag-id. Nothing was written."
        )
    return dag_id


def _check(source: str, path: Path) -> None:
    """Run the file as Airflow would, so that a wrong answer is reported now.

    :raises InputError: if the DAG cannot be built.
    """
    run_file: Callable[..., None] = exec
    try:
        run_file(compile(source, str(path), "exec"), {"__name__": "dag_check", "__file__": str(path.absolute())})
    except InputError as error:
        raise InputError(f"{error} Nothing was written.") from error
    except Exception as error:
        raise InputError(f"Airflow refuses the DAG: {type(error).__name__}: {error}. Nothing was written.") from error


def _next_steps(path: Path, answers: Answers) -> list[str]:
    options = {
        "--conn-id": answers.openai_conn_id,
        "--warehouse-conn-id": answers.warehouse_conn_id,
        "--table": answers.table,
    }
    doctor = " ".join(f"{option} {shlex.quote(value)}" for option, value in options.items())
    return [
        f"{path} contains the DAG {answers.dag_id}. Nothing was sent. Next:",
        "",
        "1. Check the connections, for free:",
        f"     airflow-batch doctor {doctor}",
        "2. Put the file into the folder of your DAGs. To try it with a few rows first, add max_rows=10 to batch_job.",
        f"3. Run it once. This sends the requests, for at most ${format_amount(answers.max_cost_usd)}:",
        f"     airflow dags test {answers.dag_id}",
        "4. Start it:",
        f"     airflow dags unpause {answers.dag_id}",
        *([] if answers.schedule else [f"     airflow dags trigger {answers.dag_id}"]),
    ]
