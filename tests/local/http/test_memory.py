"""Large files do not take up the server's memory."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from airflow_provider_batch.local.process import LocalServer
from tests.local.conftest import Serve

MB = 1_000_000


def _peak_memory(server: LocalServer) -> int:
    """Return the server's peak memory use in bytes."""
    status = Path(f"/proc/{server.pid}/status")
    if not status.exists():
        pytest.skip("peak memory is read from /proc, which only Linux has")
    match = re.search(r"VmHWM:\s+(\d+) kB", status.read_text())
    assert match is not None
    return int(match[1]) * 1024


def test_uploading_and_downloading_150_mb_takes_little_memory(serve: Serve, tmp_path: Path) -> None:
    server, client = serve()
    with open(tmp_path / "sparse.bin", "wb+") as sparse:
        sparse.truncate(150 * MB)
        client.models.list()
        initial_peak = _peak_memory(server)
        file = client.files.create(file=sparse, purpose="user_data")
    received_bytes = 0
    with client.files.with_streaming_response.content(file.id) as response:
        for chunk in response.iter_bytes(1 << 20):
            received_bytes += len(chunk)

    assert received_bytes == file.bytes == 150 * MB
    assert _peak_memory(server) - initial_peak < 30 * MB


def test_uploading_150_mb_in_parts_takes_little_memory(serve: Serve) -> None:
    server, client = serve()
    part = bytes(50 * MB)
    upload = client.uploads.create(bytes=150 * MB, filename="a.bin", mime_type="text/plain", purpose="user_data")
    initial_peak = _peak_memory(server)
    part_ids = [client.uploads.parts.create(upload.id, data=part).id for _ in range(3)]

    completed = client.uploads.complete(upload.id, part_ids=part_ids)

    assert completed.file is not None
    assert client.files.retrieve(completed.file.id).bytes == 150 * MB
    assert _peak_memory(server) - initial_peak < 30 * MB
