"""Every body the server answers fits OpenAI's published schemas."""

from __future__ import annotations

import json
from typing import Any

import jsonschema
import pytest
from openai import OpenAI

from tests.local.conftest import Serve
from tests.local.driving import CHAT, chat, chats, jsonl, results, run, submit, upload, wait
from tests.local.schemas import assert_fits


def body(answer: Any) -> dict[str, Any]:
    """The JSON of a call made through `with_raw_response`, as it was sent."""
    parsed = json.loads(answer.content)
    assert isinstance(parsed, dict)
    return parsed


def test_files_fit(client: OpenAI) -> None:
    calls = client.files.with_raw_response
    file = body(calls.create(file=("a.jsonl", jsonl(chats(1))), purpose="batch"))
    assert_fits(file, "OpenAIFile")
    assert_fits(body(calls.retrieve(file["id"])), "OpenAIFile")
    assert_fits(body(calls.list()), "ListFilesResponse")
    assert_fits(body(calls.delete(file["id"])), "DeleteFileResponse")


def test_an_empty_list_of_files_fits(serve: Serve) -> None:
    _, client = serve()

    assert_fits(body(client.files.with_raw_response.list()), "ListFilesResponse")
    assert_fits(body(client.batches.with_raw_response.list()), "ListBatchesResponse")


def test_a_batch_fits_in_every_state(serve: Serve) -> None:
    _, client = serve(validating=0.2, in_progress=0.5, finalizing=0.3)
    calls = client.batches.with_raw_response
    file_id = upload(client, jsonl(chats(5)))
    made = body(calls.create(input_file_id=file_id, endpoint=CHAT, completion_window="24h", metadata={"a": "b"}))
    failed = submit(client, ["{}"])
    cancelled = submit(client, chats(5))
    assert_fits(body(calls.cancel(cancelled.id)), "Batch")

    seen = {made["status"]}
    while made["status"] != "completed":
        made = body(calls.retrieve(made["id"]))
        assert_fits(made, "Batch")
        seen.add(made["status"])
    assert seen == {"validating", "in_progress", "finalizing", "completed"}
    for other in (failed, cancelled):
        wait(client, other)
        assert_fits(body(calls.retrieve(other.id)), "Batch")
    assert_fits(body(calls.list()), "ListBatchesResponse")


def test_result_lines_fit_and_their_ids_are_unique(client: OpenAI) -> None:
    batch = run(client, [*chats(5), chat("bad", "[[fail:500]]")])

    lines = results(client, batch.output_file_id) + results(client, batch.error_file_id)
    for line in lines:
        assert_fits(line, "BatchRequestOutput")
        assert set(line) == {"id", "custom_id", "response", "error"}
        assert set(line["response"]) == {"status_code", "request_id", "body"}
    assert len({line["id"] for line in lines}) == 6
    assert len({line["response"]["request_id"] for line in lines}) == 6
    (bad,) = results(client, batch.error_file_id)
    assert_fits(bad["response"]["body"], "ErrorResponse")


def test_the_judge_itself_finds_what_does_not_fit(client: OpenAI) -> None:
    good = body(client.batches.with_raw_response.retrieve(run(client, chats(1)).id))
    for wrong in ({**good, "created_at": "today"}, {**good, "status": "done"}, {**good, "more": 1}):
        with pytest.raises((AssertionError, jsonschema.ValidationError)):
            assert_fits(wrong, "Batch")
