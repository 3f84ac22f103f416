"""What of Airflow's context the rows of a job may see."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, datetime
from typing import Any

from airflow_provider_batch.core.ledger.job import JobKey

#: names of the run's dates that row templates see, where the run has them
_DATES = ("ds", "ds_nodash", "ts", "logical_date", "data_interval_start", "data_interval_end")


def row_context(context: Mapping[str, Any]) -> dict[str, Any]:
    """What row templates see besides `row`: plain values only, so that no template can reach connections or secrets."""
    dag_run = context.get("dag_run")
    params = context.get("params")
    values: dict[str, Any] = {
        "params": dict(params) if params else {},
        "run_id": context.get("run_id"),
        "dag_run": {"conf": dict(getattr(dag_run, "conf", None) or {})},
    }
    for name in _DATES:
        value = context.get(name)
        if isinstance(value, (str, date, datetime)):
            values[name] = value
    return values


def plain_moment(moment: datetime) -> datetime:
    """The same moment as Python's own `datetime`: Airflow's are of a subclass, which records do not take."""
    return datetime.fromisoformat(moment.isoformat())


def job_key(context: Mapping[str, Any]) -> JobKey:
    """Return the key of the job that the task instance of a context sends."""
    ti = context["ti"]
    return JobKey(ti.dag_id, ti.task_id, ti.run_id, -1 if ti.map_index is None else ti.map_index)
