"""A job sends its metrics through Airflow's statsd client, to a real UDP socket."""

from __future__ import annotations

import inspect
import socket
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

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
