"""Time of the list of jobs in Airflow's UI with 10,000 jobs, and of the details of a job with 10,000 records.

    python -m benchmarks.page [--jobs 10000] [--records 10000] [--runs 5] [--postgres] [--json FILE]

The jobs are rows of Airflow's own metadata database, in SQLite or a real PostgreSQL: each has three task instances,
which pushed the address of the job and what they return. The requests go to Airflow's own API app, as a browser sends
them, so they include the check of the user and of the user's permissions. The anchor is the time of reading the
rows of the database, or of reading the files of the ledger, without making anything of them.

The API server keeps the list for 5 s and the ledgers that it read last. "First" is a request that finds nothing kept.
"""

from __future__ import annotations

import argparse
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from benchmarks.airflow_home import temporary_airflow_home
from benchmarks.measure import Figure, report
from tests.postgres import Database, running_postgres

DAGS = 50


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=10_000)
    parser.add_argument("--records", type=int, default=10_000)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--postgres", action="store_true", help="keep Airflow's metadata in PostgreSQL")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    args = parser.parse_args()
    with ExitStack() as stack:
        home = stack.enter_context(temporary_airflow_home())
        os.environ["AIRFLOW__LOGGING__LOGGING_LEVEL"] = "ERROR"
        os.environ["AIRFLOW__API_AUTH__JWT_SECRET"] = "only for benchmarks " * 4
        os.environ["AIRFLOW__OPENAI_BATCH__STAGING"] = (home / "staging").as_uri()
        database: Database | None = None
        if args.postgres:
            database = stack.enter_context(stack.enter_context(running_postgres()).database())
            url = f"postgresql+psycopg2://postgres@/{database.name}?host={database.socket_dir}"
            os.environ["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"] = url
        subprocess.run([sys.executable, "-m", "airflow", "db", "migrate"], check=True, capture_output=True)
        figures = [*measure_list(args.jobs, args.runs, database), *measure_ledger(args.records, args.runs)]
    report(f"The page ({'PostgreSQL' if args.postgres else 'SQLite'})", figures, args.json)


def measure_list(jobs: int, runs: int, database: Database | None) -> list[Figure]:
    """Return the time of the list, and the CPU time of its parts."""
    from airflow_provider_batch.plugins.jobs import snapshot, task_rows
    from tests.plugins.jobs.runs import landed_run
    from tests.plugins.rows import add_runs

    rows = random.Random(1)
    add_runs(landed_run(f"dag_{n % DAGS}", f"run_{n}", age=n, rows=rows.randint(5, 50_000)) for n in range(jobs))
    if database is not None:
        database.execute("ANALYZE")  # as autovacuum does; without statistics, PostgreSQL joins such tables row by row
    get = client()
    anchor = "the query alone"
    first = Figure(f"{jobs:,} jobs: first view", "ms", anchor=anchor, is_cost=True, max_median=1000.0)
    sort = Figure(f"{jobs:,} jobs: sorted and filtered within 5 s", "ms", anchor=anchor, is_cost=True)
    cpu = Figure(f"{jobs:,} jobs: CPU of reading them", "ms", anchor=f"{anchor}, CPU", is_cost=True)
    get("/batch/api/jobs")  # imports, and the connections to the database
    for _ in range(runs):
        bare = measure(task_rows.read_task_rows)
        snapshot.JOBS = snapshot.Snapshot(snapshot.read_jobs)
        first.add(measure(lambda: get("/batch/api/jobs")), bare)
        sort.add(measure(lambda: get("/batch/api/jobs?sort=cost&text=DAG_1&state=landed&offset=100")), bare)
        cpu.add(measure(snapshot.read_jobs, time.process_time), measure(task_rows.read_task_rows, time.process_time))
    return [first, sort, cpu]


def measure_ledger(records: int, runs: int) -> list[Figure]:
    """Return the time of reading and summing up a ledger of many records."""
    from airflow_provider_batch.core.ledger.job import JobKey
    from airflow_provider_batch.core.lifecycle.summary import summarize
    from airflow_provider_batch.plugins.ledgers import LedgerCache
    from airflow_provider_batch.staging.layout import staging_root
    from airflow_provider_batch.staging.local import LocalFolder
    from tests.plugins.ledgers import create_batch, seal_job, settle

    os.fsync = lambda fd: None  # only the content of the files matters here
    ledger = seal_job(staging_root(), JobKey("dag", "submit", "run"), shards=records // 3)
    for shard in ledger.manifest.shards:
        create_batch(ledger, shard.name)
        settle(ledger, shard.name, succeeded=95, failed=5)
    folder = ledger.folder
    assert isinstance(folder, LocalFolder)
    files = list((folder.path / "g001" / "records").iterdir())
    anchor = "reading the files"
    first = Figure(f"{len(files):,} records: first summary, CPU", "ms", anchor=anchor, is_cost=True)
    repeated_view = Figure(f"{len(files):,} records: summary again, CPU", "ms", anchor=anchor, is_cost=True)
    for _ in range(runs):
        cache = LedgerCache()

        def view(cache: LedgerCache = cache) -> None:
            ledger = cache.open(folder)
            assert ledger is not None
            summarize(ledger)

        bare = measure(lambda: [file.read_bytes() for file in files], time.process_time)
        first.add(measure(view, time.process_time), bare)
        repeated_view.add(measure(view, time.process_time), bare)
    return [first, repeated_view]


def client() -> Callable[[str], None]:
    """Return a function that requests a page from Airflow's API app, as a user who may read every DAG."""
    from airflow.api_fastapi.app import create_app, get_auth_manager
    from airflow.api_fastapi.auth.managers.simple.user import SimpleAuthManagerUser
    from fastapi.testclient import TestClient

    os.environ["AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS"] = "False"
    test_client = TestClient(create_app("core"))
    token = get_auth_manager().generate_jwt(SimpleAuthManagerUser(username="somebody", role="viewer"))

    def get(path: str) -> None:
        response = test_client.get(path, headers={"Cookie": f"_token={token}"})
        assert response.status_code == 200, response.text
        assert response.json()["jobs"]

    return get


def measure(action: Callable[[], Any], clock: Callable[[], float] = time.perf_counter) -> float:
    """Return the milliseconds that an action takes."""
    start = clock()
    action()
    return 1000 * (clock() - start)


if __name__ == "__main__":
    main()
