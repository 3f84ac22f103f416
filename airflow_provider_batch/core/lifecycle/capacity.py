"""How much of a model may wait with the provider at once: which shards go now, which wait, which are made smaller.

A provider holds the input tokens of all batches of a model in one queue; other jobs on the same key fill it too, and
batches that have ended are known to count for a while yet (https://github.com/openai/openai-python/issues/2084). So a
full queue is no error. What is known of it is learned from the refusals in the ledger:

    told       a refusal names the limit ("Limit: 2,000,000 enqueued tokens"); the newest such refusal counts
    inferred   a batch failed for a full queue without a number: what of ours ran beside it is what had room
    unknown    a create was refused outright (429), which may be about calls rather than tokens

After a refusal no shard of that model goes until its backoff is over or a batch of the model has ended, and in no case
before the time that the provider asked for (Retry-After), if that is within an hour. Then:

    nothing of ours is live    one shard at a time, the smallest, until something ran to its end
    told                       as many as fit beside what is live
    inferred                   likewise; and one more than that each time a backoff has passed without a creation
    unknown                    one after the other, until one is refused

A shard is sealed again into smaller ones if the told limit is below its tokens, or if it was refused twice while
nothing else of ours was live: then it may not fit at all, or not beside other jobs. It is halved, and halved again, as
long as it has rows to divide. A single row over the told limit, refused twice alone, is given up.

Input files may be refused too (429), for their rate or for the room they take. That is of the key and not of a model,
and tells nothing of the queue: no file goes up until the backoff is over, doubled for each refusal since the newest
file that was taken, or the time that the provider asked for, if that is longer. What is up goes on meanwhile.
"""

from __future__ import annotations

import re
from collections import Counter
from datetime import datetime, timedelta
from typing import NamedTuple

from airflow_provider_batch.core.ledger.records import Failure, Refused, Settled
from airflow_provider_batch.core.ledger.state import JobState, Phase, ShardState, Submission

#: the shortest and the longest that a full queue holds a model back before it is tried again
MIN_HOLD = timedelta(seconds=1)
MAX_HOLD = timedelta(hours=1)
#: refusals of a shard, with nothing else of ours live, after which it is made smaller
MAX_REFUSALS_ALONE = 2

_LIMIT = re.compile(r"limit\b(?:\s+(?:is|of))?\s*[:=]?\s*(\d[\d,._' ]*)\s*([kmb]\b)?", re.IGNORECASE)
_SUFFIXES = {"": 1, "k": 1_000, "m": 1_000_000, "b": 1_000_000_000}


def parse_queue_limit(message: str) -> int | None:
    """The enqueued tokens that a model may have, if the provider's message says so.

    Seen: `Limit: 2,000,000 enqueued tokens` (OpenAI), `the configured limit of 30K for the deployment` (Azure). Limits
    per minute are told alike, but are not about the queue.
    """
    said = message.lower()
    if "enqueued" not in said and "token_limit_exceeded" not in said:
        return None
    found = _LIMIT.search(message)
    if found is None:
        return None
    digits, suffix = re.sub(r"[,_' ]", "", found[1]).rstrip("."), (found[2] or "").lower()
    if re.fullmatch(r"\d{1,3}(\.\d{3})+", digits) and not suffix:
        digits = digits.replace(".", "")
    try:
        return int(float(digits) * _SUFFIXES[suffix]) or None
    except ValueError:
        return None


def hold_time(backoff: timedelta, times: int, retry_after: float | None = None) -> timedelta:
    """How long nothing is sent after so many refusals in a row.

    :param retry_after: seconds that the provider asked for: at least so long, if that is within `MAX_HOLD`.
    """
    own = max(backoff, MIN_HOLD) * float(2 ** min(times - 1, 10))
    return min(max(own, _asked(retry_after)), MAX_HOLD)


def _asked(retry_after: float | None) -> timedelta:
    return timedelta(seconds=min(retry_after or 0.0, MAX_HOLD.total_seconds()))


def uploads_resume_at(state: JobState, backoff: timedelta) -> datetime | None:
    """When input files may go up again; None if none was refused since the newest that was taken."""
    held = state.recent_upload_refusals
    return held[-1].time + hold_time(backoff, len(held), held[-1].retry_after) if held else None


class Admission(NamedTuple):
    """What becomes of the shards that wait to be sent."""

    admitted: list[ShardState]
    #: with the estimated tokens that each of the new shards may have
    reseal: list[tuple[ShardState, int]]
    give_up: list[ShardState]
    #: when to look again
    wake_times: list[datetime]
    #: True if the end of any batch may make room
    is_queue_full: bool


def admit(state: JobState, waiting: list[ShardState], backoff: timedelta, now: datetime) -> Admission:
    """Which of the waiting shards may go, model by model; `waiting` in the order in which they are to go."""
    found = Admission([], [], [], [], False)
    for model in dict.fromkeys(shard.model for shard in waiting):
        queue = _Queue([shard for shard in state.shards.values() if shard.model == model], backoff)
        mine = [shard for shard in waiting if shard.model == model]
        backlog = queue.admit(mine, now, found)
        found = found._replace(is_queue_full=found.is_queue_full or backlog)
    return found


