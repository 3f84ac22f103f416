"""The process in which Airflow runs the DAG: `python -m airflow_provider_batch.demo.run DAG_ID --conf JSON`.

Standard output carries one JSON object per line, and nothing else:

    {"event": "run", "run_id": …}
    {"event": "task", "task": …, "state": "running" | "deferred" | "success" | …}
    {"event": "canary", "requests": …, "low_usd": …, "high_usd": …}
    {"event": "batch", "batch": …, "status": …, "done": …, "total": …}
    {"event": "end", "state": "success" | "failed", "run_id": …}

Everything else, such as Airflow's log, goes to standard error.
"""

from __future__ import annotations

import argparse
import json
import os
import sqlite3
import sys
import threading
from collections.abc import Callable
from contextlib import closing, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import openai

if TYPE_CHECKING:
    from airflow_provider_batch.core.ledger.state import JobState

#: a function that writes an event to standard output
Emit = Callable[[dict[str, Any]], None]


def main() -> int:
    """Run one DAG to its end and return the exit code: 0 if it succeeded."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dag_id")
    parser.add_argument("--conf", type=json.loads, default={}, help="the run's configuration, as JSON")
    parser.add_argument("--poll-interval", type=float, default=1.0, help="seconds between two polls of the batches")
    arguments = parser.parse_args()
    emit = _reserve_stdout()

    from airflow.dag_processing.dagbag import DagBag

    bag = DagBag(os.environ["AIRFLOW__CORE__DAGS_FOLDER"])
    dag = bag.dags.get(arguments.dag_id)
    if dag is None:
        print(f"There is no DAG named {arguments.dag_id}. {bag.import_errors or ''}", file=sys.stderr)
        return 2
    watcher = Watcher(arguments.dag_id, emit, poll_interval=arguments.poll_interval)
    watcher.start()
    try:
        run = dag.test(run_conf=arguments.conf, logical_date=None)
    finally:
        watcher.stop()
    emit({"event": "end", "state": str(run.state), "run_id": run.run_id})
    return 0 if run.state == "success" else 1


def _reserve_stdout() -> Emit:
    """Reserve standard output for events, and redirect everything else that is printed to standard error."""
    channel = os.fdopen(os.dup(1), "w", buffering=1, encoding="utf-8")
    os.dup2(2, 1)
    return lambda event: print(json.dumps(event), file=channel)


class Watcher:
    """Watches the tasks and batches of a DAG's newest run and emits an event when one of them changes.

    It reads Airflow's database, the job's ledger and the provider's batches, and changes nothing.

    :param poll_interval: seconds between two polls.
    """

    def __init__(self, dag_id: str, emit: Emit, *, poll_interval: float) -> None:
        self.dag_id, self._emit, self._poll_interval = dag_id, emit, poll_interval
        self._database = Path(os.environ["AIRFLOW_HOME"]) / "airflow.db"
        self._since = datetime.now(UTC)
        self._run_id = ""
        #: last event of each task and batch, by subject
        self._last_events: dict[str, dict[str, Any]] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="demo-watcher", daemon=True)
        connection = json.loads(os.environ["AIRFLOW_CONN_OPENAI_DEFAULT"])
        self._client = openai.OpenAI(
            api_key=connection["password"], base_url=connection.get("host"), max_retries=0, timeout=10
        )

    def start(self) -> None:
        """Start to watch, in a thread."""
        self._thread.start()

    def stop(self) -> None:
        """Poll once more, then stop."""
        self._stop.set()
        self._thread.join(30)

    def _watch(self) -> None:
        stopping = False
        while not stopping:
            stopping = self._stop.wait(self._poll_interval)
            # If something cannot be read now, the next poll reads it. The run itself does not depend on the watcher.
            with suppress(sqlite3.Error, openai.OpenAIError):
                self._poll()

    def _poll(self) -> None:
        with closing(sqlite3.connect(f"file:{self._database}?mode=ro", uri=True, timeout=2)) as database:
            run = database.execute(
                "SELECT run_id FROM dag_run WHERE dag_id = ? AND start_date >= ? ORDER BY id DESC LIMIT 1",
                (self.dag_id, self._since.strftime("%Y-%m-%d %H:%M:%S.%f")),
            ).fetchone()
            if run is None:
                return
            if run[0] != self._run_id:
                self._run_id = run[0]
                self._emit_change("run", {"event": "run", "run_id": self._run_id})
            tasks = database.execute(
                "SELECT task_id, state, next_method IS NOT NULL FROM task_instance "
                "WHERE dag_id = ? AND run_id = ? ORDER BY start_date",
                (self.dag_id, self._run_id),
            ).fetchall()
        for task, state, resumes in tasks:
            # `dag.test` runs the trigger itself, and a task that waits for it has the state "queued".
            state = "deferred" if state == "queued" and resumes else state
            if state in ("running", "deferred", "success", "failed", "up_for_retry", "upstream_failed", "skipped"):
                self._emit_change(f"task {task}", {"event": "task", "task": task, "state": state})
        state = self._state()
        if state is None:
            return
        if state.canary_verdict:
            self._emit_change("canary", _canary_event(state))
        for batch_id in (
            submission.batch_id
            for shard in state.shards.values()
            for submission in shard.submissions
            if submission.batch_id
        ):
            batch = self._client.batches.retrieve(batch_id)
            counts = batch.request_counts
            self._emit_change(
                f"batch {batch_id}",
                {
                    "event": "batch",
                    "batch": batch_id,
                    "status": batch.status,
                    "done": counts.completed + counts.failed if counts else 0,
                    "total": counts.total if counts else 0,
                },
            )

    def _state(self) -> JobState | None:
        """Return the state of the run's job, or None before the job is sealed."""
        from airflow_provider_batch.core.ledger.job import JobKey
        from airflow_provider_batch.core.ledger.ledger import open_ledger
        from airflow_provider_batch.staging.layout import job_folder, staging_root

        ledger = open_ledger(job_folder(staging_root(), JobKey(self.dag_id, "submit", self._run_id)))
        return ledger.state() if ledger is not None else None

    def _emit_change(self, subject: str, event: dict[str, Any]) -> None:
        if self._last_events.get(subject) != event:
            self._last_events[subject] = event
            self._emit(event)


def _canary_event(state: JobState) -> dict[str, Any]:
    return {
        "event": "canary",
        "requests": sum(shard.requests for shard in state.canary_shards),
        "low_usd": state.estimate.low_usd,
        "high_usd": state.estimate.high_usd,
    }


if __name__ == "__main__":
    sys.exit(main())
