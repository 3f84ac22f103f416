"""Every response body matches OpenAI's published schemas."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import jsonschema
import pytest

from tests.local.conftest import Serve
from tests.local.driving import CHAT, chat, chats, jsonl, results, run, submit, upload, wait
from tests.local.schemas import assert_fits

if TYPE_CHECKING:
    from openai import OpenAI


def body(response: Any) -> dict[str, Any]:
    """Return the unmodified JSON of a call made through `with_raw_response`."""
    parsed = json.loads(response.content)
    assert isinstance(parsed, dict)
    return parsed


def test_file_responses_match_the_schemas(client: OpenAI) -> None:
    calls = client.files.with_raw_response
    file = body(calls.create(file=("a.jsonl", jsonl(chats(1))), purpose="batch"))
    assert_fits(file, "OpenAIFile")
    assert_fits(body(calls.retrieve(file["id"])), "OpenAIFile")
    assert_fits(body(calls.list()), "ListFilesResponse")
    assert_fits(body(calls.delete(file["id"])), "DeleteFileResponse")


def test_empty_lists_match_the_schemas(serve: Serve) -> None:
    _, client = serve()

    assert_fits(body(client.files.with_raw_response.list()), "ListFilesResponse")
    assert_fits(body(client.batches.with_raw_response.list()), "ListBatchesResponse")


def test_a_batch_matches_the_schema_in_every_state(serve: Serve) -> None:
    _, client = serve(validating=0.2, in_progress=0.5, finalizing=0.3)
    calls = client.batches.with_raw_response
    file_id = upload(client, jsonl(chats(5)))
    batch = body(calls.create(input_file_id=file_id, endpoint=CHAT, completion_window="24h", metadata={"a": "b"}))
    failed = submit(client, ["{}"])
    cancelled = submit(client, chats(5))
    assert_fits(body(calls.cancel(cancelled.id)), "Batch")

    statuses = {batch["status"]}
    while batch["status"] != "completed":
        batch = body(calls.retrieve(batch["id"]))
        assert_fits(batch, "Batch")
        statuses.add(batch["status"])
    assert statuses == {"validating", "in_progress", "finalizing", "completed"}
    for ended_batch in (failed, cancelled):
        wait(client, ended_batch)
        assert_fits(body(calls.retrieve(ended_batch.id)), "Batch")
    assert_fits(body(calls.list()), "ListBatchesResponse")


def test_result_lines_match_the_schema_and_have_unique_ids(client: OpenAI) -> None:
    batch = run(client, [*chats(5), chat("bad", "[[fail:500]]")])

    lines = results(client, batch.output_file_id) + results(client, batch.error_file_id)
    for line in lines:
        assert_fits(line, "BatchRequestOutput")
        assert set(line) == {"id", "custom_id", "response", "error"}
        assert set(line["response"]) == {"status_code", "request_id", "body"}
    assert len({line["id"] for line in lines}) == 6
    assert len({line["response"]["request_id"] for line in lines}) == 6
    (error_line,) = results(client, batch.error_file_id)
    assert_fits(error_line["response"]["body"], "ErrorResponse")


def test_assert_fits_rejects_invalid_objects(client: OpenAI) -> None:
    valid = body(client.batches.with_raw_response.retrieve(run(client, chats(1)).id))
    for invalid in ({**valid, "created_at": "today"}, {**valid, "status": "done"}, {**valid, "more": 1}):
        with pytest.raises((AssertionError, jsonschema.ValidationError)):
            assert_fits(invalid, "Batch")
