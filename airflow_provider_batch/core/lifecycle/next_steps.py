"""What happens next to a job: a pure function of what is recorded, what was just seen, and the time.

Everything that decides over a job's steps lives in this file. Nothing here does a step: the runner does, records what
came of it, and asks again; so a worker may be killed between any two steps and its successor goes on from the record.

    phase      seen                                  then
    sealed     no room for it (see `capacity`)           wait for a batch to end, or until its time
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

from collections.abc import Mapping
from datetime import datetime

from airflow_provider_batch.core.ledger.records import BY_PERSON, Deadline, Failure, Settled
from airflow_provider_batch.core.ledger.state import JobState, Phase, ShardState
from airflow_provider_batch.core.lifecycle.attempts import (
    askable_rows,
    at_the_finish_line,
    base_after,
    free_attempts,
    is_unwanted,
    wait_before_retry,
)
from airflow_provider_batch.core.lifecycle.budget import Purse
from airflow_provider_batch.core.lifecycle.capacity import admit, uploads_from
from airflow_provider_batch.core.lifecycle.steps import (
    ASKING,
    FINISH,
    GRACE,
    UNSURE,
    Ask,
    AskAgain,
    Cancel,
    Collect,
    Create,
    Finish,
    FinishLine,
    GiveUp,
    Hold,
    Judge,
    LookUp,
    Pause,
    Policy,
    Reseal,
    Step,
    Upload,
    Void,
    Wait,
)
from airflow_provider_batch.core.provider.batch import BatchView


def next_steps(
    state: JobState, seen: Mapping[str, BatchView], policy: Policy, now: datetime
) -> tuple[list[Step], Pause]:
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
                    if tried.cancel is None and (ending or is_unwanted(shard)):
                        reason = BY_PERSON if state.stopped else "deadline" if over else "no row asks this any more"
                        steps.append(Cancel(shard, tried, reason))
    if state.judged is not None and state.judged.void:
        return steps, Void(state.judged.void, state.judged.over_budget)
    if not ending and any(shard.phase is not Phase.SETTLED for shard in state.canary):
        steps.extend(Ask(shard, shard.next_n) for shard in waiting if shard.shard.synchronous and not holds)
        return steps, _pause(state, now, over, live, waits, backlog, holds, withheld)
    if not ending and state.canary and state.judged is None:
        return [*steps, Judge()], _pause(state, now, over, live, waits, backlog, holds, withheld)
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
    return steps, _pause(state, now, over, live, waits, backlog, holds, withheld)


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


def _pause(
    state: JobState,
    now: datetime,
    over: bool,
    live: list[str],
    waits: list[datetime],
    backlog: bool,
    holds: list[str],
    withheld: list[ShardState],
) -> Pause:
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
        if (shard.shard.name, tried.n) not in drained and askable_rows(settled, last) and not is_unwanted(shard)
    ]
    phases: dict[Phase, list[ShardState]] = {}
    for shard in state.shards.values():
        if shard not in line and not is_unwanted(shard):
            phases.setdefault(shard.phase, []).append(shard)
    unsent = phases.get(Phase.SEALED, []) + phases.get(Phase.UPLOADED, [])
    unsettled = phases.get(Phase.CREATING, []) + phases.get(Phase.LIVE, [])
    if not settled and not unsent:
        return []
    return [FinishLine(state.next_wave, settled, unsent, sum(shard.shard.requests for shard in unsettled))]


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
        and shard.shard.attempt < base_after(state, shard, settled) + policy.max_attempts + free_attempts(settled)
        and askable_rows(settled, policy)
        and not is_unwanted(shard)
    ]
    ripe = max((settled.at + wait_before_retry(state, shard, settled, policy) for shard, settled in again), default=now)
    if now >= ripe:
        return again, None
    return [(shard, settled) for shard, settled in again if settled.failure is Failure.LINES], ripe
