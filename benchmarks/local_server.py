"""How fast and how small the local batch server is.

    python -m benchmarks.local_server [--runs 5] [--json FILE]

* 50,000 chat requests of about 1 KB, offline: from create to completed (validated, answered, both files written).
  Anchor: one thread that reads the same file, parses every line and writes it again with msgspec.
* 200 MB up and down through the SDK, and by how much the server's memory rose. Anchor of the times: copying the
  same file on the same disk.
* 10,000 ended batches, listed to the end by pages of 100: time a page. Anchor: a page of a server with 100.
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
from benchmarks.measure import MB, Figure, memory, report, timed

CHAT: Final = "/v1/chat/completions"
ENDED = ("completed", "failed", "expired", "cancelled")


def client_of(server: LocalServer) -> OpenAI:
    """A client without retries: what fails is seen."""
    return OpenAI(base_url=server.base_url, api_key="local", max_retries=0)


def write_requests(path: Path, count: int, size: int) -> None:
    """An input file with so many chat requests of about `size` bytes each."""
    filler = "The pump in hall 7 lost pressure again overnight. " * (size // 50)
    with open(path, "wb") as file:
        for number in range(count):
            messages = [{"role": "user", "content": f"{number} {filler[: size - 180]}"}]
            body = {"model": "gpt-5-mini", "messages": messages}
            line = {"custom_id": f"row-{number}", "method": "POST", "url": CHAT, "body": body}
            file.write(msgspec.json.encode(line) + b"\n")


def submit(client: OpenAI, path: Path) -> str:
    """Upload a file and create its batch; the batch's id."""
    with open(path, "rb") as file:
        uploaded = client.files.create(file=file, purpose="batch")
    return client.batches.create(input_file_id=uploaded.id, endpoint=CHAT, completion_window="24h").id


def await_end(client: OpenAI, batch_id: str) -> None:
    """Wait until the batch is completed with nothing failed."""
    while (batch := client.batches.retrieve(batch_id)).status not in ENDED:
        time.sleep(0.05)
    counts = batch.request_counts
    assert batch.status == "completed", batch
    assert counts is not None
    assert counts.completed == counts.total


def round_trip(source: Path, target: Path) -> float:
    """Seconds to read, parse and write every line of a file."""
    with timed() as took, open(source, "rb") as file, open(target, "wb") as out:
        for line in file:
            out.write(msgspec.json.encode(msgspec.json.decode(line)) + b"\n")
    return took.seconds


def answering(runs: int, folder: Path) -> list[Figure]:
    """50,000 requests through one batch."""
    took = Figure("50,000 requests of 1 KB, create to completed", "s", anchor="read, parse and write the same lines")
    rose = Figure("  memory that took", "MB")
    write_requests(folder / "requests.jsonl", 50_000, 1_000)
    for run in range(runs):
        with LocalServer(folder / f"answering-{run}") as server, client_of(server) as client:
            before, _ = memory(server.pid)
            with open(folder / "requests.jsonl", "rb") as file:
                file_id = client.files.create(file=file, purpose="batch").id
            with timed() as clock:
                batch = client.batches.create(input_file_id=file_id, endpoint=CHAT, completion_window="24h")
                await_end(client, batch.id)
            rose.add((memory(server.pid)[1] - before) / MB)
        took.add(clock.seconds, round_trip(folder / "requests.jsonl", folder / "copy.jsonl"))
        shutil.rmtree(folder / f"answering-{run}")
    return [took, rose]


def moving(runs: int, folder: Path) -> list[Figure]:
    """200 MB up and down."""
    path = folder / "large.jsonl"
    write_requests(path, 1_990, 100_000)
    size = path.stat().st_size
    assert 190 * MB < size < 200 * MB
    up = Figure(f"{size / MB:.0f} MB up", "s", anchor="copying the file")
    down = Figure(f"{size / MB:.0f} MB down", "s", anchor="copying the file")
    rose = Figure("  memory that both took", "MB")
    for run in range(runs):
        with LocalServer(folder / f"moving-{run}") as server, client_of(server) as client:
            client.models.list()
            before, _ = memory(server.pid)
            with timed() as sent, open(path, "rb") as file:
                file_id = client.files.create(file=file, purpose="batch").id
            with timed() as fetched, client.files.with_streaming_response.content(file_id) as response:
                got = sum(len(chunk) for chunk in response.iter_bytes(1 << 20))
            assert got == size
            rose.add((memory(server.pid)[1] - before) / MB)
        with timed() as copied:
            shutil.copyfile(path, folder / "copy.bin")
        up.add(sent.seconds, copied.seconds)
        down.add(fetched.seconds, copied.seconds)
        shutil.rmtree(folder / f"moving-{run}")
    return [up, down, rose]


def page_times(client: OpenAI) -> tuple[int, float]:
    """List everything by pages of 100: how many batches there are, and milliseconds a page."""
    count = pages = 0
    with timed() as took:
        page = client.batches.list(limit=100)
        while True:
            count, pages = count + len(page.data), pages + 1
            if not page.has_next_page():
                break
            page = page.get_next_page()
    return count, took.seconds / pages * 1000


def listing(runs: int, folder: Path, many: int = 10_000) -> list[Figure]:
    """Pages of 100 out of 10,000 batches."""
    figure = Figure(f"a page of 100 out of {many:,} batches", "ms", anchor="a page of 100 out of 100")
    write_requests(folder / "one.jsonl", 1, 300)
    with (
        LocalServer(folder / "many", creates_per_hour=0, uploads_per_minute=0) as large,
        LocalServer(folder / "few") as small,
        client_of(large) as of_many,
        client_of(small) as of_few,
    ):
        for client, wanted in ((of_many, many), (of_few, 100)):
            with open(folder / "one.jsonl", "rb") as file:
                file_id = client.files.create(file=file, purpose="batch").id
            for _ in range(wanted):
                last = client.batches.create(input_file_id=file_id, endpoint=CHAT, completion_window="24h")
            await_end(client, last.id)
        for _ in range(runs):
            count, each = page_times(of_many)
            assert count == many
            few, anchor = page_times(of_few)
            assert few == 100
            figure.add(each, anchor)
    return [figure]


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--json", type=Path, help="write the figures here too")
    parser.add_argument("--only", choices=("answering", "moving", "listing"))
    args = parser.parse_args()
    os.environ["NO_PROXY"] = "127.0.0.1"
    parts = {"answering": answering, "moving": moving, "listing": listing}
    with tempfile.TemporaryDirectory() as folder:
        figures = [
            figure
            for name, part in parts.items()
            if args.only in (None, name)
            for figure in part(args.runs, Path(folder))
        ]
    report("The local batch server", figures, args.json)


if __name__ == "__main__":
    main()
