"""`embed_documents`: asks what is new or changed, forgets what is gone, and finds what it embedded."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from airflow_provider_batch.demo import documents
from tests.airflow.dags.conftest import NOTHING, blocks, check_costs
from tests.airflow.dags.warehouses import KINDS, Warehouse
from tests.airflow.jobs import Ran

DOCUMENTS, QUESTIONS = documents.load()
TEXTS = len(DOCUMENTS) + len(QUESTIONS)


@pytest.fixture
def warehouse(warehouse_of: Callable[..., Warehouse]) -> Warehouse:
    return warehouse_of("sqlite", documents.seed)


def vectors_of(warehouse: Warehouse) -> dict[str, list[float]]:
    rows = warehouse.execute("SELECT custom_id, output FROM document_vectors")
    return {name: json.loads(vector) if isinstance(vector, str) else list(vector) for name, vector in rows}


@pytest.mark.parametrize("kind", KINDS)
def test_new_and_changed_documents_alone_are_asked_and_those_that_are_gone_lose_their_vector(
    kind: str,
    warehouse_of: Callable[..., Warehouse],
    run_ready: Callable[..., Ran],
    billed: Callable[[], dict[str, int]],
) -> None:
    warehouse = warehouse_of(kind, documents.seed)
    first = run_ready("embed_documents")

    assert first.errors == {}
    account = first.returned["batch_job.land"]
    assert (account["sent"], account["outcomes"]) == (TEXTS, {"succeeded": TEXTS})
    assert billed() == {"upload": 1, "create": 1, "synchronous": 2}
    vectors = vectors_of(warehouse)
    assert {len(vector) for vector in vectors.values()} == {256}

    second = run_ready("embed_documents")

    assert second.errors == {}
    account = second.returned["batch_job.land"]
    assert (account["sent"], account["reused"], account["cost_usd"]) == (0, TEXTS, "0")
    assert billed() == NOTHING
    assert vectors_of(warehouse) == vectors

    warehouse.execute("UPDATE documents SET body = body || ' Spare ones are in our shop.' WHERE id = 'D-003'")
    warehouse.execute("DELETE FROM documents WHERE id = 'D-030'")
    warehouse.execute("UPDATE documents SET title = '', body = '' WHERE id = 'D-029'")
    third = run_ready("embed_documents")

    assert third.errors == {}
    account = third.returned["batch_job.land"]
    assert (account["sent"], account["reused"]) == (1, TEXTS - 3)
    assert billed() == {"upload": 0, "create": 0, "synchronous": 1}
    now = vectors_of(warehouse)
    assert vectors.keys() - now.keys() == {"D-029", "D-030"}
    assert [name for name in now if now[name] != vectors[name]] == ["D-003"]
    check_costs("embed_documents", *(ran.returned["batch_job.land"] for ran in (first, second, third)))


def test_it_goes_on_when_its_column_becomes_one_of_pgvector(
    warehouse_of: Callable[..., Warehouse], run_ready: Callable[..., Ran], billed: Callable[[], dict[str, int]]
) -> None:
    warehouse = warehouse_of("postgres", documents.seed)
    assert run_ready("embed_documents").state == "success"
    billed()
    to_pgvector, nearest = blocks("embed_documents", "sql")
    warehouse.execute(to_pgvector)
    warehouse.execute("UPDATE documents SET body = body || ' Spare ones are in our shop.' WHERE id = 'D-003'")

    ran = run_ready("embed_documents")

    assert ran.errors == {}
    assert (ran.returned["batch_job.land"]["sent"], billed()) == (1, {**NOTHING, "synchronous": 1})
    assert warehouse.execute("SELECT count(*), min(vector_dims(output)) FROM document_vectors") == [(TEXTS, 256)]
    found = warehouse.execute(nearest)
    assert len(found) == 3
    assert found[0] == (QUESTIONS[0].document,)


@pytest.mark.usefixtures("offline")
def test_a_changed_document_that_gets_no_answer_keeps_its_old_vector_and_is_asked_by_the_next_run(
    warehouse: Warehouse, run_ready: Callable[..., Ran]
) -> None:
    assert run_ready("embed_documents").state == "success"
    vectors = vectors_of(warehouse)
    warehouse.execute("UPDATE documents SET body = 'Now another.' WHERE id = 'D-006'")
    warehouse.execute("UPDATE documents SET body = 'Now another. [[fail:400]]' WHERE id = 'D-007'")

    failed = run_ready("embed_documents").returned["batch_job.land"]
    assert failed["outcomes"] == {"succeeded": TEXTS - 1, "failed": 1}
    now = vectors_of(warehouse)
    assert [name for name in now if now[name] != vectors[name]] == ["D-006"]

    warehouse.execute("UPDATE documents SET body = 'Now another.' WHERE id = 'D-007'")
    assert run_ready("embed_documents").returned["batch_job.land"]["sent"] == 1
    assert vectors_of(warehouse)["D-007"] != vectors["D-007"]


@pytest.mark.usefixtures("offline")
def test_a_source_that_failed_to_load_loses_no_vector(warehouse: Warehouse, run_ready: Callable[..., Ran]) -> None:
    assert run_ready("embed_documents").state == "success"
    warehouse.execute("DELETE FROM documents WHERE id > 'D-014'")

    ran = run_ready("embed_documents")

    assert (ran.states["half_is_left"], ran.states["prune"]) == ("failed", "upstream_failed")
    assert "half_is_left" in ran.error("half_is_left")
    assert len(vectors_of(warehouse)) == TEXTS


@pytest.mark.usefixtures("offline")
def test_a_check_that_finds_too_few_documents_fails(warehouse: Warehouse, run_ready: Callable[..., Ran]) -> None:
    warehouse.execute("UPDATE document_questions SET document = 'D-017' WHERE id < 'Q-004'")

    ran = run_ready("embed_documents")

    assert ran.states["check"] == "failed"
    assert "questions_find_their_document" in ran.error("check")


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
def test_bad_input_is_told_and_nothing_is_paid(
    changes: dict[str, tuple[str, str]], conf: dict[str, object], words: str, refused: Callable[..., str]
) -> None:
    assert words in refused("embed_documents", changes, **conf)
