"""A job that is sealed a second time: no row is sent twice, and every row of the newest query lands once."""

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
from tests.core.building import CHAT, NOW, add_row, chat_line, manifest_of, request, row_of, settle, temporary_folder
from tests.core.landing.test_landing import LandedRows, retry_round

LIMITS = Limits(requests=2)


def seal_generation(
    folder: Folder, rows: dict[str, str], earlier: Ledger | None = None, *, deduplicate: bool = True
) -> Ledger:
    """Seal the next generation of a job.

    :param rows: text of each request, by custom_id. The carried value of a row is `custom_id/generation`.
    """
    generation = earlier.manifest.generation + 1 if earlier else 1
    prefix = f"g{generation:03d}/build"
    sealer = Sealer(folder, prefix, CHAT, LIMITS, name_format=shard_name_format(generation), deduplicate=deduplicate)
    previous = PreviousGeneration(earlier) if earlier else None
    if previous:
        previous.add_requests_to(sealer, deduplicate=deduplicate)
    kept_rows = 0
    for number, (custom_id, text) in enumerate(rows.items(), start=1):
        row = row_of(request(custom_id, text=text), [f"{custom_id}/{generation}"], number)
        shard = previous.shard_of(row) if previous else None
        if shard is None:
            add_row(sealer, row.request, row.carry, number, 7)
        else:
            sealer.add_kept_row(row, shard)
            kept_rows += 1
    manifest = manifest_of(
        sealer.finish(),
        requests=kept_rows + sealer.requests + sealer.duplicates,
        duplicates=sealer.duplicates,
        duplicate_files=sealer.duplicate_files,
        carry=[Column("note", ColumnType.TEXT)],
        generation=generation,
    )
    return seal(folder, previous.next_manifest(manifest, sealer, prefix) if previous else manifest)


def texts(folder: Folder, shard: Shard) -> list[tuple[str, str]]:
    """Return the custom_id and the text of each line of an input file."""
    with folder.reader(shard.file) as file:
        lines = [json.loads(line) for line in file]
    return [(line["custom_id"], line["body"]["text"]) for line in lines]


def answer(ledger: Ledger, shard: Shard) -> None:
    """Record that the provider answered a shard; each answer repeats the text of its request."""
    lines = [chat_line(custom_id, f"answer to {text}") for custom_id, text in texts(ledger.folder, shard)]
    ledger.add(Created(shard.name, 1, f"batch_{shard.name}", NOW))
    ledger.add(settle(ledger.folder, shard, lines))


def new_shards(ledger: Ledger) -> list[Shard]:
    """Return the shards that were sealed in this generation."""
    return [shard for shard in ledger.manifest.shards if shard.file.startswith(ledger.prefix)]


def land(ledger: Ledger) -> LandedRows:
    return LandedRows(ledger.folder, ledger.manifest, ledger._records.values() if ledger.state() else [])


ROWS = st.dictionaries(st.sampled_from("abcdef"), st.sampled_from("xyz"), min_size=1)


@settings(max_examples=25, deadline=None)
@given(st.lists(ROWS, min_size=2, max_size=4), st.booleans(), st.data())
def test_no_row_is_sent_twice_and_every_row_lands_once_in_any_history(
    readings: list[dict[str, str]], deduplicate: bool, data: Any
) -> None:
    with temporary_folder() as folder:
        ledger: Ledger | None = None
        sent: set[tuple[str, str]] = set()
        for rows in readings:
            ledger = seal_generation(folder, rows, ledger, deduplicate=deduplicate)
            new_rows = {row for shard in new_shards(ledger) for row in texts(folder, shard)}
            assert new_rows <= set(rows.items())
            assert new_rows.isdisjoint(sent)
            if deduplicate:
                assert {text for _, text in new_rows}.isdisjoint({text for _, text in sent})
            assert ledger.manifest.requests == ledger.manifest.sent + ledger.manifest.duplicates == len(rows)
            for shard in ledger.manifest.shards:
                if ledger.state().shards[shard.name].phase is Phase.SEALED and data.draw(st.booleans()):
                    answer(ledger, shard)
                    sent.update(texts(folder, shard))
        assert ledger is not None
        for shard in ledger.manifest.shards:
            if ledger.state().shards[shard.name].phase is Phase.SEALED:
                answer(ledger, shard)

        result = land(ledger)
        generation = ledger.manifest.generation
        assert sorted(row["custom_id"] for row in result.rows) == sorted(readings[-1])
        assert {row: landed_row["output"] for row, landed_row in result.table.items()} == {
            row: f"answer to {text}" for row, text in readings[-1].items()
        }
        assert result.landing.outcomes == {"succeeded": len(readings[-1])}
        notes = {row: landed_row["note"] for row, landed_row in result.table.items()}
        assert all(int(note.split("/")[1]) == generation for note in notes.values())


