"""Writes requests to input files (shards) within every limit, and proves that every custom_id is unique.

The worker renders the rows of the query to requests, some thousand at a time. A sealer takes each row in exactly one of
four ways. The files do not depend on how many rows are added at a time.

* `add_kept_row`: the row was already sent in a shard of an earlier generation, and stays there.
* `add_invalid`: a file that the row names cannot be used, so the row has no request. It is written to the file of
  invalid rows with the reason.
* `add_duplicates`: another row of the job has an equal request, or an earlier job answered it. The row is written to
  a file of duplicates, under the name of the shard (or file of reused answers) that has its answer.
* `add`: the request goes into the open shard of its model. If it would push that shard over a limit, the shard is
  closed and a new one started. A request that exceeds a limit on its own is refused. A few requests of each model, from
  all over the query, go into its canary instead (`core.sealing.canary_rows`). Until the end they are candidates in
  memory: one that is displaced by a later row goes into the open shard.

`split` divides rows between the last two. `add_line` is for retries: it packs lines that were sealed before into new
shards. `register` is for reuse: it announces rows before any row is added, so that earlier answers to them can be
looked up.

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

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import chain, groupby
from operator import attrgetter

import msgspec

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
from airflow_provider_batch.core.requests.request import escape_line_separators, request_lines
from airflow_provider_batch.core.sealing.canary_rows import Canaries
from airflow_provider_batch.core.sealing.deduplicate import DuplicateReader, DuplicateWriter, RequestIndex
from airflow_provider_batch.core.sealing.errors import (
    MAX_MODELS,
    repeated_ids_error,
    row_too_large_error,
    too_many_models_error,
)
from airflow_provider_batch.core.sealing.invalid_rows import InvalidRowWriter, read_invalid_rows
from airflow_provider_batch.core.sealing.open_shard import Line, OpenShard
from airflow_provider_batch.core.sealing.rendered_row import RenderedRow
from airflow_provider_batch.core.sealing.reused_answers import read_reused_answers
from airflow_provider_batch.core.sealing.unique import UniqueIds

#: takes the place of an attempt in the key of an open canary
_CANARY = 0


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
        self._open: dict[tuple[str, int], OpenShard] = {}
        self._closed: list[Shard] = []
        self._closing: Future[Shard] | None = None
        # Two threads, so that one shard is synced while the next one is written.
        self._pool = ThreadPoolExecutor(2, "seal")
        self._canaries = Canaries(canary) if canary else None
        self._canary_name_format = canary_name_format
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
        self._invalid_rows = InvalidRowWriter(folder, prefix)
        #: the file of rows that cannot be sent; complete after `finish`
        self.invalid_file: InvalidFile | None = None
        #: files of rows that take the answer of another row or of an earlier job; complete after `finish`
        self.duplicate_files: list[DuplicateFile] = []
        #: numbers of requests in the shards, of rows that share an answer with one of them, and of rows that reuse one
        self.requests = self.duplicates = self.reused = 0
        self.several_inputs = False

    def register(self, rows: Iterable[RenderedRow]) -> None:
        """Announce rows, so that `ReusedAnswerWriter` looks for their answers. The rows are added later."""
        hashes = (row.sha256 for row in rows if row.request.problem is None)
        # the shards of earlier generations stay what they are
        self.request_index.assign_all([sha256 for sha256 in hashes if self.request_index.shard_of(sha256) is None], "")

    def reuse(self, answers: list[ReusedFile]) -> None:
        """Set the files that hold the reused answers to the announced requests."""
        self.reused_files, self._reused_names = answers, frozenset(file.name for file in answers)

    def split(self, rows: Sequence[RenderedRow]) -> tuple[list[RenderedRow], list[RenderedRow]]:
        """Return the rows to send, and those whose request is in a shard, is answered, or is that of a row to send.

        Both are added afterwards, first those to send.
        """
        new_rows, duplicates = [], []
        new_hashes: set[str] = set()
        for row in rows:
            sha256 = row.sha256
            if sha256 in new_hashes or self.request_index.shard_of(sha256) is not None:
                duplicates.append(row)
            else:
                new_rows.append(row)
                if self._deduplicate:
                    new_hashes.add(sha256)
        return new_rows, duplicates

    def add_duplicates(self, rows: Sequence[RenderedRow]) -> None:
        """Add rows whose requests are in shards, or answered."""
        self._note(rows)
        for row in rows:
            shard = self.request_index.shard_of(row.sha256)
            assert shard is not None
            if shard in self._reused_names:
                self.reused += 1
            else:
                self.duplicates += 1
            self._duplicates.add(shard, row.to_index())

    def add_invalid(self, rows: Sequence[RenderedRow]) -> None:
        """Add rows that cannot be sent, with the reason."""
        self._ids.add_all(row.request.custom_id for row in rows)
        for row in rows:
            problem = row.request.problem
            assert problem is not None
            self._invalid_rows.add(InvalidRow(row.to_index(), row.request.model, problem.code, problem.message))

    @property
    def invalid(self) -> int:
        """Number of rows that cannot be sent."""
        return self._invalid_rows.rows

    def add_kept_row(self, row: RenderedRow, shard: str) -> None:
        """Add a row that stays in a `shard` of an earlier generation."""
        self._note([row])
        self._kept_rows.add(shard, row.to_index())

    def _note(self, rows: Sequence[RenderedRow]) -> None:
        """Record what must be known of all rows that have a request."""
        self._ids.add_all(row.request.custom_id for row in rows)
        self.several_inputs = self.several_inputs or any(row.request.inputs > 1 for row in rows)

    def add(self, rows: Sequence[RenderedRow], tokens: Sequence[int], bodies: Sequence[bytes]) -> None:
        """Add the requests of rows to shards.

        :param tokens: estimated input tokens of each request.
        :param bodies: what is sent of each request. The request hash is always that of the request's own body.
        :raises RowTooLargeError: if a request exceeds a limit on its own.
        :raises InputError: if the rows use more than 100 models.
        """
        lines = self._lines(rows, tokens, bodies)
        too_large = self._first_too_large(lines)
        self._note(rows)
        self._seal(lines if too_large is None else lines[:too_large])
        if too_large is not None:
            line = lines[too_large]
            size = self._size([line])
            limit_name = size.exceeded_limit(self._limits)
            assert limit_name is not None
            raise row_too_large_error(line.row, size, self._limits, limit_name)

    def add_line(self, model: str, line: bytes, row: RowIndex, *, attempt: int) -> None:
        """Add a line that was already sealed before to the open shard of its model and attempt, or to a new one."""
        line = escape_line_separators(line)
        self._pack([Line(model, line, row, expected_bytes(self.endpoint, line, row.inputs))], attempt)

    def _lines(self, rows: Sequence[RenderedRow], tokens: Sequence[int], bodies: Sequence[bytes]) -> list[Line]:
        requests = [row.request for row in rows]
        lines = request_lines([request.custom_id for request in requests], self.endpoint, bodies)
        index = [
            RowIndex(row.request.custom_id, row.sha256, row.carry, row.number, row.request.inputs, row_tokens)
            for row, row_tokens in zip(rows, tokens, strict=True)
        ]
        answer_bytes = [
            expected_bytes(self.endpoint, line, request.inputs)
            if request.outline is None
            else request.outline.answer_bytes(line, request.inputs)
            for request, line in zip(requests, lines, strict=True)
        ]
        models = [request.model for request in requests]
        return list(map(Line, models, lines, index, answer_bytes))

    def _size(self, lines: Sequence[Line], combine: Callable[[list[int]], int] = sum) -> Size:
        """Return the size of lines together, or with `max` the largest of each of their measures."""
        return Size(
            requests=combine([1] * len(lines)),
            bytes=combine([len(line.line) for line in lines]),
            inputs=combine([line.row.inputs for line in lines]) if self._counts_inputs else 0,
            tokens=combine([line.row.tokens for line in lines]),
            output_bytes=combine([line.answer_bytes for line in lines]),
        )

    def _first_too_large(self, lines: Sequence[Line]) -> int | None:
        """Return the index of the first line that exceeds a limit on its own, or None if there is none."""
        if not lines or not self._size(lines, max).exceeded_limit(self._limits):
            return None
        return next(index for index, line in enumerate(lines) if self._size([line]).exceeded_limit(self._limits))

    def _seal(self, lines: Sequence[Line]) -> None:
        """Add lines to shards, except those that become candidates for a canary."""
        if self._canaries is not None:
            remaining_lines: list[Line] = []
            for line in lines:
                candidate, others = self._canaries.exchange(line)
                if candidate is not None:
                    self._assign([candidate], candidate.candidate)
                remaining_lines += others
            lines = remaining_lines
        # In the order of the rows, so that shards are numbered in the same way however many lines are added at once.
        for _, lines_of_model in groupby(lines, attrgetter("model")):
            self._pack(list(lines_of_model), attempt=1)

    def _assign(self, lines: Iterable[Line], shard: str) -> None:
        """Record where requests are, for their duplicates."""
        if self._deduplicate:
            self.request_index.assign_all([line.row.sha256 for line in lines], shard)

    def _seal_canaries(self) -> None:
        """Write the canary of each model, and put the candidates that are too many into shards."""
        if self._canaries is None:
            return
        canaries, others = self._canaries.finish()
        for line in others:
            self._pack([line], attempt=1)
        for number, (model, lines) in enumerate(canaries.items(), start=1):
            name = self._canary_name_format.format(number)
            shard = OpenShard(self._folder, name, model, self._prefix, 1, self._pool, lane=Lane.STANDARD)
            self._open[(model, _CANARY)] = shard
            shard.add(lines, self._size(lines))
            self._candidate_shards.update((line.candidate, name) for line in lines)
            self.requests += len(lines)

    def _pack(self, lines: list[Line], attempt: int) -> None:
        """Add lines of one model to its open shard, and to new ones once it is full."""
        model = lines[0].model
        shard = self._open.get((model, attempt)) or self._start_shard(model, attempt)
        while True:
            count, size = self._count_fitting(shard, lines)
            if count:
                fitting_lines, lines = lines[:count], lines[count:]
                shard.add(fitting_lines, size)
                self._assign([line for line in fitting_lines if not line.candidate], shard.name)
                self._candidate_shards.update((line.candidate, shard.name) for line in fitting_lines if line.candidate)
                self.requests += count
            if not lines:
                return
            self._close(shard)
            shard = self._start_shard(model, attempt)

    def _start_shard(self, model: str, attempt: int) -> OpenShard:
        if len(self._open) >= MAX_MODELS and not any(open_model == model for open_model, _ in self._open):
            raise too_many_models_error()
        self._started += 1
        name = self._name_format.format(self._started)
        shard = OpenShard(self._folder, name, model, self._prefix, attempt, self._pool)
        self._open[(model, attempt)] = shard
        return shard

    def _count_fitting(self, shard: OpenShard, lines: list[Line]) -> tuple[int, Size]:
        """Return how many of the next lines fit into a shard, and the size of the shard with them.

        A shard takes its first line whatever its size is.
        """
        total = shard.size + self._size(lines)
        if not self._is_too_large(shard.model, total):
            return len(lines), total
        size, count = shard.size, 0
        for line in lines:
            larger_size = size + self._size([line])
            if size.requests and self._is_too_large(shard.model, larger_size):
                break
            size, count = larger_size, count + 1
        return count, size

    def _is_too_large(self, model: str, size: Size) -> bool:
        if self._input_factors:
            size = msgspec.structs.replace(size, tokens=correct(size.tokens, self._input_factors.get(model, 1.0)))
        return bool(size.exceeded_limit(self._limits)) or size.tokens > self._learned_tokens.get(model, size.tokens)

    def cut(self) -> None:
        """Close the open shards, so that the next requests get new ones."""
        for shard in self._open.values():
            self._close(shard)
        self._open.clear()

    def _close(self, shard: OpenShard | None) -> None:
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
            raise repeated_ids_error(repeated_ids)
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
