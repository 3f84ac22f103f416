"""What happens next to a job: a pure function of what is recorded, what was just seen, and the time.

Everything that decides over a job's steps lives in this file. Nothing here does a step: the runner does, records what
came of it, and asks again; so a worker may be killed between any two steps and its successor goes on from the record.

    phase      seen                                  then
    sealed     no room for it (see `room`)           wait for a batch to end, or until its time
    sealed     can never fit                         seal it again into smaller shards; a single row is given up
    sealed     past the budget                       ask a part of it, if nothing else runs; else withhold it
    sealed     account failure in this attempt       hold all: a person must act
    sealed     a file id of an earlier try           create
    sealed     input files were refused (429)        wait until its time; what is up goes on
    sealed     a canary                              ask it, one request at a time
    sealed     else                                  upload
    resealed                                         -
    uploaded                                         create
    creating   intent younger than 120 s             wait until then; who recorded it creates within 30 s, or not at all
    creating   older                                 look the batch up before any second POST
    live       running                               wait
    live       ended                                 collect
    live       running, every row of it changed      cancel, once
    live       running, deadline over, or cancelled  cancel, once
    creating   a claim to ask at the finish line     wait for 10 minutes, then the claim is lost
    settled    rows to be asked again, their wait over, attempts left     ask again
    settled    nothing to ask again                  -
    all settled                                      finish

Before the canaries are settled and judged, nothing is uploaded, created or asked again. If they say that the rest would
be refused, or cost too much, the generation is void: nothing of it is ever uploaded.

A person who clears the wait after it ended, or after its deadline, gives it a new deadline, and the rows without a
usable answer a fresh allowance of attempts: those made before count no more. See `begin`.

After a person cancelled the job nothing is uploaded, created or asked again either, what runs is cancelled and what
was answered is collected, until a task of it is cleared.

After the deadline nothing is uploaded, created or asked again; what runs is cancelled and collected, and an unanswered
create is still looked up, for at most the grace of 15 minutes (cancelling takes up to ten). Then, if the author said
so, comes the finish line, once:

    after the deadline                                                    then
    a batch or an unanswered create is not settled, grace not over        wait, as above
    rows without a usable answer, settled or never sent                   seal those that are allowed, as a wave
    a shard of the finish line is not asked yet                           ask it, synchronously
    the account refused one of them, or 30 minutes are over               finish

A row of a batch that has not settled by then is not asked: its answer may yet come, and be paid for.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import NamedTuple

import msgspec

from airflow_provider_batch.jobs.batch import BatchView
from airflow_provider_batch.jobs.caps import is_cut_off
from airflow_provider_batch.jobs.outcome import Answer, Outcome
from airflow_provider_batch.jobs.records import BY_PERSON, Deadline, Failure, Settled
from airflow_provider_batch.jobs.room import admit, uploads_from
from airflow_provider_batch.jobs.spending import Purse
from airflow_provider_batch.jobs.state import JobState, Phase, ShardState, Try

#: how long an unanswered create is given before the batch is looked up
UNSURE = timedelta(seconds=120)
#: how long cancelled batches are waited for after the deadline
GRACE = timedelta(minutes=15)
#: how long after the deadline requests are begun at the finish line
FINISH = timedelta(minutes=30)
#: how long a worker may be at one shard of the finish line: 16 requests at once, each repeated three times at most
ASKING = timedelta(minutes=10)
#: outcomes that may be asked again at all; the rest is final
ASKABLE = frozenset({Outcome.FAILED, Outcome.EXPIRED, Outcome.CANCELLED, Outcome.INVALID_OUTPUT, Outcome.MISSING})
#: rows with these outcomes were never asked
NEVER_ASKED = frozenset({Outcome.EXPIRED, Outcome.CANCELLED})


class Policy(msgspec.Struct, frozen=True):
    """What the author decided about the wait."""

    #: how often a row is asked in all
    max_attempts: int = 3
    retry_on: frozenset[Outcome] = ASKABLE
    #: whether answers that were cut off at the output cap are asked again with a higher one
    raise_cap: bool = False
    #: rows to be asked again wait this long, doubled with each attempt; so does a model whose queue is full
    backoff: timedelta = timedelta(minutes=5)
    #: the most rows that are asked synchronously after the deadline; 0 for none
    finish_rows: int = 0
    #: account failures recorded before this moment are forgiven: the task was started again since
    since: datetime | None = None


class Upload(NamedTuple):
    """Send the shard's input file."""

    shard: ShardState
    n: int


