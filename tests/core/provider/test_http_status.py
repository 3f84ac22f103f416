"""Which HTTP statuses are worth a retry."""

from __future__ import annotations

import pytest

from airflow_provider_batch.core.provider.http_status import is_transient


@pytest.mark.parametrize("status", [0, 408, 409, 429, 500, 502, 503, 504, 520, 599])
def test_timeouts_conflicts_rate_limits_and_server_errors_are_transient(status: int) -> None:
    assert is_transient(status)


@pytest.mark.parametrize("status", [200, 302, 400, 401, 402, 403, 404, 410, 413, 422])
def test_every_other_status_is_permanent(status: int) -> None:
    assert not is_transient(status)
