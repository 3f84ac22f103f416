"""Many mapped jobs that share a pool, and what they cost each machine, the databases, the store and the provider."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import psutil

from tests.cluster.account import Account, take_account
from tests.cluster.cluster import POOL, POOL_SLOTS, TRIGGERERS, WORKERS, Cluster
from tests.cluster.processes import ClusterError

DAG_ID = "fan_out"
#: rows of each job
JOB_ROWS = 3
#: seconds between two samples
INTERVAL = 5.0
#: seconds that the whole fan-out may take, for each job
JOB_SECONDS = 20.0
#: machines that are measured
_PARTS = (*WORKERS, *TRIGGERERS, "scheduler", "api-server")


class Peaks:
    """The highest values that were measured, by name."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self.values: dict[str, int] = {}

    def sample(self) -> None:
        """Measure once."""
        for name in _PARTS:
            memory, files = _use(self._cluster.machines[name].members())
            self._note(f"{name}: memory, MB", memory >> 20)
            self._note(f"{name}: file descriptors", files)
        for label, database in (("metadata", self._cluster.metadata), ("warehouse", self._cluster.warehouse)):
            [[count]] = database.execute("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()")
            # one of them counts
            self._note(f"connections to the {label} database", int(str(count)) - 1)
        [[busy, waiting]] = self._cluster.metadata.execute(
            "SELECT count(*) FILTER (WHERE state IN ('queued', 'running')), count(*) FILTER (WHERE state = 'deferred') "
            f"FROM task_instance WHERE pool = '{POOL}'"
        )
        self._note(f"tasks in the pool of {POOL_SLOTS}", int(str(busy)))
        self._note("waits in the triggerers", int(str(waiting)))

    def _note(self, name: str, value: int) -> None:
        self.values[name] = max(value, self.values.get(name, 0))

    @contextmanager
    def sampling(self) -> Iterator[None]:
        """Measure every `INTERVAL` seconds while the block runs."""
        ended = threading.Event()

        def sample() -> None:
            while not ended.wait(INTERVAL):
                self.sample()

        thread = threading.Thread(target=sample)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()


def create_tickets_of_jobs(cluster: Cluster, jobs: int) -> None:
    """Create the rows that the mapped jobs send."""
    cluster.warehouse.execute(
        "CREATE TABLE tickets_of_jobs AS SELECT id, id % "
        f"{jobs} AS job, 'ticket ' || id AS body FROM generate_series(0, {jobs * JOB_ROWS - 1}) AS id"
    )


def fan_out(cluster: Cluster, jobs: int) -> Account:
    """Run the mapped jobs, print what they cost, and return the account.

    :raises ClusterError: if a job fails.
    """
    create_tickets_of_jobs(cluster, jobs)
    peaks = Peaks(cluster)
    peaks.sample()
    idle = dict(peaks.values)
    calls, store_requests = cluster.provider.calls(), cluster.store.requests()
    cpu = {name: _cpu(cluster.machines[name].members()) for name in _PARTS}
    began = time.monotonic()
    with peaks.sampling():
        state = cluster.await_end(DAG_ID, cluster.trigger(DAG_ID), patience=300 + JOB_SECONDS * jobs)
    seconds = time.monotonic() - began
    if state != "success":
        raise ClusterError(f"A job of the fan-out failed. See {cluster.folder}.")
    cpu = {name: _cpu(cluster.machines[name].members()) - cpu[name] for name in _PARTS}
    account = take_account(cluster, "tickets_of_jobs", "answers_of_jobs")
    print(f"fan-out of {jobs} jobs: {account.summary()}; {seconds:.0f} s", flush=True)
    for name, peak in peaks.values.items():
        print(f"    {name}: {peak} at most, {idle[name]} before", flush=True)
    for name, used in cpu.items():
        print(f"    {name}: {used / jobs:.1f} s of CPU per job", flush=True)
    for call, count in cluster.provider.calls().items():
        if count > calls.get(call, 0):
            print(f"    provider, {call}: {(count - calls.get(call, 0)) / jobs:.1f} requests per job", flush=True)
    requests = cluster.store.requests() - store_requests
    print(f"    object store: {requests / jobs:.1f} requests per job", flush=True)
    return account


def _use(processes: list[psutil.Process]) -> tuple[int, int]:
    """Return the memory in bytes, with each shared page counted once, and the number of open files of processes."""
    memory = files = 0
    for process in processes:
        with contextlib.suppress(psutil.Error):
            memory += process.memory_full_info().pss
            files += process.num_fds()
    return memory, files


def _cpu(processes: list[psutil.Process]) -> float:
    """Return the seconds of CPU of processes and of their children that have ended."""
    used = 0.0
    for process in processes:
        with contextlib.suppress(psutil.Error):
            times = process.cpu_times()
            used += times.user + times.system + times.children_user + times.children_system
    return used
