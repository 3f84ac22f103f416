"""Makes the rows of the list from the task instances of all jobs.

The tasks of a job belong together because they pushed the same address in the same run. The submit task is the one
whose own key leads to that address. An address that no submit task of its run leads to is not in the list.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from enum import StrEnum

import msgspec

from airflow_provider_batch.core.ledger.job import JobKey
from airflow_provider_batch.plugins.jobs.results import (
    LandedResult,
    SubmitResult,
    WaitedResult,
    read_address,
    read_result,
)
from airflow_provider_batch.plugins.jobs.task_rows import TaskRow
from airflow_provider_batch.staging.layout import job_digest


class Role(StrEnum):
    """What a task does for a job, in the order in which the tasks run."""

    SUBMIT = "submit"
    APPROVE = "approve"
    WAIT = "wait"
    LAND = "land"


class State(StrEnum):
    """Where a job is, as far as its tasks tell."""

    SENDING = "sending"
    APPROVAL = "approval"
    SENT = "sent"
    WAITING = "waiting"
    ANSWERED = "answered"
    LANDING = "landing"
    LANDED = "landed"
    FAILED = "failed"
    SKIPPED = "skipped"


_STATE_DURING = {
    Role.SUBMIT: State.SENDING,
    Role.APPROVE: State.APPROVAL,
    Role.WAIT: State.WAITING,
    Role.LAND: State.LANDING,
}
_STATE_AFTER = {Role.SUBMIT: State.SENT, Role.APPROVE: State.SENT, Role.WAIT: State.ANSWERED, Role.LAND: State.LANDED}
_WORDS = {
    State.SENDING: "sealing and sending the requests",
    State.APPROVAL: "waiting for an approval",
    State.SENT: "sent; the wait has not started",
    State.WAITING: "waiting for the answers",
    State.ANSWERED: "answered, not landed yet",
    State.LANDING: "landing the answers",
    State.LANDED: "landed",
    State.SKIPPED: "skipped",
}

#: states of a task instance that has ended, except success
_FAILED_STATES = {"failed", "upstream_failed"}
_SKIPPED_STATES = {"skipped", "removed"}


class JobTask(msgspec.Struct, frozen=True, gc=False):
    """A task instance of a job."""

    task_id: str
    role: Role
    #: as Airflow calls it; None if the scheduler has not looked at it yet
    state: str | None
    map_index: int


class JobRow(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A job in the list. None is unknown, never 0."""

    dag_id: str
    run_id: str
    task_id: str
    map_index: int
    models: list[str]
    rows: int | None
    state: State
    #: the same in words
    state_text: str
    #: numbers of rows: succeeded, ended in another way, and without an outcome yet
    done_rows: int | None = msgspec.field(name="done")
    failed: int | None
    waiting: int | None
    started_at: datetime | None
    ended_at: datetime | None
    deadline: datetime | None = None
    expected_end: datetime | None = None
    #: US dollars
    cost_usd: float | None
    estimate_low_usd: float | None
    estimate_high_usd: float | None
    standard_cost_usd: float | None
    saved_usd: float | None
    attempts: int | None
    tasks: list[JobTask]

    @property
    def has_ended(self) -> bool:
        """Whether no task of the job works on it or is due to."""
        return self.state in (State.LANDED, State.FAILED, State.SKIPPED)


def make_job_rows(task_rows: Iterable[TaskRow]) -> list[JobRow]:
    """Return one row for each job, in any order."""
    groups: defaultdict[tuple[str, str, str], list[TaskRow]] = defaultdict(list)
    for task_row in task_rows:
        address = read_address(task_row.address)
        if address is not None:
            groups[task_row.dag_id, task_row.run_id, address].append(task_row)
    rows = []
    for (_, _, address), tasks in groups.items():
        submit = _find_submit(tasks, address)
        if submit is not None:
            rows.append(_make_job_row(submit, [task for task in tasks if task is not submit]))
    return rows


def _find_submit(tasks: Sequence[TaskRow], address: str) -> TaskRow | None:
    digest = address.rpartition(".")[2]
    for task in tasks:
        if job_digest(JobKey(task.dag_id, task.task_id, task.run_id, task.map_index)) == digest:
            return task
    return None


