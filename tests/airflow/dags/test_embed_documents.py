"""`embed_documents` embeds new and changed documents, deletes vectors of removed ones, and checks the search."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from airflow_provider_batch.demo import documents
from tests.airflow.dags.conftest import NO_CALLS, blocks, check_costs
from tests.airflow.dags.warehouses import KINDS, Warehouse
from tests.airflow.jobs import DagRunResult

DOCUMENTS, QUESTIONS = documents.load()
TEXTS = len(DOCUMENTS) + len(QUESTIONS)


@pytest.fixture
def warehouse(warehouse_of: Callable[..., Warehouse]) -> Warehouse:
    return warehouse_of("sqlite", documents.seed)


def vectors_of(warehouse: Warehouse) -> dict[str, list[float]]:
    rows = warehouse.execute("SELECT custom_id, output FROM document_vectors")
    return {name: json.loads(vector) if isinstance(vector, str) else list(vector) for name, vector in rows}


@pytest.mark.parametrize("kind", KINDS)
def test_only_new_and_changed_documents_are_sent_and_removed_ones_lose_their_vector(
    kind: str,
    warehouse_of: Callable[..., Warehouse],
    run_example: Callable[..., DagRunResult],
    count_calls: Callable[[], dict[str, int]],
) -> None:
    warehouse = warehouse_of(kind, documents.seed)
    first = run_example("embed_documents")

    assert first.errors == {}
    landing = first.return_values["batch_job.land"]
    assert (landing["sent"], landing["outcomes"]) == (TEXTS, {"succeeded": TEXTS})
    assert count_calls() == {"upload": 1, "create": 1, "synchronous": 5}
    vectors = vectors_of(warehouse)
    assert {len(vector) for vector in vectors.values()} == {256}

    second = run_example("embed_documents")

    assert second.errors == {}
    landing = second.return_values["batch_job.land"]
    assert (landing["sent"], landing["reused"], landing["cost_usd"]) == (0, TEXTS, "0")
    assert count_calls() == NO_CALLS
    assert vectors_of(warehouse) == vectors

    warehouse.execute("UPDATE documents SET body = body || ' Spare ones are in our shop.' WHERE id = 'D-003'")
    warehouse.execute("DELETE FROM documents WHERE id = 'D-030'")
    warehouse.execute("UPDATE documents SET title = '', body = '' WHERE id = 'D-029'")
    third = run_example("embed_documents")

    assert third.errors == {}
    landing = third.return_values["batch_job.land"]
    assert (landing["sent"], landing["reused"]) == (1, TEXTS - 3)
    assert count_calls() == {"upload": 0, "create": 0, "synchronous": 1}
    new_vectors = vectors_of(warehouse)
    assert vectors.keys() - new_vectors.keys() == {"D-029", "D-030"}
    assert [name for name in new_vectors if new_vectors[name] != vectors[name]] == ["D-003"]
    check_costs("embed_documents", *(result.return_values["batch_job.land"] for result in (first, second, third)))


def test_later_runs_work_after_the_column_was_changed_to_pgvector(
    warehouse_of: Callable[..., Warehouse],
    run_example: Callable[..., DagRunResult],
    count_calls: Callable[[], dict[str, int]],
) -> None:
    warehouse = warehouse_of("postgres", documents.seed)
    assert run_example("embed_documents").state == "success"
    count_calls()
    to_pgvector, nearest = blocks("embed_documents", "sql")
    warehouse.execute(to_pgvector)
    warehouse.execute("UPDATE documents SET body = body || ' Spare ones are in our shop.' WHERE id = 'D-003'")

    result = run_example("embed_documents")

    assert result.errors == {}
    assert (result.return_values["batch_job.land"]["sent"], count_calls()) == (1, {**NO_CALLS, "synchronous": 1})
    assert warehouse.execute("SELECT count(*), min(vector_dims(output)) FROM document_vectors") == [(TEXTS, 256)]
    documents_found = warehouse.execute(nearest)
    assert len(documents_found) == 3
    assert documents_found[0] == (QUESTIONS[0].document,)


@pytest.mark.usefixtures("offline")
def test_a_changed_document_without_an_answer_keeps_its_old_vector_and_the_next_run_sends_it(
    warehouse: Warehouse, run_example: Callable[..., DagRunResult]
) -> None:
    assert run_example("embed_documents").state == "success"
    vectors = vectors_of(warehouse)
    warehouse.execute("UPDATE documents SET body = 'Now another.' WHERE id = 'D-006'")
    warehouse.execute("UPDATE documents SET body = 'Now another. [[fail:400]]' WHERE id = 'D-007'")

    failed = run_example("embed_documents").return_values["batch_job.land"]
    assert failed["outcomes"] == {"succeeded": TEXTS - 1, "failed": 1}
    new_vectors = vectors_of(warehouse)
    assert [name for name in new_vectors if new_vectors[name] != vectors[name]] == ["D-006"]

    warehouse.execute("UPDATE documents SET body = 'Now another.' WHERE id = 'D-007'")
    assert run_example("embed_documents").return_values["batch_job.land"]["sent"] == 1
    assert vectors_of(warehouse)["D-007"] != vectors["D-007"]


@pytest.mark.usefixtures("offline")
def test_no_vector_is_deleted_if_more_than_half_of_the_documents_are_missing(
    warehouse: Warehouse, run_example: Callable[..., DagRunResult]
) -> None:
    assert run_example("embed_documents").state == "success"
    warehouse.execute("DELETE FROM documents WHERE id > 'D-014'")

    result = run_example("embed_documents")

    assert (result.states["half_remains"], result.states["prune"]) == ("failed", "upstream_failed")
    assert "half_remains" in result.error("half_remains")
    assert type(result.errors["half_remains"]).__name__ == "AirflowFailException"  # which is not retried
    assert len(vectors_of(warehouse)) == TEXTS


@pytest.mark.usefixtures("offline")
def test_the_check_fails_if_too_few_questions_find_their_document(
    warehouse: Warehouse, run_example: Callable[..., DagRunResult]
) -> None:
    warehouse.execute("UPDATE document_questions SET document = 'D-017' WHERE id < 'Q-004'")

    result = run_example("embed_documents")

    assert result.states["check"] == "failed"
    assert "questions_find_their_document" in result.error("check")
    assert type(result.errors["check"]).__name__ == "AirflowFailException"


@pytest.mark.usefixtures("warehouse")
@pytest.mark.parametrize(
    ("changes", "conf", "words"),
    [
        ({"sql/documents.sql": ("SELECT id", "DELETE FROM documents; SELECT id")}, {}, "it begins with DELETE"),
        ({"embed_documents.py": ("row.text ", "row.texts ")}, {}, "Did you mean 'text'?"),
        ({}, {"model": "text-embedding-9"}, "no price is known for text-embedding-9"),
        ({}, {"dimensions": 0}, "dimensions"),
    ],
    ids=["SQL that writes", "missing column", "unknown model", "no dimensions"],
)
def test_invalid_input_is_rejected_before_anything_is_sent(
    changes: dict[str, tuple[str, str]], conf: dict[str, object], words: str, run_rejected: Callable[..., str]
) -> None:
    assert words in run_rejected("embed_documents", changes, **conf)
