"""Requests into sealed files: within every limit, every custom_id proven unique, one model a file.

A sealer writes into a folder that nobody was told of; the manifest, created exclusively afterwards, is the seal.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any, BinaryIO

import msgspec

from airflow_provider_batch.exceptions import CustomIdError, InputError, RowTooLargeError
from airflow_provider_batch.jobs import endpoints
from airflow_provider_batch.jobs.expected import expected_bytes
from airflow_provider_batch.jobs.folder import Folder
from airflow_provider_batch.jobs.job import RowIndex, Shard
from airflow_provider_batch.jobs.limits import Limits, Size
from airflow_provider_batch.jobs.render import Request, request_line, request_sha256
from airflow_provider_batch.jobs.unique import Shared, UniqueIds

#: shards that may be open at once: one per model
MAX_MODELS = 100


class _Abandoned(Exception):
    """The files of a build are closed and will not be read."""


class _OpenShard:
    """A shard that still takes requests."""

    def __init__(self, folder: Folder, name: str, model: str, prefix: str, attempt: int) -> None:
        self.name, self.model, self.attempt = name, model, attempt
        self.file, self.rows = f"{prefix}/{name}.jsonl", f"{prefix}/{name}.rows.jsonl"
        self.size = Size()
        self._digest = hashlib.sha256()
        with ExitStack() as stack:
            self._lines: BinaryIO = stack.enter_context(folder.writer(self.file))
            self._index: BinaryIO = stack.enter_context(folder.writer(self.rows))
            self._stack = stack.pop_all()

    def add(self, line: bytes, row: RowIndex, size: Size) -> None:
        try:
            self._lines.write(line)
            self._index.write(msgspec.json.encode(row) + b"\n")
        except OSError as error:
            # the folder's writers know what to say of a full disk
            self._stack.__exit__(type(error), error, error.__traceback__)
            raise
        self._digest.update(line)
        self.size += size

    def close(self) -> Shard:
        self._stack.close()
        return Shard(
            name=self.name,
            model=self.model,
            file=self.file,
            rows=self.rows,
            requests=self.size.requests,
            bytes=self.size.bytes,
            sha256=self._digest.hexdigest(),
            tokens=self.size.tokens,
            attempt=self.attempt,
        )

    def abandon(self) -> None:
        # an end with an error, so that an object store does not keep half a file
        error = _Abandoned()
        self._stack.__exit__(type(error), error, None)


class Sealer:
    """Packs requests into shards, in the order they come; one chain of shards per model."""

    def __init__(self, folder: Folder, prefix: str, endpoint: str, limits: Limits, *, names: str = "s{:04d}") -> None:
        self._folder, self._prefix, self._endpoint, self._limits = folder, prefix, endpoint, limits
        self._names = names
        self._counts_inputs = endpoints.find(endpoint).counts_inputs
        self._open: dict[tuple[str, int], _OpenShard] = {}
        self._closed: list[Shard] = []
        self._ids = UniqueIds()
        self._started = 0
        self.requests = 0
        self.several_inputs = False

    def add(self, request: Request, carry: list[Any], number: int, tokens: int) -> None:
        """Seal one request. `number` is its row's, from 1; `tokens` its estimated input tokens.

        :raises RowTooLargeError: if this request alone is over a limit.
        :raises InputError: if the rows name more than 100 models.
        """
        line = request_line(request.custom_id, self._endpoint, request.body)
        sha256 = request_sha256(self._endpoint, request.body)
        row = RowIndex(request.custom_id, sha256, carry, number, request.inputs, tokens)
        size = self._size(line, request.inputs, tokens)
        self._check_alone(size, row)
        self._ids.add(request.custom_id)
        self.several_inputs = self.several_inputs or request.inputs > 1
        self._pack(request.model, line, row, size, attempt=1)

    def pack(self, model: str, line: bytes, row: RowIndex, *, inputs: int, tokens: int, attempt: int) -> None:
        """Put a line that is already known good into the open shard of its model and attempt, or start the next."""
        self._pack(model, line, row, self._size(line, inputs, tokens), attempt=attempt)

    def _size(self, line: bytes, inputs: int, tokens: int) -> Size:
        return Size(
            requests=1,
            bytes=len(line),
            inputs=inputs if self._counts_inputs else 0,
            tokens=tokens,
            output_bytes=expected_bytes(self._endpoint, line, inputs),
        )

    def _pack(self, model: str, line: bytes, row: RowIndex, size: Size, *, attempt: int) -> None:
        shard = self._open.get((model, attempt))
        if shard is not None and (shard.size + size).over(self._limits):
            self._closed.append(shard.close())
            shard = None
        if shard is None:
            if len(self._open) >= MAX_MODELS and not any(m == model for m, _ in self._open):
                raise InputError(
                    f"model: the rows name more than {MAX_MODELS} models, and each needs input files of its own. "
                    "Nothing was uploaded. Is the model template reading the right column?"
                )
            self._started += 1
            name = self._names.format(self._started)
            shard = self._open[(model, attempt)] = _OpenShard(self._folder, name, model, self._prefix, attempt)
        shard.add(line, row, size)
        self.requests += 1

    def finish(self) -> list[Shard]:
        """Close the files and prove every custom_id unique.

        :raises CustomIdError: naming the custom_id and the rows that share it.
        """
        self._closed.extend(shard.close() for shard in self._open.values())
        self._open.clear()
        self._closed.sort(key=lambda shard: shard.name)
        shared = self._ids.shared(self._sealed_ids)
        if shared is not None:
            raise _not_unique(shared)
        return self._closed

    def abandon(self) -> None:
        """Close the files of a build that will not be sealed."""
        for shard in self._open.values():
            shard.abandon()

    def _sealed_ids(self) -> Iterator[tuple[str, int]]:
        decoder = msgspec.json.Decoder(RowIndex)
        for shard in self._closed:
            with self._folder.reader(shard.rows) as index:
                for line in index:
                    row = decoder.decode(line)
                    yield row.custom_id, row.number

    def _check_alone(self, size: Size, row: RowIndex) -> None:
        over = size.over(self._limits)
        if over is None:
            return
        takes = f"{getattr(self._limits, over):,}"
        found = f"{getattr(size, over):,}"
        match over:
            case "bytes":
                said = f"is {found} bytes as a request; an input file takes {takes}"
                way_out = "Shorten it in the SQL, or leave the row out."
            case "inputs":
                said = f"has {found} embedding inputs; an input file takes {takes}"
                way_out = "Spread them over several rows in the SQL, or leave the row out."
            case "tokens":
                said = f"is about {found} input tokens; an input file takes {takes}"
                way_out = "Shorten it in the SQL, leave the row out, or raise `tokens` in limits."
            case _:
                said = f"expects an answer of about {found} bytes; a result file is kept below {takes}"
                way_out = (
                    "Ask for less in one request (`n`, inputs, log-probabilities), or raise `output_bytes` in limits."
                )
        raise RowTooLargeError(
            f"Row {row.number} (custom_id {row.custom_id!r}) {said}. Nothing was uploaded. {way_out}"
        )


def _not_unique(shared: Shared) -> CustomIdError:
    some = list(shared.rows.items())[:5]
    shown = ", ".join(f"{custom_id!r} (rows {_some(numbers)})" for custom_id, numbers in some)
    return CustomIdError(
        f"custom_id: {'' if shared.complete else 'at least '}{len(shared.rows):,} of them are given to more than one "
        f"row: {shown}{', …' if len(shared.rows) > 5 else ''}. Nothing was uploaded. A custom_id names one row of a "
        "job: add columns to the template, for example '{{ row.id }}-{{ row.version }}', or select each row once."
    )


def _some(numbers: list[int]) -> str:
    shown = ", ".join(str(number) for number in sorted(numbers)[:4])
    return f"{shown}, …" if len(numbers) > 4 else shown
