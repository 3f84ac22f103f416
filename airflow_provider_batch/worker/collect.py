"""Downloads the result files of ended batches into staging and settles the batches.

Each file is streamed once, and several are downloaded at the same time. A batch settles once both its files are in
staging with their checksums. Its rows are then counted by outcome, and their cost is added up. Landing reads staging
only.
"""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Callable
from datetime import datetime
from decimal import Decimal

import msgspec
from tenacity import RetryCallState, retry, retry_if_exception_type, stop_after_attempt

from airflow_provider_batch.core.answers.caps import is_cut_off
from airflow_provider_batch.core.answers.outcome import Outcome
from airflow_provider_batch.core.answers.result_files import read_answers, read_rows
from airflow_provider_batch.core.ledger.ledger import Ledger
from airflow_provider_batch.core.ledger.records import CollectedFile, Failure, Settled
from airflow_provider_batch.core.ledger.state import ShardState
from airflow_provider_batch.core.lifecycle import failures
from airflow_provider_batch.core.lifecycle.steps import Collect
from airflow_provider_batch.core.pricing.prices import Prices
from airflow_provider_batch.core.provider.batch import Status
from airflow_provider_batch.core.schema.judge import SchemaJudge
from airflow_provider_batch.exceptions import BrokenDownloadError, ProviderError
from airflow_provider_batch.hooks.batch import BatchHook
from airflow_provider_batch.worker.log import Log
from airflow_provider_batch.worker.parallel import run_concurrently

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
        self, ledger: Ledger, hook: BatchHook, judge: SchemaJudge | None, log: Log, clock: Callable[[], datetime]
    ) -> None:
        self.ledger, self.hook, self.log = ledger, hook, log
        self._judge, self._clock = judge, clock
        self._prices = Prices(ledger.manifest.prices)

    def collect(self, steps: list[Collect]) -> None:
        """Download the files of ended batches, and settle each batch once both its files are in staging.

        A file that cannot be downloaded does not hold up the others: the provider might delete those, too, before a
        person acts.

        :raises ProviderError: the first download error, once all other batches are settled.
        """
        errors: list[ProviderError] = []

        def fetch(step: Collect) -> list[CollectedFile] | ProviderError:
            try:
                return self._fetch(step)
            except ProviderError as error:
                return error

        def settle(step: Collect, result: list[CollectedFile] | ProviderError) -> None:
            if isinstance(result, ProviderError):
                errors.append(result)
                self.log.warning("%s: could not collect batch %s: %s", step.shard.name, step.batch.id, result)
            else:
                self._settle(step, result)

        self.hook.warm_up()
        run_concurrently(steps, fetch, settle, MAX_CONCURRENT_TRANSFERS)
        if errors:
            raise errors[0]

    def _settle(self, step: Collect, files: list[CollectedFile]) -> None:
        shard, submission, batch = step.shard.spec, step.submission, step.batch
        settled = Settled(shard.name, submission.number, batch.id, batch.raw_status, self._clock())
        # Azure gives a batch that failed validation both result files, and both are empty
        if batch.status is Status.FAILED and not any(file.bytes for file in files):
            failure, message, lines = failures.classify_batch_failure(batch, step.shard)
            settled = msgspec.structs.replace(settled, failure=failure, message=message, line_errors=lines)
            self.log.warning("%s: batch %s failed validation (%s): %s", shard.name, batch.id, failure, message)
            if failure is Failure.UNKNOWN:
                self.log.warning("%s: the batch answered nothing, so the shard will be submitted once more", shard.name)
        else:
            settled = msgspec.structs.replace(settled, files=files)
        if settled.failure in (None, Failure.LINES):
            settled = self.count(step.shard, settled)
            self.log.info(
                "%s: batch %s %s: %s",
                shard.name,
                batch.id,
                batch.raw_status,
                ", ".join(f"{count:,} {outcome}" for outcome, count in settled.outcomes.items()),
            )
        self.ledger.add(settled)

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
        """Return the record with the outcomes, tokens and cost of the collected files."""
        folder, manifest = self.ledger.folder, self.ledger.manifest
        rows = read_rows(folder, shard.spec)
        outcomes: Counter[Outcome] = Counter()
        transient = cut_off = answers = output_tokens = 0
        cost: Decimal | None = Decimal(0)
        for _, answer in read_answers(folder, shard.spec, settled, rows, manifest.endpoint, self._judge):
            outcomes[answer.outcome] += 1
            transient += answer.outcome is Outcome.FAILED and answer.transient
            cut_off += is_cut_off(answer)
            usage = answer.usage
            if not usage.is_zero:
                if usage.output_tokens is not None:
                    answers += 1
                    output_tokens += usage.output_tokens
                price = self._prices.cost(
                    shard.model, usage, answered_by=answer.model, batch=not shard.spec.synchronous
                )
                cost = None if cost is None or price is None else cost + price
        return msgspec.structs.replace(
            settled,
            outcomes={outcome.value: outcomes[outcome] for outcome in Outcome if outcomes[outcome]},
            transient=transient,
            cut_off=cut_off,
            answers=answers,
            output_tokens=output_tokens,
            cost_usd=None if cost is None else str(cost),
        )
