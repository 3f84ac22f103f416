"""How often a job meets its deadline, and how much of it is answered at half price.

    python -m benchmarks.deadlines [--jobs 2000] [--rows 500] [--json FILE]

Each job is simulated with the real lifecycle: `next_steps` decides from the records and the time, and the simulation
does the steps and records their results. Only the provider is simulated, so hours take milliseconds. The models of
the provider are assumptions, because OpenAI publishes no distribution:

* A batch takes a lognormal time with a median of 30 minutes and a sigma of 1.4: 16 % take longer than 2 hours, 4 %
  longer than 6 hours, and 0.3 % longer than 24 hours, when it expires. Reports of users range from minutes to a full
  day. Its rows are answered evenly over that time.
* A cancelled batch ends after 0 to 10 minutes, as OpenAI documents, and keeps its answers so far.
* A request on flex takes a lognormal time with a median of 20 seconds and a sigma of 0.8: one in a hundred takes two
  minutes. One in 10,000 hangs until it is abandoned after 15 minutes. It may be billed, so it is not
  sent again, and its job misses the deadline. With one in 2,000, `sync` meets 98.1 % at 2 hours, and 99.5 % at 6.
* Flex refuses a share of the requests, which depends on the hour: none in half of the jobs, 10 % in a third, 40 % in an
  eighth, and 97 % in the rest, so that flex is as good as closed.
* A request at the standard price takes a lognormal time with a median of 6 seconds and a sigma of 0.6.

The figures are shares of all jobs, in percent: those with every answer before the deadline (the target is 99 %), and
the share of the answers at the price of a batch. `sync` also reports both for a model without flex.
"""

from __future__ import annotations

import argparse
import heapq
import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

from airflow_provider_batch.core.ledger.fold import fold
from airflow_provider_batch.core.ledger.job import Estimate, JobKey, Manifest, Shard
from airflow_provider_batch.core.ledger.records import (
    CancelRequested,
    Created,
    Deadline,
    Intent,
    Record,
    RetryRound,
    Settled,
    Uploaded,
)
from airflow_provider_batch.core.ledger.state import JobState
from airflow_provider_batch.core.lifecycle.next_steps import next_steps
from airflow_provider_batch.core.lifecycle.steps import (
    FINAL_PASS_WINDOW,
    SHARD_REQUESTS,
    Cancel,
    Collect,
    Create,
    FinalPass,
    Finish,
    Policy,
    Retry,
    SendSynchronously,
    Step,
    Upload,
    Wait,
)
from airflow_provider_batch.core.provider.batch import BatchView, Status
from airflow_provider_batch.core.provider.lane import Lane
from airflow_provider_batch.core.provider.limits import Limits
from airflow_provider_batch.core.sealing.final_pass import FINAL_PASS_CONCURRENCY
from airflow_provider_batch.worker.runner import FLEX_MARGIN
from airflow_provider_batch.worker.synchronous import FLEX_TIMEOUT, PATIENCE, ROWS
from benchmarks.measure import Figure, report

START = datetime(2026, 11, 29, tzinfo=UTC)
MODEL = "gpt-5-mini"
MINUTE = timedelta(minutes=1)
POLL_INTERVAL = MINUTE
EXPIRY = timedelta(hours=24)


class Choice(NamedTuple):
    """What happens before the deadline."""

    name: str
    #: None for no final pass
    lane: Lane | None
    has_flex: bool = True


CHOICES = (
    Choice("collect", None),
    Choice("flex", Lane.FLEX),
    Choice("sync", Lane.STANDARD),
    Choice("sync, model without flex", Lane.STANDARD, has_flex=False),
)


class Batch:
    """A batch of the provider."""

    def __init__(self, start: datetime, duration: timedelta, rows: int) -> None:
        self._start, self._duration, self._rows = start, duration, rows
        self._cancelled_at: datetime | None = None
        self.ends_at = start + min(duration, EXPIRY)

    def cancel(self, now: datetime, delay: timedelta) -> None:
        """Cancel the batch: no more rows are answered, and it ends after a delay."""
        if now < self.ends_at:
            self._cancelled_at, self.ends_at = now, min(now + delay, self.ends_at)

    @property
    def answered(self) -> int:
        """Number of rows that it has answered in the end."""
        end = self._cancelled_at or self.ends_at
        return min(int(self._rows * (end - self._start) / self._duration), self._rows)

    def view(self, batch_id: str, now: datetime) -> BatchView:
        """Return the batch as the provider shows it."""
        if now < self.ends_at:
            status = "cancelling" if self._cancelled_at else "in_progress"
            return BatchView(batch_id, Status.CANCELLING if self._cancelled_at else Status.RUNNING, status)
        status = "cancelled" if self._cancelled_at else "completed" if self.answered == self._rows else "expired"
        return BatchView(batch_id, Status(status), status)


