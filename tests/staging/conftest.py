"""A real S3 store over HTTP: moto's server behind a proxy that can make it misbehave, and the real s3fs."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable, Iterator
from http.client import HTTPConnection
from itertools import cycle
from typing import Any

import pytest
from airflow.sdk.io import attach

from airflow_provider_batch.staging.object_store import ObjectFolder
from tests.staging.store_proxy import StoreProxy

BUCKET = "staging"


def s3_filesystem(url: str) -> Any:
    """Return the real s3fs for a store at this address. It repeats no request, so that the tests need not wait."""
    from s3fs import S3FileSystem

    filesystem = S3FileSystem(
        key="key",
        secret="secret",
        endpoint_url=url,
        client_kwargs={"region_name": "us-east-1"},
        config_kwargs={"retries": {"total_max_attempts": 1}},
        skip_instance_cache=True,
    )
    filesystem.retries = 1
    return filesystem


@pytest.fixture(scope="session")
def _proxy() -> Iterator[StoreProxy]:
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.WARNING)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    _, port = server.get_host_and_port()
    connection = HTTPConnection("127.0.0.1", port)
    connection.request("PUT", f"/{BUCKET}")
    assert connection.getresponse().status == 200
    connection.close()
    proxy = StoreProxy(port)
    try:
        yield proxy
    finally:
        proxy.close()
        server.stop()


@pytest.fixture(scope="session")
def _conn_ids(_proxy: StoreProxy) -> list[str]:
    """Return the connections of two workers, each with a filesystem of its own."""
    conn_ids = [f"c{secrets.token_hex(8)}" for _ in range(2)]
    for conn_id in conn_ids:
        attach("s3", conn_id=conn_id, fs=s3_filesystem(_proxy.url))
    return conn_ids


@pytest.fixture
def s3(_proxy: StoreProxy) -> Iterator[StoreProxy]:
    """Return the proxy in front of the store."""
    _proxy.fault = None
    _proxy.counts.clear()
    yield _proxy
    _proxy.fault = None


@pytest.fixture
def open_s3(s3: StoreProxy, _conn_ids: list[str]) -> Callable[[], ObjectFolder]:
    """Return a function that opens the same job's folder in the store, for one of two workers in turn."""
    folder, conn_ids = secrets.token_hex(8), cycle(_conn_ids)
    return lambda: ObjectFolder(f"s3://{next(conn_ids)}@{BUCKET}/{folder}")
