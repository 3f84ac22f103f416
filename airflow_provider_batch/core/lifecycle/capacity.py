"""The queue capacity of a model: which shards are sent now, which wait, and which have to be smaller.

A provider has one queue of input tokens for all batches of a model. Other jobs with the same key use it too, and
batches that have ended can still count for a while (https://github.com/openai/openai-python/issues/2084). A full queue
is therefore not an error. No API reports the capacity, so it is learned from the refusals in the ledger:

    named      a refusal names the limit ("Limit: 2,000,000 enqueued tokens"); the newest such refusal counts
    inferred   a batch failed because the queue was full, but without a number: the capacity is at least the tokens of
               the batches of this job that ran at the same time
    unknown    a creation was refused outright (HTTP 429), which may be about the rate of calls and not about tokens

After a refusal, no shard of the model is sent until the backoff is over or a batch of the model has ended. If the
provider named a time (Retry-After), nothing is sent before it either, but it counts for an hour at most:

    refused ──── backoff (doubles with each refusal of the same shard, at most 1 h) ──── try again
                 └─ or: a batch of this job ends ──── try again immediately, unless Retry-After is longer

Then as many shards are sent as the capacity allows:

    no batch of the job is live    one shard at a time, the smallest first, until a batch has ended
    named                          as many as fit alongside the live batches
    inferred                       the same, and one more each time a backoff has passed without a creation
    unknown                        all of them, one after the other, until one is refused

Tokens are estimated, and corrected by what the answers so far report (`core.pricing.input_correction`). A shard is
resealed into smaller ones if it has more tokens than the named limit. As long as no refusal names one, the limit that
the author stated or that earlier jobs learned counts: the shard was sealed for it, but before the answers that correct
its tokens. A shard is halved if it was refused twice while no other batch of the job was live, because then it may
never fit, or never alongside the batches of other jobs. Halves can be halved again. A single row that exceeds the named
limit and was refused twice alone is given up.

Input files can be refused too (HTTP 429), for the rate of the uploads or for the storage that they take. Such a refusal
concerns the key and not a model, and says nothing about the queue. No file is uploaded until the backoff is over, which
doubles with each refusal since the last accepted file, or until Retry-After if that is later. Files that are already
uploaded are used in the meantime.
"""

from __future__ import annotations

import re
from collections import Counter
from datetime import datetime, timedelta
from typing import NamedTuple

from airflow_provider_batch.core.ledger.records import Failure, Refused, Settled
from airflow_provider_batch.core.ledger.state import JobState, Phase, ShardState, Submission
from airflow_provider_batch.core.pricing.input_correction import InputCorrection

#: minimum and maximum time for which a full queue holds a model back
MIN_HOLD = timedelta(seconds=1)
MAX_HOLD = timedelta(hours=1)
#: number of refusals, with no other batch of the job live, after which a shard is halved
MAX_REFUSALS_ALONE = 2

_LIMIT = re.compile(r"limit\b(?:\s+(?:is|of))?\s*[:=]?\s*(\d[\d,._' ]*)\s*([kmb]\b)?", re.IGNORECASE)
_SUFFIXES = {"": 1, "k": 1_000, "m": 1_000_000, "b": 1_000_000_000}


def parse_queue_limit(message: str) -> int | None:
    """Return the number of enqueued tokens that a model may have, or None if the provider's message does not name it.

    Known forms: `Limit: 2,000,000 enqueued tokens` (OpenAI), `the configured limit of 30K for the deployment` (Azure).
    Messages about limits per minute look alike, but do not concern the queue.
    """
    lower_message = message.lower()
    if "enqueued" not in lower_message and "token_limit_exceeded" not in lower_message:
        return None
    match = _LIMIT.search(message)
    if match is None:
        return None
    digits, suffix = re.sub(r"[,_' ]", "", match[1]).rstrip("."), (match[2] or "").lower()
    if re.fullmatch(r"\d{1,3}(\.\d{3})+", digits) and not suffix:
        digits = digits.replace(".", "")
    try:
        return int(float(digits) * _SUFFIXES[suffix]) or None
    except ValueError:
        return None