class Create(NamedTuple):
    """Create the batch: the paid step."""

    shard: ShardState
    n: int
    file_id: str


class Ask(NamedTuple):
    """Ask the requests of a canary, or of the finish line, synchronously."""

    shard: ShardState
    n: int
    #: True at the finish line
    last: bool = False


class Judge(NamedTuple):
    """Record what the canaries' answers say of the rest."""


class LookUp(NamedTuple):
    """Find out whether an unanswered create made a batch."""

    shard: ShardState
    tried: Try


class Collect(NamedTuple):
    """Stream the batch's files into staging and settle it."""

    shard: ShardState
    tried: Try
    batch: BatchView


class Cancel(NamedTuple):
    """Ask the provider to cancel the batch."""

    shard: ShardState
    tried: Try
    reason: str


class AskAgain(NamedTuple):
    """Seal the askable rows of these settled tries into new shards."""

    sources: list[tuple[ShardState, Settled]]
    #: of the attempts at these rows, how many count no more
    base: int = 0


class Reseal(NamedTuple):
    """Seal the rows of a shard, none of which was asked, into smaller shards. No attempt is counted."""

    shard: ShardState
    n: int
    #: the most estimated tokens, and the most requests, of each new shard
    tokens: int
    requests: int


class GiveUp(NamedTuple):
    """Settle a shard that the provider will never take: its row fails in the provider's words."""

    shard: ShardState
    n: int
    message: str


class FinishLine(NamedTuple):
    """Seal rows without a usable answer into shards that are asked synchronously, as many as are allowed."""

    #: of the wave: if another worker seals one of this number first, this step is not to be done
    number: int
    settled: list[tuple[ShardState, Settled]]
    #: shards of which nothing was ever asked
    unsent: list[ShardState]
    #: rows whose batch has not settled: they are left
    unsettled: int


class Wait(NamedTuple):
    """Nothing to do until one of these batches ends, or until the time given."""

    batch_ids: list[str]
    until: datetime | None
    #: True if the end of any batch gives work at once, because shards wait for room
    any_end: bool


class Hold(NamedTuple):
    """A person must act; everything is kept."""

    message: str


class Void(NamedTuple):
    """The canary was refused: nothing of this generation is uploaded, and a new one has to be sealed."""

    message: str
    over_budget: bool


class Finish(NamedTuple):
    """The wait is over: nothing more will come."""

    #: names of the shards that the budget does not reach
    withheld: tuple[str, ...] = ()


Step = Ask | Judge | Upload | Create | LookUp | Collect | Cancel | AskAgain | Reseal | GiveUp | FinishLine
Rest = Wait | Hold | Void | Finish


