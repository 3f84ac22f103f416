"""The values of a results table that are known before the first answer: keys, carried columns and our own.

They are compared with what the table can store before anything is paid for.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from decimal import Decimal
from typing import Any

from airflow_provider_batch.core.answers.outcome import Outcome
from airflow_provider_batch.core.answers.result_files import read_rows
from airflow_provider_batch.core.landing.storage_limits import StorageLimits, StoredValue, storage_problems
from airflow_provider_batch.core.ledger.folder import Folder
from airflow_provider_batch.core.ledger.job import Manifest, RowIndex
from airflow_provider_batch.core.schema.columns import ColumnType
from airflow_provider_batch.core.sealing import carry
from airflow_provider_batch.core.sealing.deduplicate import DuplicateReader

#: a cost with as many digits as the price of one token may have
_SMALLEST_COST = Decimal("0.000000000001")
#: an id of a batch as OpenAI writes it
_BATCH_ID = "batch_" + "0" * 32


def known_value_problem(folder: Folder, manifest: Manifest, limits: StorageLimits, key: Mapping[str, Any]) -> str:
    """Return which value the table cannot store unchanged, and why, or '' if it can store all of them.

    The text names the column and the custom_id, and never the value.

    :param key: the values of the extra key columns.
    """
    for column, value in [*key.items(), *_own_values(manifest)]:
        problems = storage_problems([StoredValue(column, ColumnType.TEXT, value)], limits)
        if problems:
            return f"cannot store the values of the column {column!r}: {problems[column]}."
    carried = [(index, column) for index, column in enumerate(manifest.carry) if column.name in limits.columns]
    if not carried and "custom_id" not in limits.columns:
        return ""
    for row in _rows(folder, manifest):
        values = [StoredValue("custom_id", ColumnType.TEXT, row.custom_id)]
        values += [
            StoredValue(column.name, column.type, carry.from_json(row.carry[index], column))
            for index, column in carried
        ]
        problems = storage_problems(values, limits)
        if problems:
            column, problem = next(iter(problems.items()))
            return (
                f"cannot store every value of the column {column!r}: in the row with the custom_id {row.custom_id!r}, "
                f"{problem}."
            )
    return ""


def _own_values(manifest: Manifest) -> Iterator[tuple[str, Any]]:
    for outcome in Outcome:
        yield "outcome", outcome.value
    yield "cost_usd", _SMALLEST_COST
    yield "request_sha256", "0" * 64
    yield "batch_id", _BATCH_ID
    yield "job_uid", manifest.job_uid
    yield "run_id", manifest.key.run_id
    timestamp: datetime = manifest.sealed_at.replace(microsecond=1)
    yield "sealed_at", timestamp
    yield "landed_at", timestamp
    yield "logical_date", manifest.logical_date


def _rows(folder: Folder, manifest: Manifest) -> Iterator[RowIndex]:
    for shard in manifest.shards:
        yield from (row for row in read_rows(folder, shard) if row.lands)
    yield from DuplicateReader(folder, manifest.duplicate_files).all_rows()
