"""Time and memory that the local batch server needs.

    python -m benchmarks.local_server [--runs 5] [--json FILE]

* 50,000 chat requests of about 1 KB, answered offline: time from create to completed (validated, answered, both files
  written). Anchor: one thread that reads the same file, parses every line and writes it again with msgspec.
* 200 MB uploaded and downloaded through the SDK: times and the growth of the server's memory. Anchor of the times:
  copying the same file on the same disk.
* A list of 10,000 ended batches, read completely in pages of 100: time per page. Anchor: a page of a server that has
  100 batches.
"""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
import time
from pathlib import Path
from typing import Final

import msgspec
from openai import OpenAI

from airflow_provider_batch.local.process import LocalServer
from benchmarks.measure import MB, Figure, measure_time, read_memory, report

CHAT: Final = "/v1/chat/completions"
ENDED_STATUSES = ("completed", "failed", "expired", "cancelled")


def client_of(server: LocalServer) -> OpenAI:
    """Return a client without retries, so that every failure shows."""
    return OpenAI(base_url=server.base_url, api_key="local", max_retries=0)


def write_requests(path: Path, count: int, size: int) -> None:
    """Write an input file of `count` chat requests of about `size` bytes each."""
    filler = "The pump in hall 7 lost pressure again overnight. " * (size // 50)
    with open(path, "wb") as file:
        for number in range(count):
            messages = [{"role": "user", "content": f"{number} {filler[: size - 180]}"}]
            body = {"model": "gpt-5-mini", "messages": messages}
            line = {"custom_id": f"row-{number}", "method": "POST", "url": CHAT, "body": body}
            file.write(msgspec.json.encode(line) + b"\n")


def submit(client: OpenAI, path: Path) -> str:
    """Upload a file, create a batch of it and return the batch's id."""
    with open(path, "rb") as file:
        input_file = client.files.create(file=file, purpose="batch")
    return client.batches.create(input_file_id=input_file.id, endpoint=CHAT, completion_window="24h").id


def await_end(client: OpenAI, batch_id: str) -> None:
    """Wait until a batch has ended. Raise AssertionError unless it completed and no request failed."""
    while (batch := client.batches.retrieve(batch_id)).status not in ENDED_STATUSES:
        time.sleep(0.05)
    counts = batch.request_counts
    assert batch.status == "completed", batch
    assert counts is not None
    assert counts.completed == counts.total


def rewrite(source: Path, target: Path) -> float:
    """Read, parse and write every line of a file. Return the seconds that it takes."""
    with measure_time() as timer, open(source, "rb") as file, open(target, "wb") as output:
        for line in file:
            output.write(msgspec.json.encode(msgspec.json.decode(line)) + b"\n")
    return timer.seconds


def measure_answering(runs: int, folder: Path) -> list[Figure]:
    """Measure one batch of 50,000 requests."""
    duration = Figure(
        "50,000 requests of 1 KB, create to completed", "s", anchor="read, parse and write the same lines"
    )
    growth = Figure("  memory growth of the server", "MB")
    write_requests(folder / "requests.jsonl", 50_000, 1_000)
    for run in range(runs):
        with LocalServer(folder / f"answering-{run}") as server, client_of(server) as client:
            initial_memory, _ = read_memory(server.pid)
            with open(folder / "requests.jsonl", "rb") as file:
                file_id = client.files.create(file=file, purpose="batch").id
            with measure_time() as timer:
                batch = client.batches.create(input_file_id=file_id, endpoint=CHAT, completion_window="24h")
                await_end(client, batch.id)
            growth.add((read_memory(server.pid)[1] - initial_memory) / MB)
        duration.add(timer.seconds, rewrite(folder / "requests.jsonl", folder / "copy.jsonl"))
        shutil.rmtree(folder / f"answering-{run}")
    return [duration, growth]


def measure_transfers(runs: int, folder: Path) -> list[Figure]:
    """Measure the upload and the download of a file of 200 MB."""
    path = folder / "large.jsonl"
    write_requests(path, 1_990, 100_000)
    size = path.stat().st_size
    assert 190 * MB < size < 200 * MB
    upload = Figure(f"{size / MB:.0f} MB uploaded", "s", anchor="copying the file")
    download = Figure(f"{size / MB:.0f} MB downloaded", "s", anchor="copying the file")
    growth = Figure("  memory growth of the server during both", "MB")
    for run in range(runs):
        with LocalServer(folder / f"transfers-{run}") as server, client_of(server) as client:
            client.models.list()
            initial_memory, _ = read_memory(server.pid)
            with measure_time() as upload_timer, open(path, "rb") as file:
                file_id = client.files.create(file=file, purpose="batch").id
            with (
                measure_time() as download_timer,
                client.files.with_streaming_response.content(file_id) as response,
            ):
                received_bytes = sum(len(chunk) for chunk in response.iter_bytes(1 << 20))
            assert received_bytes == size
            growth.add((read_memory(server.pid)[1] - initial_memory) / MB)
        with measure_time() as copy_timer:
            shutil.copyfile(path, folder / "copy.bin")
        upload.add(upload_timer.seconds, copy_timer.seconds)
        download.add(download_timer.seconds, copy_timer.seconds)
        shutil.rmtree(folder / f"transfers-{run}")
    return [upload, download, growth]


def read_list(client: OpenAI) -> tuple[int, float]:
    """Read the whole list of batches in pages of 100. Return the number of batches and the milliseconds per page."""
    count = pages = 0
    with measure_time() as timer:
        page = client.batches.list(limit=100)
        while True:
            count, pages = count + len(page.data), pages + 1
            if not page.has_next_page():
                break
            page = page.get_next_page()
    return count, timer.seconds / pages * 1000


def measure_listing(runs: int, folder: Path, batches: int = 10_000) -> list[Figure]:
    """Measure pages of 100 batches on a server that has 10,000."""
    figure = Figure(f"a page of 100 out of {batches:,} batches", "ms", anchor="a page of 100 out of 100")
    write_requests(folder / "request.jsonl", 1, 300)
    with (
        LocalServer(folder / "large", creates_per_hour=0, uploads_per_minute=0) as large_server,
        LocalServer(folder / "small") as small_server,
        client_of(large_server) as large_client,
        client_of(small_server) as small_client,
    ):
        for client, count in ((large_client, batches), (small_client, 100)):
            with open(folder / "request.jsonl", "rb") as file:
                file_id = client.files.create(file=file, purpose="batch").id
            for _ in range(count):
                batch = client.batches.create(input_file_id=file_id, endpoint=CHAT, completion_window="24h")
            await_end(client, batch.id)
        for _ in range(runs):
            count, milliseconds = read_list(large_client)
            assert count == batches
            count, anchor_milliseconds = read_list(small_client)
            assert count == 100
            figure.add(milliseconds, anchor_milliseconds)
    return [figure]


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    parser.add_argument("--only", choices=("answering", "transfers", "listing"))
    args = parser.parse_args()
    os.environ["NO_PROXY"] = "127.0.0.1"
    parts = {"answering": measure_answering, "transfers": measure_transfers, "listing": measure_listing}
    with tempfile.TemporaryDirectory() as folder:
        figures = [
            figure
            for name, measure in parts.items()
            if args.only in (None, name)
            for figure in measure(args.runs, Path(folder))
        ]
    report("The local batch server", figures, args.json)


if __name__ == "__main__":
    main()