def hold_time(backoff: timedelta, refusals: int, retry_after: float | None = None) -> timedelta:
    """Return how long to send nothing after this many refusals in a row.

    :param retry_after: seconds that the provider asked us to wait; a minimum, of which at most `MAX_HOLD` counts.
    """
    doubled = max(backoff, MIN_HOLD) * float(2 ** min(refusals - 1, 10))
    return min(max(doubled, _requested_wait(retry_after)), MAX_HOLD)


def _requested_wait(retry_after: float | None) -> timedelta:
    return timedelta(seconds=min(retry_after or 0.0, MAX_HOLD.total_seconds()))


def uploads_resume_at(state: JobState, backoff: timedelta) -> datetime | None:
    """Return when input files may be uploaded again, or None if none was refused since the last accepted one."""
    refusals = state.recent_upload_refusals
    if not refusals:
        return None
    return refusals[-1].time + hold_time(backoff, len(refusals), refusals[-1].retry_after)


class Admission(NamedTuple):
    """The decision about the shards that wait to be sent."""

    admitted: list[ShardState]
    #: shards to reseal, each with the maximum estimated tokens of its parts, uncorrected
    reseal: list[tuple[ShardState, int]]
    give_up: list[ShardState]
    #: when to decide again
    wake_times: list[datetime]
    #: whether a shard waits until any batch ends
    is_queue_full: bool


def admit(state: JobState, waiting: list[ShardState], backoff: timedelta, now: datetime) -> Admission:
    """Decide which of the waiting shards are sent, separately for each model.

    :param waiting: the shards, in the order in which to send them.
    """
    correction = InputCorrection(state)
    admission = Admission([], [], [], [], False)
    for model in dict.fromkeys(shard.model for shard in waiting):
        all_shards = [shard for shard in state.shards.values() if shard.model == model]
        queue = _Queue(all_shards, backoff, correction, _sealing_limit(state, model))
        shards = [shard for shard in waiting if shard.model == model]
        is_full = queue.admit(shards, now, admission)
        admission = admission._replace(is_queue_full=admission.is_queue_full or is_full)
    return admission


def _sealing_limit(state: JobState, model: str) -> int | None:
    """Return the tokens that a shard of a model may have, as stated by the author or learned by earlier jobs."""
    limits = [state.manifest.limits.tokens, state.manifest.learned_tokens.get(model)]
    return min((limit for limit in limits if limit is not None), default=None)


class _Span(NamedTuple):
    """The time for which a batch is in the queue."""

    tokens: int
    begin: datetime
    #: None while it may still run
    end: datetime | None

    def contains(self, time: datetime) -> bool:
        return self.begin <= time and (self.end is None or self.end > time)


class _Refusal(NamedTuple):
    """A submission of a shard that was refused because the queue was full."""

    shard: str
    begin: datetime
    record: Refused | Settled

    def was_alone(self, spans: list[_Span]) -> bool:
        """Return whether no other batch of the job was in the queue at that time."""
        return not any(
            span.begin <= self.record.time and (span.end is None or span.end >= self.begin) for span in spans
        )


