from __future__ import annotations

import pytest
from airflow.sdk import DAG, BaseOperator
from airflow.serialization.serialized_objects import DagSerialization

from airflow_provider_batch.links.batch import LEDGER_KEY, BatchJobLink, job_page

RUN = "manual__2026-11-20T10:00:00+00:00"
LEDGER = "s3://bucket/batch/1"


class Linked(BaseOperator):
    operator_extra_links = (BatchJobLink(),)


class TaskInstance:
    """What of a running task instance the link uses."""

    dag_id, run_id, task_id, map_index = "link", RUN, "submit", 2

    def __init__(self, task: BaseOperator) -> None:
        self.task = task
        self.pushed: dict[str, object] = {}

    def xcom_push(self, key: str, value: object) -> None:
        self.pushed[key] = value


def test_the_page_of_a_job_has_an_address_that_no_run_id_can_bend() -> None:
    assert job_page("d", RUN, "g.t") == "/batch/job/d/g.t/-1?run_id=manual__2026-11-20T10%3A00%3A00%2B00%3A00"
    assert job_page("d", "a/../b?x=1&y#z %", "t", 3) == "/batch/job/d/t/3?run_id=a%2F..%2Fb%3Fx%3D1%26y%23z%20%25"


@pytest.mark.parametrize("base", ["http://airflow.example.com/team-a", "http://airflow.example.com/team-a/"])
def test_the_address_follows_the_prefix_of_the_api_server(monkeypatch: pytest.MonkeyPatch, base: str) -> None:
    monkeypatch.setenv("AIRFLOW__API__BASE_URL", base)
    assert job_page("d", "r", "t") == "/team-a/batch/job/d/t/-1?run_id=r"


def test_a_persisted_link_lies_where_the_ui_looks_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    # as the API server reads DAGs; reading one as the scheduler does switches this off for the whole process
    monkeypatch.setattr(DagSerialization, "_load_operator_extra_links", True)
    with DAG("link", schedule=None) as dag:
        task = Linked(task_id="submit")
    ti = TaskInstance(task)
    BatchJobLink.persist({"ti": ti}, LEDGER)
    (seen_by_ui,) = DagSerialization.from_dict(DagSerialization.to_dict(dag)).get_task("submit").operator_extra_links
    assert seen_by_ui.name == "LLM batch"
    assert ti.pushed == {seen_by_ui.xcom_key: job_page("link", RUN, "submit", 2), LEDGER_KEY: LEDGER}
