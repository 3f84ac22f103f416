"""The routes of the list of jobs."""

from __future__ import annotations

from collections.abc import Collection
from datetime import UTC, datetime
from typing import Annotated

from fastapi import APIRouter, HTTPException, Query, Response

from airflow_provider_batch.plugins import budget
from airflow_provider_batch.plugins.access import ReadableDags, parse_joined_key
from airflow_provider_batch.plugins.jobs import snapshot
from airflow_provider_batch.plugins.jobs.listing import MAX_LIMIT, SORT_KEYS, Criteria, list_jobs
from airflow_provider_batch.plugins.jobs.progress import MAX_JOBS, read_progress
from airflow_provider_batch.plugins.replies import reply

router = APIRouter(prefix="/api")


@router.get("/jobs")
async def jobs(
    dag_ids: ReadableDags,
    state: str = "",
    dag_id: str = "",
    run_id: str = "",
    model: str = "",
    text: str = "",
    since: str = "",
    sort: str = "age",
    order: str = "desc",
    offset: str = "0",
    limit: str = "50",
) -> Response:
    """Return a page of the jobs of all DAGs that the user may read, newest first, and the sums over all pages."""
    criteria = Criteria(
        state=state,
        dag_id=dag_id,
        run_id=run_id,
        model=model,
        text=text,
        since=_parse_since(since),
        sort=_parse_choice("sort", sort, SORT_KEYS.keys()),
        is_descending=_parse_choice("order", order, ["asc", "desc"]) == "desc",
        offset=_parse_number("offset", offset, 0, 2**31),
        limit=_parse_number("limit", limit, 1, MAX_LIMIT),
    )
    return reply(await budget.DATABASE.run(lambda: list_jobs(snapshot.JOBS.rows(), dag_ids, criteria)))


@router.get("/progress")
async def progress(dag_ids: ReadableDags, job: Annotated[list[str], Query(default_factory=list)]) -> Response:
    """Return how far jobs are, from their ledgers. Each is written as DAG|RUN|TASK|MAP."""
    if len(job) > MAX_JOBS:
        raise HTTPException(400, f"job: Give at most {MAX_JOBS} jobs.")
    return reply({"jobs": await read_progress([parse_joined_key(text) for text in job], dag_ids)})


def _parse_since(text: str) -> datetime | None:
    if not text:
        return None
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        raise HTTPException(400, "since: Give a date or a time, such as 2026-11-20 or 2026-11-20T08:00:00Z.") from None
    return time if time.tzinfo else time.replace(tzinfo=UTC)


def _parse_choice(name: str, text: str, choices: Collection[str]) -> str:
    if text not in choices:
        raise HTTPException(400, f"{name}: Give one of {', '.join(choices)}.")
    return text


def _parse_number(name: str, text: str, minimum: int, maximum: int) -> int:
    number = int(text) if text.isascii() and text.isdecimal() and len(text) <= 10 else -1
    if not minimum <= number <= maximum:
        raise HTTPException(400, f"{name}: Give a number from {minimum} to {maximum:,}.")
    return number
