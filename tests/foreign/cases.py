"""The servers and faults that the job runs against, and the check of each run."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

import msgspec
import openai

from tests.airflow.jobs import make_tickets
from tests.foreign.job import TABLE, Job, Result
from tests.foreign.servers import Aimock, LiteLLM, Llmock, LocalBatches, NotRunError, Ogx, Server

#: rows of the job, those that its canary sends synchronously, and requests per input file
ROWS, CANARY, SHARD_REQUESTS = 120, 5, 40
#: seconds until the sensor stops waiting, and maximum time of one process that runs the job. A create call that was not
#: confirmed is looked up after 120 s, which may happen several times in a row.
_DEADLINE, _JOB_TIMEOUT = 600, 900
#: maximum number of runs of a job's DAG: the first, and two as Airflow's retries would start them
_MAX_RUNS = 3
#: every eighth row has one of these in its text: legal in JSON, and the end of a line for some servers
_LINE_ENDS = ("\u2028", "\u2029", "\u0085")


@dataclass(frozen=True)
class Case:
    """A server, what stands behind it, and which faults they inject."""

    name: str
    #: the server that the job talks to, and the servers behind it, in order
    chain: tuple[type[Server], ...]
    #: further arguments of the last server's command
    faults: tuple[str, ...] = ()
    #: headers that the Airflow connection sends
    headers: dict[str, str] = field(default_factory=dict)
    #: outcome of every row but the canary's, which succeed
    outcome: str = "succeeded"
    #: maximum number of times that a row may be sent
    sends: int = 1
    #: the text of each answer must contain the row's id
    echoes: bool = False


def _chaos(name: str, **faults: float) -> Case:
    return Case(f"aimock, {name}", (Aimock,), tuple(f"--chaos-{fault}={rate}" for fault, rate in faults.items()))


def _batch_outcome(outcome: str, row_outcome: str) -> Case:
    headers = {"X-AIMock-Batch-Outcome": outcome}
    return Case(f"aimock, every batch {outcome}", (Aimock,), headers=headers, outcome=row_outcome, sends=3)


_LLMOCK_ERRORS = ("--error-rate=429=0.1", "--error-rate=500=0.1", "--error-rate=503=0.1")

CASES = (
    Case("aimock", (Aimock,)),
    _chaos("20 % of requests 500", drop=0.2),
    _chaos("20 % of requests 429", ratelimit=0.2),
    _chaos("20 % of requests disconnected", disconnect=0.2),
    _chaos("20 % of answers not JSON", malformed=0.2),
    _chaos("8 % each of these, and 100 ms", drop=0.08, ratelimit=0.08, disconnect=0.08, malformed=0.08, latency=100),
    _batch_outcome("expired", "missing"),
    _batch_outcome("cancelled", "missing"),
    _batch_outcome("failed", "failed"),
    Case("llmock", (Llmock,), echoes=True),
    Case("llmock, 30 % of requests 429, 500 or 503", (Llmock,), _LLMOCK_ERRORS, echoes=True),
    Case("OGX, then llmock", (Ogx, Llmock), echoes=True),
    Case("OGX, then llmock with 30 % errors", (Ogx, Llmock), _LLMOCK_ERRORS, sends=3, echoes=True),
    Case("LiteLLM, then the local batch server", (LiteLLM, LocalBatches)),
    Case("LiteLLM, then aimock", (LiteLLM, Aimock)),
    Case("LiteLLM, then llmock", (LiteLLM, Llmock), echoes=True),
    Case("LiteLLM, then OGX, then llmock", (LiteLLM, Ogx, Llmock), echoes=True),
)


@dataclass
class Report:
    """How the job went against one server."""

    case: Case
    #: versions of the packages, by name
    versions: dict[str, str] = field(default_factory=dict)
    #: number of runs of the DAG until it succeeded, or until no more were tried
    runs: int = 0
    seconds: float = 0.0
    #: what did not hold, in words; empty if everything did
    problems: list[str] = field(default_factory=list)
    #: why the case could not be tried here, or empty
    not_run: str = ""

    @property
    def verdict(self) -> str:
        """The word for the table."""
        return "not run" if self.not_run else "no" if self.problems else "yes"


def try_case(case: Case, cache: Path, home: Path, folder: Path) -> Report:
    """Start the servers of a case, run the job against them, and check what landed and what was sent.

    :param cache: folder of the installed packages.
    :param home: Airflow's home, with a migrated database.
    :param folder: new folder for everything that the case writes.
    """
    report = Report(case)
    start = time.monotonic()
    try:
        with ExitStack() as stack:
            servers = _start(case, cache, folder, stack)
            report.versions = {server.package: server.version() for server in reversed(servers)}
            result = _run_job(report, servers[-1], home, folder)
            _check_rows(report, result, folder)
            for server in servers:
                server.stop_faults()
            _check_sends(report, next(server for server in reversed(servers) if server.stores))
    except NotRunError as error:
        report.not_run = str(error)
    report.seconds = time.monotonic() - start
    return report


def _start(case: Case, cache: Path, folder: Path, stack: ExitStack) -> list[Server]:
    """Start the servers, the last of the chain first, and return them in this order."""
    servers: list[Server] = []
    for kind in reversed(case.chain):
        flags = () if servers else case.faults
        server = kind(cache, folder / kind.__name__.lower(), flags, servers[-1] if servers else None)
        servers.append(stack.enter_context(server))
    return servers


def _run_job(report: Report, server: Server, home: Path, folder: Path) -> Result | None:
    job = Job(f"foreign_{folder.name}", server.model, SHARD_REQUESTS, _DEADLINE)
    (folder / "job.json").write_bytes(msgspec.json.encode(job))
    warehouse = folder / "warehouse.sqlite"
    make_tickets(warehouse, [_ticket(number) for number in range(ROWS)])
    connection = {
        "conn_type": "openai",
        "password": server.key,
        "host": server.base_url,
        "extra": {"openai_client_kwargs": {"default_headers": report.case.headers}},
    }
    environment = {
        **airflow_environment(home),
        "AIRFLOW_CONN_OPENAI_DEFAULT": json.dumps(connection),
        "AIRFLOW_CONN_WAREHOUSE": json.dumps({"conn_type": "sqlite", "host": str(warehouse)}),
        "AIRFLOW__OPENAI_BATCH__STAGING": (folder / "staging").as_uri(),
        "AIRFLOW__OPENAI_BATCH__POLL_INTERVAL": "0.5",
        "AIRFLOW__OPENAI_BATCH__ROW_RETRY_DELAY": "0.5",
    }
    result = None
    while report.runs < _MAX_RUNS and (result is None or result.state != "success"):
        report.runs += 1
        result = _run_once(report, environment, folder)
    return result


def _run_once(report: Report, environment: dict[str, str], folder: Path) -> Result | None:
    command = [sys.executable, "-m", "tests.foreign.job", str(folder)]
    path = folder / "result.json"
    path.unlink(missing_ok=True)
    with open(folder / "job.log", "ab") as log:
        try:
            subprocess.run(command, env=environment, stdout=log, stderr=log, timeout=_JOB_TIMEOUT, check=False)
        except subprocess.TimeoutExpired:
            report.problems.append(f"Run {report.runs} of the job did not end within {_JOB_TIMEOUT} s.")
    return msgspec.json.decode(path.read_bytes(), type=Result) if path.exists() else None


def _ticket(number: int) -> tuple[str, str, str, str]:
    end = _LINE_ENDS[number // 8 % 3] if number % 8 == 0 else " "
    return f"T-{number:03d}", f"Ticket {number}", f"The invoice{end}is wrong", "billing"


def _check_rows(report: Report, result: Result | None, folder: Path) -> None:
    """Check that the run succeeded and that each row landed once, with the expected outcome and its own answer."""
    case = report.case
    if result is None:
        report.problems.append("The process of the job ended without a result.")
        return
    if result.state != "success":
        report.problems += [f"{task_id}: {error}" for task_id, error in result.errors.items()]
    try:
        with closing(sqlite3.connect(folder / "warehouse.sqlite")) as connection:
            rows = connection.execute(
                f"SELECT custom_id, outcome, output, error_code, error_message FROM {TABLE}"
            ).fetchall()
            times = connection.execute(f"SELECT max(landed_at), min(sealed_at) FROM {TABLE}").fetchone()
    except sqlite3.OperationalError:
        report.problems.append("No row landed.")
        return
    landed_at, sealed_at = times
    if (datetime.fromisoformat(landed_at) - datetime.fromisoformat(sealed_at)).total_seconds() >= _DEADLINE:
        report.problems.append(f"The wait ended only at its deadline of {_DEADLINE} s.")
    if Counter(row[0] for row in rows) != Counter(_ticket(number)[0] for number in range(ROWS)):
        report.problems.append(f"{len(rows)} rows landed, with {len({row[0] for row in rows})} of {ROWS} keys.")
    outcomes = Counter(row[1] for row in rows)
    if outcomes != Counter({"succeeded": CANARY}) + Counter({case.outcome: ROWS - CANARY}):
        reasons = Counter(row[3:] for row in rows if row[1] != case.outcome).most_common(2)
        report.problems.append(f"The outcomes are {dict(outcomes)}. Most frequent errors: {reasons}")
    if case.echoes and (strangers := [row[0] for row in rows if row[1] == "succeeded" and row[0] not in row[2]]):
        report.problems.append(f"{len(strangers)} rows have the answer of another row, such as {strangers[0]}.")


def _check_sends(report: Report, server: Server) -> None:
    """Check how many times each row was sent, by the input files of all batches that the server has."""
    sends: Counter[str] = Counter()
    with openai.OpenAI(base_url=server.base_url, api_key=server.key, max_retries=10, timeout=30) as client:
        batches = client.batches.list(limit=100).data
        for batch in batches:
            lines = client.files.content(batch.input_file_id).read().splitlines()
            sends.update(json.loads(line)["custom_id"] for line in lines)
    if (most := max(sends.values(), default=0)) > report.case.sends:
        rows = sum(count > report.case.sends for count in sends.values())
        report.problems.append(
            f"{rows} rows were sent {most} times instead of at most {report.case.sends} in {len(batches)} batches."
        )


def airflow_environment(home: Path) -> dict[str, str]:
    """Return an environment for Airflow with this home and without the caller's settings."""
    return {
        **{name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW")},
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__DAGS_FOLDER": str(home / "dags"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__API_AUTH__JWT_SECRET": "only for tests " * 5,
        "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
        "NO_PROXY": "127.0.0.1,localhost",
        "no_proxy": "127.0.0.1,localhost",
    }
