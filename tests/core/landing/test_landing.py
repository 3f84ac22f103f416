"""Landing: every row gets its best answer, lands once, and every answer is counted."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_provider_batch.core.answers.outcome import Outcome
from airflow_provider_batch.core.answers.result_files import read_rows
from airflow_provider_batch.core.landing.columns import FIXED_COLUMNS, results_columns
from airflow_provider_batch.core.landing.landing import Landing
from airflow_provider_batch.core.ledger.fold import fold
from airflow_provider_batch.core.ledger.folder import Folder
from airflow_provider_batch.core.ledger.job import Manifest, Shard
from airflow_provider_batch.core.ledger.records import (
    Created,
    Failure,
    Intent,
    Record,
    Refused,
    RetryRound,
    Settled,
    Uploaded,
)
from airflow_provider_batch.core.provider.limits import Limits
from airflow_provider_batch.core.schema.author_schema import strict_schema
from airflow_provider_batch.core.schema.columns import Column, ColumnType
from airflow_provider_batch.core.sealing.carry import CarriedColumns
from airflow_provider_batch.core.sealing.sealer import Sealer
from airflow_provider_batch.exceptions import SchemaError
from airflow_provider_batch.staging.local import LocalFolder
from tests.core.building import (
    CHAT,
    EMBEDDINGS,
    MODERATIONS,
    NOW,
    RESPONSES,
    chat_line,
    manifest_of,
    never_ran_line,
    request,
    seal_all,
    settle,
    temporary_folder,
)

LANDED_AT = NOW + timedelta(hours=3)
TICKET = strict_schema(
    {
        "type": "object",
        "properties": {
            "label": {"type": "string"},
            "urgency": {"type": "integer"},
            "score": {"type": "number"},
            "spam": {"type": "boolean"},
            "due": {"anyOf": [{"type": "string", "format": "date"}, {"type": "null"}]},
            "seen": {"type": "string", "format": "date-time"},
            "tags": {"type": "array", "items": {"type": "string"}},
            "place": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
        },
        "required": ["label", "urgency", "score", "spam", "due", "seen", "tags", "place"],
    }
)
TYPED_COLUMNS = {
    "label": ("label", ColumnType.TEXT),
    "urgency": ("urgency", ColumnType.INTEGER),
    "score": ("score", ColumnType.FLOAT),
    "spam": ("spam", ColumnType.BOOLEAN),
    "due": ("due", ColumnType.DATE),
    "seen": ("seen", ColumnType.TIMESTAMP),
    "tags": ("tags", ColumnType.JSON),
    "city": ("place.city", ColumnType.TEXT),
    "first_tag": ("tags.0", ColumnType.TEXT),
}
PATHS = {name: path for name, (path, _) in TYPED_COLUMNS.items()}


class LandedRows:
    """The rows of a landing, and the table of a writer that lets the last row of a key win."""

    def __init__(self, folder: Folder, manifest: Manifest, records: Iterable[Record], **arguments: Any) -> None:
        key, columns = arguments.get("key", {}), arguments.get("columns", {})
        store_response = arguments.get("store_response", False)
        self.names = [
            column.name for column in results_columns(manifest, key=key, columns=columns, store_response=store_response)
        ]
        self.landing = Landing(
            folder,
            fold(manifest, records),
            key=key,
            columns=columns,
            store_response=store_response,
            run_id="manual__1",
            landed_at=LANDED_AT,
        )
        self.rows = [dict(zip(self.names, row, strict=True)) for row in self.landing]
        self.table = {row["custom_id"]: row for row in self.rows}

    @property
    def outcomes(self) -> dict[str, str]:
        return {custom_id: row["outcome"] for custom_id, row in self.table.items()}


def retry_round(
    folder: LocalFolder, number: int, attempt: int, *rows: tuple[Shard, str], submission: int = 1
) -> tuple[RetryRound, Shard]:
    """Seal a retry round with these rows of these shards; return it and its shard."""
    sealer = Sealer(folder, f"g001/retry-{number}", CHAT, Limits(), name_format=f"r{number:02d}-{{:04d}}")
    for shard, custom_id in rows:
        index = read_rows(folder, shard)
        (line,) = (line for line, row in enumerate(index) if row.custom_id == custom_id)
        row = index[line]
        origin = row if row.origin else msgspec.structs.replace(row, origin=shard.name, line=line)
        sealer.add_line(shard.model, b"{}\n", origin, attempt=attempt)
    (retry_shard,) = sealer.finish()
    return RetryRound(number, sorted({(shard.name, submission) for shard, _ in rows}), [retry_shard], NOW), retry_shard


# The columns


def test_columns_are_key_fixed_carried_then_extracted() -> None:
    manifest = manifest_of(
        [], output_schema=TICKET, carry=[Column("gold", ColumnType.TEXT), Column("n", ColumnType.NUMERIC)]
    )
    columns = results_columns(
        manifest,
        key={"run": "r", "day": date(2026, 11, 20)},
        columns={"city": "place.city", "label": "label"},
        store_response=True,
    )
    assert columns == [
        Column("run", ColumnType.TEXT, key=True),
        Column("day", ColumnType.DATE, key=True),
        Column("custom_id", ColumnType.TEXT, key=True),
        *FIXED_COLUMNS,
        Column("gold", ColumnType.TEXT),
        Column("n", ColumnType.NUMERIC),
        Column("city", ColumnType.TEXT, may_be_null=True),
        Column("label", ColumnType.TEXT, may_be_null=True),
        Column("response", ColumnType.JSON, may_be_null=True),
    ]


def test_the_fixed_columns_are_those_of_the_documentation() -> None:
    assert [column.name for column in FIXED_COLUMNS] == [
        "outcome",
        "output",
        "finish_reason",
        "error_code",
        "error_message",
        "model",
        "input_tokens",
        "cached_tokens",
        "reasoning_tokens",
        "output_tokens",
        "cost_usd",
        "attempt",
        "request_sha256",
        "batch_id",
        "job_uid",
        "run_id",
        "logical_date",
        "sealed_at",
        "landed_at",
    ]


def test_without_key_columns_the_key_is_the_custom_id() -> None:
    keys = [column.name for column in results_columns(manifest_of([]), key={}, columns={}) if column.key]
    assert keys == ["custom_id"]


def test_with_history_the_key_includes_the_job() -> None:
    columns = results_columns(manifest_of([]), key={"run": "r"}, columns={}, history=True)
    assert [column.name for column in columns if column.key] == ["run", "custom_id", "job_uid"]


@pytest.mark.parametrize("name", TYPED_COLUMNS)
def test_extracted_columns_have_the_types_of_the_schema(name: str) -> None:
    path, type_ = TYPED_COLUMNS[name]
    columns = results_columns(manifest_of([], output_schema=TICKET), key={}, columns={name: path})
    assert columns[-1] == Column(name, type_, may_be_null=True)


@pytest.mark.parametrize(
    ("endpoint", "several", "type_"),
    [
        (CHAT, False, ColumnType.TEXT),
        (RESPONSES, False, ColumnType.TEXT),
        ("/v1/completions", False, ColumnType.TEXT),
        (EMBEDDINGS, False, ColumnType.VECTOR),
        (EMBEDDINGS, True, ColumnType.JSON),
        (MODERATIONS, False, ColumnType.JSON),
    ],
)
def test_the_type_of_the_output_depends_on_the_endpoint(endpoint: str, several: bool, type_: ColumnType) -> None:
    manifest = manifest_of([], endpoint=endpoint, several_inputs=several)
    types = {column.name: column.type for column in results_columns(manifest, key={}, columns={})}
    assert types["output"] is type_


@pytest.mark.parametrize(
    ("key", "carry", "columns", "store_response", "name"),
    [
        ({"custom_id": "x"}, [], {}, False, "custom_id"),
        ({"run": "x"}, ["Run"], {}, False, "run"),
        ({}, ["outcome"], {}, False, "outcome"),
        ({}, ["MODEL"], {}, False, "model"),
        ({}, ["label"], {"label": "label"}, False, "label"),
        ({"label": "x"}, [], {"Label": "label"}, False, "label"),
        ({}, [], {"job_uid": "label"}, False, "job_uid"),
        ({}, ["response"], {}, True, "response"),
    ],
)
def test_two_columns_with_the_same_name_are_an_error(
    key: dict[str, str], carry: list[str], columns: dict[str, str], store_response: bool, name: str
) -> None:
    manifest = manifest_of([], output_schema=TICKET, carry=[Column(carried, ColumnType.TEXT) for carried in carry])
    with pytest.raises(SchemaError, match=rf"two columns named '{name}'"):
        results_columns(manifest, key=key, columns=columns, store_response=store_response)


def test_a_carried_column_may_be_called_response_if_responses_are_not_stored() -> None:
    manifest = manifest_of([], carry=[Column("response", ColumnType.TEXT)])
    assert results_columns(manifest, key={}, columns={})[-1].name == "response"


def test_columns_without_a_schema_are_an_error() -> None:
    with pytest.raises(SchemaError, match=r"label.*has no output_schema"):
        results_columns(manifest_of([]), key={}, columns={"label": "label"})


def test_a_path_that_the_schema_does_not_have_is_an_error() -> None:
    with pytest.raises(SchemaError, match=r"place\.town"):
        results_columns(manifest_of([], output_schema=TICKET), key={}, columns={"town": "place.town"})


@pytest.mark.parametrize("value", [None, object()])
def test_an_unsupported_key_value_is_an_error(value: Any) -> None:
    with pytest.raises(SchemaError, match="key= sets column 'run'"):
        results_columns(manifest_of([]), key={"run": value}, columns={})


# A single row


def test_a_row_has_the_answer_and_everything_about_it(folder: LocalFolder) -> None:
    shards = seal_all(folder, [request("a")], carry=[["bug"]])
    manifest = manifest_of(shards, carry=[Column("gold", ColumnType.TEXT)], logical_date=NOW)
    (row,) = LandedRows(folder, manifest, [settle(folder, shards[0], [chat_line("a", "fine")])], key={"run": "r1"}).rows
    assert row == {
        "run": "r1",
        "custom_id": "a",
        "outcome": "succeeded",
        "output": "fine",
        "finish_reason": "stop",
        "error_code": None,
        "error_message": None,
        "model": "gpt-5-mini-2025-08-07",
        "input_tokens": 10,
        "cached_tokens": 0,
        "reasoning_tokens": 0,
        "output_tokens": 2,
        "cost_usd": (10 * Decimal("0.125") + 2) / 1_000_000,
        "attempt": 1,
        "request_sha256": read_rows(folder, shards[0])[0].sha256,
        "batch_id": "batch_s0001_1",
        "job_uid": manifest.job_uid,
        "run_id": "manual__1",
        "logical_date": NOW,
        "sealed_at": NOW,
        "landed_at": LANDED_AT,
        "gold": "bug",
    }


def test_a_failed_row_has_the_error_and_the_requested_model(folder: LocalFolder) -> None:
    (shard,) = seal_all(folder, [request("a", model="gpt-5")])
    settled = settle(folder, shard, errors=[chat_line("a", status=500)])
    (row,) = LandedRows(folder, manifest_of([shard]), [settled]).rows
    assert (row["outcome"], row["output"], row["error_code"]) == ("failed", None, "server_error")
    assert (row["error_message"], row["model"]) == ("no", "gpt-5")
    assert (row["input_tokens"], row["output_tokens"], row["cost_usd"]) == (0, 0, 0)


def test_carried_values_land_with_their_types(folder: LocalFolder) -> None:
    carried = CarriedColumns(["price", "day", "at", "raw", "tags"], range(5))
    values = (Decimal("1.10"), date(2026, 1, 2), datetime(2026, 1, 2, 3, 4), b"\x00", {"a": [1]})
    shards = seal_all(folder, [request("a"), request("b")], carry=carried.take([values, (None,) * 5], 1))
    manifest = manifest_of(shards, carry=carried.columns())
    table = LandedRows(folder, manifest, [settle(folder, shards[0], [chat_line("a"), chat_line("b")])]).table
    assert [table["a"][name] for name in ("price", "day", "at", "raw", "tags")] == [
        Decimal("1.10"),
        date(2026, 1, 2),
        datetime(2026, 1, 2, 3, 4),
        b"\x00",
        {"a": [1]},
    ]
    assert [table["b"][name] for name in ("price", "day", "at", "raw", "tags")] == [None] * 5


def ticket(**changes: Any) -> str:
    complete = {
        "label": "bug",
        "urgency": 3,
        "score": 0.5,
        "spam": False,
        "due": "2026-12-01",
        "seen": "2026-11-20T10:00:00+02:00",
        "tags": ["x", "y"],
        "place": {"city": "Graz"},
    }
    return json.dumps({**complete, **changes})


def test_extracted_columns_get_python_values_of_their_types(folder: LocalFolder) -> None:
    (shard,) = seal_all(folder, [request("a"), request("b")])
    manifest = manifest_of([shard], output_schema=TICKET)
    settled = settle(folder, shard, [chat_line("a", ticket()), chat_line("b", ticket(due=None, tags=[]))])
    table = LandedRows(folder, manifest, [settled], columns=PATHS).table
    assert {name: table["a"][name] for name in PATHS} == {
        "label": "bug",
        "urgency": 3,
        "score": 0.5,
        "spam": False,
        "due": date(2026, 12, 1),
        "seen": datetime(2026, 11, 20, 8, tzinfo=UTC),
        "tags": ["x", "y"],
        "city": "Graz",
        "first_tag": "x",
    }
    assert (table["b"]["due"], table["b"]["first_tag"], table["b"]["tags"]) == (None, None, [])
    assert table["a"]["output"] == ticket()


def test_an_unsuccessful_answer_leaves_the_extracted_columns_empty(folder: LocalFolder) -> None:
    (shard,) = seal_all(folder, [request("a")])
    manifest = manifest_of([shard], output_schema=TICKET)
    (row,) = LandedRows(folder, manifest, [settle(folder, shard, [chat_line("a", "no json")])], columns=PATHS).rows
    assert (row["outcome"], row["output"]) == ("invalid_output", "no json")
    assert all(row[name] is None for name in PATHS)


def test_an_answer_that_does_not_fit_its_column_is_invalid_output(folder: LocalFolder) -> None:
    """JSON Schema allows any integer, but the column has 64 bits."""
    (shard,) = seal_all(folder, [request("a")])
    manifest = manifest_of([shard], output_schema=TICKET)
    landed_rows = LandedRows(
        folder, manifest, [settle(folder, shard, [chat_line("a", ticket(urgency=2**70))])], columns=PATHS
    )
    (row,) = landed_rows.rows
    assert (row["outcome"], row["error_code"]) == ("invalid_output", "column_type")
    assert "urgency" in row["error_message"]
    assert all(row[name] is None for name in PATHS)
    assert landed_rows.landing.outcomes == {"invalid_output": 1}


def test_the_response_lands_if_it_is_stored(folder: LocalFolder) -> None:
    (shard,) = seal_all(folder, [request("a"), request("b")])
    settled = settle(folder, shard, [chat_line("a", "fine")], [chat_line("b", status=500)])
    table = LandedRows(folder, manifest_of([shard]), [settled], store_response=True).table
    assert table["a"]["response"]["choices"][0]["message"]["content"] == "fine"
    assert table["b"]["response"]["error"]["message"] == "no"


def test_an_embedding_lands_as_a_vector(folder: LocalFolder) -> None:
    (shard,) = seal_all(folder, [request("a")], endpoint=EMBEDDINGS)
    body = {"data": [{"index": 0, "embedding": [0.5, 1.0]}], "model": "text-embedding-3-small"}
    line = msgspec.json.encode({"custom_id": "a", "response": {"status_code": 200, "body": body}, "error": None})
    (row,) = LandedRows(folder, manifest_of([shard], endpoint=EMBEDDINGS), [settle(folder, shard, [line])]).rows
    assert row["output"] == [0.5, 1.0]


# Rows that are not settled


def test_rows_without_a_settled_batch_are_pending(folder: LocalFolder) -> None:
    shards = seal_all(folder, [request(str(n)) for n in range(4)], limits=Limits(requests=2))
    records: list[Record] = [
        settle(folder, shards[0], [chat_line("0"), chat_line("1")]),
        Created("s0002", 1, "batch_x", NOW),
    ]
    landed_rows = LandedRows(folder, manifest_of(shards), records)
    assert landed_rows.outcomes == {"0": "succeeded", "1": "succeeded", "2": "pending", "3": "pending"}
    assert landed_rows.landing.outcomes == {"succeeded": 2, "pending": 2}
    pending = landed_rows.table["2"]
    assert (pending["attempt"], pending["batch_id"], pending["model"]) == (0, "batch_x", "gpt-5-mini")
    assert all(pending[name] is None for name in ("output", "input_tokens", "output_tokens", "cost_usd"))


def test_all_rows_of_an_unsent_job_are_pending(folder: LocalFolder) -> None:
    shards = seal_all(folder, [request("a")])
    (row,) = LandedRows(folder, manifest_of(shards), []).rows
    assert (row["outcome"], row["batch_id"], row["attempt"]) == ("pending", None, 0)


@pytest.mark.parametrize("failure", [Failure.CAPACITY, Failure.FILE, Failure.ACCOUNT])
def test_a_batch_that_the_provider_refused_is_not_an_attempt(folder: LocalFolder, failure: Failure) -> None:
    shards = seal_all(folder, [request("a")])
    (row,) = LandedRows(folder, manifest_of(shards), [settle(folder, shards[0], status="failed", failure=failure)]).rows
    assert (row["outcome"], row["attempt"], row["input_tokens"], row["cost_usd"]) == ("pending", 0, None, None)
    refused: list[Record] = [Intent("s0001", 1, "n", "f", NOW), Refused("s0001", 1, failure, "no", NOW)]
    (row,) = LandedRows(folder, manifest_of(shards), refused).rows
    assert (row["outcome"], row["attempt"], row["batch_id"]) == ("pending", 0, None)


def test_a_shard_refused_for_lack_of_capacity_lands_its_later_answers(folder: LocalFolder) -> None:
    (shard,) = seal_all(folder, [request("a")])
    records: list[Record] = [
        settle(folder, shard, status="failed", failure=Failure.CAPACITY),
        settle(folder, shard, [chat_line("a")], number=2),
    ]
    (row,) = LandedRows(folder, manifest_of([shard]), records).rows
    assert (row["outcome"], row["batch_id"], row["attempt"]) == ("succeeded", "batch_s0001_2", 1)


def test_a_job_without_rows_lands_nothing(folder: LocalFolder) -> None:
    landed_rows = LandedRows(folder, manifest_of([]), [])
    assert (landed_rows.rows, landed_rows.landing.outcomes, landed_rows.landing.totals.cost) == ([], {}, Decimal(0))


# Retried rows


def test_a_retried_row_lands_its_better_answer_under_its_own_key(folder: LocalFolder) -> None:
    shards = seal_all(folder, [request(n) for n in "abcd"], limits=Limits(requests=2), carry=[[1], [2], [3], [4]])
    retry, retry_shard = retry_round(folder, 1, 2, (shards[0], "b"), (shards[1], "c"))
    records: list[Record] = [
        settle(folder, shards[0], [chat_line("a")], [never_ran_line("b")]),
        settle(folder, shards[1], [chat_line("d")], [chat_line("c", status=500)]),
        retry,
        settle(folder, retry_shard, [chat_line("c", "second"), chat_line("b", "second")]),
    ]
    landed_rows = LandedRows(folder, manifest_of(shards, carry=[Column("gold", ColumnType.INTEGER)]), records)
    assert landed_rows.outcomes == dict.fromkeys("abcd", "succeeded")
    assert [landed_rows.table[n]["attempt"] for n in "abcd"] == [1, 2, 2, 1]
    assert [landed_rows.table[n]["gold"] for n in "abcd"] == [1, 2, 3, 4]
    assert landed_rows.table["b"]["batch_id"] == "batch_r01-0001_1"
    assert landed_rows.landing.outcomes == {"succeeded": 4}
    assert landed_rows.landing.totals.retried == 2


def test_an_older_better_answer_is_not_replaced_by_a_newer_worse_one(folder: LocalFolder) -> None:
    (shard,) = seal_all(folder, [request("a")])
    retry, retry_shard = retry_round(folder, 1, 2, (shard, "a"))
    records: list[Record] = [
        settle(folder, shard, errors=[chat_line("a", status=500)]),
        retry,
        settle(folder, retry_shard, errors=[never_ran_line("a")], status="expired"),
    ]
    landed_rows = LandedRows(folder, manifest_of([shard]), records)
    assert [row["outcome"] for row in landed_rows.rows] == ["expired", "failed"]
    assert (landed_rows.table["a"]["outcome"], landed_rows.table["a"]["attempt"]) == ("failed", 1)
    assert landed_rows.landing.outcomes == {"failed": 1}


def test_the_newest_of_equally_good_answers_lands(folder: LocalFolder) -> None:
    (shard,) = seal_all(folder, [request("a")])
    retry, retry_shard = retry_round(folder, 1, 2, (shard, "a"))
    records: list[Record] = [
        settle(folder, shard, errors=[chat_line("a", status=500)]),
        retry,
        settle(folder, retry_shard, errors=[chat_line("a", status=500)]),
    ]
    landed_rows = LandedRows(folder, manifest_of([shard]), records)
    assert [row["attempt"] for row in landed_rows.rows] == [2]


def test_rows_that_are_being_retried_have_their_answer_so_far(folder: LocalFolder) -> None:
    (shard,) = seal_all(folder, [request("a"), request("b")])
    retry, _ = retry_round(folder, 1, 2, (shard, "b"))
    records: list[Record] = [settle(folder, shard, [chat_line("a")], [never_ran_line("b")]), retry]
    landed_rows = LandedRows(folder, manifest_of([shard]), records)
    assert landed_rows.outcomes == {"a": "succeeded", "b": "expired"}
    assert landed_rows.landing.outcomes == {"succeeded": 1, "expired": 1}


def test_the_other_rows_of_a_batch_with_an_invalid_line_land_from_their_retry(folder: LocalFolder) -> None:
    (shard,) = seal_all(folder, [request("a"), request("b"), request("c")])
    retry, retry_shard = retry_round(folder, 1, 1, (shard, "a"), (shard, "c"))
    failed_batch = settle(
        folder, shard, status="failed", failure=Failure.LINES, message="m", line_errors={1: "invalid_url: no"}
    )
    landed_rows = LandedRows(
        folder,
        manifest_of([shard]),
        [failed_batch, retry, settle(folder, retry_shard, [chat_line("a"), chat_line("c")])],
    )
    assert landed_rows.outcomes == {"a": "succeeded", "b": "failed", "c": "succeeded"}
    assert landed_rows.table["b"]["error_code"] == "invalid_line"
    assert landed_rows.landing.outcomes == {"succeeded": 2, "failed": 1}


# Totals


def test_tokens_and_cost_include_answers_that_were_replaced(folder: LocalFolder) -> None:
    (shard,) = seal_all(folder, [request("a"), request("b")])
    retry, retry_shard = retry_round(folder, 1, 2, (shard, "a"))
    manifest = manifest_of([shard], output_schema=TICKET)
    records: list[Record] = [
        settle(folder, shard, [chat_line("a", "no json", usage=(1000, 10)), chat_line("b", ticket(), usage=(500, 5))]),
        retry,
        settle(folder, retry_shard, [chat_line("a", ticket(), usage=(1000, 20))]),
    ]
    landing = LandedRows(folder, manifest, records).landing
    assert landing.totals.tokens == {"input": 2500, "output": 35, "cached": 0, "reasoning": 0}
    assert landing.totals.cost == (2500 * Decimal("0.125") + 35 * 1) / 1_000_000
    assert landing.totals.standard_cost == 2 * landing.totals.cost
    assert landing.totals.retried_cost == (1000 * Decimal("0.125") + 20 * 1) / 1_000_000


def test_a_row_has_the_tokens_and_the_cost_of_all_its_attempts(folder: LocalFolder) -> None:
    (shard,) = seal_all(folder, [request("a"), request("b")])
    second, second_shard = retry_round(folder, 1, 2, (shard, "a"))
    third, third_shard = retry_round(folder, 2, 3, (second_shard, "a"))
    records: list[Record] = [
        settle(folder, shard, [chat_line("a", "no json", usage=(1000, 10)), chat_line("b", ticket(), usage=(500, 5))]),
        second,
        settle(folder, second_shard, [chat_line("a", "none either", usage=(1000, 20))]),
        third,
        settle(folder, third_shard, [chat_line("a", ticket(), usage=(1000, 40))]),
    ]
    landed_rows = LandedRows(folder, manifest_of([shard], output_schema=TICKET), records)
    row = landed_rows.table["a"]
    assert (row["input_tokens"], row["output_tokens"], row["attempt"]) == (3000, 70, 3)
    assert row["cost_usd"] == (3000 * Decimal("0.125") + 70) / 1_000_000
    assert row["cost_usd"] + landed_rows.table["b"]["cost_usd"] == landed_rows.landing.totals.cost


def test_a_newer_attempt_that_was_paid_for_counts_if_an_older_answer_lands(folder: LocalFolder) -> None:
    (shard,) = seal_all(folder, [request("a")])
    retry, retry_shard = retry_round(folder, 1, 2, (shard, "a"))
    records: list[Record] = [
        settle(folder, shard, [chat_line("a", "", usage=(1000, 10))]),
        retry,
        settle(folder, retry_shard, [chat_line("a", "no json", usage=(1000, 20))]),
    ]
    row = LandedRows(folder, manifest_of([shard], output_schema=TICKET), records).table["a"]
    assert (row["attempt"], row["outcome"], row["output_tokens"]) == (1, "incomplete", 30)


def test_an_attempt_without_a_usage_makes_the_cost_of_its_row_unknown(folder: LocalFolder) -> None:
    (shard,) = seal_all(folder, [request("a")])
    retry, retry_shard = retry_round(folder, 1, 2, (shard, "a"))
    without_usage = json.loads(chat_line("a", "no json"))
    del without_usage["response"]["body"]["usage"]
    records: list[Record] = [
        settle(folder, shard, [json.dumps(without_usage).encode()]),
        retry,
        settle(folder, retry_shard, [chat_line("a", ticket(), usage=(1000, 20))]),
    ]
    row = LandedRows(folder, manifest_of([shard], output_schema=TICKET), records).table["a"]
    assert (row["outcome"], row["cost_usd"], row["input_tokens"]) == ("succeeded", None, None)


def test_an_unknown_price_makes_the_cost_unknown_not_zero(folder: LocalFolder) -> None:
    shards = seal_all(folder, [request("a", model="gpt-5-mini"), request("b", model="my-model")])
    line = chat_line("b").replace(b"gpt-5-mini-2025-08-07", b"my-model")
    records: list[Record] = [settle(folder, shards[0], [chat_line("a")]), settle(folder, shards[1], [line])]
    landed_rows = LandedRows(folder, manifest_of(shards), records)
    assert (landed_rows.landing.totals.cost, landed_rows.landing.totals.standard_cost) == (None, None)
    assert landed_rows.landing.totals.retried_cost == 0
    assert landed_rows.table["a"]["cost_usd"] is not None
    assert landed_rows.table["b"]["cost_usd"] is None


def test_retries_at_an_unknown_price_have_an_unknown_cost(folder: LocalFolder) -> None:
    (shard,) = seal_all(folder, [request("a", model="my-model")])
    retry, retry_shard = retry_round(folder, 1, 2, (shard, "a"))
    line = chat_line("a").replace(b"gpt-5-mini-2025-08-07", b"my-model")
    records: list[Record] = [
        settle(folder, shard, errors=[never_ran_line("a")]),
        retry,
        settle(folder, retry_shard, [line]),
    ]
    landing = LandedRows(folder, manifest_of([shard]), records).landing
    assert (landing.totals.retried, landing.totals.retried_cost) == (1, None)


def test_a_price_that_the_author_states_is_used(folder: LocalFolder) -> None:
    (shard,) = seal_all(folder, [request("a", model="my-model")])
    manifest = manifest_of([shard], prices={"my-model": {"input": 1, "output": 5}})
    landed_rows = LandedRows(folder, manifest, [settle(folder, shard, [chat_line("a", usage=(1_000_000, 100_000))])])
    assert landed_rows.landing.totals.cost == landed_rows.table["a"]["cost_usd"] == Decimal("1.5")


def test_rows_that_never_ran_cost_nothing_even_if_no_price_is_known(folder: LocalFolder) -> None:
    (shard,) = seal_all(folder, [request("a", model="my-model")])
    landed_rows = LandedRows(folder, manifest_of([shard]), [settle(folder, shard, errors=[never_ran_line("a")])])
    assert landed_rows.landing.totals.cost == 0


@pytest.mark.parametrize("usage", [None, "many", [], {}, {"prompt_tokens": 2**70, "completion_tokens": -1}])
def test_an_answer_without_a_readable_usage_has_no_tokens_and_no_cost_and_its_neighbours_do(
    folder: LocalFolder, usage: Any
) -> None:
    (shard,) = seal_all(folder, [request(n) for n in "abc"])
    lines = [chat_line("a", usage=(1000, 10)), chat_line("b", usage=usage), chat_line("c", usage=(2000, 20))]
    landed_rows = LandedRows(folder, manifest_of([shard]), [settle(folder, shard, lines)])
    figures = {
        key: (row["outcome"], row["input_tokens"], row["output_tokens"], row["cost_usd"])
        for key, row in landed_rows.table.items()
    }
    assert figures == {
        "a": ("succeeded", 1000, 10, Decimal("0.000135")),
        "b": ("succeeded", None, None, None),
        "c": ("succeeded", 2000, 20, Decimal("0.00027")),
    }
    landing = landed_rows.landing
    assert (landing.totals.cost, landing.totals.standard_cost, landing.totals.without_usage) == (None, None, 1)
    assert (landing.totals.tokens["input"], landing.totals.tokens["output"]) == (3000, 30)


def test_a_row_that_failed_without_a_usage_costs_nothing(folder: LocalFolder) -> None:
    (shard,) = seal_all(folder, [request(n) for n in "abc"])
    error_body = {"status_code": 200, "body": {"error": {"message": "no", "code": "oops"}}}
    lines = [chat_line("a", status=500), msgspec.json.encode({"custom_id": "b", "response": error_body, "error": None})]
    landed_rows = LandedRows(folder, manifest_of([shard]), [settle(folder, shard, lines, errors=[never_ran_line("c")])])
    assert [(row["input_tokens"], row["cost_usd"]) for row in landed_rows.table.values()] == [(0, 0)] * 3
    assert landed_rows.landing.totals.cost == landed_rows.landing.totals.without_usage == 0


def test_reasons_are_counted_and_the_most_common_comes_first(folder: LocalFolder) -> None:
    (shard,) = seal_all(folder, [request(n) for n in "abcd"])
    records: list[Record] = [settle(folder, shard, [chat_line("a")], [never_ran_line("b"), never_ran_line("c")])]
    landing = LandedRows(folder, manifest_of([shard]), records).landing
    reasons = landing.totals.most_common_reasons(5)
    assert [(reason.outcome, reason.code, reason.rows) for reason in reasons] == [
        ("expired", "batch_expired", 2),
        ("missing", "no_result_line", 1),
    ]
    assert reasons[0].message == "batch_expired"
    assert landing.totals.most_common_reasons(1) == reasons[:1]


@pytest.mark.parametrize("content", ['{"label": "a secret"}', "a secret"])
def test_the_words_of_the_model_are_in_the_row_but_not_in_the_reasons(folder: LocalFolder, content: str) -> None:
    (shard,) = seal_all(folder, [request("a")])
    landed_rows = LandedRows(
        folder, manifest_of([shard], output_schema=TICKET), [settle(folder, shard, [chat_line("a", content)])]
    )
    assert landed_rows.table["a"]["output"] == content
    (reason,) = landed_rows.landing.totals.most_common_reasons(5)
    assert "secret" not in reason.message


# What always holds

KINDS: dict[str, tuple[str, Any]] = {
    "succeeded": ("output", lambda name: chat_line(name, "fine", usage=(10, 1))),
    "incomplete": ("output", lambda name: chat_line(name, "", usage=(10, 1))),
    "failed": ("error", lambda name: chat_line(name, status=500)),
    "expired": ("error", lambda name: never_ran_line(name)),
    "cancelled": ("error", lambda name: never_ran_line(name, "batch_cancelled")),
    "missing": ("", None),
}


class DrawnProvider:
    """A provider whose answers Hypothesis draws: the outcome of each row, and the order of the lines."""

    def __init__(self, data: st.DataObject, folder: Folder) -> None:
        self.data = data
        self.folder = folder
        #: by row: rank, attempt and outcome of the answer that must land
        self.best: dict[str, tuple[int, int, str]] = {}
        self.paid_answers = 0

    def answer(self, shard: Shard) -> Settled:
        """Draw the answers of a shard and settle its batch."""
        files: dict[str, list[bytes]] = {"output": [], "error": []}
        for row in self.data.draw(st.permutations(read_rows(self.folder, shard))):
            kind = self.data.draw(st.sampled_from(sorted(KINDS)))
            kind_of_file, line = KINDS[kind]
            if kind_of_file:
                files[kind_of_file].append(line(row.custom_id))
            self.paid_answers += kind_of_file == "output"
            mark = (Outcome(kind).rank, shard.attempt, kind)
            self.best[row.custom_id] = max(self.best.get(row.custom_id, (0, 0, "")), mark)
        return settle(self.folder, shard, files["output"], files["error"])


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_every_row_lands_its_best_answer_and_every_answer_is_counted_in_any_history(data: st.DataObject) -> None:
    names = [f"row-{number}" for number in range(data.draw(st.integers(1, 6)))]
    with temporary_folder() as folder:
        provider = DrawnProvider(data, folder)
        shards = seal_all(folder, [request(name) for name in names], limits=Limits(requests=3))
        sent_shards = data.draw(st.lists(st.sampled_from(shards), unique_by=lambda shard: shard.name))
        records: list[Record] = [Uploaded(shard.name, 1, "f", NOW) for shard in shards]
        records += [provider.answer(shard) for shard in sent_shards]
        sent_rows = [(shard, row.custom_id) for shard in sent_shards for row in read_rows(folder, shard)]
        for number in (1, 2):
            # a row with a usable answer is never sent again
            rows_to_retry = [row for row in sent_rows if provider.best[row[1]][2] != "succeeded"]
            retried_rows = data.draw(
                st.lists(st.sampled_from(rows_to_retry), unique=True) if rows_to_retry else st.just([])
            )
            if not retried_rows:
                break
            retry, retry_shard = retry_round(folder, number, number + 1, *retried_rows)
            records += [retry, provider.answer(retry_shard)]
            sent_rows = [(retry_shard, custom_id) for _, custom_id in retried_rows]
        landed_rows = LandedRows(folder, manifest_of(shards), data.draw(st.permutations(records)))
    best, paid_answers = provider.best, provider.paid_answers
    assert landed_rows.outcomes == {name: best[name][2] if name in best else "pending" for name in names}
    assert {n: row["attempt"] for n, row in landed_rows.table.items()} == {
        n: best[n][1] if n in best else 0 for n in names
    }
    assert landed_rows.landing.outcomes == dict(Counter(landed_rows.outcomes.values()))
    assert sum(landed_rows.landing.outcomes.values()) == len(names)
    assert (landed_rows.landing.totals.tokens["input"], landed_rows.landing.totals.tokens["output"]) == (
        10 * paid_answers,
        paid_answers,
    )
    assert landed_rows.landing.totals.cost == paid_answers * (10 * Decimal("0.125") + 1) / 1_000_000
    paid_rows = [row for row in landed_rows.table.values() if row["outcome"] != "pending"]
    assert sum(row["cost_usd"] for row in paid_rows) == landed_rows.landing.totals.cost
    assert sum(row["output_tokens"] for row in paid_rows) == paid_answers
