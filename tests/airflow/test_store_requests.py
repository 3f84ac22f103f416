"""How many requests a job makes to the object store that holds its staging. Stores charge for each of them."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from airflow_provider_batch.staging.object_store import ObjectFolder
from tests.airflow.jobs import Ticket, run_job
from tests.staging.conftest import _conn_ids, _proxy, open_s3, s3
from tests.staging.store_proxy import StoreProxy

__all__ = ["_conn_ids", "_proxy", "open_s3", "s3"]

SHARDS = 40


@pytest.fixture
def tickets() -> list[Ticket]:
    return [(f"T-{n}", f"Ticket {n}", "The invoice is wrong", "billing") for n in range(SHARDS)]


@pytest.mark.usefixtures("warehouse")
def test_listings_do_not_grow_with_the_shards(s3: StoreProxy, open_s3: Callable[[], ObjectFolder]) -> None:
    result = run_job(staging=open_s3().uri, limits={"requests": 1}, canary=5)

    assert result.state == "success", result.errors
    # measured: 21 listings, each of up to 1,000 names, and 506 requests: 274 of submit, 154 of wait, 78 of land
    assert s3.counts["LIST"] <= 30
    assert s3.counts.total() <= 14 * SHARDS


@pytest.mark.usefixtures("warehouse")
def test_a_small_job_needs_about_seventy_requests(s3: StoreProxy, open_s3: Callable[[], ObjectFolder]) -> None:
    result = run_job(staging=open_s3().uri, canary=5, max_rows=10)

    assert result.state == "success", result.errors
    # measured: 66: 36 of submit, 17 of wait, 13 of land
    assert s3.counts.total() <= 75
