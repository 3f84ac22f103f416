"""The list of jobs if Airflow's metadata is in PostgreSQL."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from tests.postgres import Database

LIST = """
import msgspec
from airflow_provider_batch.plugins.jobs.listing import Criteria, list_jobs
from airflow_provider_batch.plugins.jobs.snapshot import read_jobs
from tests.plugins.jobs.runs import RETURNED, landed_run
from tests.plugins.rows import add_runs

edited = landed_run("label", "edited", age=1)
edited.tasks[2].xcoms[RETURNED]["cost_usd"] = "abc"
add_runs([landed_run("label", "run"), edited, landed_run("label", "left out", age=2)])
jobs = list_jobs(read_jobs(), {"label"}, Criteria(sort="age", limit=2)).jobs
print(msgspec.json.encode(jobs).decode())
"""


def run(*arguments: str, home: Path, database: Database) -> str:
    url = f"postgresql+psycopg2://postgres@/{database.name}?host={database.socket_dir}"
    environment = os.environ | {"AIRFLOW_HOME": str(home), "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": url}
    process = subprocess.run(
        [sys.executable, *arguments], env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert process.returncode == 0, process.stdout + process.stderr
    return process.stdout


def test_the_list_is_the_same_in_postgresql(postgres_database: Database, tmp_path: Path) -> None:
    run("-m", "airflow", "db", "migrate", home=tmp_path, database=postgres_database)
    jobs = json.loads(run("-c", LIST, home=tmp_path, database=postgres_database).splitlines()[-1])
    assert [(job["run_id"], job["state"], job["done"], job["cost_usd"]) for job in jobs] == [
        ("run", "landed", 97, 1.25),
        ("edited", "landed", 97, None),
    ]
    assert jobs[0]["started_at"] == "2026-11-20T12:00:00Z"
    assert jobs[0]["ended_at"] == "2026-11-20T13:00:00Z"
    assert [task["role"] for task in jobs[0]["tasks"]] == ["submit", "wait", "land"]
