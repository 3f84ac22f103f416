"""Answers of earlier jobs: which ones are reused, which rows get them, and which requests are still sent."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_provider_batch.core.answers.result_files import read_rows
from airflow_provider_batch.core.landing import landing
from airflow_provider_batch.core.ledger.folder import Folder
from airflow_provider_batch.core.ledger.job import Manifest
from airflow_provider_batch.core.provider.limits import Limits
from airflow_provider_batch.core.requests.request import Request
from airflow_provider_batch.core.schema.author_schema import strict_schema
from airflow_provider_batch.core.schema.judge import SchemaJudge
from airflow_provider_batch.core.sealing import deduplicate
from airflow_provider_batch.core.sealing import reused_answers as reused_answers_module
from airflow_provider_batch.core.sealing.deduplicate import RequestIndex
from airflow_provider_batch.core.sealing.reused_answers import ReusedAnswer, ReusedAnswerWriter, to_answer
from airflow_provider_batch.core.sealing.sealer import Sealer
from airflow_provider_batch.exceptions import CustomIdError, EqualDigestsError
from airflow_provider_batch.staging.local import LocalFolder
from tests.core.building import (
    CHAT,
    EMBEDDINGS,
    MODERATIONS,
    add_row,
    chat_line,
    manifest_of,
    request,
    request_sha256,
    row_of,
    settle,
    temporary_folder,
)
from tests.core.landing.test_landing import LandedRows

LABEL = strict_schema(
    {"type": "object", "properties": {"label": {"type": "string"}, "due": {"type": "string", "format": "date"}}}
)


def seal_with_reuse(
    folder: Folder,
    requests: list[Request],
    table: Iterable[ReusedAnswer],
    *,
    endpoint: str = CHAT,
    deduplicate: bool = True,
    output_schema: dict[str, Any] | None = None,
) -> Manifest:
    """Return the manifest of a job that reuses the answers of the table and sends the other requests."""
    sealer = Sealer(folder, "g001/build", endpoint, Limits(), deduplicate=deduplicate)
    sealer.register(row_of(rendered_request, [], number, endpoint) for number, rendered_request in enumerate(requests))
    judge = SchemaJudge(output_schema) if output_schema else None
    writer = ReusedAnswerWriter(folder, "g001/build", sealer.request_index, endpoint, judge)
    for answer in table:
        writer.add(answer)
    sealer.reuse(writer.finish())
    for number, rendered_request in enumerate(requests, start=1):
        add_row(sealer, rendered_request, [], number, 7)
    shards = sealer.finish()
    return manifest_of(
        shards,
        endpoint=endpoint,
        output_schema=output_schema,
        several_inputs=sealer.several_inputs,
        requests=sealer.requests + sealer.duplicates + sealer.reused,
        duplicates=sealer.duplicates,
        reused=sealer.reused,
        reuse_from="labels",
        duplicate_files=sealer.duplicate_files,
        reused_files=sealer.reused_files,
    )


def answer_to(rendered_request: Request, output: Any = "reused", *, endpoint: str = CHAT) -> ReusedAnswer:
    return ReusedAnswer(
        request_sha256(endpoint, rendered_request.body), output, "stop", "gpt-5-mini-2025-08-07", "batch_old"
    )


def sent_ids(folder: Folder, manifest: Manifest) -> list[str]:
    return [row.custom_id for shard in manifest.shards for row in read_rows(folder, shard)]


def test_a_reused_answer_is_not_sent_and_lands_at_no_cost(folder: LocalFolder) -> None:
    a, b = request("a", text="x"), request("b", text="y")
    manifest = seal_with_reuse(folder, [a, b], [answer_to(a)])
    assert sent_ids(folder, manifest) == ["b"]
    assert (manifest.sent, manifest.duplicates, manifest.reused) == (1, 0, 1)
    landed_rows = LandedRows(folder, manifest, [settle(folder, manifest.shards[0], [chat_line("b", "new")])])
    row = landed_rows.table["a"]
    assert (row["outcome"], row["output"], row["finish_reason"]) == ("succeeded", "reused", "stop")
    assert (row["model"], row["batch_id"]) == ("gpt-5-mini-2025-08-07", "batch_old")
    assert (row["input_tokens"], row["output_tokens"], row["cost_usd"], row["attempt"]) == (0, 0, 0, 0)
    assert row["job_uid"] == manifest.job_uid
    assert landed_rows.table["b"]["output"] == "new"
    assert landed_rows.landing.outcomes == {"succeeded": 2}
    assert landed_rows.landing.totals.cost == landed_rows.table["b"]["cost_usd"]


def test_a_job_that_reuses_every_answer_has_no_shards_and_lands(folder: LocalFolder) -> None:
    requests = [request(name, text="x") for name in "abc"]
    manifest = seal_with_reuse(folder, requests, [answer_to(requests[0])])
    assert (manifest.shards, manifest.requests, manifest.reused) == ([], 3, 3)
    assert set(LandedRows(folder, manifest, []).outcomes.values()) == {"succeeded"}


def test_the_first_complete_answer_to_a_request_is_reused(folder: LocalFolder) -> None:
    a = request("a")
    manifest = seal_with_reuse(
        folder, [a], [answer_to(a, None), answer_to(a, ""), answer_to(a, "1"), answer_to(a, "2")]
    )
    assert LandedRows(folder, manifest, []).table["a"]["output"] == "1"


def test_answers_to_other_requests_are_not_stored(folder: LocalFolder) -> None:
    a = request("a", text="x")
    manifest = seal_with_reuse(folder, [a], [answer_to(request("z", text=str(n))) for n in range(9)])
    assert manifest.reused_files == []
    assert sent_ids(folder, manifest) == ["a"]


def test_without_deduplication_equal_requests_are_each_sent_unless_reused(folder: LocalFolder) -> None:
    requests = [request(name, text=text) for name, text in zip("abcd", "xxyy", strict=True)]
    manifest = seal_with_reuse(folder, requests, [answer_to(requests[0])], deduplicate=False)
    assert sent_ids(folder, manifest) == ["c", "d"]
    assert (manifest.sent, manifest.duplicates, manifest.reused) == (2, 0, 2)


def test_a_repeated_custom_id_is_an_error_even_if_the_answer_is_reused(folder: LocalFolder) -> None:
    a = request("a")
    with pytest.raises(CustomIdError):
        seal_with_reuse(folder, [a, a], [answer_to(a)])


def test_an_answer_to_a_request_with_an_equal_digest_is_never_sealed(
    folder: LocalFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(RequestIndex, "_digest", lambda self, sha256: 7)
    with pytest.raises(EqualDigestsError):
        seal_with_reuse(folder, [request("a", text="x")], [answer_to(request("z", text="z"))])


def test_columns_are_extracted_from_the_reused_output(folder: LocalFolder) -> None:
    a = request("a")
    output = json.dumps({"label": "bug", "due": "2026-11-20"})
    manifest = seal_with_reuse(folder, [a], [answer_to(a, output)], output_schema=LABEL)
    row = LandedRows(folder, manifest, [], columns={"label": "label", "day": "due"}).table["a"]
    assert (row["output"], row["label"], str(row["day"])) == (output, "bug", "2026-11-20")


@pytest.mark.parametrize("output", ["no json", '{"label": 1}', '{"label": "bug"}'])
def test_a_request_is_sent_if_the_old_output_does_not_fit_the_schema(folder: LocalFolder, output: str) -> None:
    a = request("a")
    manifest = seal_with_reuse(folder, [a], [answer_to(a, output)], output_schema=LABEL)
    assert sent_ids(folder, manifest) == ["a"]


@pytest.mark.parametrize("output", [[0.5, 1.0], "[0.5, 1.0]", [[0.5, 1.0]]])
def test_a_reused_vector_lands_as_a_vector_in_every_stored_form(
    folder: LocalFolder, output: list[float | list[float]] | str
) -> None:
    a = request("a")
    manifest = seal_with_reuse(folder, [a], [answer_to(a, output, endpoint=EMBEDDINGS)], endpoint=EMBEDDINGS)
    assert LandedRows(folder, manifest, []).table["a"]["output"] == [0.5, 1.0]


def test_reused_vectors_land_as_lists_if_any_row_has_several_inputs(folder: LocalFolder) -> None:
    single, double = request("single", text="x"), request("double", text="y", inputs=2)
    table = [
        answer_to(single, [0.5], endpoint=EMBEDDINGS),
        answer_to(double, "[[0.1], [0.2]]", endpoint=EMBEDDINGS),
    ]
    manifest = seal_with_reuse(folder, [single, double], table, endpoint=EMBEDDINGS)
    landed_rows = LandedRows(folder, manifest, []).table
    assert (landed_rows["single"]["output"], landed_rows["double"]["output"]) == ([[0.5]], [[0.1], [0.2]])


@pytest.mark.parametrize("output", ["{", "", None, [], "[]"])
@pytest.mark.parametrize("endpoint", [EMBEDDINGS, MODERATIONS])
def test_an_output_that_does_not_fit_the_endpoint_is_not_reused(endpoint: str, output: str | list[Any] | None) -> None:
    assert to_answer(ReusedAnswer("0" * 64, output), endpoint, None) is None


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_exactly_the_distinct_requests_without_a_reused_answer_are_sent_and_every_row_lands_once(
    data: st.DataObject,
) -> None:
    texts = data.draw(st.lists(st.sampled_from("uvwxyz"), min_size=1, max_size=12))
    table = data.draw(st.lists(st.tuples(st.sampled_from("stuvwx"), st.sampled_from(["reused", None]))))
    requests = [request(f"row-{number}", text=text) for number, text in enumerate(texts)]
    reused_texts = {text for text, output in table if output}
    with temporary_folder() as folder, pytest.MonkeyPatch.context() as patch:
        for module in (deduplicate, landing, reused_answers_module):
            patch.setattr(module, "FILE_ROWS", data.draw(st.integers(1, 3)))
        answers = [answer_to(request("old", text=text), output) for text, output in table]
        manifest = seal_with_reuse(folder, requests, answers)
        assert manifest.sent == len(set(texts) - reused_texts)
        assert manifest.reused == sum(text in reused_texts for text in texts)
        assert manifest.sent + manifest.duplicates + manifest.reused == manifest.requests == len(texts)
        settled = [
            settle(folder, s, [chat_line(r.custom_id, "new") for r in read_rows(folder, s)]) for s in manifest.shards
        ]
        landed_rows = LandedRows(folder, manifest, settled)
    assert sorted(row["custom_id"] for row in landed_rows.rows) == sorted(
        rendered_request.custom_id for rendered_request in requests
    )
    assert len(landed_rows.rows) == len(texts)
    for rendered_request, text in zip(requests, texts, strict=True):
        assert landed_rows.table[rendered_request.custom_id]["output"] == ("reused" if text in reused_texts else "new")
