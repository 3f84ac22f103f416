"""Answers that an earlier job already paid for, reused for rows of this job that have the same request.

The answers come from a results table, one per request hash. They are stored next to the shards, in files of bounded
size. A row that gets such an answer is kept in the same files as the duplicates (see `core.sealing.deduplicate`): where
a duplicate waits for the answers of a shard, this row waits for those of a `ReusedFile`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from typing import Any, BinaryIO

import msgspec

from airflow_provider_batch.core.answers.outcome import Answer, Outcome
from airflow_provider_batch.core.answers.structured import read_structured
from airflow_provider_batch.core.ledger.folder import Folder
from airflow_provider_batch.core.ledger.job import ReusedFile
from airflow_provider_batch.core.ledger.sealed_file import read_entries
from airflow_provider_batch.core.schema.judge import SchemaJudge
from airflow_provider_batch.core.sealing.deduplicate import FILE_BYTES, FILE_ROWS, RequestIndex


class ReusedAnswer(msgspec.Struct, frozen=True, omit_defaults=True):
    """A row of a results table whose outcome was `succeeded`."""

    #: request hash, hex
    sha256: str
    #: as the table holds it: text; for embeddings and moderations, JSON or its text
    output: Any
    finish_reason: str | None = None
    model: str | None = None
    batch_id: str | None = None


def to_answer(reused: ReusedAnswer, endpoint: str, judge: SchemaJudge | None) -> Answer | None:
    """Return the answer as it was when it landed, or None if it is incomplete or does not fit the schema."""
    value, text = reused.output, None
    if endpoint.endswith(("/embeddings", "/moderations")):
        if isinstance(value, str):
            try:
                value = msgspec.json.decode(value)
            except (msgspec.DecodeError, RecursionError):
                return None
        # If other rows of that job had several inputs, a row with one input has its vector inside a list.
        if isinstance(value, list) and len(value) == 1 and isinstance(value[0], list):
            value = value[0]
    else:
        text = value if isinstance(value, str) or value is None else msgspec.json.encode(value).decode()
        value = text if judge is None or text is None else read_structured(text, judge)[0]
    if value is None or value in ("", [], {}):
        return None
    return Answer(Outcome.SUCCEEDED, value=value, text=text, finish_reason=reused.finish_reason, model=reused.model)


class ReusedAnswerWriter:
    """Writes reused answers to files: for each request of the job, the first usable answer."""

    def __init__(
        self,
        folder: Folder,
        prefix: str,
        requests: RequestIndex,
        endpoint: str,
        judge: SchemaJudge | None,
        earlier_files: Sequence[ReusedFile] = (),
    ) -> None:
        """`earlier_files` are files that already exist; `finish` returns them first."""
        self._folder, self._prefix, self._requests = folder, prefix, requests
        self._endpoint, self._judge = endpoint, judge
        self._stack = ExitStack()
        self._file: BinaryIO | None = None
        self._rows = self._bytes = 0
        self._digest = hashlib.sha256()
        self._files: list[ReusedFile] = list(earlier_files)

    def add(self, answer: ReusedAnswer) -> None:
        """Write an answer if it is usable and a request of the job still needs it."""
        if not self._requests.is_unassigned(answer.sha256) or to_answer(answer, self._endpoint, self._judge) is None:
            return
        if self._file is None:
            self._file = self._stack.enter_context(self._folder.writer(f"{self._prefix}/{self._name}.jsonl"))
        line = msgspec.json.encode(answer) + b"\n"
        self._file.write(line)
        self._digest.update(line)
        self._requests.assign_all([answer.sha256], self._name)
        self._rows += 1
        self._bytes += len(line)
        if self._rows >= FILE_ROWS or self._bytes >= FILE_BYTES:
            self._close()

    def finish(self) -> list[ReusedFile]:
        """Close the last file and return all files."""
        if self._file is not None:
            self._close()
        return self._files

    @property
    def _name(self) -> str:
        return f"k{len(self._files) + 1:04d}"

    def _close(self) -> None:
        self._stack.close()
        path, sha256 = f"{self._prefix}/{self._name}.jsonl", self._digest.hexdigest()
        self._files.append(ReusedFile(self._name, path, self._rows, sha256))
        self._file, self._rows, self._bytes, self._digest = None, 0, 0, hashlib.sha256()


def read_reused_answers(folder: Folder, reused_file: ReusedFile) -> Iterator[ReusedAnswer]:
    """Yield the answers of one file.

    :raises StagingError: if the file is not the one that was sealed, before any answer is yielded.
    """
    return read_entries(folder, reused_file.file, reused_file.sha256, ReusedAnswer)
