"""Rounds of chaos: a job is run, its workers are killed or stopped, the server does every wrong thing; then we count.

A round is drawn from its number alone, so that `python -m tests.chaos --first 17 --rounds 1` does it again. What must
come of every round: each row of the source is in the table once, with its own answer; no row that was answered was
executed again; no batch of the job is left running.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import msgspec
from openai import OpenAI

from airflow_provider_batch.local.faults import Call, Fault, Kind
from airflow_provider_batch.local.process import LocalServer
from tests.chaos.worker import Start, Strike

ROWS = 48
#: requests in a shard, so that a job has several
SHARD = 10
TABLE = "answers"
#: goes at one round; after these the round has failed
GOES = 12

#: every labelled step, by what a person would call it
STEPS: dict[str, Strike] = {
    "reading": Strike("at", "read row", nth=17),
    "staging": Strike("after", r"write g001/build-.*/s0002\.jsonl"),
    "before sealing": Strike("before", r"create g001/seal\.json"),
    "sealed": Strike("after", r"create g001/seal\.json"),
    "canary asked, not recorded": Strike("before", r"create g001/records/settled\.c.*"),
    "canary asked": Strike("after", r"create g001/records/settled\.c.*"),
    "canary judged": Strike("after", r"create g001/records/canary\.json"),
    "uploaded, not recorded": Strike("before", r"create g001/records/uploaded\..*", nth=2),
    "uploaded": Strike("after", r"create g001/records/uploaded\..*", nth=2),
    "before the create": Strike("after", r"create g001/records/intent\..*", nth=2),
    "in the create": Strike("after", r"create g001/records/intent\..*", nth=2, delay=0.4),
    "created, not recorded": Strike("before", r"create g001/records/created\..*", nth=2),
    "created": Strike("after", r"create g001/records/created\..*", nth=2),
    "waiting": Strike("after", r"create g001/records/deadline\..*", delay=0.3),
    "downloading": Strike("before", r"write g001/collected/[sw].*", nth=2),
    "downloaded": Strike("before", r"create g001/records/settled\.[sw].*", nth=2),
    "settled": Strike("after", r"create g001/records/settled\.[sw].*", nth=2),
    "before a wave": Strike("before", r"create g001/records/wave\.1\.json"),
    "asked again": Strike("after", r"create g001/records/wave\.1\.json"),
    "writing": Strike("at", "land row", nth=20),
    "written, not committed": Strike("at", "landed all"),
    "committed": Strike("before", r"create g001/records/landed\..*"),
    "landed": Strike("after", r"create g001/records/landed\..*"),
}

#: steps inside a transaction: a worker that stops there holds SQLite's lock, and its successor rightly waits for it
LOCKED = ("writing", "written, not committed")

#: what the server may do wrong; each ends by itself
FAULTS: list[Fault] = [
    Fault(kind=Kind.STATUS, calls=frozenset({Call.CREATE}), status=500, times=2),
    Fault(kind=Kind.STATUS, calls=frozenset({Call.CREATE}), status=429, times=2),
    Fault(kind=Kind.COMMIT_THEN_STATUS, calls=frozenset({Call.CREATE}), status=500, times=2),
    Fault(kind=Kind.COMMIT_THEN_STATUS, calls=frozenset({Call.CREATE}), status=503, times=1),
    Fault(kind=Kind.COMMIT_THEN_HANG, calls=frozenset({Call.CREATE}), seconds=0.8, times=2),
    Fault(kind=Kind.DROP, calls=frozenset({Call.CREATE}), times=2),
    Fault(kind=Kind.HTML, calls=frozenset({Call.CREATE}), times=1),
    Fault(kind=Kind.STATUS, calls=frozenset({Call.UPLOAD}), status=500, times=2),
    Fault(kind=Kind.DROP, calls=frozenset({Call.UPLOAD}), times=1),
    Fault(kind=Kind.STATUS, calls=frozenset({Call.RETRIEVE}), status=500, times=3),
    Fault(kind=Kind.HTML, calls=frozenset({Call.RETRIEVE}), times=2),
    Fault(kind=Kind.STATUS, calls=frozenset({Call.LIST}), status=500, times=1),
    Fault(kind=Kind.TRUNCATE, calls=frozenset({Call.DOWNLOAD}), times=3),
    Fault(kind=Kind.DROP, calls=frozenset({Call.DOWNLOAD}), times=2),
    Fault(kind=Kind.ERROR, status=429, rate=0.3, times=1),
    Fault(kind=Kind.ERROR, status=500, rate=0.2, times=2),
    Fault(kind=Kind.STATUS_0, rate=0.2, times=1),
    Fault(kind=Kind.REQUEST_TIMEOUT, rate=0.2, times=1),
    Fault(kind=Kind.MISSING_LINE, rate=0.1, times=1),
    Fault(kind=Kind.BROKEN_LINE, rate=0.1, times=1),
    Fault(kind=Kind.DUPLICATE_LINE, rate=0.2, times=1),
    Fault(kind=Kind.FAIL_BATCH, code="token_limit_exceeded", message="Enqueued token limit reached", times=2),
    Fault(kind=Kind.FAIL_BATCH, code="invalid_request", message="Cannot find file file-1", times=1),
]


@dataclass
class Round:
    """What is done to one job."""

    number: int
    strikes: list[tuple[str, Strike]]
    faults: list[Fault]
    #: the server is killed and started again while the first worker is at work
    server_dies: bool = False

    @staticmethod
    def drawn(number: int) -> Round:
        """The round with this number. The first ones take every labelled step in turn."""
        chance = random.Random(f"round {number}")
        names = list(STEPS)
        first = names[number % len(names)]
        others = chance.sample(names, chance.choice((0, 0, 1, 2)))
        strikes = []
        for name in [first, *others]:
            strike = STEPS[name]
            stop = chance.random() < 0.25 and name not in LOCKED
            strikes.append((name, msgspec.structs.replace(strike, stop=stop)))
        faults = chance.sample(FAULTS, chance.choice((0, 1, 2, 3)))
        if first in ("before a wave", "asked again"):
            faults.append(Fault(kind=Kind.ERROR, status=503, rate=0.3, times=1))
        return Round(number, strikes, faults, server_dies=chance.random() < 0.15)


@dataclass
class Count:
    """What came of rounds; what must be 0 last."""

    rounds: int = 0
    kills: int = 0
    stops: int = 0
    faults: int = 0
    rows: int = 0
    executed: int = 0
    lost: int = 0
    duplicated: int = 0
    wrong: int = 0
    paid_twice: int = 0
    ownerless: int = 0
    steps: Counter[str] = field(default_factory=Counter)

    def add(self, other: Count) -> None:
        """Add up."""
        for name, value in vars(other).items():
            setattr(self, name, getattr(self, name) + value)

    @property
    def bad(self) -> dict[str, int]:
        """What must be 0 and is not."""
        names = ("lost", "duplicated", "wrong", "paid_twice", "ownerless")
        return {name: getattr(self, name) for name in names if getattr(self, name)}

    def told(self) -> str:
        """One line."""
        return (
            f"{self.rounds} rounds, {self.kills} kills, {self.stops} stops, {self.faults} faults, {self.rows:,} rows "
            f"({self.executed:,} executions): lost {self.lost}, duplicated {self.duplicated}, wrong {self.wrong}, "
            f"paid twice {self.paid_twice}, batches without an owner {self.ownerless}"
        )


class ChaosError(AssertionError):
    """A round did not end well. Says which, and where its logs lie."""


class _Workers:
    """A process of `tests.chaos.worker` with an Airflow home of its own, and what it told of its forks."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self._environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW")},
            "AIRFLOW_HOME": str(home),
            "AIRFLOW__CORE__DAGS_FOLDER": str(home / "dags"),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
            "NO_PROXY": "127.0.0.1,localhost",
            "no_proxy": "127.0.0.1,localhost",
        }
        self._process: subprocess.Popen[bytes] | None = None
        self._told: dict[int, str] = {}

    def __enter__(self) -> Self:
        (self._home / "dags").mkdir(parents=True)
        log = (self._home / "worker.log").open("ab")
        with log:
            subprocess.run(
                [sys.executable, "-m", "airflow", "db", "migrate"],
                env=self._environment,
                stdout=log,
                stderr=log,
                check=True,
            )
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.chaos.worker"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env=self._environment,
            )
        self._line()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(30)
        self._process.stdout.close()

    def start(self, start: Start) -> int:
        """Begin a run; the process id of its fork."""
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.write(msgspec.json.encode(start) + b"\n")
        self._process.stdin.flush()
        while True:
            what, pid = self._line()
            if what == "started":
                return pid

    def await_end(self, pid: int, *, or_stop: bool = False) -> str:
        """Wait until a fork ends, or stops; which of them it was."""
        while self._told.get(pid) != "ended" and not (or_stop and self._told.get(pid) == "stopped"):
            self._line()
        return self._told[pid]

    def _line(self) -> tuple[str, int]:
        assert self._process is not None
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            log = (self._home / "worker.log").read_text(errors="replace")
            raise ChaosError(f"The worker process ended:\n{log[-4000:]}")
        told = json.loads(line)
        self._told[told["pid"]] = told["what"]
        return told["what"], told["pid"]


