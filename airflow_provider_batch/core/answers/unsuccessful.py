"""The rows of a settled submission that did not succeed, in a small file next to its result files.

Result files are large, and most rows succeed. The lifecycle is concerned with the others: which rows are retried, what
was paid for their answers, and which of several lines of a row has its best answer. The worker that collects the files
parses every line, so it writes these facts down. The texts stay in the result files, which only the landing reads.

    gNNN/collected/s0001.1/unsuccessful.RANDOM.jsonl    written first
    gNNN/records/settled.s0001.1.json                   names it, with its sha256

The file only saves time. If it is missing or its checksum differs, the result files are read instead.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import msgspec

from airflow_provider_batch.core.answers.outcome import Answer, Outcome
from airflow_provider_batch.core.ledger.folder import Folder
from airflow_provider_batch.core.ledger.records import Settled
from airflow_provider_batch.core.ledger.sealed_file import read_entries
from airflow_provider_batch.exceptions import StagingError


class UnsuccessfulRow(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A row that did not succeed, and where its best line is."""

    #: line of the row in the input file, from 0
    line: int
    #: the answer, without its texts
    answer: Answer
    #: number of the result file, and of the text line in it, both from 0; -1 if no line is of this row
    file: int = -1
    text_line: int = -1


def without_texts(answer: Answer) -> Answer:
    """Return what the job needs to know about an answer until it lands."""
    return Answer(
        answer.outcome,
        error_code=answer.error_code,
        model=answer.model,
        service_tier=answer.service_tier,
        usage=answer.usage,
        transient=answer.transient,
    )


def write_unsuccessful(folder: Folder, name: str, rows: Iterable[UnsuccessfulRow]) -> str:
    """Write the file. Return its sha256 in hex."""
    encoder, digest = msgspec.json.Encoder(), hashlib.sha256()
    with folder.writer(name) as file:
        for row in rows:
            line = encoder.encode(row) + b"\n"
            digest.update(line)
            file.write(line)
    return digest.hexdigest()


def load_unsuccessful(folder: Folder, settled: Settled, requests: int) -> list[UnsuccessfulRow] | None:
    """Return the rows of a submission that did not succeed, or None if only its result files show them.

    :param requests: number of rows of the shard.
    """
    if settled.outcomes == {Outcome.SUCCEEDED: requests}:
        return []
    if not settled.unsuccessful_sha256:
        return None
    try:
        return list(read_entries(folder, settled.unsuccessful_file, settled.unsuccessful_sha256, UnsuccessfulRow))
    except StagingError:
        return None
