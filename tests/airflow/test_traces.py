"""The span of a job, in Airflow's traces."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from tests.airflow.jobs import run_job

pytestmark = pytest.mark.usefixtures("warehouse", "server")


@pytest.fixture
def spans() -> Iterator[InMemorySpanExporter]:
    """Receive all spans, as Airflow's exporter does if its traces are on."""
    provider = trace.get_tracer_provider()
    if not isinstance(provider, TracerProvider):
        provider = TracerProvider()
        trace.set_tracer_provider(provider)
    exporter = InMemorySpanExporter()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    yield exporter
    exporter.shutdown()


def test_a_job_is_one_span_from_the_seal_to_the_landing(spans: InMemorySpanExporter) -> None:
    result = run_job()

    assert result.state == "success", result.errors
    (span,) = [span for span in spans.get_finished_spans() if span.name == "openai_batch.job"]
    landed = result.return_values["land"]
    attributes: dict[str, Any] = dict(span.attributes or {})
    assert attributes["openai_batch.job_uid"] == landed["job_uid"]
    assert attributes["openai_batch.requests"] == attributes["openai_batch.outcome.succeeded"] == 5
    assert attributes["openai_batch.cost_usd"] == pytest.approx(float(landed["cost_usd"]))
    assert span.start_time is not None
    assert span.end_time is not None
    assert 0 < span.end_time - span.start_time < 600e9
