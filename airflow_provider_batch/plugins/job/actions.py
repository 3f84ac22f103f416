"""The decisions about a job that the page offers, and how they are carried out.

`worker.decisions` says what a decision does. This module adds what the states of the tasks allow. Airflow's own public
API clears tasks and marks a wait as successful: the request goes to Airflow's app in this process, with the credentials
of the user. So Airflow checks the user's rights, writes its audit log, and clears as its own page does.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

import httpx
import msgspec
from fastapi import HTTPException, Request

from airflow_provider_batch.core.formatting import format_count
from airflow_provider_batch.core.ledger.job import JobKey
from airflow_provider_batch.core.ledger.ledger import Ledger, open_ledger
from airflow_provider_batch.core.ledger.state import JobState
from airflow_provider_batch.hooks.open import open_hook
from airflow_provider_batch.plugins.budget import ThreadBudget
from airflow_provider_batch.plugins.job.tasks import JobTask, Role
from airflow_provider_batch.worker.decisions import (
    CANCELLED,
    Decision,
    cancel,
    cancel_decision,
    land_decision,
    retry_decision,
)

#: states of a task instance that runs or is going to run
_ACTIVE = frozenset(
    {"scheduled", "queued", "running", "restarting", "deferred", "up_for_retry", "up_for_reschedule", "awaiting_input"}
)

#: cancels batches; a cancel of many batches may take a while
CANCELLING = ThreadBudget("The provider", threads=2, queued=4, seconds=60)


class Action(msgspec.Struct, frozen=True, kw_only=True):
    """A decision that the page offers."""

    name: str
    label: str
    #: whether the job and its tasks allow it
    possible: bool
    #: whether the user may do it
    allowed: bool
    explanation: str
    #: ids of the tasks that are cleared, with all tasks after them, and of those that are marked as successful before
    clears: list[str]
    marks: list[str]


def offer_actions(state: JobState, tasks: Sequence[JobTask], *, allowed: bool) -> list[Action]:
    """Return what can be decided about a job.

    :param allowed: whether the user may edit the task instances of the DAG.
    """
    waits, lands = _with_role(tasks, Role.WAIT), _with_role(tasks, Role.LAND)
    unfinished = [task.task_id for task in waits if task.state != "success"]
    retry, land = retry_decision(state), land_decision(state, is_wait_over=not unfinished)
    return [
        _action(cancel_decision(state), "", allowed),
        _action(retry, _obstacle_to_retry(tasks), allowed, clears=_ids(waits)),
        _action(land, _obstacle_to_land(tasks), allowed, clears=_ids(lands), marks=unfinished),
    ]


def _action(
    decision: Decision, obstacle: str, allowed: bool, clears: Sequence[str] = (), marks: Sequence[str] = ()
) -> Action:
    return Action(
        name=decision.name,
        label=decision.label,
        possible=decision.possible and not obstacle,
        allowed=allowed,
        explanation=obstacle or decision.explanation,
        clears=list(clears),
        marks=list(marks),
    )


def _obstacle_to_retry(tasks: Sequence[JobTask]) -> str:
    """Return why rows cannot be retried now, as a sentence; empty if nothing speaks against it."""
    waits = _with_role(tasks, Role.WAIT)
    if any(task.state in _ACTIVE for task in waits):
        return "The wait is running. It retries rows that failed for a transient reason without your help."
    return _obstacle_of_submit(tasks) or ("" if any(task.state for task in waits) else "The wait has not started.")


def _obstacle_to_land(tasks: Sequence[JobTask]) -> str:
    waits, lands = _with_role(tasks, Role.WAIT), _with_role(tasks, Role.LAND)
    if not lands:
        return "The run has no task that lands this job."
    if any(task.state in _ACTIVE for task in lands):
        return "The landing is already running."
    if waits and not any(task.state for task in waits):
        return "The wait has not started."
    return _obstacle_of_submit(tasks)


def _obstacle_of_submit(tasks: Sequence[JobTask]) -> str:
    if all(task.state == "success" for task in _with_role(tasks, Role.SUBMIT)):
        return ""
    return "The submit task has not succeeded. If it failed, clear it and all tasks after it: it continues."


def _with_role(tasks: Sequence[JobTask], role: Role) -> list[JobTask]:
    return [task for task in tasks if task.role is role]


def _ids(tasks: Sequence[JobTask]) -> list[str]:
    return [task.task_id for task in tasks]


async def carry_out(action: Action, ledger: Ledger, tasks: Sequence[JobTask], request: Request) -> str:
    """Do what a person decided, and return what happened, in full sentences.

    :raises HTTPException: if it is not possible, or if Airflow refuses it.
    :raises BatchError: if the ledger or the connection cannot be used.
    """
    if not action.possible:
        raise HTTPException(409, f"Nothing was changed. {action.explanation}")
    if action.name == "cancel":
        return await CANCELLING.run(lambda: _cancel(ledger))
    key = ledger.manifest.key
    async with _airflow(request) as client:
        for task in tasks:
            if task.role is Role.WAIT and task.task_id in action.marks:
                await _mark_successful(client, key, task)
        cleared_tasks = [task for task in tasks if task.task_id in action.clears]
        names = await _clear(client, key, cleared_tasks)
    marks_text = f"Marked {', '.join(action.marks)} as successful. " if action.marks else ""
    return f"{marks_text}Cleared {format_count(len(names), 'task')}: {', '.join(names)}. {action.explanation}"


def _cancel(ledger: Ledger) -> str:
    own_ledger = open_ledger(ledger.folder)  # other requests read the one that was found
    if own_ledger is None or own_ledger.manifest.job_uid != ledger.manifest.job_uid:
        raise HTTPException(409, "Nothing was changed. The job got a new generation in the meantime. Look at it again.")
    reports: list[str] = []
    failed = cancel(own_ledger, open_hook(ledger.manifest.openai_conn_id), reports.append)
    problem = f"{format_count(failed, 'batch was', 'batches were')} not cancelled: {reports[0]} " if failed else ""
    return f"{problem}{CANCELLED}"


def _airflow(request: Request) -> httpx.AsyncClient:
    """Return a client of Airflow's own app in this process, with the credentials of the user."""
    headers = {name: request.headers[name] for name in ("Cookie", "Authorization") if name in request.headers}
    transport = httpx.ASGITransport(app=request.scope["airflow"], raise_app_exceptions=False)
    return httpx.AsyncClient(transport=transport, base_url="http://airflow", headers=headers, timeout=30)


