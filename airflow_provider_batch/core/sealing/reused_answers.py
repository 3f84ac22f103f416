"""Answers that an earlier job already paid for, kept in staging for the rows of this job that ask the same.

They come from a results table, one per request hash, and lie beside the shards in files of bounded size; the rows that
get them are copies (see `core.sealing.deduplicate`) of such a file as other copies are of a shard.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from typing import Any, BinaryIO

import msgspec

from airflow_provider_batch.core.answers.outcome import Answer, Outcome
from airflow_provider_batch.core.ledger.folder import Folder
from airflow_provider_batch.core.ledger.job import ReusedFile
from airflow_provider_batch.core.schema.judge import SchemaJudge
from airflow_provider_batch.core.sealing.deduplicate import FILE_BYTES, FILE_ROWS, RequestIndex


class ReusedAnswer(msgspec.Struct, frozen=True, omit_defaults=True):
    """A row of a results table that succeeded."""

    sha256: str
    #: as the table holds it: text; JSON or its text for embeddings and moderations
    output: Any
    finish_reason: str | None = None
    model: str | None = None
    batch_id: str | None = None


def to_answer(known: ReusedAnswer, endpoint: str, judge: SchemaJudge | None) -> Answer | None:
    """The answer as it was when it landed; None if it is not whole, or does not fit the schema."""
    value, text = known.output, None
    if endpoint.endswith(("/embeddings", "/moderations")):
        if isinstance(value, str):
            try:
                value = msgspec.json.decode(value)
            except (msgspec.DecodeError, RecursionError):
                return None
        # where other rows had several inputs, the one vector of a row lies in a list
        if isinstance(value, list) and len(value) == 1 and isinstance(value[0], list):
            value = value[0]
    else:
        text = value if isinstance(value, str) or value is None else msgspec.json.encode(value).decode()
        value = text if judge is None or text is None else judge.judge(text)[0]
    if value is None or value in ("", [], {}):
        return None
    return Answer(Outcome.SUCCEEDED, value=value, text=text, finish_reason=known.finish_reason, model=known.model)


class ReusedAnswerWriter:
    """Keeps the answers that a job's requests want, the first of each request, in files as they come."""

    def __init__(
        self,
        folder: Folder,
        prefix: str,
        requests: RequestIndex,
        endpoint: str,
        judge: SchemaJudge | None,
        before: Sequence[ReusedFile] = (),
    ) -> None:
        """`before`: the files that there are already; they come first among those of `finish`."""
        self._folder, self._prefix, self._requests = folder, prefix, requests
        self._endpoint, self._judge = endpoint, judge
        self._stack = ExitStack()
        self._file: BinaryIO | None = None
        self._rows = self._bytes = 0
        self._files: list[ReusedFile] = list(before)

    def add(self, known: ReusedAnswer) -> None:
        """Keep an answer if a request of the job wants it and has none yet."""
        if not self._requests.is_unassigned(known.sha256) or to_answer(known, self._endpoint, self._judge) is None:
            return
        if self._file is None:
            self._file = self._stack.enter_context(self._folder.writer(f"{self._prefix}/{self._name}.jsonl"))
        line = msgspec.json.encode(known) + b"\n"
        self._file.write(line)
        self._requests.assign(known.sha256, self._name)
        self._rows += 1
        self._bytes += len(line)
        if self._rows >= FILE_ROWS or self._bytes >= FILE_BYTES:
            self._close()

    def finish(self) -> list[ReusedFile]:
        """The files, complete."""
        if self._file is not None:
            self._close()
        return self._files

    @property
    def _name(self) -> str:
        return f"k{len(self._files) + 1:04d}"

    def _close(self) -> None:
        self._stack.close()
        self._files.append(ReusedFile(self._name, f"{self._prefix}/{self._name}.jsonl", self._rows))
        self._file, self._rows, self._bytes = None, 0, 0


def read_reused_answers(folder: Folder, known: ReusedFile) -> Iterator[ReusedAnswer]:
    """The answers of one file."""
    decoder = msgspec.json.Decoder(ReusedAnswer)
    with folder.reader(known.file) as file:
        for line in file:
            yield decoder.decode(line)
