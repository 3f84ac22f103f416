"""Duplicates: equal requests are sent once and paid for once, and every row gets the answer."""

from __future__ import annotations

import tracemalloc
from collections import Counter
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_provider_batch.core.answers.result_files import read_rows
from airflow_provider_batch.core.landing import landing
from airflow_provider_batch.core.ledger.fold import fold
from airflow_provider_batch.core.ledger.folder import Folder
from airflow_provider_batch.core.ledger.job import Manifest
from airflow_provider_batch.core.ledger.records import Failure, Finished, Record, Uploaded
from airflow_provider_batch.core.lifecycle.progress import outcomes_so_far
from airflow_provider_batch.core.provider.limits import Limits
from airflow_provider_batch.core.requests.request import Request
from airflow_provider_batch.core.schema.columns import Column, ColumnType
from airflow_provider_batch.core.sealing import deduplicate
from airflow_provider_batch.core.sealing.deduplicate import DuplicateReader, RequestIndex
from airflow_provider_batch.core.sealing.sealer import Sealer
from airflow_provider_batch.exceptions import CustomIdError, EqualDigestsError, StagingError
from airflow_provider_batch.staging.local import LocalFolder
from tests.core.building import (
    CHAT,
    NOW,
    add_row,
    chat_line,
    manifest_of,
    never_ran_line,
    request,
    settle,
    temporary_folder,
)
from tests.core.landing.test_landing import KINDS, DrawnProvider, LandedRows, retry_round


def seal_once(
    folder: Folder, requests: list[Request], *, limits: Limits | None = None, carry: list[list[Any]] | None = None
) -> Manifest:
    """Return the manifest of a job with these requests, of which equal ones are sent once."""
    sealer = Sealer(folder, "g001/build", CHAT, limits or Limits(), deduplicate=True)
    for number, rendered_request in enumerate(requests, start=1):
        values = carry[number - 1] if carry else []
        add_row(sealer, rendered_request, values, number, 7)
    shards = sealer.finish()
    columns = [Column(f"c{n}", ColumnType.TEXT) for n in range(len(carry[0]))] if carry else []
    return manifest_of(
        shards,
        requests=sealer.requests + sealer.duplicates,
        duplicates=sealer.duplicates,
        duplicate_files=sealer.duplicate_files,
        carry=columns,
    )


def requests_of(names: str, texts: str) -> list[Request]:
    """Return a request for each letter of `names`, with the letter of `texts` at the same position as its text."""
    return [request(name, text=text) for name, text in zip(names, texts, strict=True)]


def sent_ids(folder: Folder, manifest: Manifest) -> list[str]:
    return [row.custom_id for shard in manifest.shards for row in read_rows(folder, shard)]


@pytest.fixture
def small_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """Limit files to two duplicates, so that a few rows need several files."""
    monkeypatch.setattr(deduplicate, "FILE_ROWS", 2)
    monkeypatch.setattr(landing, "FILE_ROWS", 2)


# Sealing


def test_only_the_first_of_several_equal_requests_is_sent(folder: LocalFolder) -> None:
    manifest = seal_once(folder, requests_of("abcde", "xyxxz"))
    assert sent_ids(folder, manifest) == ["a", "b", "e"]
    assert (manifest.requests, manifest.sent, manifest.duplicates) == (5, 3, 2)


def test_duplicates_are_not_in_the_input_file(folder: LocalFolder) -> None:
    manifest = seal_once(folder, requests_of("abc", "xxx"))
    (shard,) = manifest.shards
    with folder.reader(shard.file) as file:
        assert [b'"custom_id":"a"' in line for line in file] == [True]
    assert (shard.requests, shard.tokens) == (1, 7)


def test_requests_to_different_models_are_different(folder: LocalFolder) -> None:
    manifest = seal_once(folder, [request("a", model="m1"), request("b", model="m2")])
    assert manifest.duplicates == 0


def test_duplicates_are_recognized_after_the_shard_was_closed(folder: LocalFolder) -> None:
    manifest = seal_once(folder, requests_of("abcd", "xyzx"), limits=Limits(requests=1))
    assert sent_ids(folder, manifest) == ["a", "b", "c"]
    assert [row.custom_id for row in DuplicateReader(folder, manifest.duplicate_files).rows_of("s0001")] == ["d"]


