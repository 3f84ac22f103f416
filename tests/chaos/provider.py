"""What a server did in reality: read from its state directory, past its faults, its dialect and this provider."""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import msgspec

from airflow_provider_batch.local.storage.record import Record

_CUSTOM_ID = re.compile(rb'"custom_id":"(\d+)"')
#: also inside a `response` that is a string
_ANSWERED = re.compile(rb'\\?"status_code\\?":"?200')
_NEVER_RAN = re.compile(rb'"(batch_expired|batch_cancelled|request_timeout)"')


@dataclass(frozen=True)
class ExecutedBatch:
    """A batch of a server, with the custom_ids of its rows."""

    #: Unix times of its creation and its end in whole seconds, by the clock of the server
    created_at: int
    ended_at: int | None
    #: rows that a model answered, as the result files show
    answered_ids: frozenset[str]
    #: rows that were executed, with an answer or an error
    executed_ids: frozenset[str]


def read_batches(state: Path, job_uids: set[str]) -> list[ExecutedBatch]:
    """Return the batches of these jobs, oldest first."""
    with closing(sqlite3.connect(f"file:{state / 'state.sqlite'}?mode=ro", uri=True)) as database:
        bodies = [body for (body,) in database.execute("SELECT body FROM batch ORDER BY number")]
    batches = (msgspec.json.decode(body, type=Record).batch for body in bodies)
    return [_executed_batch(state, batch) for batch in batches if (batch.metadata or {}).get("job_uid") in job_uids]


def _executed_batch(state: Path, batch: Any) -> ExecutedBatch:
    lines = [
        line
        for file_id in (batch.output_file_id, batch.error_file_id)
        if file_id
        for line in (state / "files" / file_id).read_bytes().split(b"\n")
        if _is_whole(line)
    ]
    return ExecutedBatch(
        created_at=batch.created_at,
        ended_at=batch.ended_at,
        answered_ids=frozenset(_custom_ids(line for line in lines if _ANSWERED.search(line))),
        executed_ids=frozenset(_custom_ids(line for line in lines if not _NEVER_RAN.search(line))),
    )


def _is_whole(line: bytes) -> bool:
    """Return whether the line is JSON, even if it is too deep for a parser."""
    try:
        json.loads(line)
    except RecursionError:
        return True
    except ValueError:
        return False
    return True


def _custom_ids(lines: Iterable[bytes]) -> Iterator[str]:
    for line in lines:
        if (match := _CUSTOM_ID.search(line)) is not None:
            yield match[1].decode()


def count_sent_again(batches: list[ExecutedBatch]) -> int:
    """Return how many rows were executed again although a batch that had ended before had an answer for them.

    Such a row was sent again because its answer was misread: its file, its line or the state of its batch.

    :param batches: oldest first, as `read_batches` returns them.
    """
    count = 0
    for number, batch in enumerate(batches):
        ended_batches = [
            other for other in batches[:number] if other.ended_at is not None and other.ended_at <= batch.created_at
        ]
        answered_ids = frozenset[str]().union(*(other.answered_ids for other in ended_batches))
        count += len(batch.executed_ids & answered_ids)
    return count


def prompt_digest(prompt: str) -> str:
    """Return the digest of a prompt that the text of its offline answer contains."""
    return sha256(f"\0{prompt}".encode()).hexdigest()[:16]
