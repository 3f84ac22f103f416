"""Budgets that several jobs share: one per connection and period, and one per DAG run.

A job reserves from its shared budgets before each paid call, and settles the reservation once it is known what the call
cost. The account of a budget and a period is a log of numbered entries. Each entry holds the whole balance, so only the
newest one is read. Entry N+1 is created exclusively by a worker that has read entry N. A worker that loses reads the
new entry and decides again:

    worker A     reads entry 7: $3 left ──── reserves $2 ──── creates entry 8
    worker B     reads entry 7: $3 left ──── reserves $2 ──── entry 8 exists ──── reads it: $1 left ──── is refused

So every reservation is decided on the balance that it changes, and no interleaving of workers exceeds the limit.

A reservation has a key: the job, the shard and the number of the submission. A key can be reserved once and settled
once, so repeating either changes nothing, and two workers of the same job count nothing twice. What happens to it:

    the provider refused the batch, or has no such batch     released
    the batch ended, and its cost is known                   replaced by its cost
    the batch ended, and its cost is unknown                 replaced by its expected cost
    the creation was not confirmed                           stays until the batch was looked up
    a worker died while it sent synchronous requests         counts as spent, because they may have been paid for
    the job ends without settling                            stays until the period ends or a person releases it

A reservation belongs to the period in which it was made, and so does the cost that replaces it. A batch that runs past
midnight therefore counts once: on the day on which it was created.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from enum import StrEnum
from typing import Any, NamedTuple

import msgspec

from airflow_provider_batch.core.arguments import none_if_blank
from airflow_provider_batch.core.formatting import format_count, format_usd
from airflow_provider_batch.core.ledger.job import JobKey, Shard
from airflow_provider_batch.core.ledger.records import Failure
from airflow_provider_batch.core.ledger.state import JobState, ShardState, Submission
from airflow_provider_batch.exceptions import InputError

#: number of jobs without a reservation that a balance lists; older ones are added up
MAX_SETTLED_JOBS = 100
#: how long a job waits at least before it reads the budgets again, because others may have settled
MIN_RECHECK = timedelta(seconds=5)
#: number of jobs that a message names
MAX_NAMED_JOBS = 3

_ZERO = Decimal(0)


class Per(StrEnum):
    """The periods of a budget. They are those of the calendar in UTC; a week starts on Monday."""

    HOUR = "hour"
    DAY = "day"
    WEEK = "week"
    MONTH = "month"
    #: a DAG run, however long it takes and however often its tasks are cleared
    RUN = "run"


class Period(NamedTuple):
    """A period of a budget."""

    #: name of its folder, such as "2026-11-29"
    name: str
    #: None for a DAG run
    ends_at: datetime | None


def period_at(per: Per, time: datetime) -> Period:
    """Return the period that contains a time."""
    hour = time.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
    day = hour.replace(hour=0)
    match per:
        case Per.HOUR:
            return Period(f"{hour:%Y-%m-%dT%H}", hour + timedelta(hours=1))
        case Per.DAY:
            return Period(f"{day:%Y-%m-%d}", day + timedelta(days=1))
        case Per.WEEK:
            monday = day - timedelta(days=day.weekday())
            return Period(f"{monday:%G-W%V}", monday + timedelta(weeks=1))
        case Per.MONTH:
            first = day.replace(day=1)
            return Period(f"{first:%Y-%m}", (first + timedelta(days=32)).replace(day=1))
        case Per.RUN:
            return Period("run", None)


class SharedBudget(msgspec.Struct, frozen=True):
    """A limit that all jobs of a connection, or of a DAG run, share."""

    usd: Decimal
    per: Per
    #: id of the connection; empty for a DAG run
    conn_id: str = ""
    #: the DAG run; empty for a connection
    dag_id: str = ""
    run_id: str = ""

    @property
    def owner(self) -> str:
        """Whose budget it is, such as "connection 'openai_default'"."""
        return f"run {self.run_id!r} of DAG {self.dag_id!r}" if self.per is Per.RUN else f"connection {self.conn_id!r}"

    def __str__(self) -> str:
        limit = format_usd(self.usd)
        return f"the budget of {self.owner} ({limit}{'' if self.per is Per.RUN else f' per {self.per}'})"


def parse_connection_budget(source: str, value: Any, conn_id: str) -> SharedBudget | None:
    """Return the budget of a connection from its setting, such as `{"usd": 50, "per": "day"}`.

    :param source: where the setting is, for the error.
    :param value: the setting, also as JSON text. None and blank text are no budget.
    :raises InputError: for anything else.
    """
    value = none_if_blank(value)
    if isinstance(value, str):
        try:
            value = msgspec.json.decode(value)
        except msgspec.DecodeError:
            raise _setting_error(source, value) from None
    if value is None:
        return None
    if not isinstance(value, Mapping) or value.keys() != {"usd", "per"}:
        raise _setting_error(source, value)
    usd, per = value["usd"], value["per"]
    is_amount = isinstance(usd, int | float) and not isinstance(usd, bool) and 0 <= usd < float("inf")
    if not is_amount or per not in (Per.HOUR, Per.DAY, Per.WEEK, Per.MONTH):
        raise _setting_error(source, value)
    return SharedBudget(Decimal(str(usd)), Per(per), conn_id)


def _setting_error(source: str, value: Any) -> InputError:
    return InputError(
        f'{source}: Expected an object such as {{"usd": 50, "per": "day"}}, with US dollars of at least 0, and per '
        f'"hour", "day", "week" or "month", got {value!r:.100}. Nothing was sent.'
    )


class JobAccount(msgspec.Struct, frozen=True):
    """What one job has spent and reserved from a budget in one period, in US dollars."""

    key: JobKey
    spent: Decimal = _ZERO
    #: by submission, as in "s0001.1": the reservations that are not settled
    reservations: dict[str, Decimal] = {}

    @property
    def reserved(self) -> Decimal:
        """Sum of the reservations."""
        return sum(self.reservations.values(), _ZERO)


class Balance(msgspec.Struct, frozen=True):
    """The account of a budget in one period: an entry of its log."""

    #: the budget as the writer of this entry knew it
    budget: SharedBudget
    #: name of the period
    period: str
    #: by job_uid
    jobs: dict[str, JobAccount] = {}
    #: number of further jobs that are not listed, and what they have spent
    settled_jobs: int = 0
    settled_usd: Decimal = _ZERO
    #: when the entry was written; None if there is no entry
    time: datetime | None = None

    @property
    def spent(self) -> Decimal:
        """US dollars that all jobs have spent."""
        return sum((job.spent for job in self.jobs.values()), self.settled_usd)

    @property
    def reserved(self) -> Decimal:
        """US dollars that all jobs have reserved."""
        return sum((job.reserved for job in self.jobs.values()), _ZERO)

    def remaining(self, limit: Decimal) -> Decimal:
        """Return the US dollars that can still be reserved; negative if the limit is exceeded."""
        return limit - self.spent - self.reserved

    def reserved_by_others(self, job_uid: str) -> Decimal:
        """Return the US dollars that other jobs have reserved, and that may become free."""
        return sum((job.reserved for uid, job in self.jobs.items() if uid != job_uid), _ZERO)


class Change(NamedTuple):
    """A change to one reservation of a job."""

    reservation: str
    #: US dollars that it reserves from now on; None if it is settled
    reserved: Decimal | None
    #: US dollars that were spent, once it is settled; None if all that was reserved counts as spent
    spent: Decimal | None = _ZERO


def apply_changes(balance: Balance, job_uid: str, key: JobKey, changes: Iterable[Change]) -> Balance:
    """Return the balance after changes to the reservations of a job. The same balance if nothing changes.

    Settling something that is not reserved changes nothing.
    """
    account = balance.jobs.get(job_uid, JobAccount(key))
    reservations, spent = dict(account.reservations), account.spent
    for change in changes:
        if change.reserved is not None:
            reservations[change.reservation] = change.reserved
        elif change.reservation in reservations:
            amount = reservations.pop(change.reservation)
            spent += amount if change.spent is None else change.spent
    if (reservations, spent) == (account.reservations, account.spent):
        return balance
    jobs = {**balance.jobs, job_uid: JobAccount(key, spent, reservations)}
    return _add_up_settled_jobs(msgspec.structs.replace(balance, jobs=jobs))


def _add_up_settled_jobs(balance: Balance) -> Balance:
    """Return the balance with at most `MAX_SETTLED_JOBS` jobs that have no reservation. The oldest are added up."""
    settled = [job_uid for job_uid, job in balance.jobs.items() if not job.reservations]
    surplus = settled[: max(len(settled) - MAX_SETTLED_JOBS, 0)]
    if not surplus:
        return balance
    return msgspec.structs.replace(
        balance,
        jobs={job_uid: job for job_uid, job in balance.jobs.items() if job_uid not in surplus},
        settled_jobs=balance.settled_jobs + len(surplus),
        settled_usd=balance.settled_usd + sum((balance.jobs[job_uid].spent for job_uid in surplus), _ZERO),
    )


def reserve(
    balance: Balance,
    limit: Decimal,
    job_uid: str,
    key: JobKey,
    reservation: str,
    usd: Decimal,
    *,
    is_repeated: bool = False,
) -> Balance | None:
    """Return the balance with a new reservation, or None if it would exceed the limit.

    A reservation that exists is kept as it is, and the same balance is returned.

    :param is_repeated: whether the same requests are paid for once more. A reservation that exists then counts as
        spent, and a new one is made.
    """
    account = balance.jobs.get(job_uid)
    if account is not None and reservation in account.reservations:
        if not is_repeated:
            return balance
        balance = apply_changes(balance, job_uid, key, [Change(reservation, None, spent=None)])
    # the price is unknown if the amount is infinite
    if not usd.is_finite() or usd > balance.remaining(limit):
        return None
    return apply_changes(balance, job_uid, key, [Change(reservation, usd)])


def release(balance: Balance, job_uid: str) -> Balance:
    """Return the balance without the reservations of a job."""
    account = balance.jobs.get(job_uid)
    if account is None:
        return balance
    return apply_changes(balance, job_uid, account.key, [Change(name, None) for name in account.reservations])


def name_reservation(shard: str, number: int) -> str:
    """Return the name of the reservation of a submission within its job."""
    return f"{shard}.{number}"


def changes_of(balance: Balance, state: JobState, cost_of: Callable[[Shard], Decimal]) -> list[Change]:
    """Return what has to change in a balance, because of what happened to the job since.

    The state must have been read after the balance, so that it includes everything that the balance accounts for.

    :param cost_of: returns what a submission of a shard is expected to cost, as far as that is known now.
    """
    account = balance.jobs.get(state.manifest.job_uid)
    reservations = account.reservations if account is not None else {}
    submissions = {
        name_reservation(shard.name, submission.number): submission
        for shard in state.shards.values()
        for submission in shard.submissions
    }
    changes = []
    for name, reserved in reservations.items():
        shard = state.shards.get(name.rpartition(".")[0])
        if shard is None:
            continue
        cost = cost_of(shard.spec)
        change = _settlement(state, shard, submissions.get(name), name)
        if change is not None:
            changes.append(change._replace(spent=min(reserved, cost)) if change.spent is None else change)
        elif reserved < cost < Decimal("Infinity"):
            # the provider reported more tokens than were estimated
            changes.append(Change(name, cost))
    return changes


def unreserved_batches(balance: Balance, state: JobState) -> list[tuple[ShardState, Submission]]:
    """Return the running batches of a job that have no reservation in a balance, although they cost money.

    A batch was created before the connection had a budget, or its creation was taken for lost.
    """
    account = balance.jobs.get(state.manifest.job_uid)
    reservations = account.reservations if account is not None else {}
    return [
        (shard, submission)
        for shard in state.shards.values()
        for submission in shard.submissions
        if submission.batch_id
        and not submission.settled
        and not _is_ended_duplicate(state, submission)
        and name_reservation(shard.name, submission.number) not in reservations
    ]


def _is_ended_duplicate(state: JobState, submission: Submission) -> bool:
    duplicate = state.duplicate_batches.get(submission.batch_id)
    return duplicate is not None and duplicate.ended


def _settlement(state: JobState, shard: ShardState, submission: Submission | None, name: str) -> Change | None:
    """Return how a reservation is settled, or None as long as its submission may cost money."""
    if submission is None:
        # A worker has no plan while it sends a canary, which is not claimed. So it was another one, which may have
        # died, and this one will send the canary and pay for it once more.
        return Change(name, None, spent=None) if shard.spec.synchronous else None
    settled, rejection = submission.settled, submission.rejection
    if settled is None and _is_ended_duplicate(state, submission):
        # nobody reads the answers of a duplicate batch, so their cost is unknown
        completed = state.duplicate_batches[submission.batch_id].completed
        return Change(name, None, spent=None if completed else _ZERO)
    if rejection is not None and shard.spec.synchronous and rejection.failure is Failure.LOST:
        return Change(name, None, spent=None)
    if rejection is not None:
        return Change(name, None)
    if settled is None:
        return None
    return Change(name, None, spent=None if settled.cost_usd is None else Decimal(settled.cost_usd))


class Allowance(NamedTuple):
    """What the shared budgets leave for one job, as it was last read."""

    #: US dollars for further reservations
    usd: Decimal
    #: when more may be free, because other jobs settle or the period ends; None if that cannot happen
    free_at: datetime | None
    #: which budget leaves so little, and who holds how much, in full sentences
    message: str


def allowance_of(
    balances: Iterable[tuple[SharedBudget, Balance]], job_uid: str, now: datetime, recheck: timedelta
) -> Allowance | None:
    """Return what the scarcest of several budgets leaves for a job, or None if there is no budget.

    :param recheck: how long to wait for other jobs before the budget is read again.
    """
    pairs = list(balances)
    if not pairs:
        return None
    budget, balance = min(pairs, key=lambda pair: pair[1].remaining(pair[0].usd))
    ends_at = period_at(budget.per, now).ends_at
    times = [ends_at] if ends_at is not None else []
    if balance.reserved_by_others(job_uid):
        times.append(now + max(recheck, MIN_RECHECK))
    return Allowance(balance.remaining(budget.usd), min(times, default=None), describe(budget, balance, ends_at))


def describe(budget: SharedBudget, balance: Balance, ends_at: datetime | None) -> str:
    """Describe what is left of a budget, which jobs hold how much, and when it is free again, in full sentences."""
    text = str(budget)
    sentence = (
        f"{text[0].upper()}{text[1:]} has {format_usd(max(balance.remaining(budget.usd), _ZERO))} left: "
        f"{format_usd(balance.spent)} is spent and {format_usd(balance.reserved)} is reserved."
    )
    by_amount = sorted(balance.jobs.items(), key=lambda item: item[1].spent + item[1].reserved, reverse=True)
    holders = [
        f"job {job_uid[:8]} ({describe_job(job.key)}) holds {format_usd(job.spent + job.reserved)}"
        for job_uid, job in by_amount[:MAX_NAMED_JOBS]
    ]
    others = len(by_amount) - len(holders) + balance.settled_jobs
    if others:
        holders.append(f"{format_count(others, 'other job holds', 'other jobs hold')} the rest")
    shares = f" Of this, {', '.join(holders)}." if holders else ""
    next_period = f" The next period starts at {ends_at:%Y-%m-%d %H:%M} UTC." if ends_at else ""
    return f"{sentence}{shares}{next_period}"


def describe_job(key: JobKey) -> str:
    """Describe the task of a job, such as "label.submit in run manual__1"."""
    index = f"[{key.map_index}]" if key.map_index >= 0 else ""
    return f"{key.dag_id}.{key.task_id}{index} in run {key.run_id}"