class _Span(NamedTuple):
    """A batch that ran, or runs, or may run: from when to when it is in the queue."""

    tokens: int
    begin: datetime
    end: datetime | None

    def at(self, moment: datetime) -> bool:
        return self.begin <= moment and (self.end is None or self.end > moment)


class _Refusal(NamedTuple):
    """A try of a shard that found the queue full."""

    shard: str
    begin: datetime
    why: Refused | Settled

    def alone(self, spans: list[_Span]) -> bool:
        """Whether nothing else of ours was in the queue then."""
        return not any(s.begin <= self.why.time and (s.end is None or s.end >= self.begin) for s in spans)


class _Queue:
    """The provider's queue for one model, as far as our ledger tells."""

    def __init__(self, shards: list[ShardState], backoff: timedelta) -> None:
        self._backoff = max(backoff, MIN_HOLD)
        self._refusals: list[_Refusal] = []
        self._spans: list[_Span] = []
        #: when something was created, or tried to be
        self._begins: list[datetime] = []
        self._live = sum(s.spec.tokens for s in shards if s.phase in (Phase.CREATING, Phase.LIVE))
        self._anything_live = any(s.phase in (Phase.CREATING, Phase.LIVE) for s in shards)
        for shard in shards:
            for submission in shard.submissions:
                self._add(shard, submission)
        self._refusals.sort(key=lambda refusal: refusal.why.time)
        ends = [span.end for span in self._spans if span.end is not None]
        relief = max(ends, default=None)
        #: refusals since a batch of ours ended
        self._fresh = [r for r in self._refusals if relief is None or r.why.time >= relief]

    def _add(self, shard: ShardState, submission: Submission) -> None:
        begin = submission.intent.time if submission.intent else submission.created_at
        if begin is None:
            return
        self._begins.append(begin)
        rejection = submission.rejection
        if rejection is not None and rejection.failure is Failure.CAPACITY:
            self._refusals.append(_Refusal(shard.name, begin, rejection))
        elif rejection is None and submission.batch_id:
            self._spans.append(_Span(shard.spec.tokens, begin, submission.settled.time if submission.settled else None))

    def admit(self, waiting: list[ShardState], now: datetime, found: Admission) -> bool:
        """Sort the waiting shards into `found`; True if some wait for the end of a batch."""
        if not self._refusals:
            found.admitted.extend(waiting)
            return False
        told = next((limit for r in reversed(self._refusals) if (limit := parse_queue_limit(r.why.message))), None)
        left = []
        for shard in waiting:
            if told is not None and shard.spec.tokens > told and shard.requests > 1:
                found.reseal.append((shard, told))
            else:
                left.append(shard)
        if not left:
            return False
        until = self._held_until()
        if now < until:
            found.wake_times.append(until)
            return True
        if self._fresh and not self._anything_live:
            self._probe(min(left, key=lambda shard: (shard.spec.tokens, shard.name)), told, found)
            return True
        return self._fill(left, told, now, found)

    def _held_until(self) -> datetime:
        """By the backoff, which the end of a batch ends; and by what the provider asked for, which nothing does."""
        reasons = [refusal.why for refusal in self._refusals]
        asked = max(why.time + _asked(why.retry_after if isinstance(why, Refused) else None) for why in reasons)
        if not self._fresh:
            return asked
        times = max(Counter(refusal.shard for refusal in self._fresh).values())
        return max(asked, self._fresh[-1].why.time + hold_time(self._backoff, times))

    def _probe(self, shard: ShardState, told: int | None, found: Admission) -> None:
        """Try one shard with nothing else of ours in the queue; or make it smaller, if that was tried often enough."""
        mine = [refusal for refusal in self._refusals if refusal.shard == shard.name]
        if sum(refusal.alone(self._spans) for refusal in mine) < MAX_REFUSALS_ALONE:
            found.admitted.append(shard)
        elif shard.requests > 1:
            found.reseal.append((shard, shard.spec.tokens // 2))
        elif told is not None and shard.spec.tokens > told:
            found.give_up.append(shard)
        else:
            found.admitted.append(shard)

    def _fill(self, waiting: list[ShardState], told: int | None, now: datetime, found: Admission) -> bool:
        room = told if told is not None else self._inferred()
        live, anything, went, full = self._live, self._anything_live, False, False
        for shard in waiting:
            if room is None or live + shard.spec.tokens <= room or not anything:
                found.admitted.append(shard)
                live, anything, went = live + shard.spec.tokens, True, True
            else:
                full = True
        if full and told is None and not went:
            newest = max(self._begins)
            if now >= newest + self._backoff:
                found.admitted.append(next(shard for shard in waiting if shard not in found.admitted))
            else:
                found.wake_times.append(newest + self._backoff)
        return full

    def _inferred(self) -> int | None:
        """The most that was seen to run at once beside or since the newest refusal; None if nothing can be inferred."""
        newest = self._refusals[-1]
        if isinstance(newest.why, Refused):
            return None
        moments = [newest.begin, *(span.begin for span in self._spans if span.begin > newest.why.time)]
        return max(sum(span.tokens for span in self._spans if span.at(moment)) for moment in moments)
