"""The ceiling of whole jobs whose requests cost many times what was estimated (invariant 12), on the local server.

`tests/core/lifecycle/test_ceiling.py` has the laws.
"""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_batch.local.faults import Fault, Kind
from airflow_provider_batch.local.process import LocalServer
from tests.airflow.jobs import run_job

pytestmark = pytest.mark.usefixtures("server")
ROWS = 60
#: every row costs 25,501 tokens, of which about 10 were estimated: $0.0019 a row, $0.115 in all
DEAR = Fault(kind=Kind.LINE_FIELD, path="response.body.usage.prompt_tokens", json="25501")
ROW_USD = 25_501 * 0.075 / 1e6
CEILING = 0.05
JOB: dict[str, Any] = {
    "sql": "WITH RECURSIVE numbers(id) AS (SELECT 1 UNION ALL SELECT id + 1 FROM numbers WHERE id < 60) "
    "SELECT id FROM numbers",
    "prompt": "What is in picture {{ row.id }}?",
    "model": "gpt-4o-mini",
    "max_output_tokens": 200,
    "max_cost_usd": CEILING,
    "canary": 0,
}


@pytest.fixture
def server(faulty_server: LocalServer) -> LocalServer:
    """A server that reports 25,501 input tokens for the rows of batches. `openai_default` points to it."""
    faulty_server.set_faults(DEAR)
    return faulty_server


def test_a_job_whose_requests_cost_more_than_estimated_stops_within_its_ceiling(warehouse: Path) -> None:
    landed = run_job(**JOB).return_values["land"]

    assert float(landed["cost_usd"]) <= CEILING
    assert landed["outcomes"]["withheld"] > 0
    assert sum(landed["outcomes"].values()) == ROWS


def test_a_ceiling_that_covers_the_true_cost_sends_every_row(warehouse: Path) -> None:
    landed = run_job(**{**JOB, "max_cost_usd": 2 * ROWS * ROW_USD}).return_values["land"]

    assert landed["outcomes"] == {"succeeded": ROWS}
    assert float(landed["cost_usd"]) > CEILING


def test_two_models_share_the_ceiling(warehouse: Path) -> None:
    model = "{{ 'gpt-4o-mini' if row.id % 2 else 'gpt-5-nano' }}"
    landed = run_job(**{**JOB, "model": model}).return_values["land"]

    assert float(landed["cost_usd"]) <= CEILING
    assert landed["outcomes"]["succeeded"] > 2


def test_retried_rows_stay_within_the_ceiling(warehouse: Path, server: LocalServer) -> None:
    server.set_faults(Fault(kind=Kind.ERROR, status=500, rate=0.4, times=1), DEAR)
    landed = run_job(**JOB, wait={"row_retry_delay": timedelta(0)}).return_values["land"]

    assert float(landed["cost_usd"]) <= CEILING
    assert landed["outcomes"]["succeeded"] > 2


def test_the_final_pass_stays_within_the_ceiling_but_for_its_first_requests(
    warehouse: Path, server: LocalServer
) -> None:
    from airflow_provider_batch.core.lifecycle.steps import SHARD_REQUESTS

    server.set_faults(Fault(kind=Kind.STUCK))
    # 50,000 spaces are few tokens, but the local server reports one token per four bytes: $0.0019 at the standard price
    prompt = f"{{{{ row.id }}}}{' ' * 50_000}."
    wait = {"deadline": timedelta(seconds=2), "poke_interval": 1, "at_deadline": "sync"}
    ceiling = 0.02
    landed = run_job(**{**JOB, "prompt": prompt, "max_cost_usd": ceiling}, wait=wait).return_values["land"]

    assert 0 < float(landed["cost_usd"]) <= ceiling + SHARD_REQUESTS * 12_600 * 0.15 / 1e6
