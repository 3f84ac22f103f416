"""A complete Airflow with the example DAGs, the demo's tickets and a local batch server whose batches take no time."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from airflow_provider_batch.demo import tickets
from airflow_provider_batch.demo.home import Provider, dags_folder
from airflow_provider_batch.local.faults import Call
from airflow_provider_batch.local.process import LocalServer
from tests.airflow.standalone import Run, RunningAirflow, running_airflow, wait_until


@dataclass(frozen=True)
class DemoAirflow:
    """A running Airflow and its batch server; see `demo_airflow`."""

    airflow: RunningAirflow
    server: LocalServer

    @property
    def warehouse(self) -> Path:
        """The SQLite file behind the connection `warehouse`."""
        return self.airflow.home.warehouse

    def count_calls(self) -> list[int]:
        """Return the numbers of uploads, created batches and synchronous requests."""
        calls = self.server.calls()
        return [calls.get(call, 0) for call in (Call.UPLOAD, Call.CREATE, Call.SYNCHRONOUS)]


@contextlib.contextmanager
def demo_airflow(path: Path, *dag_ids: str, pace: Mapping[str, str] | None = None) -> Iterator[DemoAirflow]:
    """Start Airflow and the batch server below `path`, and wait until these DAGs are parsed.

    :param pace: see `running_airflow`.
    """
    with LocalServer(path / "server", admin=True) as server:
        provider = Provider(server.base_url, "local", local=True)
        with running_airflow(path / "home", provider, dags_folder(), pace) as airflow:
            tickets.seed(airflow.home.warehouse, tickets.load())
            airflow.await_dags(*dag_ids)
            yield DemoAirflow(airflow, server)


def await_approval_request(run: Run) -> dict[str, Any]:
    """Wait until the task `approve` asks for a decision and its first worker has ended; return the details it shows."""
    path = f"/api/v2/dags/{run.dag_id}/dagRuns/{run.run_id}/taskInstances/batch_job.approve/-1/hitlDetails"

    def find_details() -> dict[str, Any] | None:
        response = run.airflow.client.get(path)
        return None if response.status_code == 404 else dict(response.raise_for_status().json())

    details = wait_until("`approve` asks for a decision", find_details)
    run.await_worker_end("batch_job.approve")
    return details
