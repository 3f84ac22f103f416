"""Equal requests: asked once, paid once, landed for every row that has them."""

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
from airflow_provider_batch.core.requests.render import Request
from airflow_provider_batch.core.schema.columns import Column, ColumnType
from airflow_provider_batch.core.sealing import deduplicate
from airflow_provider_batch.core.sealing.deduplicate import DuplicateReader, RequestIndex
from airflow_provider_batch.core.sealing.sealer import Sealer
from airflow_provider_batch.exceptions import CustomIdError, EqualDigestsError, StagingError
from airflow_provider_batch.staging.local import LocalFolder
from tests.core.building import CHAT, NOW, chat_line, manifest_of, never_ran_line, request, settle, temporary_folder
from tests.core.landing.test_landing import KINDS, DrawnProvider, Landed, retry_round


def seal_once(
    folder: Folder, requests: list[Request], *, limits: Limits | None = None, carry: list[list[Any]] | None = None
) -> Manifest:
    """A job of these requests; equal ones are asked once."""
    sealer = Sealer(folder, "g001/build", CHAT, limits or Limits(), deduplicate=True)
    for number, one in enumerate(requests, start=1):
        values = carry[number - 1] if carry else []
        if not sealer.add_if_duplicate(one, values, number):
            sealer.add(one, values, number, 7)
    shards = sealer.finish()
    columns = [Column(f"c{n}", ColumnType.TEXT) for n in range(len(carry[0]))] if carry else []
    return manifest_of(
        shards,
        requests=sealer.requests + sealer.duplicates,
        duplicates=sealer.duplicates,
        duplicate_files=sealer.duplicate_files,
        carry=columns,
    )


def named(names: str, texts: str) -> list[Request]:
    """A request for each letter of `names`, asking the letter of `texts` at the same place."""
    return [request(name, text=text) for name, text in zip(names, texts, strict=True)]


def asked(folder: Folder, manifest: Manifest) -> list[str]:
    return [row.custom_id for shard in manifest.shards for row in read_rows(folder, shard)]