class Job:
    """A job from its start to the end of its wait."""

    def __init__(self, seed: int, rows: int, hours: float, choice: Choice) -> None:
        # the same seed gives the same provider, whatever the choice is
        self._random = random.Random(seed)
        self._choice = choice
        self._unavailable = self._random.choices([0, 0.1, 0.4, 0.97], [0.5, 0.33, 0.125, 0.045])[0]
        self._duration = timedelta(minutes=30 * self._random.lognormvariate(0, 1.4))
        self.now = START
        self.deadline = START + timedelta(hours=hours)
        self._manifest = _manifest([_shard("s0001", rows)])
        self._policy = Policy(
            at_deadline_rows=rows if choice.lane is not None else 0,
            at_deadline_lane=choice.lane or Lane.STANDARD,
            has_flex=choice.has_flex,
        )
        self._records: list[Record] = [Deadline(self.deadline, START)]
        self._batches: dict[str, Batch] = {}
        #: number of answers by lane
        self.answers = dict.fromkeys(Lane, 0)
        self.answered_at = START

    def run(self) -> None:
        """Run the job until its wait is over."""
        while True:
            views = {batch_id: batch.view(batch_id, self.now) for batch_id, batch in self._batches.items()}
            steps, pause = next_steps(self._state(), views, self._policy, self.now)
            if steps:
                self._do(steps)
            elif isinstance(pause, Wait):
                self._wait(pause)
            else:
                assert isinstance(pause, Finish), pause
                return

    def _state(self) -> JobState:
        return fold(self._manifest, self._records)

    def _wait(self, pause: Wait) -> None:
        ends = [self._batches[batch_id].ends_at for batch_id in pause.batch_ids]
        # a batch is seen to have ended at the next poll
        polls = [START + POLL_INTERVAL * -(-(end - START) // POLL_INTERVAL) for end in ends if end >= self.now]
        self.now = max(min([*polls, *([pause.until] if pause.until else [])]), self.now)

    def _do(self, steps: list[Step]) -> None:
        synchronous = [step for step in steps if isinstance(step, SendSynchronously)]
        if synchronous:
            self._send(synchronous)
            return
        for step in steps:
            self._do_one(step)

    def _do_one(self, step: Step) -> None:
        match step:
            case Upload(shard, number):
                self._records.append(Uploaded(shard.name, number, f"file-{shard.name}", self.now))
            case Create(shard, number, file_id):
                batch_id = f"batch-{len(self._batches)}"
                self._batches[batch_id] = Batch(self.now, self._duration, shard.requests)
                self._records += [
                    Intent(shard.name, number, "nonce", file_id, self.now),
                    Created(shard.name, number, batch_id, self.now),
                ]
            case Cancel(shard, submission, reason):
                self._batches[submission.batch_id].cancel(self.now, self._random.random() * 10 * MINUTE)
                self._records.append(CancelRequested(shard.name, submission.number, reason, self.now))
            case Collect(shard, submission, view):
                answered = self._batches[view.id].answered
                self._count(Lane.BATCH, answered, self.now)
                unanswered = shard.requests - answered
                outcomes = {
                    "succeeded": answered,
                    "cancelled" if view.raw_status == "cancelled" else "expired": unanswered,
                }
                self._records.append(
                    Settled(shard.name, submission.number, view.id, view.raw_status, self.now, outcomes=outcomes)
                )
            case Retry(sources):
                self._seal(
                    [(shard.name, settled.number) for shard, settled in sources], _rows_to_send(step), Lane.BATCH
                )
            case FinalPass(_, sources, unsent):
                assert not unsent
                lane = self._choice.lane
                assert lane is not None
                self._seal([(shard.name, settled.number) for shard, settled in sources], _rows_to_send(step), lane)
            case _:
                raise AssertionError(f"unexpected step {step}")

    def _seal(self, sources: list[tuple[str, int]], rows: int, lane: Lane) -> None:
        number = self._state().next_retry_round
        size = rows if lane is Lane.BATCH else SHARD_REQUESTS
        shards = [
            _shard(f"{'r' if lane is Lane.BATCH else 'f'}{number:02d}-{index:04d}", min(size, rows - start), lane, 2)
            for index, start in enumerate(range(0, rows, size), start=1)
        ]
        is_final_pass = lane is not Lane.BATCH
        self._records.append(RetryRound(number, sources, shards, self.now, is_final_pass=is_final_pass))

    def _send(self, steps: list[SendSynchronously]) -> None:
        """Send shards as the worker does: 16 requests at a time, and a shard once there is space for all of it."""
        ends: list[tuple[datetime, int]] = []
        in_flight, end = 0, self.now
        for step in steps:
            while in_flight + step.shard.requests > FINAL_PASS_CONCURRENCY:
                self.now, requests = heapq.heappop(ends)
                in_flight -= requests
            if self.now >= self.deadline + FINAL_PASS_WINDOW:
                break
            replies = [self._send_one(self.now) for _ in range(step.shard.requests)]
            shard_end = max(time for time, _ in replies)
            for time, lane in replies:
                if lane is not None:
                    self._count(lane, 1, time)
            answered = sum(lane is not None for _, lane in replies)
            outcomes = {"succeeded": answered, "failed": step.shard.requests - answered}
            name = step.shard.name
            self._records.append(Settled(name, step.number, "", "answered", shard_end, outcomes=outcomes))
            heapq.heappush(ends, (shard_end, step.shard.requests))
            in_flight, end = in_flight + step.shard.requests, max(end, shard_end)
        self.now = max(self.now, end)

    def _send_one(self, start: datetime) -> tuple[datetime, Lane | None]:
        """Return when a request has its last response, and the lane that answered; None if none did."""
        time = start
        is_standard_allowed = self._choice.lane is Lane.STANDARD
        is_urgent = start > self.deadline - FLEX_MARGIN
        if self._choice.has_flex and not (is_standard_allowed and is_urgent):
            for pause in (*ROWS.flex.pauses, None):
                if self._random.random() >= self._unavailable:
                    if self._random.random() < 1 / 10_000:
                        return time + timedelta(seconds=FLEX_TIMEOUT), None
                    return time + timedelta(seconds=20 * self._random.lognormvariate(0, 0.8)), Lane.FLEX
                time += timedelta(seconds=1)
                if pause is None or time + timedelta(seconds=pause) > start + timedelta(seconds=PATIENCE):
                    break
                time += timedelta(seconds=pause)
        if not is_standard_allowed:
            return time, None
        return time + timedelta(seconds=6 * self._random.lognormvariate(0, 0.6)), Lane.STANDARD

    def _count(self, lane: Lane, answers: int, time: datetime) -> None:
        self.answers[lane] += answers
        if answers:
            self.answered_at = max(self.answered_at, time)


def _rows_to_send(step: Retry | FinalPass) -> int:
    sources = step.sources if isinstance(step, Retry) else step.settled_sources
    return sum(
        rows
        for _, settled in sources
        for outcome, rows in settled.outcomes.items()
        if outcome in ("cancelled", "expired")
    )


def _shard(name: str, rows: int, lane: Lane = Lane.BATCH, attempt: int = 1) -> Shard:
    return Shard(name, MODEL, "", "", rows, 100 * rows, "", 100 * rows, attempt, lane)


def _manifest(shards: list[Shard]) -> Manifest:
    return Manifest(
        job_uid="0" * 32,
        key=JobKey("deadlines", "submit", "run"),
        sealed_at=START,
        endpoint="/v1/responses",
        openai_conn_id="openai_default",
        requests=sum(shard.requests for shard in shards),
        shards=shards,
        carry=[],
        estimate=Estimate(),
        limits=Limits(),
    )


def simulate(jobs: int, rows: int, hours: float, choice: Choice) -> Iterator[Job]:
    """Yield jobs whose wait is over."""
    for seed in range(jobs):
        job = Job(seed, rows, hours, choice)
        job.run()
        yield job


def main() -> None:
    """Simulate and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=2_000, help="number of simulated jobs of each kind")
    parser.add_argument("--rows", type=int, default=500, help="number of rows of a job")
    parser.add_argument("--hours", type=float, nargs="+", default=[2.0, 6.0], help="deadlines after the start")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    args = parser.parse_args()
    figures = []
    for hours in args.hours:
        for choice in CHOICES:
            finished = list(simulate(args.jobs, args.rows, hours, choice))
            figures += _figures(f"{hours:g} h, {choice.name}", finished, args.rows)
    report(f"Deadlines met by jobs of {args.rows:,} rows, {args.jobs:,} jobs each", figures, args.json)


def _figures(name: str, jobs: list[Job], rows: int) -> list[Figure]:
    is_target = name.endswith("sync")
    met = Figure(f"{name}: met", "%", anchor="all jobs", min_ratio=0.99 if is_target else None)
    met.add(100 * sum(_is_met(job, rows) for job in jobs) / len(jobs), 100)
    answers: dict[str, Any] = {lane: sum(job.answers[lane] for job in jobs) for lane in Lane}
    total = sum(answers.values())
    half = Figure("  answers at half price", "%")
    half.add(100 * (answers[Lane.BATCH] + answers[Lane.FLEX]) / total)
    flex = Figure("  of these on flex", "%")
    flex.add(100 * answers[Lane.FLEX] / total)
    late = sorted((job.answered_at - job.deadline) / MINUTE for job in jobs if sum(job.answers.values()) == rows)
    spare = Figure("  99th percentile: minutes after the deadline", "min")
    spare.add(late[int(0.99 * (len(late) - 1))] if late else float("nan"))
    return [met, half, flex, spare]


def _is_met(job: Job, rows: int) -> bool:
    return sum(job.answers.values()) == rows and job.answered_at <= job.deadline


if __name__ == "__main__":
    main()
