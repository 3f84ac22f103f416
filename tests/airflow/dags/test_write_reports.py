"""`write_reports` writes a row and a page for each company, whatever its name is."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime, time, timedelta
from pathlib import Path

import pytest
from fsspec.implementations.memory import MemoryFileSystem
from markupsafe import escape

from airflow_provider_batch.core.ledger.ledger import open_ledger
from airflow_provider_batch.demo import companies
from airflow_provider_batch.demo.home import dags_folder
from airflow_provider_batch.local.process import LocalServer
from airflow_provider_batch.staging.layout import open_folder
from tests.airflow.dags.conftest import blocks, check_costs
from tests.airflow.dags.warehouses import KINDS, Warehouse
from tests.airflow.jobs import DagRunResult

COMPANIES = companies.load()


@pytest.fixture
def warehouse(warehouse_of: Callable[..., Warehouse]) -> Warehouse:
    return warehouse_of("sqlite", companies.seed)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "the reports"
    monkeypatch.setenv("AIRFLOW_VAR_REPORTS_FOLDER", f"file://{path}")
    return path


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize("kind", KINDS)
def test_every_company_gets_a_row_and_a_page_and_a_second_run_replaces_both(
    kind: str,
    warehouse_of: Callable[..., Warehouse],
    folder: Path,
    tmp_path: Path,
    run_example: Callable[..., DagRunResult],
) -> None:
    warehouse = warehouse_of(kind, companies.seed)
    result = run_example("write_reports")

    assert result.errors == {}
    rows = warehouse.execute("SELECT custom_id, quarter, name, outcome, revenue_before FROM company_reports ORDER BY 1")
    assert rows == [
        (company.id, "2026-Q3", company.name, "succeeded", company.quarters[-2].revenue_usd) for company in COMPANIES
    ]
    landing = result.return_values["batch_job.land"]
    assert landing["estimate"]["low_usd"] <= float(landing["cost_usd"]) <= landing["estimate"]["high_usd"]
    assert result.return_values["write_pages"] == {
        "folder": f"file://{folder}/2026-Q3",
        "pages": len(COMPANIES),
        "cost_usd": landing["cost_usd"],
        "estimate": landing["estimate"],
    }
    check_costs("write_reports", landing)
    pages = {path: path.read_text(encoding="utf-8") for path in folder.rglob("*") if path.is_file()}
    assert {path.parent for path in pages} == {folder / "2026-Q3"}
    assert set(tmp_path.rglob("*.html")) == pages.keys()
    assert len(pages) == len(COMPANIES)
    for company in COMPANIES:
        (page,) = (text for text in pages.values() if f"<title>{escape(company.name)}, 2026-Q3</title>" in text)
        assert f"<td>{company.quarters[-1].revenue_usd:,}<td>{company.quarters[-2].revenue_usd:,}" in page
        assert "<b>" not in page

    warehouse.execute("UPDATE company_metrics SET sensors = 777 WHERE company_id = 'C-01' AND quarter = '2026-Q3'")
    second_run = run_example("write_reports")

    assert second_run.errors == {}
    new_pages = {path: path.read_text(encoding="utf-8") for path in folder.rglob("*") if path.is_file()}
    assert new_pages.keys() == pages.keys()
    (changed_path,) = (path for path in pages if new_pages[path] != pages[path])
    assert "<td>777<td>" in new_pages[changed_path]
    assert warehouse.execute("SELECT count(*) FROM company_reports") == [(len(COMPANIES),)]


@pytest.mark.usefixtures("offline", "warehouse")
def test_the_reports_are_due_at_seven_utc(folder: Path, run_example: Callable[..., DagRunResult]) -> None:
    start = datetime.now(UTC)
    result = run_example("write_reports", quarter="2026-Q1")

    assert result.errors == {}
    ledger = open_ledger(open_folder(result.return_values["batch_job.submit"]["ledger"]))
    assert ledger is not None
    due = ledger.state().deadline
    assert due is not None
    assert timedelta(hours=3) <= due - start < timedelta(hours=28)
    assert due.timetz() == time(7, tzinfo=UTC)
    pages = [path.read_text(encoding="utf-8") for path in folder.glob("2026-Q1/*.html")]
    assert len(pages) == sum(company.quarters[0].quarter == "2026-Q1" for company in COMPANIES)
    assert all("<td>–" in page for page in pages)


@pytest.mark.usefixtures("offline", "warehouse")
def test_rows_without_an_answer_when_due_are_sent_synchronously_and_pages_go_to_an_object_store(
    tmp_path: Path,
    run_example: Callable[..., DagRunResult],
    connect: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AIRFLOW_VAR_REPORTS_FOLDER", "memory://bucket-of-reports/by quarter")
    deadline = "(dag_run.run_after + macros.timedelta(hours=20)).strftime('%Y-%m-%dT07:00:00+00:00')"
    with LocalServer(tmp_path / "slow", in_progress=3600) as server:
        connect("openai_default", conn_type="openai", password="local", host=server.base_url)
        result = run_example("write_reports", {"write_reports.py": (deadline, "dag_run.run_after.isoformat()")})

    assert result.errors == {}
    assert result.return_values["batch_job.wait"]["final_pass"] == {"sent": len(COMPANIES) - 3, "left_out": {}}
    store = MemoryFileSystem()
    pages = store.find("/bucket-of-reports/by quarter")
    assert {page.rpartition("/")[0] for page in pages} == {"/bucket-of-reports/by quarter/2026-Q3"}
    assert len(pages) == len(COMPANIES)
    assert all(store.cat_file(page).startswith(b"<!doctype html>") for page in pages)


@pytest.mark.usefixtures("offline")
def test_every_page_stays_in_the_folder_whatever_the_company_is_called(
    warehouse: Warehouse, folder: Path, tmp_path: Path, run_example: Callable[..., DagRunResult]
) -> None:
    names = [
        "..",
        "/etc/passwd",
        f"{tmp_path}/x",
        "a\0b",
        "x" * 50_000,
        "Same",
        "same",
        "SAME.",
        "~",
        "C:\\x",
        "%2e%2e%2f",
        "é" * 300,
    ]
    with closing(warehouse.open()) as connection, connection:
        for company, name in zip(COMPANIES, names, strict=True):
            connection.execute("UPDATE companies SET name = ? WHERE id = ?", (name, company.id))
    paths_before = {path for path in tmp_path.rglob("*") if "staging" not in path.parts}

    assert run_example("write_reports").state == "success"

    new_paths = {path for path in tmp_path.rglob("*") if "staging" not in path.parts} - paths_before
    pages = {path for path in new_paths if path.is_file()}
    assert {path.parent for path in pages} == {folder / "2026-Q3"}
    assert new_paths - pages == {folder, folder / "2026-Q3"}
    assert len(pages) == len(names)


def test_the_file_names_in_the_docs_are_right(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(dags_folder())
    (source,) = blocks("write_reports", "python")
    exec(source, {})


@pytest.mark.usefixtures("warehouse")
@pytest.mark.parametrize(
    ("changes", "conf", "words"),
    [
        (
            {"sql/company_metrics.sql": ("WITH by_quarter", "DROP TABLE companies; WITH by_quarter")},
            {},
            "begins with DROP",
        ),
        ({"prompts/company.md": ("row.sensors ", "row.sensor ")}, {}, "Did you mean 'sensors'?"),
        ({}, {"model": "gpt-99"}, "no price is known for gpt-99"),
        ({}, {"table": "reports; DROP TABLE companies"}, "table"),
        ({}, {"table": 'reports"'}, "table"),
        ({}, {"quarter": "2026-Q3' OR 1=1 --"}, "quarter"),
        ({}, {"quarter": "../../2026-Q3"}, "quarter"),
    ],
    ids=["SQL that writes", "missing column", "unknown model", "semicolon", "quote", "SQL for a quarter", "a path"],
)
def test_invalid_input_is_rejected_before_anything_is_sent(
    changes: dict[str, tuple[str, str]],
    conf: dict[str, object],
    words: str,
    folder: Path,
    run_rejected: Callable[..., str],
) -> None:
    assert words in run_rejected("write_reports", changes, **conf)
    assert not folder.exists()
