"""What the tasks of the cluster do besides their work: note where they start, and stop at the step of a strike.

A task that reaches the step stops itself with SIGSTOP and writes a file for the test, which then kills the machine.
These files are the only ones that the machines write outside their own disks.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from tests.chaos.worker import Strike, Striker, watch
from tests.cluster.machines import machine_name

#: variable with the folder for these files
FOLDER_VARIABLE = "CLUSTER_OBSERVATIONS"
HIT, STARTS = ".hit", ".starts"


class TaskStart(msgspec.Struct, frozen=True):
    """The start of a task on a machine: of the task itself, or of its continuation after a wait."""

    run_id: str
    task_id: str
    map_index: int
    try_number: int
    machine: str
    #: Unix time
    time: float


class TaskStrike(msgspec.Struct, frozen=True):
    """The step of a task at which its machine dies, in the first try of the task."""

    task_id: str
    strike: Strike


def note_start(context: Mapping[str, Any]) -> None:
    """Note the start of this task, and watch it if the run has a strike for it."""
    file = Path(os.environ[FOLDER_VARIABLE]) / machine_name()
    task = context["ti"]
    start = TaskStart(task.run_id, task.task_id, task.map_index, task.try_number, machine_name(), time.time())
    with file.with_suffix(STARTS).open("ab") as starts:
        starts.write(msgspec.json.encode(start) + b"\n")
    planned = (context["params"] or {}).get("strike")
    if planned is None:
        return
    strike = msgspec.json.decode(json.dumps(planned), type=TaskStrike)
    if strike.task_id == task.task_id and task.try_number == 1:
        from airflow_provider_batch.staging.object_store import ObjectFolder

        watch(Striker(strike.strike, file.with_suffix(HIT)), ObjectFolder)
