"""A job sends its metrics through Airflow's clients of statsd and OpenTelemetry, to a real socket."""

from __future__ import annotations

import atexit
import inspect
import socket
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from packaging.version import Version

from airflow_provider_batch.core.lifecycle.metrics import METRICS, Kind, all_names
from airflow_provider_batch.local.process import LocalServer
from tests.airflow.jobs import Ticket, run_job


@pytest.fixture
def tickets() -> list[Ticket]:
    return [
        ("T-1", "Plain", "The invoice is wrong", "billing"),
        ("T-2", "Retried", "[[fail:429:once]]", "other"),
        ("T-3", "Refused", "[[refuse]]", "other"),
    ]


def initialize(factory: Callable[[], Any]) -> None:
    """Let Airflow send its metrics through what `factory` returns."""
    from airflow.providers.common.compat.sdk import Stats

    # Airflow 3.2 does not have the option
    options = (
        {"export_legacy_names": False}
        if "export_legacy_names" in inspect.signature(Stats.initialize).parameters
        else {}
    )
    Stats.initialize(factory=factory, **options)


@pytest.fixture
def statsd(offline: None) -> Iterator[Callable[[], Counter[str]]]:
    """Listen as a statsd server. The function returns the sum of each counter, and how many times each timer came."""
    import airflow.sdk.serde  # noqa: F401  # Airflow 3.2 initializes the metrics when it is first imported
    from airflow.sdk._shared.observability.metrics.base_stats_logger import NoStatsLogger
    from airflow.sdk._shared.observability.metrics.statsd_logger import get_statsd_logger
    from statsd import StatsClient

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        server.settimeout(0.2)
        port = server.getsockname()[1]
        logger = get_statsd_logger(stats_class=StatsClient, host="127.0.0.1", port=port, prefix="airflow")
        initialize(lambda: logger)

        def received() -> Counter[str]:
            sums: Counter[str] = Counter()
            try:
                while True:
                    name, _, value = server.recv(65536).decode().partition(":")
                    number, _, kind = value.partition("|")
                    sums[name] += int(float(number)) if kind == "c" else 1
            except TimeoutError:
                return Counter({name.removeprefix("airflow."): value for name, value in sums.items()})

        yield received
        initialize(NoStatsLogger)
        logger.statsd.close()


def test_each_request_row_token_and_cost_is_counted_once(statsd: Callable[[], Counter[str]], warehouse: Path) -> None:
    result = run_job(wait={"row_retry_delay": 0, "poke_interval": 0.2})

    assert result.state == "success", result.errors
    metrics = statsd()
    landed = result.return_values["land"]
    counted = {name: metrics[f"openai_batch.{name}"] for name in ("jobs.submitted", "batches.created", "landings")}
    assert counted == {"jobs.submitted": 1, "batches.created": 2, "landings": 1}
    assert metrics["openai_batch.requests.succeeded"] == 2
    assert metrics["openai_batch.requests.failed"] == 1
    assert metrics["openai_batch.requests.refused"] == 1
    assert metrics["openai_batch.requests.retried"] == 1
    assert metrics["openai_batch.rows.succeeded"] == 2
    assert metrics["openai_batch.cost"] == pytest.approx(float(landed["cost_usd"]) * 1e6, abs=2)
    assert metrics["openai_batch.tokens.input"] == landed["tokens"]["input"]
    assert metrics["openai_batch.batches.wait"] == 1
    assert metrics["openai_batch.batches.duration"] == 2
    assert metrics["openai_batch.poll.latency"] >= 1
    assert metrics["openai_batch.batches.live"] >= 1


class Point(NamedTuple):
    """What OpenTelemetry exports of a metric: its last value, or the number of its values."""

    kind: str
    unit: str
    tags: frozenset[str]
    value: float


@pytest.fixture
def collector(offline: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], dict[str, list[Point]]]]:
    """Listen as an OpenTelemetry collector over HTTP. The function returns the points of each metric, by name."""
    pytest.importorskip("opentelemetry.exporter.otlp.proto.http")
    from airflow import __version__

    if Version(__version__) < Version("3.3"):
        pytest.skip("the logger is put where Airflow 3.3 and later look for it")
    from airflow.sdk._shared.observability.metrics.base_stats_logger import NoStatsLogger
    from airflow.sdk._shared.observability.metrics.otel_logger import flush_otel_metrics, get_otel_logger
    from opentelemetry import metrics
    from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

    points: dict[str, list[Point]] = {}

    class Collector(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            for resource in ExportMetricsServiceRequest.FromString(body).resource_metrics:
                for metric in (metric for scope in resource.scope_metrics for metric in scope.metrics):
                    kind = metric.WhichOneof("data")
                    points[metric.name] = [
                        Point(
                            kind,
                            metric.unit,
                            frozenset(tag.key for tag in point.attributes),
                            point.count if kind == "exponential_histogram" else point.as_int or point.as_double,
                        )
                        for point in getattr(metric, kind).data_points
                    ]
            self.send_response(200)
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            """Keep the output of the tests quiet."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Collector) as server:
        threading.Thread(target=server.serve_forever).start()
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
        logger = get_otel_logger()
        provider: Any = metrics.get_meter_provider()
        initialize(lambda: logger)

        def received() -> dict[str, list[Point]]:
            assert provider.force_flush()
            return points

        yield received
        initialize(NoStatsLogger)
        # Airflow registered it for the end of the process, when nothing listens any more.
        atexit.unregister(flush_otel_metrics)
        provider.shutdown()
        server.shutdown()


def test_opentelemetry_receives_the_documented_names_kinds_and_tags(
    collector: Callable[[], dict[str, list[Point]]], warehouse: Path, serve: Callable[..., LocalServer]
) -> None:
    # The batches run for a moment, so a trigger polls them and sends its metrics, too.
    serve("running", in_progress=2)

    result = run_job(wait={"row_retry_delay": 0, "poke_interval": 0.2})

    assert result.state == "success", result.errors
    prefix = "airflow.openai_batch."
    metrics = {name.removeprefix(prefix): points for name, points in collector().items() if name.startswith(prefix)}
    assert metrics.keys() <= set(all_names())
    assert metrics.keys() >= {"jobs.submitted", "batches.live", "batches.wait", "poll.latency", "cost", "saved"}
    kinds = {Kind.COUNTER: ("sum", ""), Kind.TIMER: ("exponential_histogram", "ms"), Kind.GAUGE: ("gauge", "")}
    for name, points in metrics.items():
        description = METRICS.get(name) or METRICS[f"{name.rpartition('.')[0]}.{{outcome}}"]
        assert {(point.kind, point.unit) for point in points} == {kinds[description.kind]}, name
        assert {point.tags for point in points} == {frozenset(description.tags.split())}, name
    landed = result.return_values["land"]
    assert [point.value for point in metrics["tokens.input"]] == [landed["tokens"]["input"]]
    assert [point.value for point in metrics["requests.succeeded"]] == [2]
    assert [point.value for point in metrics["batches.wait"]] == [1]
    # A gauge keeps its last value, so it must not stay at the age of a batch that has ended.
    assert [point.value for name in ("batches.live", "batches.oldest") for point in metrics[name]] == [0, 0]
