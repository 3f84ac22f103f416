"""The jobs that the browser tests watch.

Their batches run at the connection `slow_provider`, whose clock the tests advance, so a batch ends when a test says so.
Those at `still_provider` do not end.
"""

from __future__ import annotations

from typing import Any

from airflow.sdk import DAG

from airflow_provider_batch.operators.batch import BatchResultsOperator, BatchSubmitOperator
from airflow_provider_batch.sensors.batch import BatchSensor

#: texts that would run a script, draw a picture or reverse the text around them if they were not shown as text
HOSTILE_TEXTS = [
    "<script>document.title = 'broken out'</script>",
    "<img src=x onerror=\"document.title = 'broken out'\">",
    "<svg xmlns='http://www.w3.org/2000/svg' onload=\"document.title = 'broken out'\"><circle r='9'/></svg>",
    "[click](javascript:alert(1)) <a href=\"javascript:document.title='broken out'\">click</a>",
    "invoice-\N{RIGHT-TO-LEFT OVERRIDE}gnp.exe\N{POP DIRECTIONAL FORMATTING}",
    "{{ 7 * 7 }} ${7 * 7} </textarea></pre><h1>Heading</h1>",
]


def job(
    dag_id: str,
    *,
    rows: list[dict[str, str]] | None = None,
    sql: str | None = None,
    conn: str = "slow_provider",
    **wait: Any,
) -> DAG:
    """Return the DAG submit -> wait -> land of a job that sends these rows."""
    with DAG(dag_id, schedule=None) as dag:
        submit = BatchSubmitOperator(
            task_id="submit",
            warehouse_conn_id="warehouse",
            openai_conn_id=conn,
            **({"rows": rows} if rows else {"sql": sql}),
            custom_id="{{ row.id }}",
            model="gpt-5-mini",
            prompt="{{ row.title }}",
            canary=2,
            ignore_canary=True,
        )
        poll = BatchSensor(task_id="wait", job=submit.output, **wait)
        land = BatchResultsOperator(
            task_id="land", job=submit.output, warehouse_conn_id="warehouse", table=f"{dag_id}_answers"
        )
        submit >> poll >> land
    return dag


#: a job that succeeds
watched = job("watched_job", sql="SELECT id, title FROM tickets ORDER BY id LIMIT 40")
#: a job whose batch does not end
running = job("running_job", sql="SELECT id, title FROM tickets ORDER BY id LIMIT 20", conn="still_provider")
#: a job that a test cancels
cancelled = job("cancelled_job", sql="SELECT id, title FROM tickets ORDER BY id LIMIT 12")
#: a job of which three rows fail until they are retried, and one is refused
failing = job(
    "failing_job",
    rows=[
        *({"id": f"ok-{number}", "title": f"Ticket {number}"} for number in range(4)),
        *({"id": f"fails-{number}", "title": f"[[fail:500:once]] {number}"} for number in range(3)),
        {"id": "refused", "title": "[[refuse]]"},
    ],
    max_attempts=1,
)
#: a job whose keys, prompts, answers and errors are hostile
hostile = job(
    "hostile_job",
    rows=[{"id": f"{number} {text}", "title": text} for number, text in enumerate(HOSTILE_TEXTS)],
    max_attempts=1,
)