#: by name of the operator's class
_ROLES = {"JobApprovalOperator": Role.APPROVE, "BatchSensor": Role.WAIT, "BatchResultsOperator": Role.LAND}


def _role(task: TaskRow) -> Role:
    """Return what a task does that is not the submit task. Subclasses have other names, but return the same values."""
    if task.operator in _ROLES:
        return _ROLES[task.operator]
    return Role.WAIT if read_result(task.result, WaitedResult).retry_rounds is not None else Role.LAND


def _make_job_row(submit: TaskRow, others: list[TaskRow]) -> JobRow:
    tasks = [(Role.SUBMIT, submit), *sorted(((_role(task), task) for task in others), key=_position)]
    state, role = _state(tasks)
    submit_result = read_result(submit.result, SubmitResult)
    wait_result = read_result(_newest_result(tasks, Role.WAIT), WaitedResult)
    landing_result = read_result(_newest_result(tasks, Role.LAND), LandedResult)
    rows = submit_result.requests if submit_result.requests is not None else landing_result.requests
    succeeded, unsuccessful = count_outcomes(
        landing_result.outcomes if landing_result.outcomes is not None else wait_result.outcomes
    )
    cost, standard_cost = landing_result.cost_usd, landing_result.standard_cost_usd
    return JobRow(
        dag_id=submit.dag_id,
        run_id=submit.run_id,
        task_id=submit.task_id,
        map_index=submit.map_index,
        models=submit_result.models,
        rows=rows,
        state=state,
        state_text=f"the {role} task failed" if state is State.FAILED else _WORDS[state],
        done_rows=succeeded,
        failed=unsuccessful,
        waiting=None
        if rows is None or succeeded is None or unsuccessful is None
        else max(rows - succeeded - unsuccessful, 0),
        started_at=_parse_time(submit.start),
        ended_at=_ended_at(tasks, state),
        cost_usd=cost,
        estimate_low_usd=submit_result.estimate.low_usd,
        estimate_high_usd=submit_result.estimate.high_usd,
        standard_cost_usd=standard_cost,
        saved_usd=None if cost is None or standard_cost is None else standard_cost - cost,
        attempts=None if wait_result.retry_rounds is None else wait_result.retry_rounds + 1,
        tasks=[JobTask(task.task_id, role, task.state, task.map_index) for role, task in tasks],
    )


_ORDER = {role: position for position, role in enumerate(Role)}


def _position(task: tuple[Role, TaskRow]) -> tuple[int, str, int]:
    return _ORDER[task[0]], task[1].task_id, task[1].map_index


def _state(tasks: Sequence[tuple[Role, TaskRow]]) -> tuple[State, Role]:
    """Return where a job is, and the role of the task on which it depends: the first one that has not succeeded."""
    role = Role.SUBMIT
    for role, task in tasks:
        if task.state == "success":
            continue
        if task.state in _FAILED_STATES:
            return State.FAILED, role
        return (State.SKIPPED if task.state in _SKIPPED_STATES else _STATE_DURING[role]), role
    return _STATE_AFTER[role], role


def _newest_result(tasks: Sequence[tuple[Role, TaskRow]], role: Role) -> str | None:
    results = [(task.end or "", task.result) for other, task in tasks if other is role and task.result is not None]
    return max(results)[1] if results else None


def count_outcomes(outcomes: dict[str, int] | None) -> tuple[int | None, int | None]:
    """Return how many rows succeeded, and how many ended in another way."""
    if outcomes is None:
        return None, None
    succeeded = outcomes.get("succeeded", 0)
    return succeeded, sum(outcomes.values()) - succeeded - outcomes.get("pending", 0)


def _ended_at(tasks: Sequence[tuple[Role, TaskRow]], state: State) -> datetime | None:
    if state not in (State.LANDED, State.FAILED, State.SKIPPED):
        return None
    return max((time for _, task in tasks if (time := _parse_time(task.end)) is not None), default=None)


def _parse_time(text: str | None) -> datetime | None:
    if text is None:
        return None
    time = datetime.fromisoformat(text)
    return time.replace(tzinfo=UTC) if time.tzinfo is None else time