def test_duplicates_are_looked_up_by_shard_in_the_order_of_the_query(folder: LocalFolder, small_files: None) -> None:
    manifest = seal_once(folder, requests_of("abcdefgh", "xyxyxyyx"), limits=Limits(requests=1))
    assert len(manifest.duplicate_files) == 3
    reader = DuplicateReader(folder, manifest.duplicate_files)
    assert [row.custom_id for row in reader.rows_of("s0001")] == ["c", "e", "h"]
    assert [row.custom_id for row in reader.rows_of("s0002")] == ["d", "f", "g"]
    assert sorted(row.custom_id for row in reader.all_rows()) == list("cdefgh")


def test_a_job_without_duplicates_has_no_files_of_duplicates(folder: LocalFolder) -> None:
    manifest = seal_once(folder, requests_of("abc", "xyz"))
    assert manifest.duplicate_files == []
    assert not DuplicateReader(folder, manifest.duplicate_files)


@pytest.mark.parametrize(("names", "texts"), [("aa", "xx"), ("aba", "xyy"), ("abb", "xxx"), ("aab", "xyx")])
def test_a_repeated_custom_id_is_an_error_even_if_the_requests_are_equal(
    folder: LocalFolder, names: str, texts: str
) -> None:
    with pytest.raises(CustomIdError, match="1 custom_id is used by more than one row"):
        seal_once(folder, requests_of(names, texts))


def test_two_requests_with_equal_digests_are_never_sealed(folder: LocalFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(RequestIndex, "_digest", lambda self, sha256: 7)
    with pytest.raises(
        EqualDigestsError, match=r"The request of row 2 .* Nothing was uploaded. Clear the task"
    ) as error_info:
        seal_once(folder, requests_of("ab", "xy"))
    assert error_info.value.retry


def test_every_build_has_different_digests() -> None:
    first, second = RequestIndex(), RequestIndex()
    assert first._digest("0" * 64) != second._digest("0" * 64)


def test_more_shards_than_two_bytes_can_number_are_distinguished() -> None:
    requests = RequestIndex()
    for number in range(2**16 + 2):
        requests.assign_all([f"{number:064x}"], f"s{number}")
    assert [requests.shard_of(f"{number:064x}") for number in (0, 2**16 - 1, 2**16, 2**16 + 1)] == [
        "s0",
        "s65535",
        "s65536",
        "s65537",
    ]
    assert requests.shard_of("f" * 64) is None


def test_a_hundred_thousand_different_requests_take_less_than_two_megabytes() -> None:
    """Each takes 10 bytes plus what arrays reserve: 10 million take less than 120 MB, plus 80 MB for custom_ids."""
    tracemalloc.start()
    try:
        requests = RequestIndex()
        start = tracemalloc.get_traced_memory()[0]
        for number in range(100_000):
            requests.assign_all([f"{number:064x}"], "s0001")
        growth = tracemalloc.get_traced_memory()[0] - start
    finally:
        tracemalloc.stop()
    assert growth < 1_400_000


def test_a_missing_file_of_duplicates_is_an_error(folder: LocalFolder) -> None:
    manifest = seal_once(folder, requests_of("ab", "xx"))
    (folder.path / manifest.duplicate_files[0].segments).unlink()
    with pytest.raises(StagingError, match=r"segments.json no longer exists"):
        DuplicateReader(folder, manifest.duplicate_files)


# Landing


def test_a_duplicate_gets_the_answer_under_its_own_key_with_its_own_columns(folder: LocalFolder) -> None:
    manifest = seal_once(folder, requests_of("ab", "xx"), carry=[["one"], ["two"]])
    landed_rows = LandedRows(folder, manifest, [settle(folder, manifest.shards[0], [chat_line("a", "yes")])])
    a, b = landed_rows.table["a"], landed_rows.table["b"]
    assert (a["output"], b["output"]) == ("yes", "yes")
    assert (a["c0"], b["c0"]) == ("one", "two")
    own_columns = {"custom_id", "c0", "input_tokens", "output_tokens", "cost_usd", "attempt"}
    assert {name for name in a if a[name] != b[name]} == own_columns


def test_a_duplicate_costs_nothing_so_that_sums_over_the_table_are_what_was_paid(folder: LocalFolder) -> None:
    manifest = seal_once(folder, requests_of("abcd", "xxyx"))
    answers = [chat_line("a", usage=(1000, 10)), chat_line("c", usage=(500, 5))]
    landed_rows = LandedRows(folder, manifest, [settle(folder, manifest.shards[0], answers)])
    table = landed_rows.table.values()
    assert landed_rows.landing.totals.cost
    assert sum(row["cost_usd"] for row in table) == landed_rows.landing.totals.cost > 0
    assert sum(row["input_tokens"] for row in table) == landed_rows.landing.totals.tokens["input"] == 1500
    assert [(landed_rows.table[n]["cost_usd"], landed_rows.table[n]["attempt"]) for n in "bd"] == [(0, 0), (0, 0)]


def test_a_duplicate_costs_nothing_even_if_no_price_is_known(folder: LocalFolder) -> None:
    manifest = seal_once(folder, [request("a", model="m"), request("b", model="m")])
    line = chat_line("a").replace(b"gpt-5-mini-2025-08-07", b"m")
    landed_rows = LandedRows(folder, manifest, [settle(folder, manifest.shards[0], [line])])
    assert (landed_rows.table["a"]["cost_usd"], landed_rows.table["b"]["cost_usd"]) == (None, 0)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "succeeded"])
