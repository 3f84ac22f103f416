"""The routes of one job."""

from __future__ import annotations

import csv
import io
from collections.abc import AsyncIterator, Iterator
from itertools import islice
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, HTTPException, Query, Request
from fastapi.responses import Response, StreamingResponse

from airflow_provider_batch.core.answers.outcome import Outcome
from airflow_provider_batch.core.ledger.job import JobKey
from airflow_provider_batch.core.ledger.ledger import Ledger
from airflow_provider_batch.core.ledger.state import JobState
from airflow_provider_batch.exceptions import BatchError
from airflow_provider_batch.plugins import budget
from airflow_provider_batch.plugins.access import EditableJob, MayEdit, ReadableJob
from airflow_provider_batch.plugins.job.actions import carry_out, offer_actions
from airflow_provider_batch.plugins.job.details import find_approval, read_record
from airflow_provider_batch.plugins.job.live import read_live
from airflow_provider_batch.plugins.job.tasks import JobTask, find_tasks
from airflow_provider_batch.plugins.lookup import find_job
from airflow_provider_batch.plugins.replies import no_job, reply
from airflow_provider_batch.worker.collected_answers import Answers, CollectedAnswers
from airflow_provider_batch.worker.limited_folder import LimitedFolder, ReadLimitError

router = APIRouter(prefix="/api")

#: limits for reading answers
_SECONDS, _BYTES = 6.0, 512 << 20
#: number of rows of the CSV file that are read at a time
_CHUNK_ROWS = 500
#: first characters with which a spreadsheet takes a cell for a formula
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


async def _open(key: JobKey) -> Ledger:
    ledger = await budget.STORE.run(lambda: find_job(key))
    if ledger is None:
        raise no_job()
    return ledger


async def _tasks(ledger: Ledger) -> list[JobTask]:
    return await budget.DATABASE.run(lambda: find_tasks(ledger.manifest.key, ledger.folder.uri))


@router.get("/job")
async def job(key: ReadableJob) -> Response:
    """Return everything about a job but its answers."""
    ledger = await _open(key)
    tasks = await _tasks(ledger)
    record = await budget.STORE.run(lambda: read_record(ledger))
    submit = ledger.manifest.key
    approval = find_approval(submit.dag_id, submit.run_id, tasks)
    return reply({**msgspec.structs.asdict(record), "path": tasks, "approval": approval})


@router.get("/live")
async def live(key: ReadableJob) -> Response:
    """Return the counts of the batches that run, as the provider tells them now."""
    ledger = await _open(key)
    state = await budget.STORE.run(ledger.state)
    return reply(await read_live(ledger.manifest.openai_conn_id, state))


@router.get("/answers")
async def answers(
    key: ReadableJob,
    offset: Annotated[int, Query(ge=0, le=100_000)] = 0,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    outcome: Annotated[str, Query(max_length=20)] = "",
    text: Annotated[str, Query(max_length=500)] = "",
) -> Response:
    """Return some of the answers that are in staging, joined with their requests."""
    if outcome and outcome not in set(Outcome):
        raise HTTPException(400, f"outcome: Give one of {', '.join(Outcome)}.")
    ledger = await _open(key)
    wanted_outcome = Outcome(outcome) if outcome else None

    def read() -> Answers:
        return _collected(ledger, ledger.state(), _SECONDS)[1].page(offset, limit, wanted_outcome, text)

    return reply(await budget.STORE.run(read))


def _collected(ledger: Ledger, state: JobState, seconds: float) -> tuple[LimitedFolder, CollectedAnswers]:
    folder = LimitedFolder(ledger.folder, seconds=seconds, max_bytes=_BYTES)
    return folder, CollectedAnswers(ledger, state, folder)


@router.get("/failed_rows")
async def failed_rows(key: ReadableJob) -> Response:
    """Return the rows that have ended without a success as a CSV file."""
    ledger = await _open(key)
    state = await budget.STORE.run(ledger.state)
    folder, collected = _collected(ledger, state, _SECONDS)
    rows = collected.failed_rows()
    name = f"failed_rows_{ledger.manifest.job_uid[:8]}.csv"
    return StreamingResponse(
        _csv(folder, rows),
        media_type="text/csv; charset=utf-8",
        headers={
            "Content-Disposition": f'attachment; filename="{name}"',
            "Cache-Control": "no-store",
            "X-Content-Type-Options": "nosniff",
        },
    )


async def _csv(folder: LimitedFolder, rows: Iterator[tuple[str, str, str, int, str]]) -> AsyncIterator[bytes]:
    """Yield the lines of a CSV file. If the rows cannot be read to the end, its last line gives the reason."""
    yield csv_lines([("custom_id", "outcome", "message", "attempts", "model")])

    def read() -> list[tuple[Any, ...]]:
        folder.renew()
        return list(islice(rows, _CHUNK_ROWS))

    try:
        while chunk := await budget.STORE.run(read):
            yield csv_lines(chunk)
    except (ReadLimitError, BatchError, HTTPException) as error:
        reason = error.detail if isinstance(error, HTTPException) else str(error)
        yield csv_lines([(f"This file is incomplete. {reason or 'Reading took too long.'}", "", "", "", "")])


def csv_lines(rows: list[tuple[Any, ...]]) -> bytes:
    """Return rows as lines of a CSV file.

    A spreadsheet runs a cell that begins like a formula. An apostrophe before it makes it a text.
    """
    file = io.StringIO()
    writer = csv.writer(file)
    for row in rows:
        cells = [str(cell).replace("\0", "") for cell in row]
        writer.writerow([f"'{cell}" if cell.startswith(_FORMULA) else cell for cell in cells])
    return file.getvalue().encode("utf-8", "replace")


@router.get("/actions")
async def actions(key: ReadableJob, allowed: MayEdit) -> Response:
    """Return what a person can decide about a job, and what each decision does."""
    ledger = await _open(key)
    tasks = await _tasks(ledger)
    state = await budget.STORE.run(ledger.state)
    return reply({"actions": offer_actions(state, tasks, allowed=allowed)})


@router.post("/actions/{name}")
async def act(name: str, request: Request, key: EditableJob) -> Response:
    """Do what a person decided about a job."""
    ledger = await _open(key)
    tasks = await _tasks(ledger)
    state = await budget.STORE.run(ledger.state)
    actions_by_name = {action.name: action for action in offer_actions(state, tasks, allowed=True)}
    if name not in actions_by_name:
        raise HTTPException(404, f"There is no action {name[:50]!r}. There are {', '.join(actions_by_name)}.")
    return reply({"result": await carry_out(actions_by_name[name], ledger, tasks, request)})
