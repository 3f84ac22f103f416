"""Downloads the result files of ended batches into staging and settles the batches.

Each file is streamed once, and several are downloaded at the same time. Then each line is parsed once: the rows of a
batch are counted by outcome, and their cost is added up. The batch settles once both its files are in staging with
their checksums, and agree with what the provider says of them (`core.answers.agreement`). The rows that did not succeed
are written next to them (`core.answers.unsuccessful`). Landing reads staging only.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import msgspec
from tenacity import RetryCallState, retry, retry_if_exception_type, stop_after_attempt

from airflow_provider_batch.core.answers.agreement import (
    Agreement,
    Lines,
    are_believed,
    compare_with_counts,
    compare_with_sizes,
    describe_disagreement,
)
from airflow_provider_batch.core.answers.first_reading import FirstReading
from airflow_provider_batch.core.answers.result_files import read_answers, read_rows
from airflow_provider_batch.core.answers.totals import with_totals
from airflow_provider_batch.core.answers.unsuccessful import UnsuccessfulRow, write_unsuccessful
from airflow_provider_batch.core.ledger.ledger import Ledger
from airflow_provider_batch.core.ledger.records import CollectedFile, CollectionFailed, Failure, Settled
from airflow_provider_batch.core.ledger.state import ShardState
from airflow_provider_batch.core.lifecycle import failures
from airflow_provider_batch.core.lifecycle.collection import collect_again_at, describe_held, is_held, recent_failures
from airflow_provider_batch.core.lifecycle.steps import Collect
from airflow_provider_batch.core.pricing.prices import Prices
from airflow_provider_batch.core.provider.batch import BatchView, Status
from airflow_provider_batch.core.schema.judge import SchemaJudge
from airflow_provider_batch.exceptions import BrokenDownloadError, ProviderError
from airflow_provider_batch.worker.log import Log
from airflow_provider_batch.worker.parallel import run_concurrently

if TYPE_CHECKING:
    from airflow_provider_batch.hooks.batch import BatchHook

#: uploads or downloads at the same time; each file is streamed, so this limits connections rather than memory
MAX_CONCURRENT_TRANSFERS = 4
#: maximum number of attempts to download a result file
MAX_DOWNLOADS = 3


def _log_retry(state: RetryCallState) -> None:
    collector: Collector = state.args[0]
    assert state.outcome is not None
    collector.log.warning("%s Downloading it again.", state.outcome.exception())


class Collector:
    """Settles the ended batches of a job."""

    def __init__(
        self,
        ledger: Ledger,
        hook: BatchHook,
        judge: SchemaJudge | None,
        log: Log,
        clock: Callable[[], datetime],
        backoff: timedelta,
    ) -> None:
        self.ledger, self.hook, self.log = ledger, hook, log
        self._judge, self._clock, self._backoff = judge, clock, backoff
        self._prices = Prices(ledger.manifest.prices, ledger.manifest.price_list)

    def collect(self, steps: list[Collect]) -> None:
        """Download the files of ended batches, and settle each batch whose files are in staging and believed.

        A batch whose files cannot be downloaded, or are not believed, does not hold up the others: the provider might
        delete the files of those, too, before a person acts. It is recorded, and its files are downloaded again later.
        """

        def fetch(step: Collect) -> list[CollectedFile] | ProviderError:
            try:
                return self._fetch(step)
            except ProviderError as error:
                return error

        def settle(step: Collect, result: list[CollectedFile] | ProviderError) -> None:
            if isinstance(result, ProviderError):
                self._record_failure(step, str(result))
            else:
                self._settle(step, result)

        self.hook.warm_up()
        run_concurrently(steps, fetch, settle, MAX_CONCURRENT_TRANSFERS)

    def _settle(self, step: Collect, files: list[CollectedFile]) -> None:
        """Settle a batch with its files, unless they are not believed."""
        shard, submission, batch = step.shard.spec, step.submission, step.batch
        settled = Settled(shard.name, submission.number, batch.id, batch.raw_status, self._clock(), files=files)
        rows = read_rows(self.ledger.folder, shard)
        reading = FirstReading(self.ledger.folder, settled, rows, self.ledger.manifest.endpoint, self._judge)
        settled = with_totals(settled, shard, rows, reading, self._prices)
        if _failed_validation(batch, files, reading.lines):
            settled = self._classify_failure(step, settled.time)
        else:
            reason = self._reason_for_doubt(step, files, reading.lines)
            if reason is not None:
                self._record_failure(step, reason, files)
                return
            settled = self._with_unsuccessful(settled, reading.unsuccessful)
        if settled.failure in (None, Failure.LINES):
            self.log.info(
                "%s: batch %s %s: %s",
                shard.name,
                batch.id,
                batch.raw_status,
                ", ".join(f"{count:,} {outcome}" for outcome, count in settled.outcomes.items()),
            )
        self.ledger.add(settled)

    def _classify_failure(self, step: Collect, time: datetime) -> Settled:
        """Return the record of a batch that failed validation, and log why it failed."""
        name, batch = step.shard.name, step.batch
        failure, message, lines = failures.classify_batch_failure(batch, step.shard)
        settled = Settled(
            name,
            step.submission.number,
            batch.id,
            batch.raw_status,
            time,
            failure=failure,
            message=message,
            line_errors=lines,
        )
        self.log.warning("%s: batch %s failed validation (%s): %s", name, batch.id, failure, message)
        if failure is Failure.UNKNOWN:
            self.log.warning("%s: the batch answered nothing, so the shard will be submitted once more", name)
        return self.count(step.shard, settled) if failure is Failure.LINES else settled

    def _reason_for_doubt(self, step: Collect, files: list[CollectedFile], lines: Lines) -> str | None:
        """Return why the files are not believed, or None if they are."""
        batch, requests = step.batch, step.shard.requests
        counts = compare_with_counts(batch, lines.rows, requests)
        if counts is Agreement.CONFIRMED:
            return None
        sizes = [self.hook.file_size(file.file_id) for file in files]
        earlier = step.submission.collection_failures
        is_repeated = bool(earlier) and earlier[-1].digests == [file.sha256 for file in files]
        is_accepted = is_repeated and not recent_failures(self.ledger.state(), step.submission)
        if are_believed(
            batch,
            counts,
            compare_with_sizes(batch, files, sizes),
            lines,
            requests,
            is_repeated=is_repeated,
            is_accepted=is_accepted,
        ):
            return None
        return describe_disagreement(batch, files, sizes, lines.rows, requests)

    def _record_failure(self, step: Collect, message: str, files: Sequence[CollectedFile] = ()) -> None:
        """Record that the files of a batch could not be collected, and remove those that were not believed."""
        name, number = step.shard.name, step.submission.number
        failure = CollectionFailed(
            name,
            number,
            len(step.submission.collection_failures) + 1,
            step.batch.id,
            message,
            self._clock(),
            [file.sha256 for file in files],
        )
        self.ledger.add(failure)
        for file in files:
            self.ledger.folder.remove(file.name)
        state = self.ledger.known_state()
        submission = state.shards[name].submissions[-1]
        again_at = collect_again_at(state, submission, self._backoff)
        if is_held(state, submission):
            self.log.warning("%s: %s", name, describe_held(failure))
        elif again_at is not None:
            self.log.warning(
                "%s: %s Nothing of it was settled, and no row is sent again. The files will be downloaded again after "
                "%s UTC.",
                name,
                message,
                f"{again_at:%Y-%m-%d %H:%M:%S}",
            )

    def _fetch(self, step: Collect) -> list[CollectedFile]:
        """Stream the result files of a batch into staging."""
        folder = f"{self.ledger.prefix}/collected/{step.shard.name}.{step.submission.number}"
        ids = (("output", step.batch.output_file_id), ("error", step.batch.error_file_id))
        return [self._download(f"{folder}/{kind}", file_id) for kind, file_id in ids if file_id]

    @retry(
        retry=retry_if_exception_type(BrokenDownloadError),
        stop=stop_after_attempt(MAX_DOWNLOADS),
        before_sleep=_log_retry,
        reraise=True,
    )
    def _download(self, path: str, file_id: str) -> CollectedFile:
        """Download a result file. A download that breaks off is retried immediately, into another file.

        :raises BrokenDownloadError: if no download was complete.
        """
        name = f"{path}.{secrets.token_hex(4)}.jsonl"
        with self.ledger.folder.writer(name) as file:
            size, digest = self.hook.download(file_id, file)
        return CollectedFile(name, size, digest, file_id)

    def count(self, shard: ShardState, settled: Settled) -> Settled:
        """Return the record of a submission without a batch or without answers, with its totals."""
        rows = read_rows(self.ledger.folder, shard.spec)
        endpoint = self.ledger.manifest.endpoint
        answers = read_answers(self.ledger.folder, shard.spec, settled, rows, endpoint, self._judge)
        return with_totals(settled, shard.spec, rows, answers, self._prices)

    def _with_unsuccessful(self, settled: Settled, rows: dict[int, UnsuccessfulRow]) -> Settled:
        """Return the record with the file of the rows that did not succeed, which is written first."""
        if not rows:
            return settled
        folder = f"{self.ledger.prefix}/collected/{settled.shard}.{settled.number}"
        name = f"{folder}/unsuccessful.{secrets.token_hex(4)}.jsonl"
        sha256 = write_unsuccessful(self.ledger.folder, name, (rows[line] for line in sorted(rows)))
        return msgspec.structs.replace(settled, unsuccessful_file=name, unsuccessful_sha256=sha256)


def _failed_validation(batch: BatchView, files: Sequence[CollectedFile], lines: Lines) -> bool:
    """Return whether the batch failed before any of its requests ran, so that its files hold no answers.

    Azure gives such a batch both result files, and both are empty. Others list the invalid lines in the error file.
    """
    has_output = any(file.bytes for file in files if file.file_id == batch.output_file_id)
    return batch.status is Status.FAILED and not (batch.completed or lines.rows or has_output)