class Chaos:
    """A server, two Airflows (a worker that wakes up again and its successor are on different ones), and the rounds."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            # Else hundreds of rounds meet the limit of 2,000 batches an hour, and rightly wait for room.
            options: dict[str, Any] = {"admin": True, "in_progress": 0.2, "creates_per_hour": 1_000_000}
            self._server = stack.enter_context(LocalServer(self._folder / "server", **options))
            self._workers = [stack.enter_context(_Workers(self._folder / f"airflow-{n}")) for n in (1, 2)]
            self._client = stack.enter_context(OpenAI(base_url=self._server.base_url, api_key="local", max_retries=5))
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def play(self, round_: Round) -> Count:
        """Play one round and count.

        :raises ChaosError: if the job did not succeed in so many goes.
        """
        place = self._folder / f"round-{round_.number}"
        place.mkdir()
        warehouse = place / "warehouse.db"
        with closing(sqlite3.connect(warehouse)) as connection, connection:
            connection.execute("CREATE TABLE tickets (id INTEGER PRIMARY KEY, body TEXT)")
            bodies = [(number, f"ticket {number} of round {round_.number}") for number in range(ROWS)]
            connection.executemany("INSERT INTO tickets VALUES (?, ?)", bodies)
        count = Count(rounds=1, rows=ROWS)
        self._server.set_faults(*round_.faults)
        zombies: list[tuple[_Workers, int]] = []
        workers, spare = self._workers
        for go in range(GOES):
            strike = round_.strikes[go] if go < len(round_.strikes) else None
            start = self._start(round_, place, warehouse, go, strike[1] if strike else None)
            pid = workers.start(start)
            if round_.server_dies and go == 0:
                self._server.kill()
                self._server.start()
                self._server.set_faults(*round_.faults)
            end = workers.await_end(pid, or_stop=True)
            if Path(f"{start.result}.hit").exists():
                assert strike is not None
                count.steps[strike[0]] += 1
                count.kills += end == "ended"
                count.stops += end == "stopped"
            if end == "stopped":
                zombies.append((workers, pid))
                workers, spare = spare, workers
            result = Path(start.result)
            if end == "ended" and result.exists() and json.loads(result.read_text())["state"] == "success":
                break
            if go == len(round_.strikes) // 2:
                self._wake(zombies)
        else:
            raise ChaosError(f"Round {round_.number} did not succeed in {GOES} goes: see {place}.\n{round_}")
        self._wake(zombies)
        count.faults = self._faults_hit()
        self._server.set_faults()
        self._count(count, place, warehouse)
        return count

    def _wake(self, zombies: list[tuple[_Workers, int]]) -> None:
        """Let stopped workers go on to their end: they do not know that others took over."""
        for workers, pid in zombies:
            os.kill(pid, signal.SIGCONT)
            workers.await_end(pid)
        zombies.clear()

    def _start(self, round_: Round, place: Path, warehouse: Path, go: int, strike: Strike | None) -> Start:
        connections = {
            "AIRFLOW_CONN_WAREHOUSE": json.dumps({"conn_type": "sqlite", "host": str(warehouse)}),
            "AIRFLOW_CONN_OPENAI_DEFAULT": json.dumps(
                {"conn_type": "openai", "password": "local", "host": self._server.base_url}
            ),
            "AIRFLOW__OPENAI_BATCH__STAGING": (place / "staging").as_uri(),
        }
        return Start(
            logical_date=datetime(2026, 1, 1, tzinfo=UTC) + timedelta(minutes=round_.number),
            environment=connections,
            submit={
                "sql": "SELECT id, body FROM tickets ORDER BY id",
                "custom_id": "{{ row.id }}",
                "model": "gpt-5-mini" if round_.number % 2 else "{{ ['gpt-5-mini', 'gpt-5-nano'][row.id % 2] }}",
                "prompt": "{{ row.body }}",
                "carry": ["body"],
                "limits": {"requests": SHARD},
            },
            wait={},
            land={"table": TABLE},
            result=str(place / f"go-{go}.json"),
            log=str(place / f"go-{go}.log"),
            strike=strike,
        )

    def _faults_hit(self) -> int:
        return sum(self._server.hits())

    def _count(self, count: Count, place: Path, warehouse: Path) -> None:
        with closing(sqlite3.connect(warehouse)) as connection:
            landed = connection.execute(f"SELECT custom_id, outcome, body, batch_id FROM {TABLE}").fetchall()
            source = {str(number): body for number, body in connection.execute("SELECT id, body FROM tickets")}
        rows = Counter(custom_id for custom_id, *_ in landed)
        succeeded = {custom_id for custom_id, outcome, *_ in landed if outcome == "succeeded"}
        count.lost += len(source.keys() - succeeded)
        count.duplicated += sum(times - 1 for times in rows.values())
        count.wrong += sum(source.get(custom_id) != body for custom_id, _, body, _ in landed)
        job_uids = {path.parent for path in place.glob("staging/**/seal.json")}
        uids = {json.loads((folder / "seal.json").read_text())["job_uid"] for folder in job_uids}
        # the canary is asked without a batch
        answered = Counter(custom_id for custom_id, _, _, batch_id in landed if batch_id is None)
        for batch in self._batches(uids):
            count.ownerless += batch.status not in ("completed", "failed", "expired", "cancelled")
            for custom_id in self._answered(batch.output_file_id):
                answered[custom_id] += 1
        count.executed += answered.total()
        count.paid_twice += sum(times - 1 for times in answered.values())

    def _batches(self, job_uids: set[str]) -> Iterator[Any]:
        for batch in self._client.batches.list(limit=100):
            if (batch.metadata or {}).get("job_uid") in job_uids:
                yield batch

    def _answered(self, file_id: str | None) -> set[str]:
        """custom_ids that a result file answers."""
        found = set()
        for line in self._client.files.content(file_id).content.split(b"\n") if file_id else ():
            try:
                answer = json.loads(line)
            except ValueError:
                continue
            if (answer.get("response") or {}).get("status_code") == 200:
                found.add(answer["custom_id"])
        return found


def play(rounds: range, folder: Path) -> Count:
    """Play rounds, tell each that went wrong, and add up."""
    total = Count()
    began = time.monotonic()
    with Chaos(folder) as chaos:
        for number in rounds:
            round_ = Round.drawn(number)
            count = chaos.play(round_)
            if count.bad:
                print(f"round {number}: {count.bad}\n{round_}", flush=True)
            total.add(count)
            if total.rounds % 50 == 0:
                print(f"{total.told()}; {time.monotonic() - began:.0f} s", flush=True)
    print(f"{total.told()}; {time.monotonic() - began:.0f} s", flush=True)
    return total
