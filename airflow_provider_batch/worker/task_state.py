"""Asks Airflow for the state of a task that is being killed, to find out whether its batches should be cancelled.

This module imports nothing slow at the top, because the triggerer imports it in its event loop.
"""

from __future__ import annotations

from typing import Any

from airflow_provider_batch.worker.log import Log

#: task states that mean that a person, or the end of the run, stopped the work
STOPPED_STATES = frozenset({"failed", "skipped", "removed"})


def task_state(ti: Any, log: Log) -> str:
    """Return the state of a task instance: "removed" if its run is gone, "unknown" if it cannot be read. Never raises.

    This call blocks; from an event loop, run it in a thread. It works in a worker and in the triggerer.

    :param ti: anything with `dag_id`, `task_id`, `run_id` and `map_index`; for None the state is "unknown".
    """
    from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance

    if ti is None:
        return "unknown"
    try:
        states = RuntimeTaskInstance.get_task_states(
            dag_id=ti.dag_id, task_ids=[ti.task_id], run_ids=[ti.run_id], map_index=ti.map_index
        )
        run_states = states.get(ti.run_id)
    except Exception as error:  # noqa: BLE001  # if unsure, do not cancel
        log.warning("Could not read the state of the task: %s", error)
        return "unknown"
    if not run_states:
        return "removed"
    index = -1 if ti.map_index is None else ti.map_index
    return str(run_states.get(ti.task_id if index < 0 else f"{ti.task_id}_{index}", "unknown") or "none")


def is_stopped(state: str, log: Log) -> bool:
    """Return whether a person's decision ended a task in this state, so that its batches should be cancelled.

    The decision is logged.
    """
    if state in STOPPED_STATES:
        log.warning(
            "The state of the task is %s, so its batches are cancelled. Answers they already have are kept.", state
        )
        return True
    log.info("The state of the task is %s, so its batches keep running. The next attempt continues with them.", state)
    return False
