"""Answers that an earlier job paid for: which are taken, who gets them, and what is asked all the same."""

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
from airflow_provider_batch.core.requests.render import Request, request_sha256
from airflow_provider_batch.core.schema.judge import SchemaJudge, strict_schema
from airflow_provider_batch.core.sealing import deduplicate
from airflow_provider_batch.core.sealing import reused_answers as known_module
from airflow_provider_batch.core.sealing.deduplicate import RequestIndex
from airflow_provider_batch.core.sealing.reused_answers import ReusedAnswer, ReusedAnswerWriter, to_answer
from airflow_provider_batch.core.sealing.sealer import Sealer
from airflow_provider_batch.exceptions import CustomIdError, EqualDigestsError
from airflow_provider_batch.staging.local import LocalFolder
from tests.core.building import CHAT, EMBEDDINGS, MODERATIONS, chat_line, manifest_of, request, settle, temporary_folder
from tests.core.landing.test_landing import Landed

LABEL = strict_schema(
    {"type": "object", "properties": {"label": {"type": "string"}, "due": {"type": "string", "format": "date"}}}
)


def seal_known(
    folder: Folder,
    requests: list[Request],
    table: Iterable[ReusedAnswer],
    *,
    endpoint: str = CHAT,
    deduplicate: bool = True,
    output_schema: dict[str, Any] | None = None,
) -> Manifest:
    """A job of these requests, as far as the table does not hold their answers."""
    sealer = Sealer(folder, "g001/build", endpoint, Limits(), deduplicate=deduplicate)
    for one in requests:
        sealer.register(one)
    judge = SchemaJudge(output_schema) if output_schema else None
    writer = ReusedAnswerWriter(folder, "g001/build", sealer.request_index, endpoint, judge)
    for answer in table:
        writer.add(answer)
    sealer.reuse(writer.finish())
    for number, one in enumerate(requests, start=1):
        if not sealer.add_if_duplicate(one, [], number):
            sealer.add(one, [], number, 7)
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


def answer_to(one: Request, output: Any = "known", *, endpoint: str = CHAT) -> ReusedAnswer:
    return ReusedAnswer(request_sha256(endpoint, one.body), output, "stop", "gpt-5-mini-2025-08-07", "batch_old")


def asked(folder: Folder, manifest: Manifest) -> list[str]:
    return [row.custom_id for shard in manifest.shards for row in read_rows(folder, shard)]


def test_a_row_whose_answer_is_known_is_not_asked_and_lands_it_for_nothing(folder: LocalFolder) -> None:
    a, b = request("a", text="x"), request("b", text="y")
    manifest = seal_known(folder, [a, b], [answer_to(a)])
    assert asked(folder, manifest) == ["b"]
    assert (manifest.sent, manifest.duplicates, manifest.reused) == (1, 0, 1)
    landed = Landed(folder, manifest, [settle(folder, manifest.shards[0], [chat_line("b", "new")])])
    row = landed.table["a"]
    assert (row["outcome"], row["output"], row["finish_reason"]) == ("succeeded", "known", "stop")
    assert (row["model"], row["batch_id"]) == ("gpt-5-mini-2025-08-07", "batch_old")
    assert (row["input_tokens"], row["output_tokens"], row["cost_usd"], row["attempt"]) == (0, 0, 0, 0)
    assert row["job_uid"] == manifest.job_uid
    assert landed.table["b"]["output"] == "new"
    assert landed.landing.outcomes == {"succeeded": 2}
    assert landed.landing.cost == landed.table["b"]["cost_usd"]


def test_a_job_of_which_everything_is_known_has_no_shard_and_lands(folder: LocalFolder) -> None:
    requests = [request(name, text="x") for name in "abc"]
    manifest = seal_known(folder, requests, [answer_to(requests[0])])
    assert (manifest.shards, manifest.requests, manifest.reused) == ([], 3, 3)
    assert set(Landed(folder, manifest, []).outcomes.values()) == {"succeeded"}


def test_of_several_answers_to_a_request_the_first_that_is_whole_counts(folder: LocalFolder) -> None:
    a = request("a")
    manifest = seal_known(folder, [a], [answer_to(a, None), answer_to(a, ""), answer_to(a, "1"), answer_to(a, "2")])
    assert Landed(folder, manifest, []).table["a"]["output"] == "1"


def test_answers_that_nobody_asks_for_are_not_kept(folder: LocalFolder) -> None:
    a = request("a", text="x")
    manifest = seal_known(folder, [a], [answer_to(request("z", text=str(n))) for n in range(9)])
    assert manifest.reused_files == []
    assert asked(folder, manifest) == ["a"]


