"""The extra links of tasks."""

from __future__ import annotations

import pytest
from airflow.sdk import DAG, BaseOperator
from airflow.serialization.serialized_objects import DagSerialization

from airflow_provider_batch.links.batch import (
    LEDGER_KEY,
    BatchJobLink,
    ProviderBatchesLink,
    answers_page,
    job_page,
    report_page,
)

RUN = "manual__2026-11-20T10:00:00+00:00"
LEDGER = "s3://bucket/batch/1"


class LinkedOperator(BaseOperator):
    operator_extra_links = (BatchJobLink(),)


class TaskInstance:
    """The part of a running task instance that the link uses."""

    dag_id, run_id, task_id, map_index = "link", RUN, "submit", 2

    def __init__(self, task: BaseOperator) -> None:
        self.task = task
        self.xcoms: dict[str, object] = {}

    def xcom_push(self, key: str, value: object) -> None:
        self.xcoms[key] = value


def test_a_run_id_is_quoted_in_the_url_of_a_page() -> None:
    time = "2026-11-20T10%3A00%3A00%2B00%3A00"
    assert job_page("d", RUN, "g.t") == f"/plugin/llm-batch?dag_id=d&run_id=manual__{time}&task_id=g.t"
    run_id = "a%2F..%2Fb%3Fx%3D1%26y%23z%20%25"
    assert job_page("d", "a/../b?x=1&y#z %", "t", 3) == (
        f"/plugin/llm-batch?dag_id=d&run_id={run_id}&task_id=t&map_index=3"
    )
    assert report_page("d", "a/../b?x=1&y#z %", "t", 3) == f"/batch/report/d/t/3?run_id={run_id}"


@pytest.mark.parametrize("base", ["http://airflow.example.com/team-a", "http://airflow.example.com/team-a/"])
def test_the_url_starts_with_the_path_of_the_api_base_url(monkeypatch: pytest.MonkeyPatch, base: str) -> None:
    monkeypatch.setenv("AIRFLOW__API__BASE_URL", base)
    assert job_page("d", "r", "t") == "/team-a/plugin/llm-batch?dag_id=d&run_id=r&task_id=t"


def test_a_persisted_link_is_pushed_to_the_xcom_key_that_the_ui_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    # The API server deserialises DAGs with this switched on. The scheduler switches it off for the whole process.
    monkeypatch.setattr(DagSerialization, "_load_operator_extra_links", True)
    with DAG("link", schedule=None) as dag:
        task = LinkedOperator(task_id="submit")
    ti = TaskInstance(task)
    BatchJobLink.persist({"ti": ti}, LEDGER)
    (link,) = DagSerialization.from_dict(DagSerialization.to_dict(dag)).get_task("submit").operator_extra_links
    assert link.name == "LLM batch"
    assert ti.xcoms == {link.xcom_key: job_page("link", RUN, "submit", 2), LEDGER_KEY: LEDGER}


@pytest.mark.parametrize(
    ("host", "links"),
    [
        ("api.openai.com", {"https://platform.openai.com/batches"}),
        ("eu.api.openai.com", {"https://platform.openai.com/batches"}),
        ("127.0.0.1", set()),
        ("api.openai.com.example.com", set()),
    ],
)
def test_only_a_task_whose_batches_are_at_openai_links_to_its_page(host: str, links: set[str]) -> None:
    ti = TaskInstance(LinkedOperator(task_id="submit"))
    ProviderBatchesLink.persist({"ti": ti}, host)
    assert set(ti.xcoms.values()) == links


@pytest.mark.parametrize(
    ("base_url", "start"),
    [
        ("/", "/plugin/"),
        ("https://air.example.com", "https://air.example.com/plugin/"),
        ("http://h/air/", "http://h/air/plugin/"),
    ],
)
def test_the_link_to_all_answers_is_absolute_if_the_base_url_is(
    monkeypatch: pytest.MonkeyPatch, base_url: str, start: str
) -> None:
    monkeypatch.setenv("AIRFLOW__API__BASE_URL", base_url)
    assert answers_page("d", "night 1") == f"{start}llm-batch?view=evals&tab=cases&dag_id=d&run_id=night%201"
