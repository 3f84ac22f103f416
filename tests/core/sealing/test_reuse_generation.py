"""A job that is sealed again: nothing is asked twice, every row of the newest reading lands once with its answer."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_provider_batch.core.answers.result_files import read_rows
from airflow_provider_batch.core.ledger.folder import Folder
from airflow_provider_batch.core.ledger.job import Shard
from airflow_provider_batch.core.ledger.ledger import Ledger, seal, shard_name_format
from airflow_provider_batch.core.ledger.records import Created, Deadline, Intent, Uploaded
from airflow_provider_batch.core.ledger.state import Phase
from airflow_provider_batch.core.provider.limits import Limits
from airflow_provider_batch.core.schema.columns import Column, ColumnType
from airflow_provider_batch.core.sealing.reuse_generation import PreviousGeneration
from airflow_provider_batch.core.sealing.sealer import Sealer
from airflow_provider_batch.exceptions import StoppedError
from airflow_provider_batch.staging.local import LocalFolder
from tests.core.building import CHAT, NOW, chat_line, manifest_of, request, settle, temporary_folder
from tests.core.landing.test_landing import Landed, retry_round

LIMITS = Limits(requests=2)


def sealed(folder: Folder, rows: dict[str, str], before: Ledger | None = None, *, deduplicate: bool = True) -> Ledger:
    """The next generation of a job: text asked by custom_id, each row's carried value being `custom_id/generation`."""
    generation = before.manifest.generation + 1 if before else 1
    prefix = f"g{generation:03d}/build"
    sealer = Sealer(folder, prefix, CHAT, LIMITS, names=shard_name_format(generation), deduplicate=deduplicate)
    previous = PreviousGeneration(before) if before else None
    if previous:
        previous.add_requests_to(sealer, deduplicate=deduplicate)
    kept = 0
    for number, (custom_id, text) in enumerate(rows.items(), start=1):
        one, carry = request(custom_id, text=text), [f"{custom_id}/{generation}"]
        shard = previous.shard_of(one, sealer.sha256(one)) if previous else None
        if shard is not None:
            sealer.add_kept_row(one, carry, number, shard)
            kept += 1
        elif not sealer.add_if_duplicate(one, carry, number):
            sealer.add(one, carry, number, 7)
    manifest = manifest_of(
        sealer.finish(),
        requests=kept + sealer.requests + sealer.duplicates,
        duplicates=sealer.duplicates,
        duplicate_files=sealer.duplicate_files,
        carry=[Column("note", ColumnType.TEXT)],
        generation=generation,
    )
    return seal(folder, previous.next_manifest(manifest, sealer, prefix) if previous else manifest)


def texts(folder: Folder, shard: Shard) -> list[tuple[str, str]]:
    """custom_id and text of each line of an input file."""
    with folder.reader(shard.file) as file:
        lines = [json.loads(line) for line in file]
    return [(line["custom_id"], line["body"]["text"]) for line in lines]


def answer(ledger: Ledger, shard: Shard) -> None:
    """The provider answered a shard: each answer is the text that was asked."""
    lines = [chat_line(custom_id, f"answer to {text}") for custom_id, text in texts(ledger.folder, shard)]
    ledger.add(Created(shard.name, 1, f"batch_{shard.name}", NOW))
    ledger.add(settle(ledger.folder, shard, lines))


def new_shards(ledger: Ledger) -> list[Shard]:
    """The shards that were sealed in this very generation."""
    return [shard for shard in ledger.manifest.shards if shard.file.startswith(ledger.prefix)]


def landed(ledger: Ledger) -> Landed:
    return Landed(ledger.folder, ledger.manifest, ledger._records.values() if ledger.state() else [])


ROWS = st.dictionaries(st.sampled_from("abcdef"), st.sampled_from("xyz"), min_size=1)


@settings(max_examples=25, deadline=None)
@given(st.lists(ROWS, min_size=2, max_size=4), st.booleans(), st.data())
def test_nothing_is_asked_twice_and_every_row_lands_once_whatever_was_sent_before(
    readings: list[dict[str, str]], deduplicate: bool, data: Any
) -> None:
    with temporary_folder() as folder:
        ledger: Ledger | None = None
        sent: set[tuple[str, str]] = set()
        for rows in readings:
            ledger = sealed(folder, rows, ledger, deduplicate=deduplicate)
            fresh = {row for shard in new_shards(ledger) for row in texts(folder, shard)}
            assert fresh <= set(rows.items())
            assert fresh.isdisjoint(sent)
            if deduplicate:
                assert {text for _, text in fresh}.isdisjoint({text for _, text in sent})
            assert ledger.manifest.requests == ledger.manifest.sent + ledger.manifest.duplicates == len(rows)
            for shard in ledger.manifest.shards:
                if ledger.state().shards[shard.name].phase is Phase.SEALED and data.draw(st.booleans()):
                    answer(ledger, shard)
                    sent.update(texts(folder, shard))
        assert ledger is not None
        for shard in ledger.manifest.shards:
            if ledger.state().shards[shard.name].phase is Phase.SEALED:
                answer(ledger, shard)

        result = landed(ledger)
        generation = ledger.manifest.generation
        assert sorted(row["custom_id"] for row in result.given) == sorted(readings[-1])
        assert {row: found["output"] for row, found in result.table.items()} == {
            row: f"answer to {text}" for row, text in readings[-1].items()
        }
        assert result.landing.outcomes == {"succeeded": len(readings[-1])}
        noted = {row: found["note"] for row, found in result.table.items()}
        assert all(int(note.split("/")[1]) == generation for note in noted.values())


