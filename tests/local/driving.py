"""Helpers for tests of the local server: build input lines and run batches with the real SDK."""

from __future__ import annotations

import io
import json
import time
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from openai import OpenAI
    from openai.types import Batch

CHAT: Final = "/v1/chat/completions"
RESPONSES: Final = "/v1/responses"
EMBEDDINGS: Final = "/v1/embeddings"
COMPLETIONS: Final = "/v1/completions"
MODERATIONS: Final = "/v1/moderations"
FINAL_STATUSES = ("completed", "failed", "expired", "cancelled")
#: Seconds after which a test stops waiting and fails.
DEADLINE = 60.0


def chat(custom_id: str, prompt: str, **body: Any) -> dict[str, Any]:
    """Return one chat request line."""
    messages = [{"role": "user", "content": prompt}]
    return {
        "custom_id": custom_id,
        "method": "POST",
        "url": CHAT,
        "body": {"model": "gpt-5-mini", "messages": messages, **body},
    }


def chats(count: int) -> list[dict[str, Any]]:
    """Return `count` chat request lines with the custom_ids row-0, row-1 and so on."""
    return [chat(f"row-{number}", f"Question {number}") for number in range(count)]


def jsonl(lines: Iterable[dict[str, Any] | str]) -> bytes:
    """Return the content of an input file. Lines of type str are written unchanged."""
    return "".join(f"{line if isinstance(line, str) else json.dumps(line)}\n" for line in lines).encode()


def upload(client: OpenAI, content: bytes, name: str = "input.jsonl") -> str:
    """Upload an input file and return its id."""
    return client.files.create(file=(name, io.BytesIO(content)), purpose="batch").id


def submit(client: OpenAI, lines: Sequence[dict[str, Any] | str], endpoint: Any = CHAT) -> Batch:
    """Upload lines and create a batch from them."""
    return client.batches.create(input_file_id=upload(client, jsonl(lines)), endpoint=endpoint, completion_window="24h")


def wait(client: OpenAI, batch: Batch, until: Callable[[Batch], bool] | None = None) -> Batch:
    """Poll the batch until `until` returns True for it. By default, wait until it has ended."""
    condition = until or (lambda batch: batch.status in FINAL_STATUSES)
    deadline = time.monotonic() + DEADLINE
    while not condition(batch):
        assert time.monotonic() < deadline, f"waited {DEADLINE} s, the batch is {batch!r}"
        time.sleep(0.01)
        batch = client.batches.retrieve(batch.id)
    return batch


def run(client: OpenAI, lines: Sequence[dict[str, Any] | str], endpoint: Any = CHAT) -> Batch:
    """Submit lines and wait until the batch has ended."""
    return wait(client, submit(client, lines, endpoint))


def results(client: OpenAI, file_id: str | None) -> list[dict[str, Any]]:
    """Return the lines of a result file in order, or an empty list if there is no file."""
    if not file_id:
        return []
    return [json.loads(line) for line in client.files.content(file_id).content.split(b"\n") if line]


def answers(client: OpenAI, batch: Batch) -> dict[str, dict[str, Any]]:
    """Return the response bodies in the output file by custom_id."""
    return {line["custom_id"]: line["response"]["body"] for line in results(client, batch.output_file_id)}


def failures(client: OpenAI, batch: Batch) -> dict[str, dict[str, Any]]:
    """Return the lines of the error file by custom_id."""
    return {line["custom_id"]: line for line in results(client, batch.error_file_id)}


def problems(batch: Batch) -> list[tuple[str | None, str | None, int | None]]:
    """Return code, param and line of each validation error."""
    assert batch.errors is not None
    assert batch.errors.data is not None
    return [(error.code, error.param, error.line) for error in batch.errors.data]
