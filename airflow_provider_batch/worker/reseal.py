"""Seals rows into new shards: rows to retry, and the rows of a shard that is too large for the provider's queue.

In both cases the new shards are recorded as a retry round once their files are complete. If two workers seal the same
retry round, only one record is created; the files of the other worker stay behind unused, because no record names them.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Container, Mapping
from datetime import datetime
from random import Random

import msgspec

from airflow_provider_batch.core.answers.caps import CAP_RAISE_FACTOR, is_cut_off, raise_cap
from airflow_provider_batch.core.answers.outcome import FLEX_UNAVAILABLE
from airflow_provider_batch.core.answers.result_files import read_rows, read_unsuccessful
from airflow_provider_batch.core.formatting import format_count
from airflow_provider_batch.core.ledger.job import RowIndex, Shard
from airflow_provider_batch.core.ledger.ledger import Ledger
from airflow_provider_batch.core.ledger.records import RetryRound, Settled
from airflow_provider_batch.core.ledger.sealed_file import open_sealed
from airflow_provider_batch.core.ledger.state import JobState, ShardState
from airflow_provider_batch.core.lifecycle import attempts
from airflow_provider_batch.core.lifecycle.steps import Policy, Reseal, Retry
from airflow_provider_batch.core.pricing.input_correction import InputCorrection
from airflow_provider_batch.core.provider.lane import Lane
from airflow_provider_batch.core.schema.judge import SchemaJudge
from airflow_provider_batch.core.sealing.sealer import Sealer
from airflow_provider_batch.worker.log import Log


class Resealer:
    """Seals the retry rounds of a job.

    :param claim: claims a submission of a shard for this worker. It returns False if another worker has claimed it.
    """

    def __init__(
        self,
        ledger: Ledger,
        policy: Policy,
        judge: SchemaJudge | None,
        log: Log,
        clock: Callable[[], datetime],
        claim: Callable[[ShardState, int], bool],
    ) -> None:
        self.ledger, self.policy, self.log = ledger, policy, log
        self._judge, self._clock, self._claim = judge, clock, claim

    def retry(self, step: Retry) -> None:
        """Merge the rows to retry into as few shards per model as possible, and seal them as a retry round."""
        state = self.ledger.state()
        # another worker may have sealed a retry round with these rows since this step was decided
        sources = [
            (shard, settled)
            for shard, settled in step.sources
            if (shard.name, settled.number) not in state.retried_submissions
        ]
        if not sources:
            return
        number = state.next_retry_round
        prefix = f"{self.ledger.prefix}/retry-{number}-{secrets.token_hex(4)}"
        sealer = Sealer(
            self.ledger.folder,
            prefix,
            self.ledger.manifest.endpoint,
            self.ledger.manifest.limits,
            name_format=f"r{number:02d}-{{:04d}}",
            learned_tokens=self.ledger.manifest.learned_tokens,
            input_factors=InputCorrection(state).factors,
        )
        try:
            cap_factor = 1
            for shard, settled in sources:
                if self._pack(sealer, state, shard, settled):
                    cap_factor = max(cap_factor, shard.spec.cap_factor * CAP_RAISE_FACTOR)
            shards = [msgspec.structs.replace(shard, cap_factor=cap_factor) for shard in sealer.finish()]
        finally:
            sealer.abandon()
        submissions = [(shard.name, settled.number) for shard, settled in sources]
        if self.ledger.add(RetryRound(number, submissions, shards, self._clock(), step.forgiven_attempts)) and shards:
            self.log.info(
                "Retry round %d: retrying %s in %s",
                number,
                format_count(sealer.requests, "row"),
                format_count(len(shards), "shard"),
            )

    def _pack(self, sealer: Sealer, state: JobState, shard: ShardState, settled: Settled) -> bool:
        """Seal the rows of a settled submission that are retried. Return whether the output cap of any is raised."""
        folder, spec = self.ledger.folder, shard.spec
        rows = read_rows(folder, spec)
        has_attempts_left = attempts.has_attempts_left(state, shard, settled, self.policy)
        answers = {
            line: answer
            for line, answer in read_unsuccessful(folder, spec, settled, rows, state.manifest.endpoint, self._judge)
            if attempts.is_retryable(answer, settled, self.policy)
            and (has_attempts_left or answer.error_code == FLEX_UNAVAILABLE)
        }
        attempt_by_line = {line: attempts.next_attempt(shard, settled, answer) for line, answer in answers.items()}
        raised_lines = {line for line, answer in answers.items() if is_cut_off(answer)}
        self._pack_rows(sealer, spec, rows, attempt_by_line, raised_lines)
        return bool(raised_lines)

    def _pack_rows(
        self,
        sealer: Sealer,
        shard: Shard,
        rows: list[RowIndex],
        attempt_by_line: Mapping[int, int],
        raised_lines: Container[int] = (),
    ) -> None:
        """Seal these lines of a shard again. The index of each row names the shard in which it was sealed first.

        :param attempt_by_line: the lines, and the number of the attempt of each.
        :param raised_lines: lines whose output cap is raised. A request without a cap cannot be raised and is left out.
        """
        with open_sealed(self.ledger.folder, shard.file, shard.sha256) as file:
            for number, sealed_line in enumerate(file):
                if number in attempt_by_line and rows[number].needed:
                    line = raise_cap(sealed_line) if number in raised_lines else sealed_line
                    if line is None:
                        continue
                    row = rows[number]
                    origin = row if row.origin else msgspec.structs.replace(row, origin=shard.name, line=number)
                    attempt = attempt_by_line[number]
                    sealer.add_line(shard.model, line, origin, attempt=attempt)

    def reseal(self, step: Reseal) -> None:
        """Seal the rows of a shard into smaller shards, which replace it. This does not count as an attempt."""
        shard, manifest, state = step.shard.spec, self.ledger.manifest, self.ledger.state()
        number = state.next_retry_round
        sealer = Sealer(
            self.ledger.folder,
            f"{self.ledger.prefix}/retry-{number}-{secrets.token_hex(4)}",
            manifest.endpoint,
            msgspec.structs.replace(manifest.limits, tokens=step.tokens, requests=step.requests),
            name_format=f"r{number:02d}-{{:04d}}",
        )
        rows = read_rows(self.ledger.folder, shard)
        first_lines = spread(step.first_part, shard.requests)
        try:
            if first_lines:
                self._pack_rows(sealer, shard, rows, dict.fromkeys(first_lines, shard.attempt))
                sealer.cut()
            other_lines = set(range(shard.requests)).difference(first_lines)
            self._pack_rows(sealer, shard, rows, dict.fromkeys(other_lines, shard.attempt))
            lane = step.lane or shard.lane
            parts = [msgspec.structs.replace(part, cap_factor=shard.cap_factor, lane=lane) for part in sealer.finish()]
        finally:
            sealer.abandon()
        # if another worker has sealed a retry round with this number, a later look-up finds that the claim created no
        # batch
        retry_round = RetryRound(
            number,
            [(shard.name, step.number)],
            parts,
            self._clock(),
            attempts.forgiven_attempts_before(state, step.shard),
        )
        if self._claim(step.shard, step.number) and self.ledger.add(retry_round):
            self._log_parts(step, parts)

    def _log_parts(self, step: Reseal, parts: list[Shard]) -> None:
        shard, correction = step.shard.spec, InputCorrection(self.ledger.state())
        requests = format_count(shard.requests, "request")
        if step.lane is Lane.FLEX:
            self.log.info(
                "%s: %s will be sent to %s on flex, which costs as much as a batch. What flex does not take goes to a "
                "batch.",
                shard.name,
                requests,
                shard.model,
            )
            return
        if step.first_part:
            self.log.info(
                "%s: %s may cost more than max_cost_usd leaves, so only %s of them will be sent first. The answers "
                "show what the others cost.",
                shard.name,
                requests,
                f"{step.first_part:,}",
            )
            return
        self.log.info(
            "%s: %s with about %s input tokens exceed the queue capacity; divided into %d shards of at most %s tokens",
            shard.name,
            requests,
            f"{correction.correct(shard.model, shard.tokens):,}",
            len(parts),
            f"{correction.correct(shard.model, max(part.tokens for part in parts)):,}",
        )


def spread(count: int, total: int) -> set[int]:
    """Return this many of the first `total` whole numbers, from all over.

    They are not at equal distances, because rows can alternate, for example between a question and an image.
    """
    return set(Random(total).sample(range(total), count))
