"""Builders of small jobs in a real folder, for the tests of the core."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from airflow_provider_batch.core.ledger.folder import Folder
from airflow_provider_batch.core.ledger.job import Estimate, JobKey, Manifest, Shard
from airflow_provider_batch.core.ledger.records import CollectedFile, Settled
from airflow_provider_batch.core.provider.lane import Lane
from airflow_provider_batch.core.provider.limits import Limits
from airflow_provider_batch.core.requests.request import Request, request_hashes, request_lines
from airflow_provider_batch.core.schema.columns import Column
from airflow_provider_batch.core.sealing.rendered_row import RenderedRow
from airflow_provider_batch.core.sealing.sealer import Sealer
from airflow_provider_batch.staging.local import LocalFolder

CHAT = "/v1/chat/completions"
RESPONSES = "/v1/responses"
EMBEDDINGS = "/v1/embeddings"
MODERATIONS = "/v1/moderations"

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)


@contextmanager
def temporary_folder() -> Iterator[LocalFolder]:
    """Provide a job's folder that is deleted afterwards, for tests that need one per Hypothesis example."""
    with tempfile.TemporaryDirectory() as path:
        yield LocalFolder(Path(path) / "job")


def request(custom_id: str, *, model: str = "gpt-5-mini", text: str = "Label this.", inputs: int = 1) -> Request:
    """Return a rendered_request request."""
    return Request(custom_id, model, json.dumps({"model": model, "text": text}).encode(), inputs)


def request_line(custom_id: str, endpoint: str, body: bytes) -> bytes:
    """Return a single request as a line of an input file."""
    (line,) = request_lines([custom_id], endpoint, [body])
    return line


def request_sha256(endpoint: str, body: bytes) -> str:
    """Return the hash of a single request."""
    (sha256,) = request_hashes(endpoint, [body])
    return sha256


def row_of(rendered_request: Request, carry: list[Any], number: int, endpoint: str = CHAT) -> RenderedRow:
    """Return a request as the row that it was rendered from."""
    return RenderedRow(rendered_request, request_sha256(endpoint, rendered_request.body), carry, number)


def add_row(sealer: Sealer, rendered_request: Request, carry: list[Any], number: int, tokens: int) -> None:
    """Add a single row to a sealer, as a request or as a duplicate."""
    new_rows, duplicates = sealer.split([row_of(rendered_request, carry, number, sealer.endpoint)])
    sealer.add(new_rows, [tokens] * len(new_rows), [row.request.body for row in new_rows])
    sealer.add_duplicates(duplicates)


def seal_all(
    folder: Folder,
    requests: Iterable[Request],
    *,
    limits: Limits | None = None,
    endpoint: str = CHAT,
    carry: Iterable[list[Any]] = (),
) -> list[Shard]:
    """Seal the requests and return the shards."""
    sealer = Sealer(folder, "g001/build", endpoint, limits or Limits())
    values = iter(carry)
    try:
        for number, rendered_request in enumerate(requests, start=1):
            add_row(sealer, rendered_request, next(values, []), number, 7)
        return sealer.finish()
    finally:
        sealer.abandon()


def manifest_of(
    shards: list[Shard],
    *,
    endpoint: str = CHAT,
    output_schema: dict[str, Any] | None = None,
    carry: Iterable[Column] = (),
    **overrides: Any,
) -> Manifest:
    """Return a manifest of these shards; `overrides` are further fields."""
    fields: dict[str, Any] = {
        "job_uid": "0123456789abcdef0123456789abcdef",
        "key": JobKey("dag", "ask", "manual__2026-11-20"),
        "sealed_at": NOW,
        "endpoint": endpoint,
        "openai_conn_id": "openai_default",
        "requests": sum(shard.requests for shard in shards),
        "shards": shards,
        "carry": list(carry),
        "estimate": Estimate(),
        "limits": Limits(),
        "output_schema": output_schema,
        "author_schema": output_schema,
    }
    return Manifest(**{**fields, **overrides})


def plain_shard(
    name: str,
    *,
    requests: int = 3,
    model: str = "gpt-5-mini",
    tokens: int = 0,
    attempt: int = 1,
    lane: Lane = Lane.BATCH,
) -> Shard:
    """Return a shard without files, for code that does not read them."""
    files = (f"{name}.jsonl", f"{name}.rows.jsonl")
    return Shard(name, model, *files, requests, 100, "0" * 64, tokens, attempt, lane)


def chat_line(custom_id: str, content: Any = "fine", *, status: int = 200, usage: Any = (10, 2)) -> bytes:
    """Return one line of a result file: a chat completion, or an HTTP error.

    :param usage: input and output tokens, or the usage as it is written.
    """
    body: dict[str, Any] = {
        "model": "gpt-5-mini-2025-08-07",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": content}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": usage[0], "completion_tokens": usage[1]} if isinstance(usage, tuple) else usage,
    }
    if status != 200:
        body = {"error": {"message": "no", "type": "server_error", "param": None, "code": None}}
    return msgspec.json.encode(
        {
            "id": "batch_req_1",
            "custom_id": custom_id,
            "response": {"status_code": status, "request_id": "r", "body": body},
            "error": None,
        }
    )


def never_ran_line(custom_id: str, code: str = "batch_expired") -> bytes:
    """Return one line of an error file, for a request that was not executed."""
    return msgspec.json.encode(
        {"id": "batch_req_1", "custom_id": custom_id, "response": None, "error": {"code": code, "message": code}}
    )


def collect(folder: Folder, name: str, data: bytes) -> CollectedFile:
    """Write a result file to staging."""
    with folder.writer(name) as file:
        file.write(data)
    return CollectedFile(name, len(data), hashlib.sha256(data).hexdigest())


def settle(
    folder: Folder,
    shard: Shard,
    output: Iterable[bytes] = (),
    errors: Iterable[bytes] = (),
    *,
    number: int = 1,
    status: str = "completed",
    **fields: Any,
) -> Settled:
    """Return the record of an ended batch with these result lines. There is no empty file, as with OpenAI."""
    files, output_lines = [], list(output)
    fields.setdefault("answers", len(output_lines))
    for kind, lines in (("output", output_lines), ("error", list(errors))):
        if lines:
            data = b"".join(line + b"\n" for line in lines)
            files.append(collect(folder, f"g001/collected/{shard.name}.{number}/{kind}.jsonl", data))
    return Settled(shard.name, number, f"batch_{shard.name}_{number}", status, NOW, files=files, **fields)