async def _mark_successful(client: httpx.AsyncClient, key: JobKey, task: JobTask) -> None:
    ids = [quote(part, safe="") for part in (key.dag_id, key.run_id, task.task_id)]
    path = "/api/v2/dags/{}/dagRuns/{}/taskInstances/{}".format(*ids)
    if task.map_index >= 0:
        path += f"/{task.map_index}"
    _check(await client.patch(path, json={"new_state": "success"}), f"mark {task.task_id} as successful")


async def _clear(client: httpx.AsyncClient, key: JobKey, tasks: Sequence[JobTask]) -> list[str]:
    """Clear these tasks and all tasks after them, and return the names of all that were cleared."""
    body = {
        "dry_run": False,
        "dag_run_id": key.run_id,
        "task_ids": [task.task_id if task.map_index < 0 else [task.task_id, task.map_index] for task in tasks],
        "include_downstream": True,
        "only_failed": False,
        "reset_dag_runs": True,
    }
    path = f"/api/v2/dags/{quote(key.dag_id, safe='')}/clearTaskInstances"
    answer = _check(await client.post(path, json=body), "clear the tasks")
    return sorted(_name(instance) for instance in answer.get("task_instances", []))


def _name(instance: dict[str, Any]) -> str:
    map_index = instance.get("map_index", -1)
    return f"{instance['task_id']}[{map_index}]" if map_index >= 0 else str(instance["task_id"])


def _check(response: httpx.Response, purpose: str) -> dict[str, Any]:
    """Return the answer of Airflow.

    :raises HTTPException: if Airflow refused.
    """
    if response.is_success:
        answer: dict[str, Any] = response.json()
        return answer
    try:
        detail = response.json().get("detail", response.text)
    except ValueError:
        detail = response.text
    status = response.status_code if response.status_code in (403, 404, 409) else 503
    raise HTTPException(status, f"Airflow did not {purpose} (HTTP {response.status_code}): {str(detail)[:500]}")
