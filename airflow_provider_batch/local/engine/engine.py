"""Moves each batch through its states.

    validating -> failed
               -> in_progress -> finalizing -> completed
                              -> expired
    validating, in_progress, finalizing -> cancelling -> cancelled

Each live batch has one task. Before a step begins, everything that is needed to repeat it is on disk: the state is in
the store, and the answers are in the journal. A server that was killed therefore continues where it stopped, and never
requests an answer that it already has.
"""

from __future__ import annotations

import asyncio
import logging
import math
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import msgspec

from airflow_provider_batch.local.answers.replies import tokens_of
from airflow_provider_batch.local.answers.responder import ModelRequest, Reply, Responder
from airflow_provider_batch.local.api.errors import ApiError
from airflow_provider_batch.local.api.objects import (
    FINAL_STATUSES,
    Batch,
    BatchError,
    BatchErrors,
    BatchUsage,
    FileObject,
    InputTokensDetails,
    OutputTokensDetails,
    RequestCounts,
    Status,
)
from airflow_provider_batch.local.api.tokens import Tokens
from airflow_provider_batch.local.dialects import Dialect
from airflow_provider_batch.local.engine.batch_faults import failure_of
from airflow_provider_batch.local.engine.capacity import TokenQueue
from airflow_provider_batch.local.engine.lines import NEVER_RAN, never_ran_line, reply_line
from airflow_provider_batch.local.engine.live import LiveBatch
from airflow_provider_batch.local.engine.results import Damage, ResultFiles
from airflow_provider_batch.local.engine.validation import (
    Findings,
    missing_file_findings,
    request_lines,
    token_limit_error,
    validate,
)
from airflow_provider_batch.local.faults import Faults, Kind, Target
from airflow_provider_batch.local.settings import Settings
from airflow_provider_batch.local.storage.journal import Ending
from airflow_provider_batch.local.storage.record import Record
from airflow_provider_batch.local.storage.store import Store

_LOG = logging.getLogger(__name__)


