"""One run, told step by step to a person at a terminal."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape

from airflow_provider_batch.demo.home import DemoError

#: what a task's state means to somebody who watches
_STATES = {
    "running": "runs",
    "deferred": "deferred: it holds no worker slot; its trigger looks at the batch now and then",
    "success": "succeeded",
    "failed": "failed",
    "up_for_retry": "failed, and will be tried again",
    "upstream_failed": "did not run, as a task before it failed",
    "skipped": "was skipped",
}
#: lines of the log that are shown if a run fails
_TAIL = 25


class Story:
    """Prints lines with the time since the start."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self._began = time.monotonic()

    def step(self, text: str) -> None:
        """One line; `text` may hold rich's markup."""
        minutes, seconds = divmod(int(time.monotonic() - self._began), 60)
        self.console.print(f"[dim]{minutes:02}:{seconds:02}[/]  {text}", highlight=False, soft_wrap=True)

    def run(
        self, dag_id: str, conf: Mapping[str, Any], *, environment: Mapping[str, str], log: Path, look_every: float
    ) -> str:
        """Run a DAG in a process of its own and tell what happens. Returns the run_id.

        :raises DemoError: if the run did not succeed; the end of the log has been printed.
        """
        command = [sys.executable, "-m", "airflow_provider_batch.demo.run", dag_id]
        command += ["--conf", json.dumps(dict(conf)), "--look-every", str(look_every)]
        end: dict[str, Any] = {}
        with (
            log.open("ab") as to_log,
            subprocess.Popen(
                command,
                env=dict(environment),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=to_log,
                text=True,
            ) as process,
        ):
            assert process.stdout is not None
            try:
                for line in process.stdout:
                    event = json.loads(line)
                    end = event if event["event"] == "end" else end
                    self._tell(event)
            except BaseException:
                process.terminate()
                raise
        if process.returncode or end.get("state") != "success":
            self.console.print(_tail(log), markup=False, highlight=False, soft_wrap=True)
            raise DemoError(f"The run of {dag_id} did not succeed. The end of its log is above, the whole in {log}")
        return str(end["run_id"])

    def _tell(self, event: Mapping[str, Any]) -> None:
        match event["event"]:
            case "run":
                self.step(f"run {escape(event['run_id'])}")
            case "task":
                state = event["state"]
                self.step(f"[bold]{event['task']}[/] {_STATES.get(state, state)}")
            case "canary":
                known = event["low_usd"] is not None
                price = f"${event['low_usd']:.4f} to ${event['high_usd']:.4f}" if known else "unknown"
                self.step(f"     canary: {event['asked']} requests asked at once, the estimate is now {price}")
            case "batch":
                counts = f", {event['done']:,} of {event['total']:,} requests done" if event["total"] else ""
                self.step(f"     batch …{event['batch'][-8:]} {event['status']}{counts}")


def _tail(log: Path) -> str:
    return "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-_TAIL:])
