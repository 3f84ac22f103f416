"""What Airflow says of a task, asked when it was told to end: whether a person wants its batches cancelled.

It imports nothing that is slow to import: the triggerer imports it in its event loop.
"""

from __future__ import annotations

from typing import Any

from airflow_provider_batch.worker.log import Log

#: task states in which a person, or the run's end, wants the work stopped
STOPPED_STATES = frozenset({"failed", "skipped", "removed"})


def task_state(ti: Any, log: Log) -> str:
    """State of a task instance as Airflow has it; 'removed' if its run is gone, 'unknown' if unsure. It never raises.

    Asks Airflow and blocks: from an event loop, call it in a thread. Works in a worker and in the triggerer.

    :param ti: anything with `dag_id`, `task_id`, `run_id` and `map_index`; None is unsure.
    """
    from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance

    if ti is None:
        return "unknown"
    try:
        states = RuntimeTaskInstance.get_task_states(
            dag_id=ti.dag_id, task_ids=[ti.task_id], run_ids=[ti.run_id], map_index=ti.map_index
        )
        of_run = states.get(ti.run_id)
    except Exception as error:  # noqa: BLE001  # unsure means: do not cancel
        log.warning("The task's state cannot be read (%s).", error)
        return "unknown"
    if not of_run:
        return "removed"
    index = -1 if ti.map_index is None else ti.map_index
    return str(of_run.get(ti.task_id if index < 0 else f"{ti.task_id}_{index}", "unknown") or "none")


def is_stopped(state: str, log: Log) -> bool:
    """Whether a task in this state was ended by a person's decision, so that its batches are cancelled. Logs which."""
    if state in STOPPED_STATES:
        log.warning("Task state is %s: its batches are cancelled. What they have answered is kept.", state)
        return True
    log.info("Task state is %s: the batches go on, and a later attempt goes on with them.", state)
    return False
