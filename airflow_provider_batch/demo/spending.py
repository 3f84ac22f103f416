"""What the DAGs of the demo may spend, and a start of Airflow at which none of them runs before a person acts.

`python -m airflow_provider_batch.demo.spending` runs in the environment of the demo's Airflow. It saves the DAGs in
Airflow's database, pauses those that would run by themselves, and prints one line of JSON per DAG.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import msgspec
from rich.table import Table

from airflow_provider_batch.core.formatting import format_count, format_usd
from airflow_provider_batch.demo.home import DemoError, Home


class DagCeiling(msgspec.Struct, frozen=True):
    """What one run of a DAG may cost with the values that its form has."""

    dag_id: str
    #: US dollars for one run; None if the run has no ceiling, or one per mapped job
    usd: float | None
    #: ceiling as a person reads it
    text: str
    #: when the DAG starts by itself; None if it does not
    schedule: str | None
    #: number of runs that an earlier session left unfinished
    unfinished_runs: int = 0


def read_ceilings(home: Home, environment: Mapping[str, str]) -> list[DagCeiling]:
    """Prepare Airflow's database for a start at which nothing runs by itself, and return what each DAG may spend.

    :raises DemoError: if the DAGs cannot be read.
    """
    with home.log.open("ab") as log:
        process = subprocess.run(
            [sys.executable, "-m", "airflow_provider_batch.demo.spending"],
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            check=False,
        )
    lines = [line for line in process.stdout.splitlines() if line.startswith(b'{"dag_id"')]
    if process.returncode or not lines:
        raise DemoError(
            f"Cannot tell what the DAGs may spend, so nothing was started. See the end of {home.log} for the reason."
        )
    return [msgspec.json.decode(line, type=DagCeiling) for line in lines]


def ceilings_table(ceilings: Iterable[DagCeiling]) -> Table:
    """Return a table of what each DAG may spend."""
    table = Table(title="What a run may cost, in US dollars", title_justify="left")
    table.add_column("DAG")
    table.add_column("ceiling of one run")
    table.add_column("starts")
    for ceiling in ceilings:
        start = "when you trigger it"
        if ceiling.schedule is not None:
            start = f"paused; once you unpause it: {ceiling.schedule} (UTC)"
        if ceiling.unfinished_runs:
            runs = format_count(ceiling.unfinished_runs, "run")
            start = f"paused; unpausing it also continues {runs} of an earlier session"
        table.add_row(ceiling.dag_id, ceiling.text, start)
    return table


def describe_total(ceilings: Iterable[DagCeiling]) -> str:
    """Return in one or two sentences what all DAGs together may spend."""
    ceilings = list(ceilings)
    total = sum(ceiling.usd for ceiling in ceilings if ceiling.usd is not None)
    unlimited = [ceiling.dag_id for ceiling in ceilings if ceiling.usd is None]
    text = f"One run of each DAG costs at most {format_usd(total)}"
    if unlimited:
        text += f", plus the cost of {' and '.join(unlimited)}, without a ceiling for the whole run"
    return f"{text}. Nothing is sent before you trigger or unpause a DAG."


def ceiling_of(dag: Any, schedule: str | None = None, unfinished_runs: int = 0) -> DagCeiling:
    """Return what one run of a DAG may spend."""
    jobs = list(_jobs(dag))
    run_ceilings = {run for _, run, _ in jobs}
    if jobs and None not in run_ceilings:
        usd = max(run for run in run_ceilings if run is not None)
        return DagCeiling(dag.dag_id, usd, format_usd(usd), schedule, unfinished_runs)
    total = sum(job for job, _, is_mapped in jobs if job is not None and not is_mapped)
    parts = [format_usd(total)] if total or not jobs else []
    mapped = [job for job, _, is_mapped in jobs if job is not None and is_mapped]
    if mapped:
        parts.append(f"{format_usd(sum(mapped))} for each of its mapped groups")
    unlimited = sum(job is None for job, _, _ in jobs)
    if unlimited:
        parts.append(f"{format_count(unlimited, 'job')} without a ceiling")
    is_known = not mapped and not unlimited
    return DagCeiling(dag.dag_id, total if is_known else None, " + ".join(parts), schedule, unfinished_runs)


def _jobs(dag: Any) -> Iterator[tuple[float | None, float | None, bool]]:
    """Yield the ceiling of each job, the ceiling of its run, and whether there is one per mapped task."""
    from airflow_provider_batch.operators.batch import BatchSubmitOperator

    for task in dag.tasks:
        arguments = getattr(task, "partial_kwargs", None) or vars(task)
        if not issubclass(getattr(task, "operator_class", type(task)), BatchSubmitOperator):
            continue
        if arguments.get("preview") is True:
            continue
        is_mapped = "partial_kwargs" in vars(task) or next(task.iter_mapped_task_groups(), None) is not None
        values = [_amount(dag, arguments.get(name)) for name in ("max_cost_usd", "max_run_cost_usd")]
        yield values[0], values[1], is_mapped


def _amount(dag: Any, value: Any) -> float | None:
    """Return an amount that an argument holds or takes from the form, or None if it holds none."""
    if hasattr(value, "resolve"):
        value = value.resolve({"params": dag.params.dump()})
    try:
        return None if value is None else float(value)
    except (TypeError, ValueError):
        return None


def _main() -> None:
    """Save the DAGs, pause those that would run by themselves, and print what each may spend."""
    from airflow.dag_processing.bundles.manager import DagBundlesManager
    from airflow.dag_processing.dagbag import DagBag, sync_bag_to_db
    from airflow.models.dag import DagModel
    from airflow.models.dagrun import DagRun
    from airflow.utils.session import create_session
    from airflow.utils.state import DagRunState
    from sqlalchemy import func, select

    DagBundlesManager().sync_bundles_to_db()  # type: ignore[no-untyped-call]  # Airflow has no types here
    bag = DagBag()
    if bag.import_errors:
        raise SystemExit(json.dumps(bag.import_errors, indent=2))
    sync_bag_to_db(bag, "dags-folder", None)
    with create_session() as session:
        query = select(DagRun.dag_id, func.count()).where(DagRun.state.in_([DagRunState.QUEUED, DagRunState.RUNNING]))
        unfinished_runs = dict(session.execute(query.group_by(DagRun.dag_id)).tuples().all())
        for model in session.scalars(select(DagModel)):
            dag = bag.dags.get(model.dag_id)
            if dag is None:
                model.is_paused = True
                continue
            schedule = (
                None
                if getattr(dag, "schedule", None) is None
                else model.timetable_description or model.timetable_summary
            )
            model.is_paused = schedule is not None or model.dag_id in unfinished_runs
            ceiling = ceiling_of(dag, schedule, unfinished_runs.get(model.dag_id, 0))
            sys.stdout.write(msgspec.json.encode(ceiling).decode() + "\n")


if __name__ == "__main__":
    _main()
