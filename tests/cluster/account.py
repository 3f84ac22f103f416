"""The account of a run: where its tasks ran, which rows were lost, and which were paid for twice."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import msgspec

from tests.chaos.provider import prompt_digest, read_batches
from tests.cluster.cluster import TRIGGERERS, WORKERS, Cluster
from tests.cluster.strikes import STARTS, TaskStart


@dataclass
class Account:
    """The rows of one run, as the warehouse and the provider have them."""

    rows: int
    #: rows without an answer of their own in the results table
    lost: int
    #: rows that are more than once in the results table
    duplicates: int
    #: answers beyond the first that the provider produced for a row
    paid_twice: int
    #: requests that the provider executed, of batches and of the canary
    requests: int
    #: batches of the job that have not ended
    running_batches: int

    @property
    def holds(self) -> bool:
        """Whether nothing was lost and nothing was paid for twice."""
        return not (self.lost or self.duplicates or self.paid_twice or self.running_batches)

    def summary(self) -> str:
        """Return the counts as one line."""
        return (
            f"{self.rows} rows, {self.requests} requests: {self.lost} lost, {self.duplicates} duplicates, "
            f"{self.paid_twice} paid twice, {self.running_batches} abandoned batches"
        )


def take_account(cluster: Cluster, source: str, table: str) -> Account:
    """Compare the rows of a source table with their answers in a results table and at the provider."""
    bodies = {str(number): str(body) for number, body in cluster.warehouse.execute(f"SELECT id, body FROM {source}")}
    landed = cluster.warehouse.execute(f"SELECT custom_id, outcome, output, batch_id, job_uid FROM {table}")
    times = Counter(str(custom_id) for custom_id, *_ in landed)
    answered = {
        str(custom_id)
        for custom_id, outcome, output, *_ in landed
        if outcome == "succeeded" and prompt_digest(bodies[str(custom_id)]) in str(output)
    }
    executions = Counter(str(custom_id) for custom_id, _, _, batch_id, _ in landed if batch_id is None)
    batches = read_batches(cluster.provider.state, {str(job_uid) for *_, job_uid in landed})
    for batch in batches:
        executions.update(batch.answered_ids)
    return Account(
        rows=len(bodies),
        lost=len(bodies.keys() - answered),
        duplicates=sum(count - 1 for count in times.values()),
        paid_twice=sum(count - 1 for count in executions.values()),
        requests=executions.total(),
        running_batches=sum(batch.ended_at is None for batch in batches),
    )


def read_starts(cluster: Cluster, run_id: str) -> list[TaskStart]:
    """Return the starts of the tasks of a run, by machine."""
    starts: list[TaskStart] = []
    for name in WORKERS:
        file = (cluster.observations / name).with_suffix(STARTS)
        lines = file.read_bytes().splitlines() if file.exists() else []
        starts += [msgspec.json.decode(line, type=TaskStart) for line in lines]
    return [start for start in starts if start.run_id == run_id]


def describe_places(cluster: Cluster, run_id: str) -> str:
    """Return on which machines the tasks of a run started, and which triggerers waited for it."""
    places: dict[str, list[str]] = {}
    for start in sorted(read_starts(cluster, run_id), key=lambda start: start.time):
        places.setdefault(start.task_id.removeprefix("job."), []).append(start.machine)
    places["triggers"] = [
        name for name in TRIGGERERS if any(cluster.folder.glob(f"{name}*/airflow/logs/**/run_id={run_id}/**/*.log*"))
    ]
    return "; ".join(f"{task} on {', '.join(machines)}" for task, machines in places.items())
