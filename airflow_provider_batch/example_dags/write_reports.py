"""Write a report on every company from its numbers for a quarter: as rows of a table, and as one page per company.

The last task writes the pages to the folder in the Airflow Variable `reports_folder`, on a disk or in an object store
(`s3://aws_default@bucket/reports`). A page that is written again keeps its name. The reports are due at the next 07:00
UTC that is at least three hours away. Before that, requests without an answer are sent synchronously: on flex, or at
the standard price.
"""

from __future__ import annotations

import re
import unicodedata
from contextlib import closing
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal

from airflow.configuration import AIRFLOW_HOME
from airflow.sdk import DAG, AssetAlias, BaseHook, ObjectStoragePath, Param, Variable, task
from jinja2 import Environment, FileSystemLoader
from pydantic import BaseModel

from airflow_provider_batch.task_groups import batch_job


class Report(BaseModel):
    """The answer of the model for one company."""

    headline: str
    report: str
    outlook: Literal["better", "steady", "worse"]


def file_name(title: str, key: str) -> str:
    """Return the name of the page about `title`: at most 77 characters of `a-z`, `0-9` and `-`, and `.html`.

    Such a name is valid on every disk and in every object store, and it cannot lead out of its folder. The digest of
    `key` distinguishes pages with similar titles. The same title and key always give the same name.
    """
    # NFKD splits an accented letter into the plain letter and its accents.
    letters = "".join(char for char in unicodedata.normalize("NFKD", title[:500]) if not unicodedata.combining(char))
    words = re.sub(r"[^a-z0-9]+", "-", letters.casefold()).strip("-")[:60].rstrip("-")
    digest = sha256(key.encode("utf-8", "surrogatepass")).hexdigest()[:16]
    return f"{words}-{digest}.html" if words else f"{digest}.html"


@task
def write_pages(landing: dict[str, Any], params: dict[str, Any]) -> dict[str, Any]:
    """Write a page for each report of the quarter in the table."""
    folder = ObjectStoragePath(Variable.get("reports_folder", default=f"file://{AIRFLOW_HOME}/reports"))
    folder = folder / params["quarter"]
    folder.mkdir(parents=True, exist_ok=True)
    # Names and reports are data, so escape them.
    templates = Environment(loader=FileSystemLoader(Path(__file__).parent / "templates"), autoescape=True)
    page = templates.get_template("company_report.html")
    sql = f"SELECT * FROM {landing['table']} WHERE quarter = '{params['quarter']}' AND outcome = 'succeeded'"
    pages = 0
    with closing(BaseHook.get_hook("warehouse").get_conn()) as connection, closing(connection.cursor()) as cursor:
        cursor.execute(sql)
        columns = [column[0] for column in cursor.description]
        for values in iter(cursor.fetchone, None):
            row = dict(zip(columns, values, strict=True))
            name = file_name(row["name"], row["custom_id"])
            (folder / name).write_text(page.render(row), encoding="utf-8")
            pages += 1
    return {"folder": str(folder), "pages": pages, "cost_usd": landing["cost_usd"], "estimate": landing["estimate"]}


with DAG(
    "write_reports",
    schedule=None,
    doc_md=__doc__,
    # A retry is safe: it continues the job, and sends nothing that was sent before.
    default_args={"retries": 3},
    params={
        "quarter": Param("2026-Q3", pattern=r"^\d{4}-Q[1-4]$"),
        "model": Param("gpt-5-mini", type="string", minLength=1),
        "table": Param(
            "company_reports", pattern=r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*){0,2}$", description="Table for the reports"
        ),
    },
    tags=["batch", "example"],
) as dag:
    landing = batch_job(
        sql="sql/company_metrics.sql",
        custom_id="{{ row.id }}",
        model=dag.param("model"),
        system="prompts/reporter.md",
        prompt="prompts/company.md",
        output_schema=Report,
        columns=["headline", "report", "outlook"],
        carry=[
            *("name", "country", "revenue_usd", "revenue_before"),
            *("sensors", "sensors_before", "tickets", "tickets_before"),
        ],
        table="{{ params.table }}",
        # The event is that of the asset with the name of the table, whatever the form says.
        outlets=AssetAlias("company reports"),
        key={"quarter": "{{ params.quarter }}"},
        max_cost_usd=10,
        deadline="{{ (dag_run.run_after + macros.timedelta(hours=20)).strftime('%Y-%m-%dT07:00:00+00:00') }}",
        at_deadline="sync",
    )
    write_pages(landing)  # type: ignore[arg-type,call-arg,misc]  # Airflow passes the value, and `params`