def test_samples_of_unknown_requests_are_each_asked_while_known_ones_are_not(folder: LocalFolder) -> None:
    requests = [request(name, text=text) for name, text in zip("abcd", "xxyy", strict=True)]
    manifest = seal_known(folder, requests, [answer_to(requests[0])], deduplicate=False)
    assert asked(folder, manifest) == ["c", "d"]
    assert (manifest.sent, manifest.duplicates, manifest.reused) == (2, 0, 2)


def test_a_custom_id_given_twice_is_an_error_also_where_the_answer_is_known(folder: LocalFolder) -> None:
    a = request("a")
    with pytest.raises(CustomIdError):
        seal_known(folder, [a, a], [answer_to(a)])


def test_an_answer_taken_for_that_of_another_request_by_chance_is_never_sealed(
    folder: LocalFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(RequestIndex, "_digest", lambda self, sha256: 7)
    with pytest.raises(EqualDigestsError):
        seal_known(folder, [request("a", text="x")], [answer_to(request("z", text="z"))])


def test_the_callers_columns_are_read_from_the_old_output(folder: LocalFolder) -> None:
    a = request("a")
    output = json.dumps({"label": "bug", "due": "2026-11-20"})
    manifest = seal_known(folder, [a], [answer_to(a, output)], output_schema=LABEL)
    row = Landed(folder, manifest, [], columns={"label": "label", "day": "due"}).table["a"]
    assert (row["output"], row["label"], str(row["day"])) == (output, "bug", "2026-11-20")


@pytest.mark.parametrize("output", ["no json", '{"label": 1}', '{"label": "bug"}'])
def test_an_old_output_that_does_not_fit_the_schema_is_asked_for(folder: LocalFolder, output: str) -> None:
    a = request("a")
    manifest = seal_known(folder, [a], [answer_to(a, output)], output_schema=LABEL)
    assert asked(folder, manifest) == ["a"]


@pytest.mark.parametrize("output", [[0.5, 1.0], "[0.5, 1.0]", [[0.5, 1.0]]])
def test_a_known_vector_lands_as_a_vector_however_it_was_stored(
    folder: LocalFolder, output: list[float | list[float]] | str
) -> None:
    a = request("a")
    manifest = seal_known(folder, [a], [answer_to(a, output, endpoint=EMBEDDINGS)], endpoint=EMBEDDINGS)
    assert Landed(folder, manifest, []).table["a"]["output"] == [0.5, 1.0]


def test_known_vectors_land_as_lists_of_vectors_where_a_row_has_several_inputs(folder: LocalFolder) -> None:
    one, two = request("one", text="x"), request("two", text="y", inputs=2)
    table = [
        answer_to(one, [0.5], endpoint=EMBEDDINGS),
        answer_to(two, "[[0.1], [0.2]]", endpoint=EMBEDDINGS),
    ]
    manifest = seal_known(folder, [one, two], table, endpoint=EMBEDDINGS)
    landed = Landed(folder, manifest, []).table
    assert (landed["one"]["output"], landed["two"]["output"]) == ([[0.5]], [[0.1], [0.2]])


@pytest.mark.parametrize("output", ["{", "", None, [], "[]"])
@pytest.mark.parametrize("endpoint", [EMBEDDINGS, MODERATIONS])
def test_what_is_no_answer_of_the_endpoint_is_not_taken(endpoint: str, output: str | list[Any] | None) -> None:
    assert to_answer(ReusedAnswer("0" * 64, output), endpoint, None) is None


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_exactly_the_different_requests_that_are_not_known_are_asked_and_every_row_lands_once(
    data: st.DataObject,
) -> None:
    texts = data.draw(st.lists(st.sampled_from("uvwxyz"), min_size=1, max_size=12))
    table = data.draw(st.lists(st.tuples(st.sampled_from("stuvwx"), st.sampled_from(["known", None]))))
    requests = [request(f"row-{number}", text=text) for number, text in enumerate(texts)]
    known = {text for text, output in table if output}
    with temporary_folder() as folder, pytest.MonkeyPatch.context() as patch:
        for module in (deduplicate, landing, known_module):
            patch.setattr(module, "FILE_ROWS", data.draw(st.integers(1, 3)))
        answers = [answer_to(request("old", text=text), output) for text, output in table]
        manifest = seal_known(folder, requests, answers)
        assert manifest.sent == len(set(texts) - known)
        assert manifest.reused == sum(text in known for text in texts)
        assert manifest.sent + manifest.duplicates + manifest.reused == manifest.requests == len(texts)
        settled = [
            settle(folder, s, [chat_line(r.custom_id, "new") for r in read_rows(folder, s)]) for s in manifest.shards
        ]
        landed = Landed(folder, manifest, settled)
    assert sorted(row["custom_id"] for row in landed.given) == sorted(one.custom_id for one in requests)
    assert len(landed.given) == len(texts)
    for one, text in zip(requests, texts, strict=True):
        assert landed.table[one.custom_id]["output"] == ("known" if text in known else "new")
