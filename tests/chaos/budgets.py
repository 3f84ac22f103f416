"""Rounds of chaos with budgets: jobs share a budget while their workers are killed, stopped and doubled.

A round depends on its number alone; `python -m tests.chaos --budgets --first 17 --rounds 1` repeats round 17. After
every round the following must hold: what the server executed costs no more than the limit, by its own records; the
account says the same; nothing is reserved any more; no request that has an answer was executed again; and no row is
lost: it has an answer, or it was withheld because the rest of the budget does not cover it.

Every request costs the same, so that what is reserved is an upper bound of the cost, as the guarantee requires.
"""

from __future__ import annotations

import json
import os
import random
import signal
import time
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from uuid import uuid4

import msgspec

from airflow_provider_batch.local.faults import Call, Fault, Kind
from airflow_provider_batch.local.process import LocalServer
from tests.airflow.jobs import client_of
from tests.chaos.budget_worker import BudgetStart
from tests.chaos.provider import read_batches
from tests.chaos.rounds import ChaosError, Workers
from tests.chaos.worker import Strike

#: jobs that share the budget, rows of each job, and rows of a shard
JOBS, ROWS, SHARD_ROWS = 2, 24, 4
CANARY_ROWS = 2
#: US dollars per input token of the provider's count; output is free
PRICE = 1_000_000
#: estimated input tokens of a request, more than the server counts
ESTIMATE = 60
#: how long the workers that are hit, and their successors, go on at most
STRUCK_SECONDS, CLEAN_SECONDS = 6, 30
#: generations of workers after which a round has failed
MAX_STARTS = 12

_ENTRY, _RECORDS = r"create \d{8}\.json", r"create g001/records/"
#: steps at which a worker can be hit, by a readable label
STEPS: dict[str, Strike] = {
    "before a reservation": Strike("before", _ENTRY),
    "reserved for the canary": Strike("after", _ENTRY),
    "canary sent, not recorded": Strike("before", rf"{_RECORDS}settled\.c.*"),
    "canary recorded, not settled": Strike("after", rf"{_RECORDS}settled\.c.*"),
    "canary settled": Strike("after", _ENTRY, nth=2),
    "claimed, not reserved": Strike("after", rf"{_RECORDS}intent\..*", nth=2),
    "reserved, not created": Strike("after", _ENTRY, nth=4),
    "in the create": Strike("after", _ENTRY, nth=4, delay=0.02),
    "created, not recorded": Strike("before", rf"{_RECORDS}created\..*", nth=2),
    "created": Strike("after", rf"{_RECORDS}created\..*", nth=2),
    "refused, not recorded": Strike("before", rf"{_RECORDS}refused\..*"),
    "refused": Strike("after", rf"{_RECORDS}refused\..*"),
    "collected, not recorded": Strike("before", rf"{_RECORDS}settled\.[sr].*", nth=2),
    "collected, not settled": Strike("after", rf"{_RECORDS}settled\.[sr].*", nth=2),
    "settled": Strike("after", _ENTRY, nth=6),
    "resealed": Strike("after", rf"{_RECORDS}retry_round\..*"),
}
_CREATE = frozenset({Call.CREATE})
#: faults that end by themselves; above all, creations whose result is not known
FAULTS = (
    Fault(kind=Kind.COMMIT_THEN_STATUS, calls=_CREATE, status=500, times=2),
    Fault(kind=Kind.COMMIT_THEN_HANG, calls=_CREATE, seconds=0.3, times=2),
    Fault(kind=Kind.DROP, calls=_CREATE, times=2),
    Fault(kind=Kind.HTML, calls=_CREATE, times=1),
    Fault(kind=Kind.GARBAGE, calls=_CREATE, times=1),
    Fault(kind=Kind.STATUS, calls=_CREATE, status=429, times=2),
    Fault(kind=Kind.STATUS, calls=_CREATE, status=500, times=2),
    Fault(kind=Kind.STATUS, calls=frozenset({Call.RETRIEVE}), status=500, times=3),
    Fault(kind=Kind.TRUNCATE, calls=frozenset({Call.DOWNLOAD}), times=2),
    Fault(kind=Kind.FAIL_BATCH, code="token_limit_exceeded", message="Enqueued token limit reached", times=2),
    Fault(kind=Kind.REQUEST_TIMEOUT, rate=0.2, times=1),
)