class _Queue:
    """The provider's queue for one model, as far as our ledger shows it."""

    def __init__(
        self, shards: list[ShardState], backoff: timedelta, correction: InputCorrection, sealing_limit: int | None
    ) -> None:
        self._correction, self._sealing_limit = correction, sealing_limit
        self._backoff = max(backoff, MIN_HOLD)
        self._refusals: list[_Refusal] = []
        self._spans: list[_Span] = []
        #: when the creation of each batch began
        self._creation_times: list[datetime] = []
        live_shards = [
            shard
            for shard in shards
            if shard.phase in (Phase.CREATING, Phase.LIVE) and not (shard.latest and shard.latest.ended_at)
        ]
        self._live_tokens = sum(self._tokens(shard) for shard in live_shards)
        self._has_live_batches = bool(live_shards)
        for shard in shards:
            for submission in shard.submissions:
                self._add(shard, submission)
        self._refusals.sort(key=lambda refusal: refusal.record.time)
        last_end = max((span.end for span in self._spans if span.end is not None), default=None)
        #: refusals since a batch of the job last ended
        self._recent_refusals = [
            refusal for refusal in self._refusals if last_end is None or refusal.record.time >= last_end
        ]

    def _add(self, shard: ShardState, submission: Submission) -> None:
        begin = submission.intent.time if submission.intent else submission.created_at
        if begin is None:
            return
        self._creation_times.append(begin)
        rejection = submission.rejection
        if rejection is not None and rejection.failure is Failure.CAPACITY:
            self._refusals.append(_Refusal(shard.name, begin, rejection))
        elif rejection is None and submission.batch_id:
            self._spans.append(_Span(self._tokens(shard), begin, submission.ended_at))

    def _tokens(self, shard: ShardState) -> int:
        return self._correction.correct(shard.model, shard.spec.tokens)

    def admit(self, waiting: list[ShardState], now: datetime, admission: Admission) -> bool:
        """Add the decision about the waiting shards to the admission. Return whether some wait until a batch ends."""
        limits = (parse_queue_limit(refusal.record.message) for refusal in reversed(self._refusals))
        limit = next((limit for limit in limits if limit), None)
        shard_limit = self._sealing_limit if limit is None else limit
        candidates = []
        for shard in waiting:
            if shard_limit is not None and self._tokens(shard) > shard_limit and shard.requests > 1:
                admission.reseal.append((shard, self._correction.estimated_limit(shard.model, shard_limit)))
            else:
                candidates.append(shard)
        if not self._refusals:
            admission.admitted.extend(candidates)
            return False
        if not candidates:
            return False
        held_until = self._held_until()
        if now < held_until:
            admission.wake_times.append(held_until)
            return True
        if self._recent_refusals and not self._has_live_batches:
            smallest = min(candidates, key=lambda shard: (self._tokens(shard), shard.name))
            self._admit_alone(smallest, limit, admission)
            return True
        return self._fill(candidates, limit, now, admission)

    def _held_until(self) -> datetime:
        """Return until when nothing is sent. The end of a batch ends the backoff, but not a Retry-After."""
        records = [refusal.record for refusal in self._refusals]
        requested = max(
            record.time + _requested_wait(record.retry_after if isinstance(record, Refused) else None)
            for record in records
        )
        if not self._recent_refusals:
            return requested
        refusals = max(Counter(refusal.shard for refusal in self._recent_refusals).values())
        return max(requested, self._recent_refusals[-1].record.time + hold_time(self._backoff, refusals))

    def _admit_alone(self, shard: ShardState, limit: int | None, admission: Admission) -> None:
        """Send a shard with no other batch of the job in the queue. If it was refused often enough, divide it."""
        refusals = [refusal for refusal in self._refusals if refusal.shard == shard.name]
        if sum(refusal.was_alone(self._spans) for refusal in refusals) < MAX_REFUSALS_ALONE:
            admission.admitted.append(shard)
        elif shard.requests > 1:
            admission.reseal.append((shard, shard.spec.tokens // 2))
        elif limit is not None and self._tokens(shard) > limit:
            admission.give_up.append(shard)
        else:
            admission.admitted.append(shard)

    def _fill(self, waiting: list[ShardState], limit: int | None, now: datetime, admission: Admission) -> bool:
        capacity = limit if limit is not None else self._inferred_capacity()
        live_tokens, has_live_batches = self._live_tokens, self._has_live_batches
        is_any_admitted, is_full = False, False
        for shard in waiting:
            if capacity is None or live_tokens + self._tokens(shard) <= capacity or not has_live_batches:
                admission.admitted.append(shard)
                live_tokens += self._tokens(shard)
                has_live_batches, is_any_admitted = True, True
            else:
                is_full = True
        if is_full and limit is None and not is_any_admitted:
            newest = max(self._creation_times)
            if now >= newest + self._backoff:
                admission.admitted.append(next(shard for shard in waiting if shard not in admission.admitted))
            else:
                admission.wake_times.append(newest + self._backoff)
        return is_full

    def _inferred_capacity(self) -> int | None:
        """Return the most tokens that ran together at or after the newest refusal; None if that was an HTTP 429."""
        newest = self._refusals[-1]
        if isinstance(newest.record, Refused):
            return None
        times = [newest.begin, *(span.begin for span in self._spans if span.begin > newest.record.time)]
        return max(sum(span.tokens for span in self._spans if span.contains(time)) for time in times)