class Engine:
    """Runs the live batches of one store. An engine belongs to one event loop."""

    def __init__(self, store: Store, responder: Responder, settings: Settings, *, faults: Faults | None = None) -> None:
        self._faults = Faults(settings.seed, store.first_time) if faults is None else faults
        self._store = store
        self._responder = responder
        self._settings = settings
        self.clock = store.clock
        self._queue = TokenQueue(store.clock, settings.enqueued_token_limit, settings.release_after)
        self._live: dict[str, LiveBatch] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}

    async def resume(self) -> None:
        """Continue every batch that had not ended when the server last stopped."""
        if self._settings.release_after:
            self._restore_ended_tokens()
        live_batches = [LiveBatch(record, self._folder(record.batch.id)) for record in self._store.live_batches()]
        # count before the first API request is served, so that no client sees the counts decrease
        await asyncio.to_thread(_count_journals, live_batches)
        for live in live_batches:
            if live.record.enqueued_tokens:
                self._queue.add(live.record.requested_model or "", live.record.enqueued_tokens)
            self._start(live)

    def _restore_ended_tokens(self) -> None:
        for record in self._store.ended_batches():
            if record.enqueued_tokens and record.batch.ended_at is not None:
                self._queue.add(record.requested_model or "", record.enqueued_tokens)
                self._queue.release(record.requested_model or "", record.enqueued_tokens, record.batch.ended_at)

    async def close(self) -> None:
        """Stop all batches. `resume` continues each of them where it stopped."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for live in self._live.values():
            live.journal.close()

    def submit(self, batch: Batch, *, output_lifetime: int) -> Batch:
        """Accept a new batch and start it.

        :param output_lifetime: seconds to keep its result files.
        """
        folder = self._folder(batch.id)
        folder.mkdir()
        if self._store.file(batch.input_file_id) is not None:
            os.link(self._store.path(batch.input_file_id), folder / "input.jsonl")
        record = Record(
            batch=batch,
            number=self._store.next_number(),
            output_lifetime=output_lifetime,
            fault=self._faults.draw_batch_fault(),
        )
        self._store.add_batch(record)
        live = LiveBatch(record, folder)
        self._start(live)
        return live.batch

    def record(self, batch_id: str) -> Record:
        """Return one batch with its current counts, and internal data.

        :raises ApiError: 404 if it does not exist.
        """
        if batch_id in self._live:
            return self._current(self._live[batch_id].record)
        record = self._store.record(batch_id)
        if record is None:
            raise ApiError(404, f"No batch found with id '{batch_id}'.")
        return record

    def records(self, *, after: str | None, limit: int) -> list[Record]:
        """Return up to `limit` batches, newest first, that come after the batch `after`."""
        return [self._current(record) for record in self._store.list_records(after=after, limit=limit)]

    def _current(self, record: Record) -> Record:
        live = self._live.get(record.batch.id)
        return record if live is None else msgspec.structs.replace(live.record, batch=live.batch)

    def batch(self, batch_id: str) -> Batch:
        """Return one batch with its current counts.

        :raises ApiError: 404 if it does not exist.
        """
        return self.record(batch_id).batch

    def running(self) -> list[LiveBatch]:
        """Return the batches that have not ended."""
        return list(self._live.values())

    def cancel(self, batch_id: str) -> Batch:
        """Begin to cancel a batch. A second call changes nothing.

        :raises ApiError: 404 if the batch does not exist, 409 if it has ended in another way.
        """
        batch = self.batch(batch_id)
        if batch.status in (Status.CANCELLING, Status.CANCELLED):
            return batch
        if batch.status in FINAL_STATUSES:
            raise ApiError(409, f"Cannot cancel a batch with status '{batch.status}'.")
        live = self._live[batch_id]
        self._advance(live, status=Status.CANCELLING, cancelling_at=self.clock.seconds())
        live.cancellation.set_result(None)
        return live.batch

    # running one batch

    def _folder(self, batch_id: str) -> Path:
        return self._store.work / batch_id

    def _start(self, live: LiveBatch) -> None:
        batch_id = live.record.batch.id
        self._live[batch_id] = live
        task = asyncio.create_task(self._drive(live), name=batch_id)
        self._tasks[batch_id] = task
        task.add_done_callback(lambda task: self._end_task(live, task))

    def _end_task(self, live: LiveBatch, task: asyncio.Task[None]) -> None:
        """Forget a task that has ended. If it raised an error, fail its batch."""
        if task.cancelled():
            return
        error = task.exception()
        if error is not None:
            batch_id = live.record.batch.id
            _LOG.error(
                "Batch %s failed because of an error in the local batch server. Its input file is kept.",
                batch_id,
                exc_info=error,
            )
            message = (
                f"The local batch server failed with {error!r}. Its log has the traceback. The input file is kept,"
                " so you can create the batch again."
            )
            self._fail(live, [BatchError(code="server_error", message=message)])
        del self._tasks[live.record.batch.id]

    async def _drive(self, live: LiveBatch) -> None:
        if live.record.batch.status is Status.VALIDATING:
            await self._validate(live)
        if live.record.batch.status is Status.IN_PROGRESS:
            if live.has_fault(Kind.STUCK):
                await self._pause(live, math.inf)
            else:
                await self._answer_all(live)
        if live.record.batch.status not in FINAL_STATUSES:
            await self._finalize(live)

    def _advance(self, live: LiveBatch, *, results: Iterable[FileObject] = (), **changes: Any) -> None:
        batch = msgspec.structs.replace(live.record.batch, **changes)
        live.record = msgspec.structs.replace(live.record, batch=batch)
        self._store.save_batch(live.record, results=tuple(results))
        if batch.status in FINAL_STATUSES:
            live.journal.close()
            del self._live[batch.id]
            if live.record.enqueued_tokens:
                self._queue.release(live.record.requested_model or "", live.record.enqueued_tokens, self.clock.now())

    def _fail(self, live: LiveBatch, errors: list[BatchError]) -> None:
        files: list[FileObject] = []
        if "failed-with-files" in self._settings.dialect:
            files = self._result_files(live, Damage()).write_both(live.batch.id)
        self._advance(
            live,
            results=files,
            status=Status.FAILED,
            failed_at=self.clock.seconds(),
            errors=BatchErrors(data=errors),
            **{name: file.id for name, file in zip(("output_file_id", "error_file_id"), files, strict=False)},
        )

    async def _pause(self, live: LiveBatch, seconds: float) -> None:
        """Sleep until the seconds have passed, the batch is cancelled, or its window ends."""
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        live.journal.close()
        until = min(self.clock.now() + seconds, live.record.batch.expires_at)
        sleep = asyncio.ensure_future(self.clock.sleep_until(until))
        try:
            await asyncio.wait((live.cancellation, sleep), return_when=asyncio.FIRST_COMPLETED)
        finally:
            sleep.cancel()

    def _expired(self, live: LiveBatch) -> bool:
        return self.clock.now() >= live.record.batch.expires_at

    async def _validate(self, live: LiveBatch) -> None:
        batch = live.record.batch
        findings, _ = await asyncio.gather(
            asyncio.to_thread(self._check, live), self._pause(live, self._settings.validating)
        )
        if live.cancelled:
            return
        errors = self._fault_errors(live, findings) or findings.errors or self._limit_errors(findings)
        if errors:
            self._fail(live, errors)
            return
        model = findings.model or ""
        live.record = msgspec.structs.replace(live.record, requested_model=model, enqueued_tokens=findings.tokens)
        self._queue.add(model, findings.tokens)
        self._advance(
            live,
            status=Status.IN_PROGRESS,
            in_progress_at=self.clock.seconds(),
            model=self._responder.model_name(model),
            request_counts=RequestCounts(total=findings.total),
        )
        _LOG.info("Batch %s started (requests: %s)", batch.id, f"{findings.total:,}")

    def _check(self, live: LiveBatch) -> Findings:
        batch = live.record.batch
        if not live.input.exists():
            return missing_file_findings(batch.input_file_id)
        return validate(live.input, batch.endpoint, self._settings.models, self._settings.dialect)

    def _fault_errors(self, live: LiveBatch, findings: Findings) -> list[BatchError]:
        fault = live.record.fault
        if fault is None or fault.kind is not Kind.FAIL_BATCH:
            return []
        return [failure_of(fault, live.record.batch, findings.model, self._queue.limit)]

    def _limit_errors(self, findings: Findings) -> list[BatchError]:
        limit, model = self._queue.limit, findings.model
        if limit is None or model is None or self._queue.fits(model, findings.tokens):
            return []
        return [token_limit_error(model, limit)]

    async def _answer_all(self, live: LiveBatch) -> None:
        """Answer the lines that have no answer, in the order of the file, spread over the configured time."""
        lines = self._open_lines(live)
        async with asyncio.TaskGroup() as workers:
            for _ in range(self._settings.concurrency):
                workers.create_task(self._answer_next(live, lines))
        # Lines that never ran are in neither count. They exist if the server stopped while the batch expired.
        if not live.cancelled and live.completed + live.failed == live.record.batch.request_counts.total:
            self._advance(live, status=Status.FINALIZING, finalizing_at=self.clock.seconds())

    def _open_lines(self, live: LiveBatch) -> Iterator[tuple[int, bytes, float]]:
        """Yield each line without an answer: its number, its bytes, and the time to answer it by the server's clock."""
        interval = self._settings.in_progress / live.record.batch.request_counts.total
        due_at = self.clock.now()
        for number, raw in request_lines(live.input, self._settings.dialect):
            if number not in live.answered_lines:
                due_at += interval
                yield number, raw, due_at

    async def _answer_next(self, live: LiveBatch, lines: Iterator[tuple[int, bytes, float]]) -> None:
        for number, raw, due_at in lines:
            await self._pause(live, due_at - self.clock.now())
            if live.cancelled or self._expired(live):
                return
            await self._answer_line(live, number, raw)

    async def _answer_line(self, live: LiveBatch, number: int, raw: bytes) -> None:
        request = msgspec.json.decode(raw)
        custom_id, endpoint = request["custom_id"], live.record.batch.endpoint
        reply = await self._get_reply(ModelRequest(endpoint=endpoint, body=request["body"], custom_id=custom_id))
        # real batches counted lines with status 0 as completed
        ending = Ending.SUCCEEDED if reply.status in (200, 0) else Ending.FAILED
        tokens = tokens_of(endpoint, reply.body)
        line = self._settings.dialect.rewrite_line(reply_line(custom_id, reply))
        live.journal.append(number, ending, tokens, line)
        live.count(number, ending, tokens)

    async def _get_reply(self, request: ModelRequest) -> Reply:
        try:
            return await self._responder.answer(request)
        except (Exception, asyncio.CancelledError) as error:  # an error in the responder fails only this line
            task = asyncio.current_task()
            if isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling():
                raise
            _LOG.exception("The responder failed on custom_id %r. Its batch continues.", request.custom_id)
            message = f"The responder of the local batch server failed with {error!r}. Its log has the traceback."
            return Reply(500, ApiError(500, message, type="server_error").body())

    async def _finalize(self, live: LiveBatch) -> None:
        """Write the result files, and end the batch after the configured time."""
        status = live.record.batch.status
        if status is Status.FINALIZING:
            end = Status.COMPLETED
        else:
            end = Status.CANCELLED if status is Status.CANCELLING else Status.EXPIRED
        until = self.clock.now() + (self._settings.finalizing if end is not Status.EXPIRED else 0)
        if live.batch.in_progress_at is not None and end in NEVER_RAN:
            await asyncio.to_thread(self._close_unanswered, live, end)
        output, errors = await asyncio.to_thread(self._write_results, live, await self._draw_damage(live))
        live.journal.close()
        await self.clock.sleep_until(until)
        if live.cancelled:
            end = Status.CANCELLED
        tokens = live.tokens
        self._advance(
            live,
            results=[file for file in (output, errors) if file is not None],
            status=end,
            output_file_id=output and output.id,
            error_file_id=errors and errors.id,
            request_counts=live.batch.request_counts,
            usage=BatchUsage(
                input_tokens=tokens.input,
                input_tokens_details=InputTokensDetails(cached_tokens=tokens.cached),
                output_tokens=tokens.output,
                output_tokens_details=OutputTokensDetails(reasoning_tokens=tokens.reasoning),
                total_tokens=tokens.input + tokens.output,
            ),
            **{f"{end}_at": self.clock.seconds()},
        )

    async def _draw_damage(self, live: LiveBatch) -> Damage:
        """Return the faults that hit the result files."""
        lines = {}
        if live.answered_lines and any(fault.target is Target.LINE for fault in self._faults.plan):
            for number, custom_id in await asyncio.to_thread(_custom_ids, live.input, self._settings.dialect):
                if number % 500 == 0:
                    await asyncio.sleep(0)  # let other tasks run
                fault = self._faults.draw_row_fault(Target.LINE, custom_id)
                if fault is not None:
                    lines[number] = fault
        return Damage(
            lines=lines,
            output=self._draw_file_damage(live.completed),
            errors=self._draw_file_damage(len(live.answered_lines) - live.completed),
        )

    def _draw_file_damage(self, lines: int) -> frozenset[Kind]:
        return frozenset(fault.kind for fault in self._faults.draw_file_faults()) if lines else frozenset()

    # result files; these run in a thread while nothing else uses the journal of the batch

    def _write_results(self, live: LiveBatch, damage: Damage) -> tuple[FileObject | None, FileObject | None]:
        return self._result_files(live, damage).write(live.batch.id)

    def _result_files(self, live: LiveBatch, damage: Damage) -> ResultFiles:
        return ResultFiles(
            self._store,
            live.journal,
            order=f"{self._settings.seed}/{live.record.number}",
            created_at=self.clock.seconds(),
            lifetime=live.record.output_lifetime,
            dialect=self._settings.dialect,
            damage=damage,
        )

    def _close_unanswered(self, live: LiveBatch, end: Status) -> None:
        for number, raw in request_lines(live.input, self._settings.dialect):
            if number not in live.answered_lines:
                line = self._settings.dialect.rewrite_line(never_ran_line(msgspec.json.decode(raw)["custom_id"], end))
                live.journal.append(number, Ending.NEVER_RAN, Tokens(), line)
                live.count(number, Ending.NEVER_RAN, Tokens())


def _count_journals(batches: list[LiveBatch]) -> None:
    for live in batches:
        live.count_journal()


def _custom_ids(path: Path, dialect: Dialect) -> list[tuple[int, str]]:
    return [(number, msgspec.json.decode(raw)["custom_id"]) for number, raw in request_lines(path, dialect)]