def test_current_rows_without_an_answer_are_pending_and_removed_rows_are_not(folder: LocalFolder) -> None:
    first = seal_generation(folder, {"a": "x", "b": "y"})
    first.add(Created("s0001", 1, "batch_1", NOW))
    second = seal_generation(folder, {"b": "y", "c": "z"}, first)

    assert land(second).outcomes == {"b": "pending", "c": "pending"}
    assert land(second).landing.outcomes == {"pending": 2}


def test_an_unsent_shard_is_not_sent_with_removed_rows(folder: LocalFolder) -> None:
    first = seal_generation(folder, {"a": "x", "b": "y"})
    first.add(Uploaded("s0001", 1, "file-1", NOW))
    second = seal_generation(folder, {"a": "x"}, first)

    assert [texts(folder, shard) for shard in second.manifest.shards] == [[("a", "x")]]
    assert list(second.state().shards) == ["g002-0001"]


def test_retried_rows_land_with_their_current_carried_values(folder: LocalFolder) -> None:
    first = seal_generation(folder, {"a": "x", "b": "y"})
    (shard,) = first.manifest.shards
    first.add(Created("s0001", 1, "batch_1", NOW))
    first.add(settle(folder, shard, [chat_line("a", "first")]))
    retry, retry_shard = retry_round(folder, 1, 2, (shard, "b"))
    first.add(retry)
    first.add(Created("r01-0001", 1, "batch_2", NOW))
    second = seal_generation(folder, {"b": "y"}, first)
    second.add(settle(folder, retry_shard, [chat_line("b", "second")]))

    result = land(second)
    assert {
        row: (landed_row["output"], landed_row["note"], landed_row["attempt"])
        for row, landed_row in result.table.items()
    } == {"b": ("second", "b/2", 2)}


def test_an_unsent_retry_round_is_void_so_that_removed_rows_are_not_sent(folder: LocalFolder) -> None:
    first = seal_generation(folder, {"a": "x", "b": "y"})
    (shard,) = first.manifest.shards
    first.add(Created("s0001", 1, "batch_1", NOW))
    first.add(settle(folder, shard, []))
    first.add(retry_round(folder, 1, 2, (shard, "a"), (shard, "b"))[0])
    second = seal_generation(folder, {"b": "y"}, first)

    assert (second.state().retry_rounds, second.state().retried_submissions) == ([], set())
    assert [(row.custom_id, row.needed) for row in read_rows(folder, second.manifest.shards[0])] == [
        ("a", False),
        ("b", True),
    ]


def test_generations_share_the_records_of_shards_and_have_their_own_deadline(folder: LocalFolder) -> None:
    first = seal_generation(folder, {"a": "x", "b": "y"})
    first.add(Created("s0001", 1, "batch_1", NOW))
    first.add(Deadline(NOW, NOW))
    second = seal_generation(folder, {"a": "x", "c": "z"}, first)
    assert second.state().deadline is None

    # A worker that still has the first generation open can settle its batch; the second does not disturb it.
    first.add(settle(folder, first.manifest.shards[0], [chat_line("a", "kept"), chat_line("b")]))
    second.add(Created("g002-0001", 1, "batch_2", NOW))
    assert second.state().shards["s0001"].phase is Phase.SETTLED
    assert list(first.state().shards) == ["s0001"]


def test_a_worker_of_an_earlier_generation_creates_no_more_batches(folder: LocalFolder) -> None:
    first = seal_generation(folder, {"a": "x"})
    second = seal_generation(folder, {"a": "y"}, first)
    intent = Intent("s0001", 1, "nonce", "file-1", NOW)

    with pytest.raises(StoppedError, match="got a new generation while this worker was working on the previous one"):
        first.add(intent)
    assert first.state().shards["s0001"].submissions == []
    assert second.add(msgspec.structs.replace(intent, shard="g002-0001"))
