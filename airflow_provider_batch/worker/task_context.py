"""The part of Airflow's context that row templates can see, and the job key taken from it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, datetime
from typing import Any

from airflow_provider_batch.core.ledger.job import JobKey
from airflow_provider_batch.core.requests.spec import CONTEXT_NAMES


def row_context(context: Mapping[str, Any]) -> dict[str, Any]:
    """Return what row templates see besides `row`: plain values, which give no access to connections or secrets."""
    dag_run = context.get("dag_run")
    params = context.get("params")
    values: dict[str, Any] = {
        "params": dict(params) if params else {},
        "run_id": context.get("run_id"),
        "dag_run": {"conf": dict(getattr(dag_run, "conf", None) or {})},
    }
    for name in CONTEXT_NAMES:
        value = context.get(name)
        if name not in values and isinstance(value, (str, date, datetime)):
            values[name] = value
    return values


def to_plain_datetime(time: datetime) -> datetime:
    """Return the same time as a plain `datetime`: Airflow uses a subclass, which the ledger's records do not accept."""
    return datetime.fromisoformat(time.isoformat())


def job_key(context: Mapping[str, Any]) -> JobKey:
    """Return the key of the job that the task instance in this context owns."""
    ti = context["ti"]
    return JobKey(ti.dag_id, ti.task_id, ti.run_id, -1 if ti.map_index is None else ti.map_index)