def next_steps(
    state: JobState, seen: Mapping[str, BatchView], policy: Policy, now: datetime
) -> tuple[list[Step], Rest]:
    """The steps to do now, and what follows if none of them changes anything.

    :param seen: the batches as just read from the provider, by id; one that is absent was not looked at.
    """
    over = state.deadline is not None and now >= state.deadline
    ending = over or state.stopped
    steps: list[Step] = []
    waits: list[datetime] = []
    live: list[str] = []
    backlog = False
    holds: list[str] = []
    waiting: list[ShardState] = []
    withheld: list[ShardState] = []
    for shard in state.shards.values():
        match shard.phase:
            case Phase.SEALED | Phase.UPLOADED if not ending:
                held = _held(shard, policy, now)
                if isinstance(held, str):
                    holds.append(held)
                elif held is not None:
                    waits.append(held)
                else:
                    waiting.append(shard)
            case Phase.CREATING:
                tried = shard.tries[-1]
                assert tried.intent is not None
                unsure = tried.intent.at + (ASKING if shard.shard.synchronous else UNSURE)
                if now >= unsure:
                    steps.append(LookUp(shard, tried))
                else:
                    waits.append(unsure)
            case Phase.LIVE:
                tried = shard.tries[-1]
                batch = seen.get(tried.batch_id)
                if batch is not None and batch.status.ended:
                    steps.append(Collect(shard, tried, batch))
                else:
                    live.append(tried.batch_id)
                    if tried.cancel is None and (ending or _unwanted(shard)):
                        reason = BY_PERSON if state.stopped else "deadline" if over else "no row asks this any more"
                        steps.append(Cancel(shard, tried, reason))
    if state.judged is not None and state.judged.void:
        return steps, Void(state.judged.void, state.judged.over_budget)
    if not ending and any(shard.phase is not Phase.SETTLED for shard in state.canary):
        steps.extend(Ask(shard, shard.next_n) for shard in waiting if shard.shard.synchronous and not holds)
        return steps, _rest(state, now, over, live, waits, backlog, holds, withheld)
    if not ending and state.canary and state.judged is None:
        return [*steps, Judge()], _rest(state, now, over, live, waits, backlog, holds, withheld)
    if not holds:
        steps.extend(Ask(shard, shard.next_n, last=True) for shard in waiting if shard.shard.synchronous)
    waiting = [shard for shard in waiting if not shard.shard.synchronous]
    if waiting and not holds:
        room = admit(state, waiting, policy.backoff, now)
        steps.extend(_smaller(shard, tokens) for shard, tokens in room.reseal)
        steps.extend(_given_up(shard) for shard in room.give_up)
        within, withheld = (room.go, []) if state.ceiling is None else Purse(state).afford(room.go)
        onward = [_onward(shard) for shard in within]
        held_until = uploads_from(state, policy.backoff)
        if held_until is not None and now < held_until and any(isinstance(step, Upload) for step in onward):
            onward = [step for step in onward if not isinstance(step, Upload)]
            waits.append(held_until)
        steps.extend(onward)
        waits.extend(room.waits)
        backlog = room.backlog or bool(withheld)
    if not ending and not holds:
        again, later = _to_ask_again(state, policy, now)
        for base in sorted({base_after(state, shard, settled) for shard, settled in again}):
            steps.append(AskAgain([one for one in again if base_after(state, *one) == base], base))
        if later is not None:
            waits.append(later)
    if withheld and not (steps or live or waits):
        # What runs will tell what is left; only when nothing does is it known.
        steps.extend(_part(state, withheld))
    if over and not state.stopped and policy.finish_rows and not steps:
        steps.extend(_finish_line(state, policy, now, waiting=bool(live or waits)))
    return steps, _rest(state, now, over, live, waits, backlog, holds, withheld)


def begin(state: JobState, clear: int, ends: datetime, now: datetime) -> Deadline | None:
    """The deadline to record as a task that waits begins; None if it is known already.

    A retry after a crash, and a wait that goes on, find what was recorded for the same clear, and change nothing. The
    first start after a clear keeps the deadline of a wait that has not ended, and sets a new one otherwise.

    :param clear: tells clears of the task apart; it only grows.
    :param ends: when a wait that begins now would end.
    """
    last = state.set_deadline
    if clear in state.clears:
        return None
    if last is None:
        return Deadline(ends, now, clear)
    fresh = now >= last.ends or (state.finished is not None and state.finished.at >= last.at)
    return Deadline(ends if fresh else last.ends, now, clear, fresh)


def base_before(state: JobState, shard: ShardState) -> int:
    """Of the attempts at the rows of a shard before this one, how many count no more."""
    made = shard.shard.attempt - 1
    return max(shard.base, made) if _sealed_before_clear(state, shard) else shard.base


def base_after(state: JobState, shard: ShardState, settled: Settled) -> int:
    """Of the attempts at the rows of a settled try, this one included, how many count no more."""
    base = base_before(state, shard)
    asked_before = state.fresh is not None and settled.at < state.fresh.at and settled.failure is not Failure.LINES
    return max(base, shard.shard.attempt) if asked_before and _sealed_before_clear(state, shard) else base


def _sealed_before_clear(state: JobState, shard: ShardState) -> bool:
    return state.fresh is not None and (shard.sealed_at or state.manifest.sealed_at) < state.fresh.at


def _unwanted(shard: ShardState) -> bool:
    """Every row of the shard changed or vanished since it was sealed."""
    return 0 < shard.shard.requests == shard.shard.unwanted


def _rest(
    state: JobState,
    now: datetime,
    over: bool,
    live: list[str],
    waits: list[datetime],
    backlog: bool,
    holds: list[str],
    withheld: list[ShardState],
) -> Rest:
    if over:
        assert state.deadline is not None
        asking = any(shard.phase is Phase.CREATING for shard in state.finish_line)
        end = state.deadline + (FINISH if asking else GRACE)
        return Wait(live, min([*waits, end]), False) if (live or waits) and now < end else Finish()
    if live or waits:
        ends = [state.deadline] if state.deadline else []
        return Wait(live, min([*waits, *ends], default=None), backlog)
    return Hold(holds[0]) if holds else Finish(tuple(shard.shard.name for shard in withheld))