@pytest.fixture
def small_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files of two copies, so that a few rows need several."""
    monkeypatch.setattr(deduplicate, "FILE_ROWS", 2)
    monkeypatch.setattr(landing, "FILE_ROWS", 2)


# Sealing


def test_the_first_of_several_equal_requests_is_asked_and_no_other(folder: LocalFolder) -> None:
    manifest = seal_once(folder, named("abcde", "xyxxz"))
    assert asked(folder, manifest) == ["a", "b", "e"]
    assert (manifest.requests, manifest.sent, manifest.duplicates) == (5, 3, 2)


def test_only_the_asked_requests_are_in_the_input_file(folder: LocalFolder) -> None:
    manifest = seal_once(folder, named("abc", "xxx"))
    (shard,) = manifest.shards
    with folder.reader(shard.file) as file:
        assert [b'"custom_id":"a"' in line for line in file] == [True]
    assert (shard.requests, shard.tokens) == (1, 7)


def test_requests_to_different_models_are_different(folder: LocalFolder) -> None:
    manifest = seal_once(folder, [request("a", model="m1"), request("b", model="m2")])
    assert manifest.duplicates == 0


def test_a_request_is_known_also_when_its_shard_is_full_and_closed(folder: LocalFolder) -> None:
    manifest = seal_once(folder, named("abcd", "xyzx"), limits=Limits(requests=1))
    assert asked(folder, manifest) == ["a", "b", "c"]
    assert [row.custom_id for row in DuplicateReader(folder, manifest.duplicate_files).rows_of("s0001")] == ["d"]


def test_copies_are_found_by_the_shard_that_asks_for_them_in_the_order_of_the_query(
    folder: LocalFolder, small_files: None
) -> None:
    manifest = seal_once(folder, named("abcdefgh", "xyxyxyyx"), limits=Limits(requests=1))
    assert len(manifest.duplicate_files) == 3
    reader = DuplicateReader(folder, manifest.duplicate_files)
    assert [row.custom_id for row in reader.rows_of("s0001")] == ["c", "e", "h"]
    assert [row.custom_id for row in reader.rows_of("s0002")] == ["d", "f", "g"]
    assert sorted(row.custom_id for row in reader.all_rows()) == list("cdefgh")


def test_no_equal_requests_are_no_files_beside_the_shards(folder: LocalFolder) -> None:
    manifest = seal_once(folder, named("abc", "xyz"))
    assert manifest.duplicate_files == []
    assert not DuplicateReader(folder, manifest.duplicate_files)


@pytest.mark.parametrize(("names", "texts"), [("aa", "xx"), ("aba", "xyy"), ("abb", "xxx"), ("aab", "xyx")])
def test_a_custom_id_given_twice_is_an_error_also_where_requests_are_equal(
    folder: LocalFolder, names: str, texts: str
) -> None:
    with pytest.raises(CustomIdError, match="1 of them are given to more than one row"):
        seal_once(folder, named(names, texts))


def test_two_requests_taken_for_one_by_chance_are_never_sealed(
    folder: LocalFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(RequestIndex, "_digest", lambda self, sha256: 7)
    with pytest.raises(EqualDigestsError, match=r"Row 2 .* Nothing was uploaded. Clear the task") as caught:
        seal_once(folder, named("ab", "xy"))
    assert caught.value.retry


def test_what_a_digest_is_cannot_be_known_before_the_build() -> None:
    first, second = RequestIndex(), RequestIndex()
    assert first._digest("0" * 64) != second._digest("0" * 64)


def test_more_shards_than_two_bytes_can_number_are_told_apart() -> None:
    requests = RequestIndex()
    for number in range(2**16 + 2):
        requests.assign(f"{number:064x}", f"s{number}")
    assert [requests.shard_of(f"{number:064x}") for number in (0, 2**16 - 1, 2**16, 2**16 + 1)] == [
        "s0",
        "s65535",
        "s65536",
        "s65537",
    ]
    assert requests.shard_of("f" * 64) is None


def test_a_hundred_thousand_different_requests_take_less_than_two_megabytes() -> None:
    """10 bytes each and what arrays reserve: 10 million stay under 120 MB beside the 80 MB of their custom_ids."""
    tracemalloc.start()
    try:
        requests = RequestIndex()
        empty = tracemalloc.get_traced_memory()[0]
        for number in range(100_000):
            requests.assign(f"{number:064x}", "s0001")
        grown = tracemalloc.get_traced_memory()[0] - empty
    finally:
        tracemalloc.stop()
    assert grown < 1_400_000


def test_a_lost_file_of_copies_is_told(folder: LocalFolder) -> None:
    manifest = seal_once(folder, named("ab", "xx"))
    (folder.path / manifest.duplicate_files[0].segments).unlink()
    with pytest.raises(StagingError, match=r"segments.json is gone"):
        DuplicateReader(folder, manifest.duplicate_files)


# Landing


def test_a_copy_lands_the_answer_under_its_own_key_with_its_own_columns(folder: LocalFolder) -> None:
    manifest = seal_once(folder, named("ab", "xx"), carry=[["one"], ["two"]])
    landed = Landed(folder, manifest, [settle(folder, manifest.shards[0], [chat_line("a", "yes")])])
    a, b = landed.table["a"], landed.table["b"]
    assert (a["output"], b["output"]) == ("yes", "yes")
    assert (a["c0"], b["c0"]) == ("one", "two")
    own = {"custom_id", "c0", "input_tokens", "output_tokens", "cost_usd", "attempt"}
    assert {name for name in a if a[name] != b[name]} == own


def test_a_copy_cost_nothing_so_that_sums_over_the_table_are_what_was_paid(folder: LocalFolder) -> None:
    manifest = seal_once(folder, named("abcd", "xxyx"))
    answers = [chat_line("a", usage=(1000, 10)), chat_line("c", usage=(500, 5))]
    landed = Landed(folder, manifest, [settle(folder, manifest.shards[0], answers)])
    table = landed.table.values()
    assert landed.landing.cost
    assert sum(row["cost_usd"] for row in table) == landed.landing.cost > 0
    assert sum(row["input_tokens"] for row in table) == landed.landing.tokens["input"] == 1500
    assert [(landed.table[n]["cost_usd"], landed.table[n]["attempt"]) for n in "bd"] == [(0, 0), (0, 0)]


def test_a_copy_cost_nothing_also_where_no_price_is_known(folder: LocalFolder) -> None:
    manifest = seal_once(folder, [request("a", model="m"), request("b", model="m")])
    line = chat_line("a").replace(b"gpt-5-mini-2025-08-07", b"m")
    landed = Landed(folder, manifest, [settle(folder, manifest.shards[0], [line])])
    assert (landed.table["a"]["cost_usd"], landed.table["b"]["cost_usd"]) == (None, 0)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "succeeded"])
def test_copies_share_whatever_became_of_the_row_that_was_asked(folder: LocalFolder, kind: str) -> None:
    manifest = seal_once(folder, named("abc", "xxy"))
    where, line = KINDS[kind]
    files = {where: [line("a")]} if where else {}
    settled = settle(folder, manifest.shards[0], [*files.get("output", []), chat_line("c")], files.get("error", []))
    landed = Landed(folder, manifest, [settled])
    assert landed.outcomes == {"a": kind, "b": kind, "c": "succeeded"}
    assert landed.landing.outcomes == {"succeeded": 1, kind: 2}
    assert sum(reason.rows for reason in landed.landing.most_common_reasons(5)) == 2


def test_copies_wait_with_the_row_that_is_asked(folder: LocalFolder) -> None:
    manifest = seal_once(folder, named("abcd", "xyxy"), limits=Limits(requests=1))
    landed = Landed(folder, manifest, [settle(folder, manifest.shards[0], [chat_line("a")])])
    assert landed.outcomes == {"a": "succeeded", "c": "succeeded", "b": "pending", "d": "pending"}
    assert (landed.table["d"]["cost_usd"], landed.table["d"]["input_tokens"]) == (None, None)
    assert landed.landing.outcomes == {"succeeded": 2, "pending": 2}


def test_rows_and_copies_that_the_budget_did_not_reach_are_withheld_and_told(folder: LocalFolder) -> None:
    manifest = seal_once(folder, named("abcdef", "xyxyzz"), limits=Limits(requests=1))
    first = settle(folder, manifest.shards[0], [chat_line("a")])
    landed = Landed(folder, manifest, [first, Finished(1, NOW, ["s0002"])])
    withheld = {"b": "withheld", "d": "withheld"}
    assert landed.outcomes == {"a": "succeeded", "c": "succeeded", **withheld, "e": "pending", "f": "pending"}
    assert landed.landing.outcomes == {"succeeded": 2, "withheld": 2, "pending": 2}
    assert [(reason.code, reason.rows) for reason in landed.landing.most_common_reasons(5)] == [("max_cost_usd", 2)]
    assert (landed.table["b"]["cost_usd"], landed.table["d"]["input_tokens"]) == (None, None)


def test_a_row_whose_second_asking_is_withheld_keeps_its_first_answer(folder: LocalFolder) -> None:
    manifest = seal_once(folder, named("ab", "xy"))
    (shard,) = manifest.shards
    again, w1 = retry_round(folder, 1, 2, (shard, "a"))
    first = settle(folder, shard, [chat_line("b")], [never_ran_line("a")])
    landed = Landed(folder, manifest, [first, again, Finished(1, NOW, [w1.name])])
    assert landed.outcomes == {"a": "expired", "b": "succeeded"}


def test_copies_get_the_answer_of_a_row_that_was_asked_again(folder: LocalFolder) -> None:
    manifest = seal_once(folder, named("abcd", "xxyy"))
    (shard,) = manifest.shards
    again, w1 = retry_round(folder, 1, 2, (shard, "a"))
    first = settle(folder, shard, [chat_line("c", "first")], [never_ran_line("a")])
    landed = Landed(folder, manifest, [first, again, settle(folder, w1, [chat_line("a", "second")])])
    assert {name: row["output"] for name, row in landed.table.items()} == {
        "a": "second",
        "b": "second",
        "c": "first",
        "d": "first",
    }
    assert landed.landing.outcomes == {"succeeded": 4}
    assert landed.landing.retried == 1


def test_copies_of_a_line_that_failed_validation_failed_with_it(folder: LocalFolder) -> None:
    manifest = seal_once(folder, named("abcd", "xxyy"))
    bad = settle(
        folder, manifest.shards[0], status="failed", failure=Failure.LINES, message="m", line_errors={0: "no url"}
    )
    landed = Landed(folder, manifest, [bad])
    assert {name: row["error_code"] for name, row in landed.table.items()} == {
        "a": "invalid_line",
        "b": "invalid_line",
        "c": "batch_failed",
        "d": "batch_failed",
    }


def test_one_row_with_very_many_copies_lands_them_all(folder: LocalFolder, small_files: None) -> None:
    names = [f"row-{number}" for number in range(50)]
    manifest = seal_once(folder, [request(name, text="x") for name in names])
    landed = Landed(folder, manifest, [settle(folder, manifest.shards[0], [chat_line("row-0", "yes")])])
    assert [row["custom_id"] for row in landed.given] == names
    assert {row["output"] for row in landed.given} == {"yes"}


def test_progress_counts_the_rows_that_are_asked(folder: LocalFolder) -> None:
    manifest = seal_once(folder, named("abc", "xxy"))
    state = fold(manifest, [settle(folder, manifest.shards[0], [chat_line("a")], outcomes={"succeeded": 1})])
    assert outcomes_so_far(state) == {"succeeded": 1, "pending": 1}


# The law


@settings(max_examples=80, deadline=None)
@given(st.data())
def test_every_custom_id_lands_once_and_every_different_request_is_asked_once(data: st.DataObject) -> None:
    texts = data.draw(st.lists(st.sampled_from("xyzuv"), min_size=1, max_size=12))
    requests = [request(f"row-{number}", text=text) for number, text in enumerate(texts)]
    leader = {one.custom_id: f"row-{texts.index(text)}" for one, text in zip(requests, texts, strict=True)}
    with temporary_folder() as folder, pytest.MonkeyPatch.context() as patch:
        for module in (deduplicate, landing):
            patch.setattr(module, "FILE_ROWS", data.draw(st.integers(1, 4)))
        provider = DrawnProvider(data, folder)
        manifest = seal_once(folder, requests, limits=Limits(requests=data.draw(st.integers(1, 3))))
        assert sorted(asked(folder, manifest)) == sorted(set(leader.values()))
        assert manifest.sent == len(set(texts))
        assert manifest.sent + manifest.duplicates == manifest.requests == len(texts)
        sent = data.draw(st.lists(st.sampled_from(manifest.shards), unique_by=lambda shard: shard.name))
        records: list[Record] = [Uploaded(shard.name, 1, "f", NOW) for shard in manifest.shards]
        records += [provider.answer(shard) for shard in sent]
        open_rows = [(shard, row.custom_id) for shard in sent for row in read_rows(folder, shard)]
        chosen = data.draw(st.lists(st.sampled_from(open_rows), unique=True) if open_rows else st.just([]))
        if chosen:
            again, sealed = retry_round(folder, 1, 2, *chosen)
            records += [again, provider.answer(sealed)]
        landed = Landed(folder, manifest, data.draw(st.permutations(records)))
    best = provider.best
    assert landed.outcomes == {one: best[lead][2] if lead in best else "pending" for one, lead in leader.items()}
    assert landed.landing.outcomes == dict(Counter(landed.outcomes.values()))
    assert landed.landing.cost == provider.paid * (10 * Decimal("0.125") + 1) / 1_000_000
    for one, lead in leader.items():
        assert landed.table[one]["attempt"] == (best[lead][1] if one == lead and lead in best else 0)
        assert one == lead or not landed.table[one]["cost_usd"]