def test_duplicates_share_the_outcome_of_the_row_that_was_sent(folder: LocalFolder, kind: str) -> None:
    manifest = seal_once(folder, requests_of("abc", "xxy"))
    kind_of_file, line = KINDS[kind]
    files = {kind_of_file: [line("a")]} if kind_of_file else {}
    settled = settle(folder, manifest.shards[0], [*files.get("output", []), chat_line("c")], files.get("error", []))
    landed_rows = LandedRows(folder, manifest, [settled])
    assert landed_rows.outcomes == {"a": kind, "b": kind, "c": "succeeded"}
    assert landed_rows.landing.outcomes == {"succeeded": 1, kind: 2}
    assert sum(reason.rows for reason in landed_rows.landing.totals.most_common_reasons(5)) == 2


def test_duplicates_are_pending_with_the_row_that_was_sent(folder: LocalFolder) -> None:
    manifest = seal_once(folder, requests_of("abcd", "xyxy"), limits=Limits(requests=1))
    landed_rows = LandedRows(folder, manifest, [settle(folder, manifest.shards[0], [chat_line("a")])])
    assert landed_rows.outcomes == {"a": "succeeded", "c": "succeeded", "b": "pending", "d": "pending"}
    assert (landed_rows.table["d"]["cost_usd"], landed_rows.table["d"]["input_tokens"]) == (None, None)
    assert landed_rows.landing.outcomes == {"succeeded": 2, "pending": 2}


def test_rows_and_duplicates_beyond_the_budget_are_withheld_and_reported(folder: LocalFolder) -> None:
    manifest = seal_once(folder, requests_of("abcdef", "xyxyzz"), limits=Limits(requests=1))
    first = settle(folder, manifest.shards[0], [chat_line("a")])
    landed_rows = LandedRows(folder, manifest, [first, Finished(1, NOW, ["s0002"])])
    withheld = {"b": "withheld", "d": "withheld"}
    assert landed_rows.outcomes == {"a": "succeeded", "c": "succeeded", **withheld, "e": "pending", "f": "pending"}
    assert landed_rows.landing.outcomes == {"succeeded": 2, "withheld": 2, "pending": 2}
    assert [(reason.code, reason.rows) for reason in landed_rows.landing.totals.most_common_reasons(5)] == [
        ("max_cost_usd", 2)
    ]
    assert (landed_rows.table["b"]["cost_usd"], landed_rows.table["d"]["input_tokens"]) == (None, None)


def test_a_row_whose_retry_is_withheld_keeps_its_first_answer(folder: LocalFolder) -> None:
    manifest = seal_once(folder, requests_of("ab", "xy"))
    (shard,) = manifest.shards
    retry, retry_shard = retry_round(folder, 1, 2, (shard, "a"))
    first = settle(folder, shard, [chat_line("b")], [never_ran_line("a")])
    landed_rows = LandedRows(folder, manifest, [first, retry, Finished(1, NOW, [retry_shard.name])])
    assert landed_rows.outcomes == {"a": "expired", "b": "succeeded"}


def test_duplicates_get_the_answer_of_a_retried_row(folder: LocalFolder) -> None:
    manifest = seal_once(folder, requests_of("abcd", "xxyy"))
    (shard,) = manifest.shards
    retry, retry_shard = retry_round(folder, 1, 2, (shard, "a"))
    first = settle(folder, shard, [chat_line("c", "first")], [never_ran_line("a")])
    landed_rows = LandedRows(folder, manifest, [first, retry, settle(folder, retry_shard, [chat_line("a", "second")])])
    assert {name: row["output"] for name, row in landed_rows.table.items()} == {
        "a": "second",
        "b": "second",
        "c": "first",
        "d": "first",
    }
    assert landed_rows.landing.outcomes == {"succeeded": 4}
    assert landed_rows.landing.totals.retried == 1