def _finish_line(state: JobState, policy: Policy, now: datetime, *, waiting: bool) -> list[Step]:
    """What is done after the deadline, where the author wants it: each row is asked once more at most."""
    assert state.deadline is not None
    if now >= state.deadline + FINISH or (state.canary and state.judged is None):
        return []
    line = state.finish_line
    if any(wave.finish and wave.at >= state.deadline for wave in state.waves):
        refused = any(isinstance(_held(shard, policy, now), str) for shard in line)
        return [] if refused else [Ask(s, s.next_n, last=True) for s in line if s.phase is Phase.SEALED]
    if waiting and now < state.deadline + GRACE:
        return []
    drained, last = state.drained, at_the_finish_line(policy)
    settled = [
        (shard, settled)
        for shard, tried, settled in state.settled()
        if (shard.shard.name, tried.n) not in drained and askable_rows(settled, last) and not _unwanted(shard)
    ]
    phases: dict[Phase, list[ShardState]] = {}
    for shard in state.shards.values():
        if shard not in line and not _unwanted(shard):
            phases.setdefault(shard.phase, []).append(shard)
    unsent = phases.get(Phase.SEALED, []) + phases.get(Phase.UPLOADED, [])
    unsettled = phases.get(Phase.CREATING, []) + phases.get(Phase.LIVE, [])
    if not settled and not unsent:
        return []
    return [FinishLine(state.next_wave, settled, unsent, sum(shard.shard.requests for shard in unsettled))]


def at_the_finish_line(policy: Policy) -> Policy:
    """What is asked there: what the policy asks again, however often it was asked, and what was never asked.

    No cap is raised there: those rows have an answer, if not a whole one.
    """
    return msgspec.structs.replace(policy, retry_on=policy.retry_on | NEVER_ASKED, raise_cap=False)


def _onward(shard: ShardState) -> Step:
    """Upload or create: an input file that the provider still has is used again."""
    file_id = ""
    for tried in reversed(shard.tries):
        if file_id or (tried.blocked and tried.blocked.failure is Failure.FILE):
            break
        file_id = tried.file_id
    return Create(shard, shard.next_n, file_id) if file_id else Upload(shard, shard.next_n)


