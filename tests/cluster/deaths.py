"""The same job again and again, while a different part of the cluster dies each time."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

import msgspec

from tests.chaos.worker import Strike
from tests.cluster.account import Account, describe_places, take_account
from tests.cluster.cluster import WORKERS, Cluster
from tests.cluster.processes import ClusterError, wait_until
from tests.cluster.strikes import HIT, TaskStrike

DAG_ID = "one_job"
SUBMIT, WAIT, LAND = "job.submit", "job.wait", "job.land"
ROWS = 48
#: seconds for which the store does not answer
STORE_PAUSE = 30.0
#: Seconds that a job may take with a death. An unconfirmed create is looked up after 120 s.
JOB_PATIENCE = 480.0
#: What a task does when its worker dies, by a readable label.
STRIKES: Mapping[str, TaskStrike] = {
    "worker, batch created but not recorded": TaskStrike(
        SUBMIT, Strike("before", r"create g001/records/created\..*", nth=2, stop=True)
    ),
    "worker, rows written but not committed": TaskStrike(LAND, Strike("at", "landed all", stop=True)),
}


def create_tickets(cluster: Cluster) -> None:
    """Create the rows that the job sends."""
    cluster.warehouse.execute(
        f"CREATE TABLE tickets AS SELECT id, 'ticket ' || id AS body FROM generate_series(0, {ROWS - 1}) AS id"
    )


def kill_worker(cluster: Cluster, run_id: str) -> str:
    """Wait until a task stops at its strike, kill its worker, and start a new one in its place."""
    name = wait_until("a task reaches the step of its strike", lambda: _struck_worker(cluster))
    (cluster.observations / name).with_suffix(HIT).unlink()
    _replace(cluster, name)
    return name


def kill_triggerer(cluster: Cluster, run_id: str) -> str:
    """Kill the triggerer that waits for the job."""
    cluster.await_state(DAG_ID, run_id, WAIT, "deferred")
    name = wait_until("a triggerer has the trigger", lambda: cluster.triggerer_of(DAG_ID, run_id, WAIT))
    _replace(cluster, name)
    return name


def kill_scheduler(cluster: Cluster, run_id: str) -> str:
    """Kill the scheduler while a worker submits the job."""
    cluster.await_state(DAG_ID, run_id, SUBMIT, "running")
    _replace(cluster, "scheduler")
    return "scheduler"


def kill_redis(cluster: Cluster, run_id: str) -> str:
    """Kill Redis, which forgets its queue, while the job's first task is in it or runs."""
    cluster.await_state(DAG_ID, run_id, SUBMIT, "queued", "running")
    cluster.redis.kill()
    time.sleep(5)
    cluster.redis.start()
    return cluster.redis.name


def pause_store(cluster: Cluster, run_id: str) -> str:
    """Stop the store while a worker submits the job, and let it continue after `STORE_PAUSE` seconds."""
    cluster.await_state(DAG_ID, run_id, SUBMIT, "running")
    cluster.store.pause()
    time.sleep(STORE_PAUSE)
    cluster.store.resume()
    return f"{cluster.store.name} for {STORE_PAUSE:.0f} s"


def kill_provider(cluster: Cluster, run_id: str) -> str:
    """Kill the batch server while batches run, and start it with its state."""
    cluster.await_state(DAG_ID, run_id, WAIT, "deferred")
    cluster.provider.kill()
    time.sleep(5)
    cluster.provider.start()
    return "the batch server"


#: What dies, by a readable label. Without a death, the job shows what the tables should be.
DEATHS: Mapping[str, Callable[[Cluster, str], str]] = {
    "nothing": lambda cluster, run_id: "nothing",
    **dict.fromkeys(STRIKES, kill_worker),
    "triggerer, while the job waits": kill_triggerer,
    "scheduler, during submit": kill_scheduler,
    "Redis, during submit": kill_redis,
    "store, during submit": pause_store,
    "batch server, while batches run": kill_provider,
}


def play(cluster: Cluster, number: int, label: str) -> Account:
    """Run the job with this death, print what ran where, and return the account.

    :raises ClusterError: if the job fails, or if its table is not that of the first job.
    """
    table = f"answers_{number}"
    strike = msgspec.to_builtins(STRIKES[label]) if label in STRIKES else None
    began = time.monotonic()
    run_id = cluster.trigger(DAG_ID, table=table, strike=strike)
    victim = DEATHS[label](cluster, run_id)
    state = cluster.await_end(DAG_ID, run_id, patience=JOB_PATIENCE)
    places = describe_places(cluster, run_id)
    if state != "success":
        raise ClusterError(f"The job failed after the death of {victim}. {places}. See {cluster.folder}.")
    account = take_account(cluster, "tickets", table)
    print(f"{label} ({victim}): {account.summary()}; {time.monotonic() - began:.0f} s", flush=True)
    print(f"    {places}", flush=True)
    if number and _answers(cluster, table) != _answers(cluster, "answers_0"):
        raise ClusterError(f"After the death of {victim}, {table} is not the same as answers_0.")
    return account


def _answers(cluster: Cluster, table: str) -> list[tuple[object, ...]]:
    columns = "custom_id, outcome, body, output, input_tokens, output_tokens"
    return cluster.warehouse.execute(f"SELECT {columns} FROM {table} ORDER BY custom_id")


def _struck_worker(cluster: Cluster) -> str | None:
    return next((name for name in WORKERS if (cluster.observations / name).with_suffix(HIT).exists()), None)


def _replace(cluster: Cluster, name: str) -> None:
    cluster.machines[name].kill()
    cluster.machines[name].start()
