"""What the tests of the local server share: input lines, and the way of a batch through the real SDK."""

from __future__ import annotations

import io
import json
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

from openai import OpenAI
from openai.types import Batch

CHAT: Final = "/v1/chat/completions"
RESPONSES: Final = "/v1/responses"
EMBEDDINGS: Final = "/v1/embeddings"
COMPLETIONS: Final = "/v1/completions"
MODERATIONS: Final = "/v1/moderations"
ENDED = ("completed", "failed", "expired", "cancelled")
#: seconds after which a test gives up waiting for something that should come
DEADLINE = 60.0


def chat(custom_id: str, prompt: str, **body: Any) -> dict[str, Any]:
    """One chat request line."""
    messages = [{"role": "user", "content": prompt}]
    return {
        "custom_id": custom_id,
        "method": "POST",
        "url": CHAT,
        "body": {"model": "gpt-5-mini", "messages": messages, **body},
    }


def chats(count: int) -> list[dict[str, Any]]:
    """Chat request lines with the custom_ids row-0, row-1 and so on."""
    return [chat(f"row-{number}", f"Question {number}") for number in range(count)]


def jsonl(lines: Iterable[dict[str, Any] | str]) -> bytes:
    """Lines as the bytes of an input file; a str is taken as it is."""
    return "".join(f"{line if isinstance(line, str) else json.dumps(line)}\n" for line in lines).encode()


def upload(client: OpenAI, content: bytes, name: str = "input.jsonl") -> str:
    """Upload an input file; its id."""
    return client.files.create(file=(name, io.BytesIO(content)), purpose="batch").id


def submit(client: OpenAI, lines: Sequence[dict[str, Any] | str], endpoint: Any = CHAT) -> Batch:
    """Upload lines and create a batch of them."""
    return client.batches.create(input_file_id=upload(client, jsonl(lines)), endpoint=endpoint, completion_window="24h")


def wait(client: OpenAI, batch: Batch, until: Callable[[Batch], bool] | None = None) -> Batch:
    """Poll until the batch is as wanted (default: ended)."""
    wanted = until or (lambda seen: seen.status in ENDED)
    deadline = time.monotonic() + DEADLINE
    while not wanted(batch):
        assert time.monotonic() < deadline, f"waited {DEADLINE} s, the batch is {batch!r}"
        time.sleep(0.01)
        batch = client.batches.retrieve(batch.id)
    return batch


def run(client: OpenAI, lines: Sequence[dict[str, Any] | str], endpoint: Any = CHAT) -> Batch:
    """Submit lines and wait for the end."""
    return wait(client, submit(client, lines, endpoint))


def results(client: OpenAI, file_id: str | None) -> list[dict[str, Any]]:
    """The lines of a result file, in its order; none if there is no file."""
    if not file_id:
        return []
    return [json.loads(line) for line in client.files.content(file_id).content.split(b"\n") if line]


def answers(client: OpenAI, batch: Batch) -> dict[str, dict[str, Any]]:
    """The bodies of the output file by custom_id."""
    return {line["custom_id"]: line["response"]["body"] for line in results(client, batch.output_file_id)}


def failures(client: OpenAI, batch: Batch) -> dict[str, dict[str, Any]]:
    """The lines of the error file by custom_id."""
    return {line["custom_id"]: line for line in results(client, batch.error_file_id)}


def problems(batch: Batch) -> list[tuple[str | None, str | None, int | None]]:
    """Code, param and line of each validation error."""
    assert batch.errors is not None
    assert batch.errors.data is not None
    return [(error.code, error.param, error.line) for error in batch.errors.data]