def _smaller(shard: ShardState, tokens: int) -> Reseal:
    """Into shards of so many tokens and at most half of its requests each: tokens are estimated, requests counted."""
    return Reseal(shard, shard.next_n, max(tokens, 1), -(-shard.shard.requests // 2))


def _part(state: JobState, withheld: list[ShardState]) -> list[Step]:
    """Divide the first shard of which a part is within the budget."""
    purse = Purse(state)
    for shard in withheld:
        requests = purse.part(shard.shard)
        if requests:
            return [Reseal(shard, shard.next_n, max(shard.shard.tokens, 1), requests)]
    return []


def _given_up(shard: ShardState) -> GiveUp:
    blocked = shard.last.blocked if shard.last else None
    return GiveUp(shard, shard.next_n, blocked.message if blocked else "")


def _held(shard: ShardState, policy: Policy, now: datetime) -> datetime | str | None:
    """Until when a shard is held back, or why a person must act; None if it may go on, as far as there is room."""
    blocked = shard.last.blocked if shard.last else None
    if blocked is None:
        return None
    match blocked.failure:
        case Failure.ACCOUNT:
            return None if policy.since and blocked.at < policy.since else blocked.message
        case Failure.FILE:
            until = blocked.at + policy.backoff / 10
            return until if now < until else None
    return None


def _to_ask_again(
    state: JobState, policy: Policy, now: datetime
) -> tuple[list[tuple[ShardState, Settled]], datetime | None]:
    """Settled tries with rows to ask again now, and when the wait of further ones is over.

    Those that wait are merged: they go together once the last of them is ready. What failed validation goes at once.
    """
    drained = state.drained
    again = [
        (shard, settled)
        for shard, tried, settled in state.settled()
        if (shard.shard.name, tried.n) not in drained
        and shard.shard.attempt < base_after(state, shard, settled) + policy.max_attempts + _free(settled)
        and askable_rows(settled, policy)
        and not _unwanted(shard)
    ]
    ripe = max((settled.at + _wait(state, shard, settled, policy) for shard, settled in again), default=now)
    if now >= ripe:
        return again, None
    return [(shard, settled) for shard, settled in again if settled.failure is Failure.LINES], ripe


def _free(settled: Settled) -> int:
    """A batch that failed validation asked nothing: its rows may be asked once more than others."""
    return 1 if settled.failure is Failure.LINES else 0


def _wait(state: JobState, shard: ShardState, settled: Settled, policy: Policy) -> timedelta:
    if settled.failure is Failure.LINES:
        return timedelta(0)
    spread = hashlib.sha256(f"{settled.batch_id}".encode()).digest()[0] / 255
    times = max(shard.shard.attempt - base_after(state, shard, settled) - 1, 0)
    return policy.backoff * (float(2 ** min(times, 10)) * (1 + 0.2 * spread))


def askable_rows(settled: Settled, policy: Policy) -> int:
    """How many rows of a settled try the policy would ask again."""
    if settled.failure is Failure.LINES:
        return settled.transient
    count = settled.transient if Outcome.FAILED in policy.retry_on else 0
    count += settled.cut_off if policy.raise_cap else 0
    return count + sum(settled.outcomes.get(outcome, 0) for outcome in policy.retry_on if outcome is not Outcome.FAILED)


def is_askable(answer: Answer, settled: Settled, policy: Policy) -> bool:
    """Whether the policy asks this row again; `askable_rows` counts the same."""
    if settled.failure is Failure.LINES:
        return answer.transient
    if answer.outcome is Outcome.INCOMPLETE:
        return policy.raise_cap and is_cut_off(answer)
    if answer.outcome not in policy.retry_on:
        return False
    return answer.transient if answer.outcome is Outcome.FAILED else True


def next_attempt(shard: ShardState, settled: Settled) -> int:
    """The attempt that rows of this try are on when they are asked again."""
    return shard.shard.attempt + (0 if settled.failure is Failure.LINES else 1)


#: words in an error's code that tell its class; the message decides where the code does not
_CAPACITY_CODES = frozenset(
    {"token_limit_exceeded", "rate_limit_exceeded", "batch_limit_exceeded", "too_many_requests"}
)
_ACCOUNT_CODES = frozenset(
    {
        "billing_hard_limit_reached",
        "insufficient_quota",
        "billing_not_active",
        "project_spend_limit_exceeded",
        "organization_spend_limit_exceeded",
        "invalid_api_key",
        "account_deactivated",
    }
)
_CAPACITY_WORDS = ("enqueued token", "rate limit", "too many requests")
_FILE_WORDS = ("cannot find file", "no such file", "file not found")


def failure_of(batch: BatchView) -> tuple[Failure, str, dict[int, str]]:
    """Class, message, and messages by line (from 0) of a batch that ended `failed`.

    Codes are an open set: an unknown one without a line fails the rows. Messages that name no line decide where codes
    are missing; those that do may speak of the row (of an image's file, say), and are of the row.
    """
    codes = {problem.code for problem in batch.problems}
    message = (
        "; ".join(dict.fromkeys(f"{p.code}: {p.message}".strip(": ") for p in batch.problems[:5]))
        or "the provider gave no reason"
    )
    said = " ".join(problem.message.lower() for problem in batch.problems if problem.line is None)
    if codes & _CAPACITY_CODES or any(word in said for word in _CAPACITY_WORDS):
        return Failure.CAPACITY, message, {}
    if codes & _ACCOUNT_CODES:
        return Failure.ACCOUNT, message, {}
    if any(word in said for word in _FILE_WORDS):
        return Failure.FILE, message, {}
    lines = {p.line - 1: f"{p.code}: {p.message}" for p in batch.problems if p.line is not None and p.line > 0}
    return Failure.LINES, message, lines


def overslept(since: datetime, now: datetime) -> bool:
    """Whether a worker that took a try at `since` may no longer act on it: another may soon take it for lost.

    A worker can be stopped at any instruction, and go on hours later (SIGSTOP, a machine that sleeps). A quarter of the
    time before the look-up leaves a creation, which takes a minute at most, the rest.
    """
    return now - since > UNSURE / 4


def is_of_account(status: int, code: str | None) -> bool:
    """Whether an HTTP answer speaks of the account or the key, and not of what was asked."""
    return code in _ACCOUNT_CODES or status in (401, 402, 403)


def refusal_of(status: int, code: str | None, message: str) -> Failure | None:
    """Class of an HTTP answer that says no batch was created; None if it does not say so for sure.

    :param status: the HTTP status. 408, 409 and 5xx leave it open whether a batch exists.
    """
    if is_of_account(status, code):
        return Failure.ACCOUNT
    if status == 429:
        return Failure.CAPACITY
    if status in (400, 404) and any(word in message.lower() for word in _FILE_WORDS):
        return Failure.FILE
    if 400 <= status < 500 and status not in (408, 409):
        return Failure.ACCOUNT
    return None
