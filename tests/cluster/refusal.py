"""Staging on a local disk is refused before anything is billed, because the next task may run on another machine."""

from __future__ import annotations

from tests.cluster.cluster import Cluster
from tests.cluster.processes import ClusterError

DAG_ID = "local_staging"


def check_refusal(cluster: Cluster) -> None:
    """Run a job with staging on a local disk.

    :raises ClusterError: if the job is not refused, or if it reached the provider.
    """
    calls = cluster.provider.calls()
    run_id = cluster.trigger(DAG_ID)
    state = cluster.await_end(DAG_ID, run_id, patience=240)
    logs = cluster.folder.glob(f"worker-*/airflow/logs/**/run_id={run_id}/**/*.log")
    message = "Staging is the local disk"
    if state != "failed" or not any(message in log.read_text("utf-8") for log in logs):
        raise ClusterError(f"A job with local staging was not refused. Its run is {state}. See {cluster.folder}.")
    if cluster.provider.calls() != calls:
        raise ClusterError(f"A job with local staging reached the provider: {cluster.provider.calls()}, {calls}.")
    print("local staging: refused before any request to the provider", flush=True)
