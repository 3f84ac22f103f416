"""A batch provider that uses almost no CPU, so that a benchmark measures the clients and not the server.

    python -m benchmarks.batches_server --batches 10000 --latency 0.2

The server prints its address. It has batches `batch_0`, `batch_1`, … and lists them newest first. In addition to the
API of batches it accepts `POST /end/ID` (completes the batch) and `GET /counts` (number of requests received so far, by
kind: `single` or `list`).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from collections import Counter
from urllib.parse import parse_qs, urlsplit


class Batches:
    """All batches, newest first, rendered as JSON in advance."""

    def __init__(self, count: int) -> None:
        now = int(time.time())
        self.ids = [f"batch_{number}" for number in reversed(range(count))]
        self.positions = {batch_id: position for position, batch_id in enumerate(self.ids)}
        self.created = {batch_id: now - age for age, batch_id in enumerate(self.ids)}
        self.json = {batch_id: self._render(batch_id, "in_progress") for batch_id in self.ids}
        self.counts: Counter[str] = Counter()

    def _render(self, batch_id: str, status: str) -> bytes:
        completed = status == "completed"
        created = self.created[batch_id]
        batch = {
            "id": batch_id,
            "object": "batch",
            "endpoint": "/v1/chat/completions",
            "model": "gpt-5-mini-2026-03-05",
            "errors": None,
            "input_file_id": "file-0123456789abcdefghijkl",
            "completion_window": "24h",
            "status": status,
            "output_file_id": "file-abcdefghijklmnopqrstuv" if completed else None,
            "error_file_id": None,
            "created_at": created,
            "in_progress_at": created + 3,
            "expires_at": created + 86_400,
            "finalizing_at": None,
            "completed_at": int(time.time()) if completed else None,
            "failed_at": None,
            "expired_at": None,
            "cancelling_at": None,
            "cancelled_at": None,
            "request_counts": {"total": 50_000, "completed": 50_000 if completed else 10, "failed": 0},
            "metadata": {"job_uid": "0" * 32, "shard": "0001", "attempt": "1", "nonce": "1" * 32},
        }
        return json.dumps(batch).encode()

    def answer(self, method: str, target: str) -> bytes | None:
        """Return the body of the answer, or None if there is no such batch."""
        parts = urlsplit(target)
        if parts.path == "/counts":
            return json.dumps(self.counts).encode()
        name = parts.path.rpartition("/")[2]
        if method == "POST":
            self.json[name] = self._render(name, "completed")
            return self.json[name]
        if name != "batches":
            self.counts["single"] += 1
            return self.json.get(name)
        self.counts["list"] += 1
        query = {key: values[0] for key, values in parse_qs(parts.query).items()}
        start = self.positions[query["after"]] + 1 if "after" in query else 0
        page = self.ids[start : start + int(query.get("limit", "20"))]
        has_more = b"true" if start + len(page) < len(self.ids) else b"false"
        data = b",".join(self.json[batch_id] for batch_id in page)
        return b'{"object":"list","data":[' + data + b'],"has_more":' + has_more + b"}"


async def serve(count: int, latency: float) -> None:
    """Answer requests until the process ends.

    :param count: number of batches.
    :param latency: seconds before each answer.
    """
    batches = Batches(count)

    async def handle_connection(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                method, target, _ = head.split(b"\r\n", 1)[0].decode().split(" ")
                for line in head.split(b"\r\n"):
                    if line.lower().startswith(b"content-length:"):
                        await reader.readexactly(int(line.split(b":")[1]))
                body = batches.answer(method, target)
                if latency and target.startswith("/v1"):
                    await asyncio.sleep(latency)
                status = b"200 OK" if body is not None else b"404 Not Found"
                body = body if body is not None else b'{"error":{"message":"No batch found"}}'
                writer.write(
                    b"HTTP/1.1 %s\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s"
                    % (status, len(body), body)
                )
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            return
        finally:
            writer.close()

    server = await asyncio.start_server(handle_connection, "127.0.0.1", 0)
    print(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
    await server.serve_forever()


def main() -> None:
    """Run the server from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batches", type=int, default=10_000)
    parser.add_argument("--latency", type=float, default=0.0, help="seconds before each answer")
    args = parser.parse_args()
    asyncio.run(serve(args.batches, args.latency))


if __name__ == "__main__":
    main()
