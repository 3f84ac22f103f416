"""Requests into sealed files: within every limit, every custom_id proven unique, one model a file.

A sealer writes into a folder that nobody was told of; the manifest, created exclusively afterwards, is the seal. It
writes, checksums and syncs in threads of its own, in blocks, while the next rows are read and rendered: both release
the interpreter. One block of each open shard waits at most; an error comes with the next block, at the latest with
`finish`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import ExitStack
from itertools import chain
from typing import Any, BinaryIO

import msgspec

from airflow_provider_batch.core.ledger.folder import Folder
from airflow_provider_batch.core.ledger.job import DuplicateFile, ReusedFile, RowIndex, Shard
from airflow_provider_batch.core.provider.limits import Limits, Size
from airflow_provider_batch.core.requests import endpoints
from airflow_provider_batch.core.requests.answer_size import expected_bytes
from airflow_provider_batch.core.requests.outline import Outline
from airflow_provider_batch.core.requests.render import Request, request_line, request_sha256
from airflow_provider_batch.core.sealing.deduplicate import DuplicateReader, DuplicateWriter, RequestIndex
from airflow_provider_batch.core.sealing.reused_answers import read_reused_answers
from airflow_provider_batch.core.sealing.unique import RepeatedIds, UniqueIds
from airflow_provider_batch.exceptions import CustomIdError, InputError, RowTooLargeError

#: shards that may be open at once: one per model
MAX_MODELS = 100
#: bytes that are written at once
BLOCK = 256 * 1024


class _AbandonedError(Exception):
    """The files of a build are closed and will not be read."""


_encoder = msgspec.json.Encoder()


def _nothing_to_write() -> Future[None]:
    done: Future[None] = Future()
    done.set_result(None)
    return done


class _OpenShard:
    """A shard that still takes requests."""

    def __init__(
        self,
        folder: Folder,
        name: str,
        model: str,
        prefix: str,
        attempt: int,
        pool: Executor,
        *,
        synchronous: bool = False,
    ) -> None:
        self.name, self.model, self.attempt, self.synchronous = name, model, attempt, synchronous
        self.file, self.rows = f"{prefix}/{name}.jsonl", f"{prefix}/{name}.rows.jsonl"
        self.size = Size()
        self._digest = hashlib.sha256()
        self._lines, self._index = bytearray(), bytearray()
        self._pool, self._writing = pool, _nothing_to_write()
        with ExitStack() as stack:
            self._line_file: BinaryIO = stack.enter_context(folder.writer(self.file))
            self._index_file: BinaryIO = stack.enter_context(folder.writer(self.rows))
            self._stack = stack.pop_all()

    def add(self, line: bytes, row: RowIndex, size: Size) -> None:
        """`size` is that of the shard with this line."""
        self._lines += line
        _encoder.encode_into(row, self._index, -1)
        self._index += b"\n"
        self.size = size
        if len(self._lines) + len(self._index) >= BLOCK:
            # rows come no faster than they are written
            self._writing.result()
            self._writing = self._pool.submit(self._write, self._lines, self._index)
            self._lines, self._index = bytearray(), bytearray()

    def _write(self, lines: bytearray, index: bytearray) -> None:
        try:
            self._line_file.write(lines)
            self._index_file.write(index)
        except OSError as error:
            # the folder's writers know what to say of a full disk
            self._stack.__exit__(type(error), error, error.__traceback__)
            raise
        self._digest.update(lines)

    def close(self) -> Future[Shard]:
        """The shard, once it is written and synced."""
        self._writing.result()
        return self._pool.submit(self._close)

    def _close(self) -> Shard:
        self._write(self._lines, self._index)
        self._stack.close()
        return Shard(
            name=self.name,
            model=self.model,
            file=self.file,
            index_file=self.rows,
            requests=self.size.requests,
            bytes=self.size.bytes,
            sha256=self._digest.hexdigest(),
            tokens=self.size.tokens,
            attempt=self.attempt,
            synchronous=self.synchronous,
        )

    def abandon(self) -> None:
        """Called when nothing of the shard is being written any more."""
        # an end with an error, so that an object store does not keep half a file
        error = _AbandonedError()
        self._stack.__exit__(type(error), error, None)


class Sealer:
    """Packs requests into shards, in the order they come; one chain of shards per model."""

    def __init__(
        self,
        folder: Folder,
        prefix: str,
        endpoint: str,
        limits: Limits,
        *,
        names: str = "s{:04d}",
        deduplicate: bool = False,
        canary: int = 0,
        canary_name_format: str = "c{:04d}",
        learned_tokens: Mapping[str, int] | None = None,
    ) -> None:
        """What is sealed where, and how.

        :param deduplicate: only the first of several equal requests goes into a shard.
        :param canary: so many requests of each model, the first ones, go into a shard of their own that is asked
            synchronously.
        :param learned_tokens: by model, the tokens a shard may have, as an earlier job learned from the provider.
            Unlike a limit that the author stated, it refuses no row: a row above it gets a shard of its own.
        """
        self._learned_tokens = learned_tokens or {}
        self._folder, self._prefix, self.endpoint, self._limits = folder, prefix, endpoint, limits
        self._names = names
        self._counts_inputs = endpoints.find(endpoint).counts_inputs
        self._open: dict[tuple[str, int], _OpenShard] = {}
        self._closed: list[Shard] = []
        self._closing: Future[Shard] | None = None
        # two, so that one shard is synced while the next grows
        self._pool = ThreadPoolExecutor(2, "seal")
        self._canary, self._canary_name_format = canary, canary_name_format
        #: None for one that is full
        self._canaries: dict[str, _OpenShard | None] = {}
        self._ids = UniqueIds()
        self._started = 0
        self._deduplicate = deduplicate
        #: which requests are in which shard, or among the known answers
        self.request_index = RequestIndex()
        #: the files of answers that are known already
        self.reused_files: list[ReusedFile] = []
        self._known_names: frozenset[str] = frozenset()
        self._copies = DuplicateWriter(folder, prefix)
        self._kept = DuplicateWriter(folder, f"{prefix}/kept")
        #: the rows that stay in the shard of an earlier generation, once finished
        self.kept_rows = DuplicateReader(folder, [])
        self._hashed: tuple[Request | None, str] = (None, "")
        #: the files of rows that share the answer of another row, once finished
        self.duplicate_files: list[DuplicateFile] = []
        #: requests in the shards; rows that share the answer of one of them; rows whose answer was known already
        self.requests = self.duplicates = self.reused = 0
        self.several_inputs = False

    def register(self, request: Request) -> None:
        """A request that will come, if an answer to it is known."""
        sha256 = self.sha256(request)
        if self.request_index.shard_of(sha256) is None and not self.request_index.is_unassigned(sha256):
            self.request_index.assign(sha256, "")

    def reuse(self, answers: list[ReusedFile]) -> None:
        """The answers that were found for the wanted requests."""
        self.reused_files, self._known_names = answers, frozenset(known.name for known in answers)

    def add_if_duplicate(self, request: Request, carry: list[Any], number: int) -> bool:
        """Take a row whose request is asked or answered already; False if it has to be added. Arguments as of `add`."""
        sha256 = self.sha256(request)
        shard = self.request_index.shard_of(sha256)
        if shard is None:
            return False
        if shard in self._known_names:
            self.reused += 1
        else:
            self.duplicates += 1
        self._ids.add(request.custom_id)
        self.several_inputs = self.several_inputs or request.inputs > 1
        self._copies.add(shard, RowIndex(request.custom_id, sha256, carry, number, request.inputs))
        return True

    def add_kept_row(self, request: Request, carry: list[Any], number: int, shard: str) -> None:
        """Take a row that is asked already, in a shard of an earlier generation. Other arguments as of `add`."""
        self._ids.add(request.custom_id)
        self.several_inputs = self.several_inputs or request.inputs > 1
        self._kept.add(shard, RowIndex(request.custom_id, self.sha256(request), carry, number, request.inputs))

    def sha256(self, request: Request) -> str:
        """The request hash."""
        if self._hashed[0] is not request:
            self._hashed = (request, request_sha256(self.endpoint, request.body))
        return self._hashed[1]

    def add(self, request: Request, carry: list[Any], number: int, tokens: int) -> None:
        """Seal one request. `number` is its row's, from 1; `tokens` its estimated input tokens.

        :raises RowTooLargeError: if this request alone is over a limit.
        :raises InputError: if the rows name more than 100 models.
        """
        line = request_line(request.custom_id, self.endpoint, request.body)
        sha256 = self.sha256(request)
        row = RowIndex(request.custom_id, sha256, carry, number, request.inputs, tokens)
        size = self._size(line, request.inputs, tokens, request.outline)
        self._check_alone(size, row)
        self._ids.add(request.custom_id)
        self.several_inputs = self.several_inputs or request.inputs > 1
        shard = self._to_canary(request.model, line, row, size) or self._pack(request.model, line, row, size, attempt=1)
        if self._deduplicate:
            self.request_index.assign(sha256, shard)

    def add_line(self, model: str, line: bytes, row: RowIndex, *, inputs: int, tokens: int, attempt: int) -> None:
        """Put a line that is already known good into the open shard of its model and attempt, or start the next."""
        self._pack(model, line, row, self._size(line, inputs, tokens), attempt=attempt)

    def _size(self, line: bytes, inputs: int, tokens: int, outline: Outline | None = None) -> Size:
        answer_bytes = (
            expected_bytes(self.endpoint, line, inputs) if outline is None else outline.answer_bytes(line, inputs)
        )
        return Size(
            requests=1,
            bytes=len(line),
            inputs=inputs if self._counts_inputs else 0,
            tokens=tokens,
            output_bytes=answer_bytes,
        )

    def _to_canary(self, model: str, line: bytes, row: RowIndex, size: Size) -> str | None:
        """Put a line into its model's canary; the shard's name, None if that is full."""
        if not self._canary:
            return None
        if model not in self._canaries:
            if len(self._canaries) >= MAX_MODELS:
                raise _too_many_models()
            name = self._canary_name_format.format(len(self._canaries) + 1)
            self._canaries[model] = _OpenShard(self._folder, name, model, self._prefix, 1, self._pool, synchronous=True)
        shard = self._canaries[model]
        if shard is None:
            return None
        shard.add(line, row, shard.size + size)
        self.requests += 1
        if shard.size.requests == self._canary:
            self._close(shard)
            self._canaries[model] = None
        return shard.name

    def _pack(self, model: str, line: bytes, row: RowIndex, size: Size, *, attempt: int) -> str:
        """Put a line into a shard; the shard's name."""
        shard = self._open.get((model, attempt))
        together = size if shard is None else shard.size + size
        if shard is not None and (
            together.exceeded_limit(self._limits) or together.tokens > self._learned_tokens.get(model, together.tokens)
        ):
            self._close(shard)
            shard, together = None, size
        if shard is None:
            if len(self._open) >= MAX_MODELS and not any(m == model for m, _ in self._open):
                raise _too_many_models()
            self._started += 1
            name = self._names.format(self._started)
            shard = self._open[(model, attempt)] = _OpenShard(
                self._folder, name, model, self._prefix, attempt, self._pool
            )
        shard.add(line, row, together)
        self.requests += 1
        return shard.name

    def _close(self, shard: _OpenShard | None) -> None:
        if self._closing is not None:
            self._closed.append(self._closing.result())
        self._closing = None if shard is None else shard.close()

    def finish(self) -> list[Shard]:
        """Close the files and prove every custom_id unique, and every copy a copy.

        :raises CustomIdError: naming the custom_id and the rows that share it.
        :raises EqualDigestsError: if two different requests were taken for one by chance.
        """
        for last in self._unfinished():
            self._close(last)
        self._close(None)
        self._canaries.clear()
        self._open.clear()
        self._pool.shutdown()
        self._closed.sort(key=lambda shard: shard.name)
        self.request_index = RequestIndex()
        self.duplicate_files = self._copies.finish()
        copies = DuplicateReader(self._folder, self.duplicate_files)
        self.kept_rows = DuplicateReader(self._folder, self._kept.finish())
        shared = self._ids.find_repeated(lambda: self._sealed_ids(copies))
        if shared is not None:
            raise _not_unique(shared)
        if copies:
            for shard in self._closed:
                copies.check_hashes(shard.name, (row.sha256 for row in self._index(shard)))
            for known in self.reused_files:
                copies.check_hashes(known.name, (answer.sha256 for answer in read_reused_answers(self._folder, known)))
        return self._closed

    def abandon(self) -> None:
        """Close the files of a build that will not be sealed."""
        self._pool.shutdown()
        for shard in self._unfinished():
            shard.abandon()

    def _unfinished(self) -> list[_OpenShard]:
        return [*filter(None, self._canaries.values()), *self._open.values()]

    def _index(self, shard: Shard) -> Iterator[RowIndex]:
        decoder = msgspec.json.Decoder(RowIndex)
        with self._folder.reader(shard.index_file) as index:
            for line in index:
                yield decoder.decode(line)

    def _sealed_ids(self, copies: DuplicateReader) -> Iterator[tuple[str, int]]:
        for row in chain(
            chain.from_iterable(map(self._index, self._closed)), self.kept_rows.all_rows(), copies.all_rows()
        ):
            yield row.custom_id, row.number

    def _check_alone(self, size: Size, row: RowIndex) -> None:
        over = size.exceeded_limit(self._limits)
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


def _too_many_models() -> InputError:
    return InputError(
        f"model: the rows name more than {MAX_MODELS} models, and each needs input files of its own. Nothing was "
        "uploaded. Is the model template reading the right column?"
    )


def _not_unique(shared: RepeatedIds) -> CustomIdError:
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
