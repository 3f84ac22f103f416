"""Large files pass through the server without staying in its memory."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from airflow_provider_batch.local.process import LocalServer
from tests.local.conftest import Serve

MB = 1_000_000


def _peak(server: LocalServer) -> int:
    """The most bytes of memory the server ever held."""
    status = Path(f"/proc/{server.pid}/status")
    if not status.exists():
        pytest.skip("the peak of a process's memory is read from Linux's /proc")
    found = re.search(r"VmHWM:\s+(\d+) kB", status.read_text())
    assert found is not None
    return int(found[1]) * 1024


def test_150_mb_go_up_and_down_in_flat_memory(serve: Serve, tmp_path: Path) -> None:
    server, client = serve()
    with open(tmp_path / "sparse.bin", "wb+") as sparse:
        sparse.truncate(150 * MB)
        client.models.list()
        before = _peak(server)
        file = client.files.create(file=sparse, purpose="user_data")
    got = 0
    with client.files.with_streaming_response.content(file.id) as response:
        for chunk in response.iter_bytes(1 << 20):
            got += len(chunk)

    assert got == file.bytes == 150 * MB
    assert _peak(server) - before < 30 * MB


def test_150_mb_go_up_in_parts_in_flat_memory(serve: Serve) -> None:
    server, client = serve()
    part = bytes(50 * MB)
    upload = client.uploads.create(bytes=150 * MB, filename="a.bin", mime_type="text/plain", purpose="user_data")
    before = _peak(server)
    part_ids = [client.uploads.parts.create(upload.id, data=part).id for _ in range(3)]

    done = client.uploads.complete(upload.id, part_ids=part_ids)

    assert done.file is not None
    assert client.files.retrieve(done.file.id).bytes == 150 * MB
    assert _peak(server) - before < 30 * MB
