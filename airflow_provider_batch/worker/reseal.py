"""Seals rows again: those that are asked again, and those of a shard that the provider has no room for.

A wave is recorded once its files are whole. Who seals one that another worker sealed meanwhile leaves files behind that
nothing names.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Container
from datetime import datetime

import msgspec

from airflow_provider_batch.core.answers.caps import CAP_RAISE_FACTOR, is_cut_off, raise_cap
from airflow_provider_batch.core.answers.result_files import read_answers, read_rows
from airflow_provider_batch.core.ledger.job import RowIndex, Shard
from airflow_provider_batch.core.ledger.ledger import Ledger
from airflow_provider_batch.core.ledger.records import RetryRound, Settled
from airflow_provider_batch.core.ledger.state import JobState, ShardState
from airflow_provider_batch.core.lifecycle import attempts
from airflow_provider_batch.core.lifecycle.steps import Policy, Reseal, Retry
from airflow_provider_batch.core.schema.judge import SchemaJudge
from airflow_provider_batch.core.sealing.sealer import Sealer
from airflow_provider_batch.worker.log import Log


class Resealer:
    """Seals the waves of a job."""

    def __init__(
        self,
        ledger: Ledger,
        policy: Policy,
        judge: SchemaJudge | None,
        log: Log,
        clock: Callable[[], datetime],
        claim: Callable[[ShardState, int], bool],
    ) -> None:
        """`claim` takes a try of a shard for this worker; False if another worker is at it."""
        self.ledger, self.policy, self.log = ledger, policy, log
        self._judge, self._clock, self._claim = judge, clock, claim

    def ask_again(self, step: Retry) -> None:
        """Merge the rows to ask again into as few shards per model as fit, and seal them as a wave."""
        state = self.ledger.state()
        # another worker may have sealed a wave of these rows since the step was decided on
        submissions = [
            (shard, settled)
            for shard, settled in step.sources
            if (shard.name, settled.number) not in state.retried_submissions
        ]
        if not submissions:
            return
        number = state.next_retry_round
        prefix = f"{self.ledger.prefix}/retry-{number}-{secrets.token_hex(4)}"
        sealer = Sealer(
            self.ledger.folder,
            prefix,
            self.ledger.manifest.endpoint,
            self.ledger.manifest.limits,
            names=f"r{number:02d}-{{:04d}}",
            learned_tokens=self.ledger.manifest.learned_tokens,
        )
        try:
            raise_to = 1
            for shard, settled in submissions:
                if self._pack(sealer, state, shard, settled):
                    raise_to = max(raise_to, shard.spec.cap_factor * CAP_RAISE_FACTOR)
            shards = [msgspec.structs.replace(shard, cap_factor=raise_to) for shard in sealer.finish()]
        finally:
            sealer.abandon()
        sources = [(shard.name, settled.number) for shard, settled in submissions]
        if self.ledger.add(RetryRound(number, sources, shards, self._clock(), step.forgiven_attempts)) and shards:
            self.log.info("Asking %s rows again in %d shard(s), wave %d", f"{sealer.requests:,}", len(shards), number)

    def _pack(self, sealer: Sealer, state: JobState, shard: ShardState, settled: Settled) -> bool:
        """Seal the rows of a settled try that are to be asked again; True if the cap of some is raised."""
        folder, one = self.ledger.folder, shard.spec
        rows = read_rows(folder, one)
        wanted = {
            line: is_cut_off(answer)
            for line, answer in read_answers(folder, one, settled, rows, state.manifest.endpoint, self._judge)
            if attempts.is_retryable(answer, settled, self.policy)
        }
        longer = {line for line, cut_off in wanted.items() if cut_off}
        self._pack_rows(sealer, one, rows, wanted, attempts.next_attempt(shard, settled), longer)
        return bool(longer)

    def _pack_rows(
        self,
        sealer: Sealer,
        one: Shard,
        rows: list[RowIndex],
        wanted: Container[int],
        attempt: int,
        longer: Container[int] = (),
    ) -> None:
        """Seal these lines of a shard again, each with the place where it was sealed first.

        :param longer: lines whose output cap is raised. Those that have none are left as they are.
        """
        with self.ledger.folder.reader(one.file) as stream:
            for number, sealed in enumerate(stream):
                if number in wanted and rows[number].needed:
                    line = raise_cap(sealed) if number in longer else sealed
                    if line is None:
                        continue
                    row = rows[number]
                    origin = row if row.origin else msgspec.structs.replace(row, origin=one.name, line=number)
                    sealer.add_line(one.model, line, origin, inputs=row.inputs, tokens=row.tokens, attempt=attempt)

    def reseal(self, step: Reseal) -> None:
        """Seal a shard's rows into smaller shards, which take its place; the wave costs no attempt."""
        one, manifest, state = step.shard.spec, self.ledger.manifest, self.ledger.state()
        number = state.next_retry_round
        sealer = Sealer(
            self.ledger.folder,
            f"{self.ledger.prefix}/retry-{number}-{secrets.token_hex(4)}",
            manifest.endpoint,
            msgspec.structs.replace(manifest.limits, tokens=step.tokens, requests=step.requests),
            names=f"r{number:02d}-{{:04d}}",
        )
        try:
            self._pack_rows(sealer, one, read_rows(self.ledger.folder, one), range(one.requests), one.attempt)
            shards = [msgspec.structs.replace(shard, cap_factor=one.cap_factor) for shard in sealer.finish()]
        finally:
            sealer.abandon()
        # If another worker sealed a wave of this number meanwhile, the claim is found to have made no batch later on.
        retry_round = RetryRound(
            number, [(one.name, step.number)], shards, self._clock(), attempts.forgiven_before(state, step.shard)
        )
        if self._claim(step.shard, step.number) and self.ledger.add(retry_round):
            self.log.info(
                "%s: %s requests, about %s input tokens, are too many at once; sealed again in %d shards of at most %s",
                one.name,
                f"{one.requests:,}",
                f"{one.tokens:,}",
                len(shards),
                f"{max(shard.tokens for shard in shards):,}",
            )