class Worker(msgspec.Struct, frozen=True):
    """One worker of a round: its job, and what happens to it."""

    job: int
    label: str = ""
    strike: Strike | None = None


@dataclass
class BudgetRound:
    """The limits, the workers and the faults of one round."""

    number: int
    #: share of what all requests cost
    connection_share: float
    #: None for no budget of the run
    run_share: float | None
    canary: bool
    workers: list[Worker]
    faults: list[Fault]

    def __str__(self) -> str:
        return f"budget round {msgspec.json.encode(vars(self)).decode()}"

    @staticmethod
    def draw(number: int) -> BudgetRound:
        """Return the round with this number. The first rounds cover every step once, in order."""
        chance = random.Random(f"budget round {number}")
        labels = [list(STEPS)[number % len(STEPS)], *chance.sample(list(STEPS), 2)]
        workers = [
            Worker(index % JOBS, label, msgspec.structs.replace(STEPS[label], stop=chance.random() < 0.3))
            for index, label in enumerate(labels)
        ]
        # an undisturbed worker beside those that are hit
        workers += [Worker(chance.randrange(JOBS))] * chance.choice((0, 1))
        has_canary = "canary" in labels[0] or chance.random() < 0.7
        faults = chance.sample(FAULTS, chance.choice((0, 1, 2)))
        return BudgetRound(
            number,
            connection_share=chance.choice((0.15, 0.4, 0.7, 1.1, 2.0)),
            run_share=chance.choice((None, None, 0.3, 0.9)),
            canary=has_canary,
            workers=workers,
            # a synchronous request that times out is called several times and billed not at all
            faults=[fault for fault in faults if not (has_canary and fault.kind is Kind.REQUEST_TIMEOUT)],
        )


@dataclass
class BudgetCount:
    """Result of one or several rounds. The invariants are the last counts, which must be 0."""

    rounds: int = 0
    kills: int = 0
    stops: int = 0
    faults: int = 0
    rows: int = 0
    answered: int = 0
    withheld: int = 0
    #: requests that the server executed, the canary included
    executions: int = 0
    over_limit: int = 0
    miscounted: int = 0
    still_reserved: int = 0
    paid_twice: int = 0
    lost: int = 0
    #: rounds in which rows were withheld although the limit covers them
    too_strict: int = 0
    steps: Counter[str] = field(default_factory=Counter)

    def add(self, count: BudgetCount) -> None:
        """Add the counts of another round."""
        for name, value in vars(count).items():
            setattr(self, name, getattr(self, name) + value)

    @property
    def violations(self) -> dict[str, int]:
        """Counts that must be 0 and are not, by name."""
        names = ("over_limit", "miscounted", "still_reserved", "paid_twice", "lost", "too_strict")
        return {name: getattr(self, name) for name in names if getattr(self, name)}

    def summary(self) -> str:
        """Return all counts as one line."""
        return (
            f"{self.rounds} rounds with budgets, {self.kills} kills, {self.stops} stops, {self.faults} faults, "
            f"{self.rows:,} rows ({self.executions:,} executions, {self.answered:,} answered, {self.withheld:,} "
            f"withheld): {self.over_limit} over the limit, {self.miscounted} miscounted, {self.still_reserved} still "
            f"reserved, {self.paid_twice} paid twice, {self.lost} lost, {self.too_strict} too strict"
        )


