"""Run a DAG and print its progress to a terminal."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.markup import escape

from airflow_provider_batch.core.formatting import format_count, format_usd_range
from airflow_provider_batch.demo.home import DemoError

if TYPE_CHECKING:
    from rich.console import Console

#: text to print for each state of a task
_STATES = {
    "running": "is running",
    "deferred": "is deferred: it needs no worker slot while its trigger polls the batch",
    "success": "succeeded",
    "failed": "failed",
    "up_for_retry": "failed and will be retried",
    "upstream_failed": "did not run because an upstream task failed",
    "skipped": "was skipped",
}
#: number of log lines to print if a run fails
_TAIL = 25


class Story:
    """Prints progress with the time since the start."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self._start = time.monotonic()

    def step(self, text: str) -> None:
        """Print one line. `text` may contain rich markup."""
        minutes, seconds = divmod(int(time.monotonic() - self._start), 60)
        self.console.print(f"[dim]{minutes:02}:{seconds:02}[/]  {text}", highlight=False, soft_wrap=True)

    def run(
        self, dag_id: str, conf: Mapping[str, Any], *, environment: Mapping[str, str], log: Path, poll_interval: float
    ) -> str:
        """Run a DAG in a separate process, print its progress and return the run_id.

        :param log: file to append the output of Airflow to.
        :param poll_interval: seconds between two polls of the batches.
        :raises DemoError: if the run did not succeed, after printing the end of the log.
        """
        command = [sys.executable, "-m", "airflow_provider_batch.demo.run", dag_id]
        command += ["--conf", json.dumps(dict(conf)), "--poll-interval", str(poll_interval)]
        end: dict[str, Any] = {}
        with (
            log.open("ab") as log_file,
            subprocess.Popen(
                command,
                env=dict(environment),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log_file,
                text=True,
            ) as process,
        ):
            assert process.stdout is not None
            try:
                for line in process.stdout:
                    event = json.loads(line)
                    end = event if event["event"] == "end" else end
                    self._print_event(event)
            except BaseException:
                process.terminate()
                raise
        if process.returncode or end.get("state") != "success":
            self.console.print(_tail(log), markup=False, highlight=False, soft_wrap=True)
            raise DemoError(
                f"The run of {dag_id} did not succeed. The end of its log is above; the whole log is in {log}."
            )
        return str(end["run_id"])

    def _print_event(self, event: Mapping[str, Any]) -> None:
        match event["event"]:
            case "run":
                self.step(f"started run {escape(event['run_id'])}")
            case "task":
                state = event["state"]
                self.step(f"[bold]{event['task']}[/] {_STATES.get(state, state)}")
            case "canary":
                estimate = format_usd_range(event["low_usd"], event["high_usd"])
                requests = format_count(event["requests"], "request")
                self.step(f"     canary: {requests} sent synchronously; the estimate is now {estimate}")
            case "batch":
                counts = f", {event['done']:,} of {event['total']:,} requests done" if event["total"] else ""
                self.step(f"     batch …{event['batch'][-8:]} {event['status']}{counts}")


def _tail(log: Path) -> str:
    return "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-_TAIL:])
