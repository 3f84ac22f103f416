"""Runs jobs with Airflow's OpenLineage provider, whose plugin Airflow loads once, at the start of a process.

    python -m tests.airflow.lineage_jobs

`test_lineage.py` sets the connections `postgres`, `duckdb` and `sqlite`, and the transport of the events.
"""

from __future__ import annotations

from typing import Any

from tests.airflow.jobs import run_job

SCHEMA = {
    "title": "Ticket",
    "type": "object",
    "properties": {"label": {"type": "string", "enum": ["bug", "billing"]}, "score": {"type": "integer"}},
}
#: text of the query of the job on PostgreSQL
SQL = "SELECT t.id, lower(t.title) AS subject, t.body, t.label AS gold FROM shop.tickets AS t ORDER BY t.id"


def run(conn_id: str, land: dict[str, Any], **submit: Any) -> None:
    """Run a job whose tables are on one connection, as the DAG `job_<conn_id>`."""
    land = {"warehouse_conn_id": conn_id} | land
    result = run_job(dag_id=f"job_{conn_id}", land=land, warehouse_conn_id=conn_id, output_schema=SCHEMA, **submit)
    print(result.states, result.errors)


if __name__ == "__main__":
    run(
        "postgres",
        {"table": "shop.answers", "columns": {"answer": "label"}},
        sql=SQL,
        prompt="{{ row.subject }}: {{ row.body }}",
        carry=["gold"],
    )
    run("duckdb", {"table": "answers"}, sql="SELECT * FROM tickets", carry=["label"])
    # the table does not exist, which submit notices before it seals
    run("sqlite", {"table": "answers", "create_table": False})