class BudgetChaos:
    """A server and a process of workers, on which rounds with budgets are played."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self._workers = stack.enter_context(Workers(self._folder / "airflow", "tests.chaos.budget_worker"))
            options: dict[str, Any] = {"admin": True, "in_progress": 0.2, "creates_per_hour": 1_000_000}
            self._server = stack.enter_context(LocalServer(self._folder / "server", **options))
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def play(self, round_: BudgetRound) -> BudgetCount:
        """Play one round and return its counts.

        :raises ChaosError: if the jobs did not come to rest.
        """
        folder = self._folder / f"budget-round-{round_.number}"
        # what all requests cost, by the server's count of the tokens of one of them
        unit_tokens = self._unit()
        unit = Decimal(unit_tokens)
        total = unit * JOBS * ROWS
        limits = [Decimal(str(round(float(total) * round_.connection_share)))]
        limits += [] if round_.run_share is None else [Decimal(str(round(float(total) * round_.run_share)))]
        ledgers = [
            self._seal(folder, round_, job, unit_tokens, None if len(limits) < 2 else float(limits[1]))
            for job in range(JOBS)
        ]
        count = BudgetCount(rounds=1, rows=JOBS * ROWS)
        synchronous_before = self._server.calls().get(Call.SYNCHRONOUS, 0)
        self._server.set_faults(*round_.faults)
        environment = self._environment(folder, limits[0])

        def start(worker: Worker, name: str, seconds: float) -> tuple[int, BudgetStart]:
            files = folder / f"{name}-job-{worker.job}"
            order = BudgetStart(
                environment, ledgers[worker.job].folder.uri, f"{files}.result", f"{files}.log", worker.strike, seconds
            )
            return self._workers.start(order), order

        running = [
            (worker, *start(worker, f"struck-{index}", STRUCK_SECONDS)) for index, worker in enumerate(round_.workers)
        ]
        stopped: list[int] = []
        for worker, pid, order in running:
            end = self._workers.await_end(pid, or_stop=True)
            if Path(f"{order.result}.hit").exists():
                count.steps[worker.label] += 1
                count.kills += end == "ended"
                count.stops += end == "stopped"
            stopped += [pid] if end == "stopped" else []
        for attempt in range(MAX_STARTS):
            pairs = [start(Worker(job), f"clean-{attempt}", CLEAN_SECONDS) for job in range(JOBS)]
            if attempt == 1:
                # workers that were stopped wake up beside their successors
                self._wake(stopped)
            for pid, _ in pairs:
                self._workers.await_end(pid)
            if attempt >= 2 and all(Path(order.result).exists() for _, order in pairs):
                break
        else:
            raise ChaosError(f"Round {round_.number} did not come to rest. See {folder}.\n{round_}")
        count.faults += sum(self._server.hits())
        self._server.set_faults()
        synchronous = self._server.calls().get(Call.SYNCHRONOUS, 0) - synchronous_before
        self._count(count, round_, folder, ledgers, limits, unit, synchronous)
        return count

    def _wake(self, pids: list[int]) -> None:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)
            self._workers.await_end(pid)
        pids.clear()

    def _unit(self) -> int:
        """Return what one request costs, in US dollars: the input tokens that the server counts."""
        with client_of(self._server) as client:
            completion = client.chat.completions.create(
                model="gpt-5-mini", messages=[{"role": "user", "content": prompt(0, 0, 0)}]
            )
        assert completion.usage is not None
        return completion.usage.prompt_tokens

    def _environment(self, folder: Path, limit: Decimal) -> dict[str, str]:
        extra = {"batch_budget": {"usd": float(limit), "per": "month"}}
        connection = {"conn_type": "openai", "password": "local", "host": self._server.base_url, "extra": extra}
        return {
            "AIRFLOW_CONN_OPENAI_DEFAULT": json.dumps(connection),
            "AIRFLOW__OPENAI_BATCH__STAGING": (folder / "staging").as_uri(),
        }

    def _seal(self, folder: Path, round_: BudgetRound, job: int, unit: int, run_limit: float | None) -> Any:
        from airflow_provider_batch.core.ledger.job import Estimate, JobKey, Manifest
        from airflow_provider_batch.core.ledger.ledger import seal
        from airflow_provider_batch.core.provider.limits import Limits
        from airflow_provider_batch.core.requests.render import RequestSpec, compile_renderer
        from airflow_provider_batch.core.sealing.sealer import Sealer
        from airflow_provider_batch.staging.local import LocalFolder
        from tests.core.building import add_row

        job_folder = LocalFolder(folder / f"job-{job}")
        limits = Limits(requests=SHARD_ROWS)
        spec = RequestSpec(custom_id="{{ row.id }}", model="gpt-5-mini", prompt="{{ row.text }}")
        renderer = compile_renderer(spec, ["id", "text"], {})
        canary = CANARY_ROWS if round_.canary else 0
        sealer = Sealer(job_folder, "g001/build", spec.endpoint, limits, canary=canary)
        for row in range(ROWS):
            (request,) = renderer([(str(row), prompt(round_.number, job, row))], row + 1)
            add_row(sealer, request, [], row + 1, ESTIMATE)
        manifest = Manifest(
            job_uid=uuid4().hex,
            key=JobKey("chaos", f"submit_{job}", f"round-{round_.number}"),
            sealed_at=datetime.now(UTC),
            endpoint=spec.endpoint,
            openai_conn_id="openai_default",
            requests=ROWS,
            shards=sealer.finish(),
            carry=[],
            estimate=Estimate(),
            limits=limits,
            prices={"gpt-5-mini": {"input": PRICE, "output": 0}},
            # as earlier jobs measured it
            input_factors={"gpt-5-mini": unit / ESTIMATE},
            max_run_cost_usd=run_limit,
            ignore_canary=True,
        )
        return seal(job_folder, manifest)

    def _count(
        self,
        count: BudgetCount,
        round_: BudgetRound,
        folder: Path,
        ledgers: list[Any],
        limits: list[Decimal],
        unit: Decimal,
        synchronous: int,
    ) -> None:
        from airflow_provider_batch.core.ledger.state import Phase
        from airflow_provider_batch.staging.layout import budget_folders
        from airflow_provider_batch.worker.budget_log import read_newest

        billed = synchronous
        for ledger in ledgers:
            batches = read_batches(self._folder / "server", {ledger.manifest.job_uid})
            executions = Counter(custom_id for batch in batches for custom_id in batch.answered_ids)
            billed += executions.total()
            count.paid_twice += sum(times - 1 for times in executions.values())
            state = ledger.state()
            answered = sum(settled.outcomes.get("succeeded", 0) for _, _, settled in state.settled_submissions())
            unsent = sum(
                shard.requests for shard in state.shards.values() if shard.phase in (Phase.SEALED, Phase.UPLOADED)
            )
            count.answered += answered
            count.withheld += unsent
            count.lost += max(ROWS - answered - unsent, 0)
        count.executions += billed
        count.over_limit += any(billed * unit > limit for limit in limits)
        newest = [read_newest(account) for account in budget_folders((folder / "staging").as_uri())]
        balances = [entry[1] for entry in newest if entry is not None]
        for balance in balances:
            count.still_reserved += balance.reserved != 0
            # a canary that was not recorded counts as its estimate; nothing is ever counted below what was billed
            is_exact = not round_.canary
            count.miscounted += balance.spent != billed * unit if is_exact else balance.spent < billed * unit
        # a shard is divided only if at least a tenth of it fits, and a canary that was lost costs its estimate
        if count.withheld and min(limits) >= unit * (JOBS * ROWS) + 4 * CANARY_ROWS * ESTIMATE:
            count.too_strict += 1


def prompt(round_number: int, job: int, row: int) -> str:
    """Return a prompt. All prompts have the same number of tokens."""
    return f"ticket {round_number:04d} {job:02d} {row:02d}"


def play_budgets(rounds: range, folder: Path) -> BudgetCount:
    """Play rounds with budgets, print each one that violated an invariant, and return the sum of the counts."""
    total = BudgetCount()
    started_at = time.monotonic()
    with BudgetChaos(folder) as chaos:
        for number in rounds:
            round_ = BudgetRound.draw(number)
            count = chaos.play(round_)
            if count.violations:
                print(f"violated: {count.violations} in {round_}", flush=True)
            total.add(count)
            if total.rounds % 10 == 0:
                print(f"{total.summary()}; {time.monotonic() - started_at:.0f} s", flush=True)
    print(f"{total.summary()}; {time.monotonic() - started_at:.0f} s", flush=True)
    return total