def test_duplicates_of_a_line_that_failed_validation_fail_with_it(folder: LocalFolder) -> None:
    manifest = seal_once(folder, requests_of("abcd", "xxyy"))
    failed_batch = settle(
        folder, manifest.shards[0], status="failed", failure=Failure.LINES, message="m", line_errors={0: "no url"}
    )
    landed_rows = LandedRows(folder, manifest, [failed_batch])
    assert {name: row["error_code"] for name, row in landed_rows.table.items()} == {
        "a": "invalid_line",
        "b": "invalid_line",
        "c": "batch_failed",
        "d": "batch_failed",
    }


def test_all_of_many_duplicates_of_one_row_land(folder: LocalFolder, small_files: None) -> None:
    names = [f"row-{number}" for number in range(50)]
    manifest = seal_once(folder, [request(name, text="x") for name in names])
    landed_rows = LandedRows(folder, manifest, [settle(folder, manifest.shards[0], [chat_line("row-0", "yes")])])
    assert [row["custom_id"] for row in landed_rows.rows] == names
    assert {row["output"] for row in landed_rows.rows} == {"yes"}


def test_progress_counts_the_rows_that_are_sent(folder: LocalFolder) -> None:
    manifest = seal_once(folder, requests_of("abc", "xxy"))
    state = fold(manifest, [settle(folder, manifest.shards[0], [chat_line("a")], outcomes={"succeeded": 1})])
    assert outcomes_so_far(state) == {"succeeded": 1, "pending": 1}


# What always holds


@settings(max_examples=80, deadline=None)
@given(st.data())
def test_every_custom_id_lands_once_and_every_distinct_request_is_sent_once(data: st.DataObject) -> None:
    texts = data.draw(st.lists(st.sampled_from("xyzuv"), min_size=1, max_size=12))
    requests = [request(f"row-{number}", text=text) for number, text in enumerate(texts)]
    sent_row = {
        rendered_request.custom_id: f"row-{texts.index(text)}"
        for rendered_request, text in zip(requests, texts, strict=True)
    }
    with temporary_folder() as folder, pytest.MonkeyPatch.context() as patch:
        for module in (deduplicate, landing):
            patch.setattr(module, "FILE_ROWS", data.draw(st.integers(1, 4)))
        provider = DrawnProvider(data, folder)
        manifest = seal_once(folder, requests, limits=Limits(requests=data.draw(st.integers(1, 3))))
        assert sorted(sent_ids(folder, manifest)) == sorted(set(sent_row.values()))
        assert manifest.sent == len(set(texts))
        assert manifest.sent + manifest.duplicates == manifest.requests == len(texts)
        sent_shards = data.draw(st.lists(st.sampled_from(manifest.shards), unique_by=lambda shard: shard.name))
        records: list[Record] = [Uploaded(shard.name, 1, "f", NOW) for shard in manifest.shards]
        records += [provider.answer(shard) for shard in sent_shards]
        open_rows = [(shard, row.custom_id) for shard in sent_shards for row in read_rows(folder, shard)]
        retried_rows = data.draw(st.lists(st.sampled_from(open_rows), unique=True) if open_rows else st.just([]))
        if retried_rows:
            retry, retry_shard = retry_round(folder, 1, 2, *retried_rows)
            records += [retry, provider.answer(retry_shard)]
        landed_rows = LandedRows(folder, manifest, data.draw(st.permutations(records)))
    best = provider.best
    assert landed_rows.outcomes == {
        name: best[sent_name][2] if sent_name in best else "pending" for name, sent_name in sent_row.items()
    }
    assert landed_rows.landing.outcomes == dict(Counter(landed_rows.outcomes.values()))
    assert landed_rows.landing.totals.cost == provider.paid_answers * (10 * Decimal("0.125") + 1) / 1_000_000
    for name, sent_name in sent_row.items():
        assert landed_rows.table[name]["attempt"] == (
            best[sent_name][1] if name == sent_name and sent_name in best else 0
        )
        assert name == sent_name or not landed_rows.table[name]["cost_usd"]
