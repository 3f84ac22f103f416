"""A server that is killed and started again on the same state goes on where it stopped."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from openai import OpenAI

from airflow_provider_batch.local.process import LocalServer, ServerStartError
from tests.local.conftest import Serve, make_client
from tests.local.driving import answers, chat, chats, failures, results, run, submit, wait


def _completed(client: OpenAI, batch_id: str) -> int:
    counts = client.batches.retrieve(batch_id).request_counts
    assert counts is not None
    return counts.completed


def test_a_killed_server_goes_on_and_asks_no_answered_request_again(serve: Serve) -> None:
    server, client = serve(in_progress=4)
    # These fail the first time they are asked and never again: asked twice, they would end in the output file.
    lines = [chat(f"once-{number}", f"{number} [[fail:500:once]]") for number in range(5)] + chats(195)
    batch = submit(client, lines)
    wait(client, batch, lambda seen: seen.request_counts is not None and seen.request_counts.completed >= 20)
    before = _completed(client, batch.id)
    server.kill()
    killed = time.time()
    # The clock of the answers counts whole seconds.
    while time.time() < int(killed) + 1:
        time.sleep(0.01)

    server.start()
    assert _completed(client, batch.id) >= before
    ended = wait(client, batch)

    assert ended.status == "completed"
    written = results(client, ended.output_file_id)
    done = answers(client, ended)
    assert len(written) == len(done) == 195
    assert set(failures(client, ended)) == {f"once-{number}" for number in range(5)}
    answered_before = [body for body in done.values() if body["created"] <= killed]
    assert before <= len(answered_before) < 195


def test_ended_batches_and_their_files_outlive_a_kill(serve: Serve) -> None:
    server, client = serve()
    batch = run(client, [*chats(3), chat("bad", "[[fail:400]]")])
    output = client.files.content(batch.output_file_id or "").content
    server.kill()
    server.start()

    assert client.batches.retrieve(batch.id) == batch
    assert client.files.content(batch.output_file_id or "").content == output
    assert set(failures(client, batch)) == {"bad"}


@pytest.mark.parametrize("status", ["validating", "finalizing", "cancelling"])
def test_a_batch_goes_on_from_every_state(serve: Serve, tmp_path: Path, status: str) -> None:
    pause = {"cancelling": "finalizing"}.get(status, status)
    server, client = serve(**{pause: 600, "in_progress": 2 if status == "cancelling" else 0})
    batch = submit(client, chats(4))
    if status == "cancelling":
        wait(client, batch, lambda seen: seen.status == "in_progress")
        client.batches.cancel(batch.id)
    wait(client, batch, lambda seen: seen.status == status)
    server.kill()

    with LocalServer(server.state) as faster, make_client(faster) as again:
        ended = wait(again, again.batches.retrieve(batch.id))
        assert ended.status == ("cancelled" if status == "cancelling" else "completed")
        everything = {**answers(again, ended), **failures(again, ended)}
        assert set(everything) == {f"row-{number}" for number in range(4)}


def test_a_clean_stop_ends_with_0_and_keeps_the_state(serve: Serve) -> None:
    server, client = serve(in_progress=3)
    batch = submit(client, chats(30))
    wait(client, batch, lambda seen: seen.status == "in_progress")

    assert server.stop() == 0
    server.start()
    assert wait(client, batch).status == "completed"


def test_two_servers_never_share_a_state_directory(serve: Serve) -> None:
    server, _ = serve()

    with pytest.raises(ServerStartError, match="Another local batch server is already using"):
        LocalServer(server.state).start()


def test_a_window_that_ended_while_the_server_was_away_expires_the_batch(serve: Serve) -> None:
    server, client = serve(in_progress=600, window=2)
    batch = wait(client, submit(client, chats(1000)), lambda seen: seen.status == "in_progress")
    server.kill()
    while time.time() < (batch.expires_at or 0):
        time.sleep(0.01)

    server.start()
    assert wait(client, batch).status == "expired"
