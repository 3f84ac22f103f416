"""Fixtures for the tests of the example DAGs: run a DAG, as it is or edited, and count the calls that cost money."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_batch.demo.home import dags_folder
from airflow_provider_batch.local.process import LocalServer
from tests.airflow.dags.warehouses import Warehouse, create_warehouse
from tests.airflow.jobs import DagRunResult, call_counter, run_dag


@pytest.fixture(scope="session")
def counting_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalServer]:
    """Yield a local batch server that counts the calls it gets."""
    with LocalServer(tmp_path_factory.mktemp("counting-server"), admin=True) as server:
        yield server


@pytest.fixture
def count_calls(
    counting_server: LocalServer, connect: Callable[..., None], offline: None
) -> Callable[[], dict[str, int]]:
    """Return a function that counts uploads, batches and synchronous requests since its last call.

    The connection `openai_default` points to the server that counts.
    """
    connect("openai_default", conn_type="openai", password="local", host=counting_server.base_url)
    return call_counter(counting_server)


def page(dag_id: str) -> str:
    """Return the page of a DAG in docs/dags/."""
    return (Path(__file__).parents[3] / "docs" / "dags" / f"{dag_id}.md").read_text(encoding="utf-8")


def blocks(dag_id: str, language: str) -> list[str]:
    """Return the code blocks in this language on the page of a DAG."""
    return re.findall(rf"^```{language}\n(.*?)^```$", page(dag_id), flags=re.DOTALL | re.MULTILINE)


def check_costs(dag_id: str, *landings: dict[str, Any]) -> None:
    """Check the cost table on the page of a DAG (run, requests, low, high, cost) against these runs, in this order.

    Prices and token counts depend on the installed versions, so the numbers only have to be about right.

    :param landings: what the landing task of each run returned.
    """
    table = page(dag_id).partition("## What it costs")[2]
    documented_costs = [
        [float(cell) for cell in row.split("|")] for row in re.findall(r"^\|[^|]+\|([ \d.|]+)\|$", table, re.MULTILINE)
    ]
    costs = [
        (landing["sent"], landing["estimate"]["low_usd"], landing["estimate"]["high_usd"], landing["cost_usd"])
        for landing in landings
    ]
    assert documented_costs == [[pytest.approx(float(value), rel=0.2) for value in row] for row in costs]


#: result of `count_calls` if nothing was sent
NO_CALLS = {"upload": 0, "create": 0, "synchronous": 0}


@pytest.fixture
def warehouse_of(
    tmp_path: Path, connect: Callable[..., None], request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Warehouse]:
    """Return a function that creates a warehouse with the tables of `seed`, behind the connection `warehouse`."""

    def create(kind: str, seed: Callable[[Path], object]) -> Warehouse:
        warehouse = create_warehouse(kind, seed, tmp_path, lambda: request.getfixturevalue("postgres_database"))
        if isinstance(warehouse.connection, str):
            monkeypatch.setenv("AIRFLOW_CONN_WAREHOUSE", warehouse.connection)
        else:
            connect("warehouse", **warehouse.connection)
        return warehouse

    return create


@pytest.fixture
def run_example(tmp_path: Path, airflow_home: Path) -> Callable[..., DagRunResult]:
    """Return a function that runs an example DAG with `dag.test()`.

    Its argument `changes` edits files before the run, as an author would: file -> (text, replacement).
    """

    def run(dag_id: str, changes: dict[str, tuple[str, str]] | None = None, **conf: Any) -> DagRunResult:
        from airflow.dag_processing.dagbag import DagBag

        folder = dags_folder()
        if changes:
            folder = shutil.copytree(folder, tmp_path / "changed" / "dags")
        for name, (original, replacement) in (changes or {}).items():
            text = (folder / name).read_text(encoding="utf-8")
            assert original in text
            (folder / name).write_text(text.replace(original, replacement), encoding="utf-8")
        bag = DagBag(str(folder / f"{dag_id}.py"))
        assert bag.import_errors == {}
        return run_dag(bag.dags[dag_id], conf=conf)

    return run


@pytest.fixture
def run_rejected(
    run_example: Callable[..., DagRunResult], count_calls: Callable[[], dict[str, int]]
) -> Callable[..., str]:
    """Return a function that runs a DAG, checks that it fails before anything is sent, and returns the error."""

    def run(dag_id: str, changes: dict[str, tuple[str, str]] | None = None, **conf: Any) -> str:
        from airflow.sdk.exceptions import ParamValidationError

        count_calls()
        try:
            result = run_example(dag_id, changes, **conf)
        except (ParamValidationError, ValueError) as error:  # ValueError: Airflow 3.2
            message = str(error)
        else:
            assert result.states["batch_job.land"] == "upstream_failed"
            message = result.error("batch_job.submit")
        assert count_calls() == NO_CALLS
        return message

    return run
