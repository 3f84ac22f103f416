"""Rounds of chaos: run a job while its workers are killed or stopped and the server injects faults, then check it.

A round depends on its number alone, so `python -m tests.chaos --first 17 --rounds 1` repeats round 17. After every
round the following must hold: each source row is in the table once, with its own answer; no row that has an answer was
executed again; no batch of the job is still running.
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
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import msgspec

from airflow_provider_batch.local.faults import Fault, Kind
from airflow_provider_batch.local.process import LocalServer
from tests.chaos.faults import DIALECTS, LASTING_FAULTS, UNUSABLE_LINES, faults_for
from tests.chaos.provider import count_sent_again, prompt_digest, read_batches
from tests.chaos.worker import Start, Strike

ROWS = 48
#: requests per shard, so that a job has several shards
SHARD_REQUESTS = 10
TABLE = "answers"
#: maximum number of runs per round, after which the round has failed
MAX_RUNS = 12

#: outcomes of rows whose answers cannot be used: they were paid for, and are not sent again
UNUSABLE_OUTCOMES = ("failed", "invalid_output", "incomplete")

#: every step at which a worker can be hit, by a readable label
STEPS: dict[str, Strike] = {
    "reading": Strike("at", "read row", nth=17),
    "staging": Strike("after", r"write g001/build-.*/s0002\.jsonl"),
    "before sealing": Strike("before", r"create g001/seal\.json"),
    "sealed": Strike("after", r"create g001/seal\.json"),
    "canary sent, not recorded": Strike("before", r"create g001/records/settled\.c.*"),
    "canary sent": Strike("after", r"create g001/records/settled\.c.*"),
    "canary judged": Strike("after", r"create g001/records/canary_verdict\.json"),
    "uploaded, not recorded": Strike("before", r"create g001/records/uploaded\..*", nth=2),
    "uploaded": Strike("after", r"create g001/records/uploaded\..*", nth=2),
    "before the create": Strike("after", r"create g001/records/intent\..*", nth=2),
    "in the create": Strike("after", r"create g001/records/intent\..*", nth=2, delay=0.4),
    "created, not recorded": Strike("before", r"create g001/records/created\..*", nth=2),
    "created": Strike("after", r"create g001/records/created\..*", nth=2),
    "waiting": Strike("after", r"create g001/records/deadline\..*", delay=0.3),
    "downloading": Strike("before", r"write g001/collected/[sr].*", nth=2),
    "downloaded": Strike("before", r"create g001/records/settled\.[sr].*", nth=2),
    "settled": Strike("after", r"create g001/records/settled\.[sr].*", nth=2),
    "before a retry round": Strike("before", r"create g001/records/retry_round\.1\.json"),
    "retry round created": Strike("after", r"create g001/records/retry_round\.1\.json"),
    "writing": Strike("at", "land row", nth=20),
    "written, not committed": Strike("at", "landed all"),
    "committed": Strike("before", r"create g001/records/landed\..*"),
    "landed": Strike("after", r"create g001/records/landed\..*"),
}

#: steps inside a transaction: a worker that stops there holds SQLite's lock, and its successor must wait for it
IN_TRANSACTION = ("writing", "written, not committed")


@dataclass
class Round:
    """The strikes and faults that one job has to survive."""

    number: int
    strikes: list[tuple[str, Strike]]
    #: faults that end by themselves
    faults: list[Fault]
    #: faults that end only after a run has failed because of them, when a person looks at the job
    lasting_faults: list[Fault]
    #: the server's differences from OpenAI
    dialects: tuple[str, ...] = ()
    #: custom_ids of rows whose answers no reader can use
    unusable: frozenset[str] = frozenset()
    #: kill and restart the server during the first run
    restart_server: bool = False

    def __str__(self) -> str:
        faults = [msgspec.json.encode(fault).decode() for fault in (*self.faults, *self.lasting_faults)]
        strikes = [f"{name} ({'stop' if strike.stop else 'kill'})" for name, strike in self.strikes]
        return (
            f"round {self.number}, dialects {self.dialects}, restart {self.restart_server}, unusable "
            f"{sorted(self.unusable)}, strikes {strikes}, {len(self.lasting_faults)} lasting of these faults:\n"
            + "\n".join(f"    {fault if len(fault) < 300 else f'{fault[:200]}…'}" for fault in faults)
        )

    @staticmethod
    def draw(number: int) -> Round:
        """Return the round with this number. The first rounds cover every step once, in order."""
        chance = random.Random(f"round {number}")
        names = list(STEPS)
        first = names[number % len(names)]
        further = chance.sample(names, chance.choice((0, 0, 1, 2)))
        strikes = []
        for name in [first, *further]:
            strike = STEPS[name]
            stop = chance.random() < 0.25 and name not in IN_TRANSACTION
            strikes.append((name, msgspec.structs.replace(strike, stop=stop)))
        dialects = chance.choice(DIALECTS) if chance.random() < 0.3 else ()
        faults = chance.sample(faults_for(dialects), chance.choice((0, 1, 2, 3)))
        if first in ("before a retry round", "retry round created"):
            faults.append(Fault(kind=Kind.ERROR, status=503, rate=0.3, times=1))
        restart_server = chance.random() < 0.15
        # a job that is held does not reach every step
        lasting_faults = chance.sample(LASTING_FAULTS, 1) if number >= len(names) and chance.random() < 0.15 else []
        unusable: frozenset[str] = frozenset()
        if chance.random() < 0.2:
            unusable = frozenset(str(row) for row in chance.sample(range(ROWS), 3))
            path, text = chance.choice(UNUSABLE_LINES)
            # it comes first, because only the first fault that hits a row is carried out
            faults.insert(0, Fault(kind=Kind.LINE_FIELD, path=path, json=text, custom_ids=unusable))
        return Round(number, strikes, faults, lasting_faults, dialects, unusable, restart_server)


@dataclass
class Count:
    """Result of one or several rounds. The invariants are the last six counts, which must be 0."""

    rounds: int = 0
    kills: int = 0
    stops: int = 0
    faults: int = 0
    rows: int = 0
    executions: int = 0
    #: rounds in which a person had to act
    interventions: int = 0
    lost: int = 0
    duplicates: int = 0
    wrong_answers: int = 0
    #: answers that the provider produced for a row that had a usable one
    paid_twice: int = 0
    #: rows that were sent again although an ended batch had a usable answer in its result files
    sent_again: int = 0
    abandoned_batches: int = 0
    steps: Counter[str] = field(default_factory=Counter)

    def add(self, count: Count) -> None:
        """Add the counts of another round."""
        for name, value in vars(count).items():
            setattr(self, name, getattr(self, name) + value)

    @property
    def violations(self) -> dict[str, int]:
        """Counts that must be 0 and are not, by name."""
        names = ("lost", "duplicates", "wrong_answers", "paid_twice", "sent_again", "abandoned_batches")
        return {name: getattr(self, name) for name in names if getattr(self, name)}

    def summary(self) -> str:
        """Return all counts as one line."""
        return (
            f"{self.rounds} rounds, {self.kills} kills, {self.stops} stops, {self.faults} faults, {self.rows:,} rows "
            f"({self.executions:,} executions), {self.interventions} interventions: {self.lost} lost, "
            f"{self.duplicates} duplicates, {self.wrong_answers} wrong answers, {self.paid_twice} paid twice, "
            f"{self.sent_again} sent again, {self.abandoned_batches} abandoned batches"
        )


class ChaosError(AssertionError):
    """Raised when a round did not succeed. The message names the round and the folder of its logs."""


class Workers:
    """A process of `tests.chaos.worker` with its own Airflow home, and the last event of each of its forks.

    :param module: the module to run.
    """

    def __init__(self, home: Path, module: str = "tests.chaos.worker") -> None:
        self._home, self._module = home, module
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
        self._events: dict[int, str] = {}

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
                [sys.executable, "-m", self._module],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env=self._environment,
            )
        self._read_event()
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

    def start(self, start: msgspec.Struct) -> int:
        """Start a run and return the process id of its fork."""
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.write(msgspec.json.encode(start) + b"\n")
        self._process.stdin.flush()
        while True:
            event, pid = self._read_event()
            if event == "started":
                return pid

    def await_end(self, pid: int, *, or_stop: bool = False) -> str:
        """Wait until a fork ends, or also until it stops; return "ended" or "stopped"."""
        while self._events.get(pid) != "ended" and not (or_stop and self._events.get(pid) == "stopped"):
            self._read_event()
        return self._events[pid]

    def _read_event(self) -> tuple[str, int]:
        assert self._process is not None
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            log = (self._home / "worker.log").read_text(errors="replace")
            raise ChaosError(f"The worker process ended:\n{log[-4000:]}")
        message = json.loads(line)
        self._events[message["pid"]] = message["event"]
        return message["event"], message["pid"]


class Chaos:
    """Servers, one per dialect, and two Airflow installations, on which rounds are played.

    There are two installations because a stopped worker and its successor must run on different ones.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._stack = ExitStack()
        self._servers: dict[tuple[str, ...], LocalServer] = {}

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self._workers = [stack.enter_context(Workers(self._folder / f"airflow-{n}")) for n in (1, 2)]
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def _server(self, dialects: tuple[str, ...]) -> LocalServer:
        """Return the running server with these dialects, and start it if this is their first round."""
        if dialects not in self._servers:
            # Hundreds of rounds would otherwise reach the limit of 2,000 batches an hour and wait.
            options: dict[str, Any] = {"admin": True, "in_progress": 0.2, "creates_per_hour": 1_000_000}
            state = self._folder / "-".join(("server", *dialects))
            self._servers[dialects] = self._stack.enter_context(LocalServer(state, dialects=dialects, **options))
        return self._servers[dialects]

    def play(self, round_: Round) -> Count:
        """Play one round and return its counts.

        :raises ChaosError: if the job did not succeed within `MAX_RUNS` runs.
        """
        folder = self._folder / f"round-{round_.number}"
        folder.mkdir()
        warehouse = folder / "warehouse.db"
        with closing(sqlite3.connect(warehouse)) as connection, connection:
            connection.execute("CREATE TABLE tickets (id INTEGER PRIMARY KEY, body TEXT)")
            bodies = [(number, f"ticket {number} of round {round_.number}") for number in range(ROWS)]
            connection.executemany("INSERT INTO tickets VALUES (?, ?)", bodies)
        count = Count(rounds=1, rows=ROWS)
        server = self._server(round_.dialects)
        faults = [*round_.faults, *round_.lasting_faults]
        server.set_faults(*faults)
        zombies: list[tuple[Workers, int]] = []
        workers, spare = self._workers
        for run in range(MAX_RUNS):
            strike = round_.strikes[run] if run < len(round_.strikes) else None
            start = self._start(server, round_, folder, warehouse, run, strike[1] if strike else None)
            start = msgspec.structs.replace(start, clears=count.interventions)
            pid = workers.start(start)
            if round_.restart_server and run == 0:
                server.kill()
                server.start()
                server.set_faults(*faults)
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
            if end == "ended" and result.exists():
                outcome = json.loads(result.read_text())
                if outcome["state"] == "success":
                    break
                has_lasting_faults = len(faults) > len(round_.faults)
                if has_lasting_faults:
                    # a person ends the faults that made the run fail
                    count.faults += sum(server.hits())
                    faults = round_.faults
                    server.set_faults(*faults)
                if has_lasting_faults or outcome["held_batches"]:
                    # the next run counts as a cleared wait
                    count.interventions += 1
            if run == len(round_.strikes) // 2:
                self._wake(zombies)
        else:
            raise ChaosError(f"Round {round_.number} did not succeed within {MAX_RUNS} runs. See {folder}.\n{round_}")
        self._wake(zombies)
        count.faults += sum(server.hits())
        server.set_faults()
        self._count(count, round_, server.state, folder, warehouse)
        return count

    def _wake(self, zombies: list[tuple[Workers, int]]) -> None:
        """Let stopped workers continue until they end. They do not know that others have taken over."""
        for workers, pid in zombies:
            os.kill(pid, signal.SIGCONT)
            workers.await_end(pid)
        zombies.clear()

    def _start(
        self, server: LocalServer, round_: Round, folder: Path, warehouse: Path, run: int, strike: Strike | None
    ) -> Start:
        connections = {
            "AIRFLOW_CONN_WAREHOUSE": json.dumps({"conn_type": "sqlite", "host": str(warehouse)}),
            "AIRFLOW_CONN_OPENAI_DEFAULT": json.dumps(
                {"conn_type": "openai", "password": "local", "host": server.base_url}
            ),
            "AIRFLOW__OPENAI_BATCH__STAGING": (folder / "staging").as_uri(),
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
                "limits": {"requests": SHARD_REQUESTS},
            },
            wait={},
            land={"table": TABLE, "max_failure_rate": len(round_.unusable) / ROWS},
            result=str(folder / f"run-{run}.json"),
            log=str(folder / f"run-{run}.log"),
            strike=strike,
        )

    def _count(self, count: Count, round_: Round, state: Path, folder: Path, warehouse: Path) -> None:
        with closing(sqlite3.connect(warehouse)) as connection:
            columns = "custom_id, outcome, body, batch_id, output"
            table_rows = connection.execute(f"SELECT {columns} FROM {TABLE}").fetchall()
            source = {str(number): body for number, body in connection.execute("SELECT id, body FROM tickets")}
        rows = Counter(custom_id for custom_id, *_ in table_rows)
        landed = {
            custom_id
            for custom_id, outcome, *_ in table_rows
            if outcome == "succeeded" or (custom_id in round_.unusable and outcome in UNUSABLE_OUTCOMES)
        }
        count.lost += len(source.keys() - landed)
        count.duplicates += sum(times - 1 for times in rows.values())
        count.wrong_answers += sum(
            source.get(custom_id) != body or (outcome == "succeeded" and prompt_digest(body) not in (output or ""))
            for custom_id, outcome, body, _, output in table_rows
        )
        job_uids = {json.loads(path.read_text())["job_uid"] for path in folder.glob("staging/**/seal.json")}
        batches = read_batches(state, job_uids)
        # canary requests have no batch
        executions = Counter(custom_id for custom_id, _, _, batch_id, _ in table_rows if batch_id is None)
        for batch in batches:
            executions.update(batch.answered_ids)
        count.abandoned_batches += sum(batch.ended_at is None for batch in batches)
        count.executions += executions.total()
        count.paid_twice += sum(times - 1 for times in executions.values())
        count.sent_again += count_sent_again(batches)


def play(rounds: range, folder: Path) -> Count:
    """Play rounds, print each one that violated an invariant, and return the sum of the counts."""
    total = Count()
    started_at = time.monotonic()
    with Chaos(folder) as chaos:
        for number in rounds:
            round_ = Round.draw(number)
            count = chaos.play(round_)
            if count.violations:
                print(f"violated: {count.violations} in {round_}", flush=True)
            total.add(count)
            if total.rounds % 50 == 0:
                print(f"{total.summary()}; {time.monotonic() - started_at:.0f} s", flush=True)
    print(f"{total.summary()}; {time.monotonic() - started_at:.0f} s", flush=True)
    return total
