"""However many answers a landing reads at a time, it lands the same rows and reports the same totals."""

from __future__ import annotations

from itertools import islice
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_provider_batch.core.answers.result_files import read_rows
from airflow_provider_batch.core.landing import landing
from airflow_provider_batch.core.landing.landing import CHUNK_ROWS, Landing
from airflow_provider_batch.core.landing.storage_limits import ColumnLimits, StorageLimits
from airflow_provider_batch.core.ledger.fold import fold
from airflow_provider_batch.core.ledger.folder import Folder
from airflow_provider_batch.core.ledger.job import Manifest, Shard
from airflow_provider_batch.core.ledger.records import Record, Uploaded
from airflow_provider_batch.core.provider.limits import Limits
from tests.core.answers.odd_lines import COLUMNS, SCHEMA, good_line, odd_lines
from tests.core.building import NOW, manifest_of, request, seal_all, settle, temporary_folder
from tests.core.landing.test_landing import DrawnProvider, retry_round
from tests.core.sealing.test_deduplicate import seal_once

LIMITS = StorageLimits(
    columns={
        "label": ColumnLimits(characters=3),
        "count": ColumnLimits(integers=(-128, 127)),
        "error_message": ColumnLimits(characters=20),
        "input_tokens": ColumnLimits(integers=(0, 100)),
    },
    json_depth=3,
    json_digits=5,
    row_bytes=20_000,
)


def land(folder: Folder, manifest: Manifest, records: list[Record], chunk_rows: int, **arguments: Any) -> Landing:
    """Return a landing before its first row."""
    options = {"key": {}, "columns": {}, "store_response": False, **arguments}
    state = fold(manifest, records)
    return Landing(folder, state, run_id="run", landed_at=NOW, chunk_rows=chunk_rows, **options)


def totals_of(landing: Landing) -> dict[str, Any]:
    """Return everything that a landing reports after its last row."""
    totals = landing.totals
    return {
        "outcomes": landing.outcomes,
        "misfits": landing.misfits,
        "reasons": {(reason.outcome, reason.code, reason.message): reason.rows for reason in reasons_of(landing)},
        "tokens": dict(totals.tokens),
        "lanes": dict(totals.lanes),
        "costs": [totals.cost, totals.lowest_cost, totals.standard_cost, totals.retried_cost],
        "counts": [totals.without_usage, totals.retried],
    }


def reasons_of(landing: Landing) -> list[Any]:
    return landing.totals.most_common_reasons(1_000)


def test_odd_answers_land_the_same_in_chunks_of_any_size() -> None:
    lines = {f"good {number}": good_line(f"good {number}") for number in range(50)}
    lines |= dict(islice(odd_lines().items(), 0, None, 5))
    with temporary_folder() as folder:
        shards = seal_all(folder, [request(name, text=name) for name in sorted(lines)])
        manifest = manifest_of(shards, output_schema=SCHEMA)
        records: list[Record] = [settle(folder, shards[0], [lines[name] for name in sorted(lines)])]
        one_by_one, in_chunks = (
            land(folder, manifest, records, size, limits=LIMITS, columns=COLUMNS, store_response=True)
            for size in (1, CHUNK_ROWS)
        )
        assert list(map(repr, in_chunks)) == list(map(repr, one_by_one))
    assert totals_of(in_chunks) == totals_of(one_by_one)


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_every_history_lands_the_same_in_chunks_of_any_size(data: st.DataObject) -> None:
    texts = data.draw(st.lists(st.sampled_from("xyzuvw"), min_size=1, max_size=14))
    requests = [request(f"row-{number}", text=text) for number, text in enumerate(texts)]
    with temporary_folder() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(landing, "FILE_ROWS", data.draw(st.integers(1, 4)))
        provider = DrawnProvider(data, folder)
        manifest = seal_once(folder, requests, limits=Limits(requests=data.draw(st.integers(1, 4))))
        sent_shards = data.draw(st.lists(st.sampled_from(manifest.shards), unique_by=lambda shard: shard.name))
        records: list[Record] = [Uploaded(shard.name, 1, "f", NOW) for shard in manifest.shards]
        records += [provider.answer(shard) for shard in sent_shards]
        open_rows = [(shard, row) for shard in sent_shards for row in provider.best if row in ids_of(folder, shard)]
        retried_rows = data.draw(st.lists(st.sampled_from(open_rows), unique=True) if open_rows else st.just([]))
        if retried_rows:
            retry, retry_shard = retry_round(folder, 1, 2, *retried_rows)
            records += [retry, provider.answer(retry_shard)]
        one_by_one = land(folder, manifest, records, 1)
        in_chunks = land(folder, manifest, records, data.draw(st.integers(2, 20)))
        rows = [{row[0]: row for row in landed} for landed in (one_by_one, in_chunks)]
    assert rows[0] == rows[1]
    assert totals_of(in_chunks) == totals_of(one_by_one)


def ids_of(folder: Folder, shard: Shard) -> set[str]:
    """Return the custom_ids of a shard's rows."""
    return {row.custom_id for row in read_rows(folder, shard)}
