"""Writes requests to input files (shards) within every limit, and proves that every custom_id is unique.

The worker renders each row of the query to a request. A sealer takes it in exactly one of four ways:

* `add_kept_row`: the row was already sent in a shard of an earlier generation, and stays there.
* `add_if_duplicate`: another row of the job has an equal request, or an earlier job answered it. The row is written to
  a file of duplicates, under the name of the shard (or file of reused answers) that has its answer.
* `add_if_invalid`: a file that the row names cannot be used, so the row has no request. It is written to the file of
  invalid rows with the reason.
* `add`: the request goes into the open shard of its model. If it would push that shard over a limit, the shard is
  closed and a new one started. A request that exceeds a limit on its own is refused. A few requests of each model, from
  all over the query, go into its canary instead (`core.sealing.canary_rows`). Until the end they are candidates in
  memory: one that is displaced by a later row goes into the open shard.

`add_line` is for retries: it packs lines that were sealed before into new shards. `register` is for reuse: it announces
a request before any row is added, so that an earlier answer to it can be looked up.

A shard is two files: the input file, one request per line, and its index, one `RowIndex` per line, which holds what
landing needs to know about each row. `finish` closes all files, proves that every custom_id is unique and that every
duplicate really has the same request as the row whose answer it takes, and returns the shards. Nothing refers to the
files until the manifest is created; that exclusive creation is the seal. Until then a build can be abandoned or
repeated at any time.

Files are written, hashed and synced in two threads while the next rows are read and rendered. This saves time because
writing, hashing and syncing release the GIL. Each open shard has at most one block waiting to be written. A write error
is raised when the next block is added, at the latest by `finish`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import ExitStack
from itertools import chain
from typing import Any, BinaryIO, NamedTuple

import msgspec

from airflow_provider_batch.core.formatting import format_count
from airflow_provider_batch.core.ledger.folder import Folder
from airflow_provider_batch.core.ledger.job import (
    DuplicateFile,
    InvalidFile,
    InvalidRow,
    ReusedFile,
    RowIndex,
    Shard,
)
from airflow_provider_batch.core.ledger.sealed_file import read_entries
from airflow_provider_batch.core.pricing.input_correction import correct
from airflow_provider_batch.core.provider.lane import Lane
from airflow_provider_batch.core.provider.limits import Limits, Size
from airflow_provider_batch.core.requests import endpoints
from airflow_provider_batch.core.requests.answer_size import expected_bytes
from airflow_provider_batch.core.requests.outline import Outline
from airflow_provider_batch.core.requests.render import Request, escape_line_separators, request_line, request_sha256
from airflow_provider_batch.core.sealing.canary_rows import CanaryRows, lot_of
from airflow_provider_batch.core.sealing.deduplicate import DuplicateReader, DuplicateWriter, RequestIndex
from airflow_provider_batch.core.sealing.invalid_rows import InvalidRowWriter, read_invalid_rows
from airflow_provider_batch.core.sealing.reused_answers import read_reused_answers
from airflow_provider_batch.core.sealing.unique import RepeatedIds, UniqueIds
from airflow_provider_batch.exceptions import CustomIdError, InputError, RowTooLargeError

#: maximum number of models in a job; each has a shard open until the end
MAX_MODELS = 100
#: bytes that an open shard collects before it writes them
BLOCK = 256 * 1024
#: bytes from which the candidates for the canaries become fewer, down to one for each model
CANDIDATE_BYTES = 32 * 1024 * 1024


class _AbandonedError(Exception):
    """Passed to the writers of files that will not be completed."""


_encoder = msgspec.json.Encoder()
#: takes the place of an attempt in the key of an open canary
_CANARY = 0


def _completed_future() -> Future[None]:
    future: Future[None] = Future()
    future.set_result(None)
    return future


class _OpenShard:
    """A shard that is still being filled."""

    def __init__(
        self,
        folder: Folder,
        name: str,
        model: str,
        prefix: str,
        attempt: int,
        pool: Executor,
        *,
        lane: Lane = Lane.BATCH,
    ) -> None:
        self.name, self.model, self.attempt, self.lane = name, model, attempt, lane
        self.file, self.index_path = f"{prefix}/{name}.jsonl", f"{prefix}/{name}.rows.jsonl"
        self.size = Size()
        self._digest, self._index_digest = hashlib.sha256(), hashlib.sha256()
        self._lines, self._index = bytearray(), bytearray()
        self._pool, self._writing = pool, _completed_future()
        with ExitStack() as stack:
            self._line_file: BinaryIO = stack.enter_context(folder.writer(self.file))
            self._index_file: BinaryIO = stack.enter_context(folder.writer(self.index_path))
            self._stack = stack.pop_all()

    def add(self, line: bytes, row: RowIndex, size: Size) -> None:
        """Add a line. `size` is the size of the shard including it."""
        self._lines += line
        _encoder.encode_into(row, self._index, -1)
        self._index += b"\n"
        self.size = size
        if len(self._lines) + len(self._index) >= BLOCK:
            # Wait for the previous block, so that rows are not read faster than they are written.
            self._writing.result()
            self._writing = self._pool.submit(self._write, self._lines, self._index)
            self._lines, self._index = bytearray(), bytearray()

    def _write(self, lines: bytearray, index: bytearray) -> None:
        try:
            self._line_file.write(lines)
            self._index_file.write(index)
        except OSError as error:
            # Let the folder's writers explain the error, for example a full disk.
            self._stack.__exit__(type(error), error, error.__traceback__)
            raise
        self._digest.update(lines)
        self._index_digest.update(index)

    def close(self) -> Future[Shard]:
        """Return a future of the shard, which completes once its files are written and synced."""
        self._writing.result()
        return self._pool.submit(self._close)

    def _close(self) -> Shard:
        self._write(self._lines, self._index)
        self._stack.close()
        return Shard(
            name=self.name,
            model=self.model,
            file=self.file,
            index_file=self.index_path,
            requests=self.size.requests,
            bytes=self.size.bytes,
            sha256=self._digest.hexdigest(),
            tokens=self.size.tokens,
            attempt=self.attempt,
            lane=self.lane,
            index_sha256=self._index_digest.hexdigest(),
        )

    def abandon(self) -> None:
        """Close the files without completing them. No write may be in progress."""
        # End the writers with an error, so that an object store does not keep half a file.
        error = _AbandonedError()
        self._stack.__exit__(type(error), error, None)


class _Candidate(NamedTuple):
    """A request that is in the canary of its model, unless rows with a lower lot follow."""

    #: temporary name, under which its duplicates are stored until it is in a shard
    name: str
    model: str
    line: bytes
    row: RowIndex
    size: Size


class Sealer:
    """Packs requests into shards in the order they arrive. Each model has its own series of shards."""

    def __init__(
        self,
        folder: Folder,
        prefix: str,
        endpoint: str,
        limits: Limits,
        *,
        name_format: str = "s{:04d}",
        deduplicate: bool = False,
        canary: int = 0,
        canary_name_format: str = "c{:04d}",
        learned_tokens: Mapping[str, int] | None = None,
        input_factors: Mapping[str, float] | None = None,
    ) -> None:
        """Start a build in `folder`, with files under `prefix`.

        :param name_format: format of the names of shards; its argument is their number, from 1.
        :param deduplicate: whether to send only the first of several equal requests.
        :param canary: maximum number of requests of each model, from all over the query, that go into a separate shard
            which is sent synchronously; 0 for no canary.
        :param learned_tokens: by model, the tokens a shard may have, as an earlier job learned from the provider.
            Unlike a limit that the author stated, it refuses no row: a row above it gets a shard of its own.
        :param input_factors: by model, reported divided by estimated input tokens. Shards are within the token limits
            after this correction, and no row is refused because of it.
        """
        self._learned_tokens, self._input_factors = learned_tokens or {}, input_factors or {}
        self._folder, self._prefix, self.endpoint, self._limits = folder, prefix, endpoint, limits
        self._name_format = name_format
        self._counts_inputs = endpoints.find(endpoint).counts_inputs
        self._open: dict[tuple[str, int], _OpenShard] = {}
        self._closed: list[Shard] = []
        self._closing: Future[Shard] | None = None
        # Two threads, so that one shard is synced while the next one is written.
        self._pool = ThreadPoolExecutor(2, "seal")
        self._canary, self._canary_name_format = canary, canary_name_format
        self._canaries: dict[str, CanaryRows[_Candidate]] = {}
        self._candidate_bytes = self._candidates = 0
        #: by temporary name of a candidate: the shard into which it went
        self._candidate_shards: dict[str, str] = {}
        self._ids = UniqueIds()
        self._started = 0
        self._deduplicate = deduplicate
        #: which shard or file of reused answers has the answer to a request
        self.request_index = RequestIndex()
        #: files of answers that earlier jobs paid for
        self.reused_files: list[ReusedFile] = []
        self._reused_names: frozenset[str] = frozenset()
        self._duplicates = DuplicateWriter(folder, prefix)
        self._kept_rows = DuplicateWriter(folder, f"{prefix}/kept")
        #: rows that stay in a shard of an earlier generation; complete after `finish`
        self.kept_rows = DuplicateReader(folder, [])
        self._last_hash: tuple[Request | None, str] = (None, "")
        self._invalid_rows = InvalidRowWriter(folder, prefix)
        #: the file of rows that cannot be sent; complete after `finish`
        self.invalid_file: InvalidFile | None = None
        #: files of rows that take the answer of another row or of an earlier job; complete after `finish`
        self.duplicate_files: list[DuplicateFile] = []
        #: numbers of requests in the shards, of rows that share an answer with one of them, and of rows that reuse one
        self.requests = self.duplicates = self.reused = 0
        self.several_inputs = False

    def register(self, request: Request) -> None:
        """Announce a request, so that `ReusedAnswerWriter` looks for its answer. The row itself is added later."""
        sha256 = self.sha256(request)
        if self.request_index.shard_of(sha256) is None and not self.request_index.is_unassigned(sha256):
            self.request_index.assign(sha256, "")

    def reuse(self, answers: list[ReusedFile]) -> None:
        """Set the files that hold the reused answers to the announced requests."""
        self.reused_files, self._reused_names = answers, frozenset(file.name for file in answers)

    def add_if_duplicate(self, request: Request, carry: list[Any], number: int) -> bool:
        """Add a row if its request is already in a shard or answered; return False if it is not.

        The arguments are those of `add`.
        """
        sha256 = self.sha256(request)
        shard = self.request_index.shard_of(sha256)
        if shard is None:
            return False
        if shard in self._reused_names:
            self.reused += 1
        else:
            self.duplicates += 1
        self._ids.add(request.custom_id)
        self.several_inputs = self.several_inputs or request.inputs > 1
        self._duplicates.add(shard, RowIndex(request.custom_id, sha256, carry, number, request.inputs))
        return True

    def add_if_invalid(self, request: Request, carry: list[Any], number: int) -> bool:
        """Add a row that cannot be sent, with the reason; return False if it can be sent.

        The arguments are those of `add`.
        """
        if request.problem is None:
            return False
        self._ids.add(request.custom_id)
        row = RowIndex(request.custom_id, self.sha256(request), carry, number, request.inputs)
        self._invalid_rows.add(InvalidRow(row, request.model, request.problem.code, request.problem.message))
        return True

    @property
    def invalid(self) -> int:
        """Number of rows that cannot be sent."""
        return self._invalid_rows.rows

    def add_kept_row(self, request: Request, carry: list[Any], number: int, shard: str) -> None:
        """Add a row that stays in a `shard` of an earlier generation. The other arguments are those of `add`."""
        self._ids.add(request.custom_id)
        self.several_inputs = self.several_inputs or request.inputs > 1
        self._kept_rows.add(shard, RowIndex(request.custom_id, self.sha256(request), carry, number, request.inputs))

    def sha256(self, request: Request) -> str:
        """Return the request hash, hex."""
        if self._last_hash[0] is not request:
            self._last_hash = (request, request_sha256(self.endpoint, request.body))
        return self._last_hash[1]

    def add(
        self, request: Request, carry: list[Any], number: int, tokens: int, *, sent_body: bytes | None = None
    ) -> None:
        """Add a request to a shard.

        :param carry: values of the carried columns.
        :param number: number of the row in the result of the query, from 1.
        :param tokens: estimated input tokens.
        :param sent_body: what is sealed instead of the body; the request hash is that of the body.
        :raises RowTooLargeError: if the request exceeds a limit on its own.
        :raises InputError: if the rows use more than 100 models.
        """
        line = request_line(request.custom_id, self.endpoint, request.body if sent_body is None else sent_body)
        sha256 = self.sha256(request)
        row = RowIndex(request.custom_id, sha256, carry, number, request.inputs, tokens)
        size = self._size(line, request.inputs, tokens, request.outline)
        self._check_request_size(size, row)
        self._ids.add(request.custom_id)
        self.several_inputs = self.several_inputs or request.inputs > 1
        if not (self._canary and self._add_to_canary(request.model, line, row, size)):
            self._assign(sha256, self._add_to_shard(request.model, line, row, size, attempt=1))

    def add_line(self, model: str, line: bytes, row: RowIndex, *, inputs: int, tokens: int, attempt: int) -> None:
        """Add a line that was already sealed before to the open shard of its model and attempt, or to a new one.

        :param inputs: embedding inputs in the request.
        :param tokens: estimated input tokens of the request.
        """
        line = escape_line_separators(line)
        self._add_to_shard(model, line, row, self._size(line, inputs, tokens), attempt=attempt)

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

    def _assign(self, sha256: str, shard: str) -> None:
        """Record where the request is, for its duplicates."""
        if self._deduplicate:
            self.request_index.assign(sha256, shard)

    def _add_to_canary(self, model: str, line: bytes, row: RowIndex, size: Size) -> bool:
        """Make a line a candidate for the canary of its model; return False if it is none.

        The candidate that it displaces goes into a shard.
        """
        canary = self._canaries.get(model)
        if canary is None:
            if len(self._canaries) >= MAX_MODELS:
                raise _too_many_models()
            canary = self._canaries[model] = CanaryRows(self._canary)
        lot = lot_of(row.sha256, row.custom_id)
        if not canary.admits(lot):
            return False
        self._candidates += 1
        candidate = _Candidate(f"candidate-{self._candidates}", model, line, row, size)
        self._assign(row.sha256, candidate.name)
        self._candidate_bytes += size.bytes
        displaced = canary.add(lot, candidate)
        if displaced is not None:
            self._displace(displaced)
        while self._candidate_bytes > CANDIDATE_BYTES and len(canary) > 1:
            self._displace(canary.shrink())
        return True

    def _displace(self, candidate: _Candidate) -> None:
        """Put a candidate that is not in the canary into a shard."""
        shard = self._add_to_shard(candidate.model, candidate.line, candidate.row, candidate.size, attempt=1)
        self._assign(candidate.row.sha256, shard)
        self._candidate_shards[candidate.name] = shard
        self._candidate_bytes -= candidate.size.bytes

    def _seal_canaries(self) -> None:
        """Write the canary of each model, and put the candidates that are too many into shards."""
        chosen: dict[str, list[_Candidate]] = {}
        for model, canary in self._canaries.items():
            chosen[model], others = canary.finish()
            for candidate in others:
                self._displace(candidate)
        for number, (model, candidates) in enumerate(chosen.items(), start=1):
            name = self._canary_name_format.format(number)
            shard = _OpenShard(self._folder, name, model, self._prefix, 1, self._pool, lane=Lane.STANDARD)
            self._open[(model, _CANARY)] = shard
            for candidate in candidates:
                shard.add(candidate.line, candidate.row, shard.size + candidate.size)
                self._candidate_shards[candidate.name] = name
            self.requests += len(candidates)

    def _add_to_shard(self, model: str, line: bytes, row: RowIndex, size: Size, *, attempt: int) -> str:
        """Add a line to a shard and return the shard's name."""
        shard = self._open.get((model, attempt))
        new_size = size if shard is None else shard.size + size
        if shard is not None and self._is_too_large(model, new_size):
            self._close(shard)
            shard, new_size = None, size
        if shard is None:
            if len(self._open) >= MAX_MODELS and not any(open_model == model for open_model, _ in self._open):
                raise _too_many_models()
            self._started += 1
            name = self._name_format.format(self._started)
            shard = self._open[(model, attempt)] = _OpenShard(
                self._folder, name, model, self._prefix, attempt, self._pool
            )
        shard.add(line, row, new_size)
        self.requests += 1
        return shard.name

    def _is_too_large(self, model: str, size: Size) -> bool:
        if self._input_factors:
            size = msgspec.structs.replace(size, tokens=correct(size.tokens, self._input_factors.get(model, 1.0)))
        return bool(size.exceeded_limit(self._limits)) or size.tokens > self._learned_tokens.get(model, size.tokens)

    def cut(self) -> None:
        """Close the open shards, so that the next requests get new ones."""
        for shard in self._open.values():
            self._close(shard)
        self._open.clear()

    def _close(self, shard: _OpenShard | None) -> None:
        if self._closing is not None:
            self._closed.append(self._closing.result())
        self._closing = None if shard is None else shard.close()

    def finish(self) -> list[Shard]:
        """Close the files, check the custom_ids and the duplicates, and return the shards, sorted by name.

        :raises CustomIdError: if custom_ids are not unique; the message names them and their rows.
        :raises EqualDigestsError: if two different requests were mistaken for each other by chance.
        """
        self.invalid_file = self._invalid_rows.finish()
        self._seal_canaries()
        for open_shard in self._open.values():
            self._close(open_shard)
        self._close(None)
        self._open.clear()
        self._pool.shutdown()
        self._closed.sort(key=lambda shard: shard.name)
        self.request_index = RequestIndex()
        self.duplicate_files = self._duplicates.finish(self._candidate_shards)
        duplicates = DuplicateReader(self._folder, self.duplicate_files)
        self.kept_rows = DuplicateReader(self._folder, self._kept_rows.finish())
        repeated_ids = self._ids.find_repeated(lambda: self._read_ids(duplicates))
        if repeated_ids is not None:
            raise _repeated_ids_error(repeated_ids)
        if duplicates:
            for shard in self._closed:
                duplicates.check_hashes(shard.name, (row.sha256 for row in self._read_index(shard)))
            for file in self.reused_files:
                answers = read_reused_answers(self._folder, file)
                duplicates.check_hashes(file.name, (answer.sha256 for answer in answers))
        return self._closed

    def abandon(self) -> None:
        """Close the files of a build that will not be sealed. Does nothing after `finish`."""
        self._pool.shutdown()
        self._invalid_rows.abandon()
        for shard in self._open.values():
            shard.abandon()

    def _read_index(self, shard: Shard) -> Iterator[RowIndex]:
        return read_entries(self._folder, shard.index_file, shard.index_sha256, RowIndex)

    def _read_ids(self, duplicates: DuplicateReader) -> Iterator[tuple[str, int]]:
        for row in chain(
            chain.from_iterable(map(self._read_index, self._closed)), self.kept_rows.all_rows(), duplicates.all_rows()
        ):
            yield row.custom_id, row.number
        if self.invalid_file is not None:
            for invalid in read_invalid_rows(self._folder, self.invalid_file):
                yield invalid.row.custom_id, invalid.row.number

    def _check_request_size(self, size: Size, row: RowIndex) -> None:
        limit_name = size.exceeded_limit(self._limits)
        if limit_name is None:
            return
        maximum = f"{getattr(self._limits, limit_name):,}"
        actual = f"{getattr(size, limit_name):,}"
        match limit_name:
            case "bytes":
                problem = f"makes a request of {actual} bytes, but an input file may have at most {maximum}"
                advice = "Shorten it in the SQL, or leave the row out."
            case "inputs":
                problem = f"has {actual} embedding inputs, but an input file may have at most {maximum}"
                advice = "Spread them over several rows in the SQL, or leave the row out."
            case "tokens":
                problem = f"has about {actual} input tokens, but an input file may have at most {maximum}"
                advice = "Shorten it in the SQL, leave the row out, or raise `tokens` in limits."
            case _:
                problem = f"would get an answer of about {actual} bytes, but a result file may have at most {maximum}"
                advice = "Request less at once (`n`, inputs, log-probabilities), or raise `output_bytes` in limits."
        raise RowTooLargeError(
            f"Row {row.number} (custom_id {row.custom_id!r}) {problem}. Nothing was uploaded. {advice}"
        )


def _too_many_models() -> InputError:
    return InputError(
        f"model: the rows use more than {MAX_MODELS} models, and each model needs its own input files. Nothing was "
        "uploaded. Check that the model template reads the right column."
    )


def _repeated_ids_error(repeated_ids: RepeatedIds) -> CustomIdError:
    count = len(repeated_ids.rows)
    examples = ", ".join(
        f"{custom_id!r} (rows {_format_numbers(numbers)})" for custom_id, numbers in list(repeated_ids.rows.items())[:5]
    )
    return CustomIdError(
        f"custom_id: {'' if repeated_ids.complete else 'at least '}{format_count(count, 'custom_id')} "
        f"{'is' if count == 1 else 'are'} used by more than one row: {examples}{', …' if count > 5 else ''}. Nothing "
        "was uploaded. A custom_id must identify one row of a job: add columns to the template, for example "
        "'{{ row.id }}-{{ row.version }}', or select each row only once."
    )


def _format_numbers(numbers: list[int]) -> str:
    text = ", ".join(str(number) for number in sorted(numbers)[:4])
    return f"{text}, …" if len(numbers) > 4 else text
