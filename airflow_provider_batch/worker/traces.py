"""Adds a job to Airflow's traces: one span, from the seal to the first landing, below the span of the landing task.

The span of a job lasts for hours and over several processes, so the landing creates it afterwards. Where Airflow's
traces are off, this does nothing.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from airflow_provider_batch.core.ledger.job import Manifest
from airflow_provider_batch.core.ledger.records import Landed

SPAN = "openai_batch.job"


def trace_job(manifest: Manifest, landed: Landed) -> None:
    """Send the span of a job that has landed for the first time."""
    if landed.number != 1:
        return
    # imported here, because parsing a DAG sends nothing
    from opentelemetry import trace

    tracer = trace.get_tracer("airflow_provider_batch")
    span = tracer.start_span(
        SPAN, start_time=_nanoseconds(manifest.sealed_at), attributes=_attributes(manifest, landed)
    )
    span.end(end_time=_nanoseconds(landed.time))


def _attributes(manifest: Manifest, landed: Landed) -> dict[str, Any]:
    attributes: dict[str, Any] = {
        "job_uid": manifest.job_uid,
        "dag_id": manifest.key.dag_id,
        "run_id": manifest.key.run_id,
        "models": manifest.models,
        "endpoint": manifest.endpoint,
        "requests": manifest.requests,
        "requests_retried": landed.retried,
        **{f"outcome.{outcome}": rows for outcome, rows in landed.outcomes.items()},
        **{f"tokens.{kind}": tokens for kind, tokens in landed.tokens.items()},
    }
    if landed.cost_usd is not None:
        attributes["cost_usd"] = float(landed.cost_usd)
    return {f"openai_batch.{name}": value for name, value in attributes.items()}


def _nanoseconds(time: datetime) -> int:
    return round(time.timestamp() * 1e6) * 1000
