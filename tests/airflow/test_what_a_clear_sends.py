"""A clear sends the rows that the page, `jobs show` and the error of the landing say that it sends, and no others."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_batch.local.process import LocalServer
from tests.airflow.clearing import ClearedJob
from tests.airflow.jobs import Ticket, client_of

if TYPE_CHECKING:
    import openai


@pytest.fixture
def tickets() -> list[Ticket]:
    texts = {"T-1": "fine", "T-2": "[[refuse]]", "T-3": "[[cutoff]]", "T-4": "[[fail:400]]", "T-5": "[[fail:500]]"}
    return [(name, name, text, "bug") for name, text in texts.items()]


@pytest.fixture
def sent_ids(server: LocalServer) -> Callable[[], list[str]]:
    """Return a function that returns the custom_ids of all requests in batches since its last call."""
    client, seen = client_of(server), set[str]()

    def read() -> list[str]:
        batches = [batch for batch in client.batches.list(limit=100) if batch.id not in seen]
        seen.update(batch.id for batch in batches)
        return sorted(custom_id for batch in batches for custom_id in _ids_of(client, batch))

    return read


def _ids_of(client: openai.OpenAI, batch: Any) -> list[str]:
    lines = client.files.content(batch.input_file_id).text.splitlines()
    return [json.loads(line)["custom_id"] for line in lines]


def test_a_clear_sends_the_rows_that_the_error_of_the_landing_names(
    warehouse: Path, sent_ids: Callable[[], list[str]]
) -> None:
    job, arguments = ClearedJob(), {"wait": {"max_attempts": 1}, "land": {"max_failure_rate": 0.0}}
    error = job.run(**arguments).error("land")
    assert sent_ids() == ["T-1", "T-2", "T-3", "T-4", "T-5"]
    assert "Clearing the wait and all tasks after it retries 1 row (1 failed)." in error
    assert "3 rows stay as they are: 1 refused, 1 cut off at the output cap, 1 failed for good" in error

    job.clear("wait", "land", **arguments)
    assert sent_ids() == ["T-5"]

    # submit reads the rows again and finds nothing new, so the cleared wait after it does the same
    job.clear("submit", "wait", "land", **arguments)
    assert sent_ids() == ["T-5"]

    raised_cap = {**arguments, "wait": {"max_attempts": 1, "on_incomplete": "raise_cap"}, "max_output_tokens": 50}
    job.clear("submit", "wait", "land", **raised_cap)
    assert sent_ids() == ["T-1", "T-2", "T-3", "T-4", "T-5"]


def test_a_clear_of_submit_sends_rows_whose_request_has_changed(
    warehouse: Path, sent_ids: Callable[[], list[str]]
) -> None:
    job, arguments = ClearedJob(), {"wait": {"max_attempts": 1}}
    job.run(**arguments)
    sent_ids()
    with closing(sqlite3.connect(warehouse)) as connection, connection:
        connection.execute("UPDATE tickets SET body = 'harmless' WHERE id = 'T-2'")
    job.clear("submit", "wait", "land", **arguments)
    # the attempts of the other rows are used up, and only a clear of a wait that had ended renews them
    assert sent_ids() == ["T-2"]
    job.clear("wait", "land", **arguments)
    assert sent_ids() == ["T-5"]


def test_a_new_run_that_reuses_the_table_sends_the_rows_that_did_not_succeed(
    warehouse: Path, sent_ids: Callable[[], list[str]]
) -> None:
    ClearedJob().run()
    sent_ids()
    ClearedJob().run(reuse_from="answers", wait={"max_attempts": 1})
    assert sent_ids() == ["T-2", "T-3", "T-4", "T-5"]
