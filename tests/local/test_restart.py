"""A server that was killed and restarted on the same state directory continues where it stopped."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from airflow_provider_batch.local.process import LocalServer, ServerStartError
from tests.local.conftest import Serve, make_client
from tests.local.driving import answers, chat, chats, failures, results, run, submit, wait

if TYPE_CHECKING:
    from openai import OpenAI


def _completed(client: OpenAI, batch_id: str) -> int:
    counts = client.batches.retrieve(batch_id).request_counts
    assert counts is not None
    return counts.completed


def test_a_killed_server_continues_without_repeating_answered_requests(serve: Serve) -> None:
    server, client = serve(in_progress=4)
    # These requests fail only the first time. If they ran twice, their answers would be in the output file.
    lines = [chat(f"once-{number}", f"{number} [[fail:500:once]]") for number in range(5)] + chats(195)
    batch = submit(client, lines)
    wait(client, batch, lambda batch: batch.request_counts is not None and batch.request_counts.completed >= 20)
    completed = _completed(client, batch.id)
    server.kill()
    killed_at = time.time()
    # The answers' timestamps are whole seconds.
    while time.time() < int(killed_at) + 1:
        time.sleep(0.01)

    server.start()
    assert _completed(client, batch.id) >= completed
    batch = wait(client, batch)

    assert batch.status == "completed"
    lines = results(client, batch.output_file_id)
    bodies = answers(client, batch)
    assert len(lines) == len(bodies) == 195
    assert set(failures(client, batch)) == {f"once-{number}" for number in range(5)}
    earlier_bodies = [body for body in bodies.values() if body["created"] <= killed_at]
    assert completed <= len(earlier_bodies) < 195


def test_ended_batches_and_their_files_survive_a_kill(serve: Serve) -> None:
    server, client = serve()
    batch = run(client, [*chats(3), chat("bad", "[[fail:400]]")])
    output = client.files.content(batch.output_file_id or "").content
    server.kill()
    server.start()

    assert client.batches.retrieve(batch.id) == batch
    assert client.files.content(batch.output_file_id or "").content == output
    assert set(failures(client, batch)) == {"bad"}


@pytest.mark.parametrize("status", ["validating", "finalizing", "cancelling"])
def test_a_batch_continues_from_every_state(serve: Serve, tmp_path: Path, status: str) -> None:
    pause = {"cancelling": "finalizing"}.get(status, status)
    server, client = serve(**{pause: 600, "in_progress": 2 if status == "cancelling" else 0})
    batch = submit(client, chats(4))
    if status == "cancelling":
        wait(client, batch, lambda batch: batch.status == "in_progress")
        client.batches.cancel(batch.id)
    wait(client, batch, lambda batch: batch.status == status)
    server.kill()

    with LocalServer(server.state) as faster, make_client(faster) as client:
        batch = wait(client, client.batches.retrieve(batch.id))
        assert batch.status == ("cancelled" if status == "cancelling" else "completed")
        lines = {**answers(client, batch), **failures(client, batch)}
        assert set(lines) == {f"row-{number}" for number in range(4)}


def test_a_clean_stop_exits_with_0_and_keeps_the_state(serve: Serve) -> None:
    server, client = serve(in_progress=3)
    batch = submit(client, chats(30))
    wait(client, batch, lambda batch: batch.status == "in_progress")

    assert server.stop() == 0
    server.start()
    assert wait(client, batch).status == "completed"


def test_two_servers_never_share_a_state_directory(serve: Serve) -> None:
    server, _ = serve()

    with pytest.raises(ServerStartError, match="Another local batch server is already using"):
        LocalServer(server.state).start()


def test_a_batch_expires_if_its_window_ended_while_the_server_was_down(serve: Serve) -> None:
    server, client = serve(in_progress=600, window=2)
    batch = wait(client, submit(client, chats(1000)), lambda batch: batch.status == "in_progress")
    server.kill()
    while time.time() < (batch.expires_at or 0):
        time.sleep(0.01)

    server.start()
    assert wait(client, batch).status == "expired"