def test_rows_that_have_no_answer_yet_are_pending_and_those_that_went_are_not(folder: LocalFolder) -> None:
    first = sealed(folder, {"a": "x", "b": "y"})
    first.add(Created("s0001", 1, "batch_1", NOW))
    second = sealed(folder, {"b": "y", "c": "z"}, first)

    assert landed(second).outcomes == {"b": "pending", "c": "pending"}
    assert landed(second).landing.outcomes == {"pending": 2}


def test_a_shard_that_was_never_sent_is_not_sent_with_rows_that_nobody_asks(folder: LocalFolder) -> None:
    first = sealed(folder, {"a": "x", "b": "y"})
    first.add(Uploaded("s0001", 1, "file-1", NOW))
    second = sealed(folder, {"a": "x"}, first)

    assert [texts(folder, shard) for shard in second.manifest.shards] == [[("a", "x")]]
    assert list(second.state().shards) == ["g002-0001"]


def test_rows_that_were_asked_again_land_with_what_they_carry_now(folder: LocalFolder) -> None:
    first = sealed(folder, {"a": "x", "b": "y"})
    (shard,) = first.manifest.shards
    first.add(Created("s0001", 1, "batch_1", NOW))
    first.add(settle(folder, shard, [chat_line("a", "first")]))
    again, sealed_again = retry_round(folder, 1, 2, (shard, "b"))
    first.add(again)
    first.add(Created("r01-0001", 1, "batch_2", NOW))
    second = sealed(folder, {"b": "y"}, first)
    second.add(settle(folder, sealed_again, [chat_line("b", "second")]))

    result = landed(second)
    assert {row: (found["output"], found["note"], found["attempt"]) for row, found in result.table.items()} == {
        "b": ("second", "b/2", 2)
    }


def test_a_wave_that_was_never_sent_is_sealed_again_without_the_rows_that_went(folder: LocalFolder) -> None:
    first = sealed(folder, {"a": "x", "b": "y"})
    (shard,) = first.manifest.shards
    first.add(Created("s0001", 1, "batch_1", NOW))
    first.add(settle(folder, shard, []))
    first.add(retry_round(folder, 1, 2, (shard, "a"), (shard, "b"))[0])
    second = sealed(folder, {"b": "y"}, first)

    assert (second.state().retry_rounds, second.state().retried_submissions) == ([], set())
    assert [(row.custom_id, row.needed) for row in read_rows(folder, second.manifest.shards[0])] == [
        ("a", False),
        ("b", True),
    ]


def test_generations_share_the_records_of_shards_and_have_their_own_deadline(folder: LocalFolder) -> None:
    first = sealed(folder, {"a": "x", "b": "y"})
    first.add(Created("s0001", 1, "batch_1", NOW))
    first.add(Deadline(NOW, NOW))
    second = sealed(folder, {"a": "x", "c": "z"}, first)
    assert second.state().deadline is None

    # a worker that still looks at the first generation settles its batch, and does not stumble over the second
    first.add(settle(folder, first.manifest.shards[0], [chat_line("a", "kept"), chat_line("b")]))
    second.add(Created("g002-0001", 1, "batch_2", NOW))
    assert second.state().shards["s0001"].phase is Phase.SETTLED
    assert list(first.state().shards) == ["s0001"]


def test_a_worker_of_an_earlier_generation_creates_nothing_any_more(folder: LocalFolder) -> None:
    first = sealed(folder, {"a": "x"})
    second = sealed(folder, {"a": "y"}, first)
    intent = Intent("s0001", 1, "nonce", "file-1", NOW)

    with pytest.raises(StoppedError, match="got a new generation while this worker was working on the previous one"):
        first.add(intent)
    assert first.state().shards["s0001"].submissions == []
    assert second.add(msgspec.structs.replace(intent, shard="g002-0001"))
