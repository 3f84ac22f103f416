"""Answers in staging -> rows of the results table: the best one of each row, every row once, every answer counted."""

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
from airflow_provider_batch.core.landing.landing import FIXED_COLUMNS, Landing, results_columns
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
from airflow_provider_batch.core.schema.columns import Column, ColumnType
from airflow_provider_batch.core.schema.judge import strict_schema
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

LANDED = NOW + timedelta(hours=3)
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
TYPED = {
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
PATHS = {name: path for name, (path, _) in TYPED.items()}


class Landed:
    """A landing as a writer sees it that lets the last row of a key win."""

    def __init__(self, folder: Folder, manifest: Manifest, records: Iterable[Record], **more: Any) -> None:
        key, columns = more.get("key", {}), more.get("columns", {})
        store_response = more.get("store_response", False)
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
            landed_at=LANDED,
        )
        self.given = [dict(zip(self.names, row, strict=True)) for row in self.landing]
        self.table = {row["custom_id"]: row for row in self.given}

    @property
    def outcomes(self) -> dict[str, str]:
        return {custom_id: row["outcome"] for custom_id, row in self.table.items()}


def retry_round(
    folder: LocalFolder, number: int, attempt: int, *rows: tuple[Shard, str], n: int = 1
) -> tuple[RetryRound, Shard]:
    """These rows of these shards, sealed to be asked again."""
    sealer = Sealer(folder, f"g001/retry-{number}", CHAT, Limits(), names=f"r{number:02d}-{{:04d}}")
    for shard, custom_id in rows:
        index = read_rows(folder, shard)
        (line,) = (line for line, row in enumerate(index) if row.custom_id == custom_id)
        row = index[line]
        origin = row if row.origin else msgspec.structs.replace(row, origin=shard.name, line=line)
        sealer.add_line(shard.model, b"{}\n", origin, inputs=1, tokens=1, attempt=attempt)
    (sealed,) = sealer.finish()
    return RetryRound(number, sorted({(shard.name, n) for shard, _ in rows}), [sealed], NOW), sealed


# The columns


def test_key_columns_come_first_then_the_tables_own_then_the_carried_then_the_callers() -> None:
    manifest = manifest_of(
        [], output_schema=TICKET, carry=[Column("gold", ColumnType.TEXT), Column("n", ColumnType.NUMERIC)]
    )
    found = results_columns(
        manifest,
        key={"run": "r", "day": date(2026, 11, 20)},
        columns={"city": "place.city", "label": "label"},
        store_response=True,
    )
    assert found == [
        Column("run", ColumnType.TEXT, key=True),
        Column("day", ColumnType.DATE, key=True),
        Column("custom_id", ColumnType.TEXT, key=True),
        *FIXED_COLUMNS,
        Column("gold", ColumnType.TEXT),
        Column("n", ColumnType.NUMERIC),
        Column("city", ColumnType.TEXT),
        Column("label", ColumnType.TEXT),
        Column("response", ColumnType.JSON),
    ]


def test_the_tables_own_columns_are_those_of_the_documentation() -> None:
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


def test_without_key_a_row_is_named_by_its_custom_id_alone() -> None:
    keys = [column.name for column in results_columns(manifest_of([]), key={}, columns={}) if column.key]
    assert keys == ["custom_id"]


def test_with_history_the_job_joins_the_key() -> None:
    found = results_columns(manifest_of([]), key={"run": "r"}, columns={}, history=True)
    assert [column.name for column in found if column.key] == ["run", "custom_id", "job_uid"]


@pytest.mark.parametrize("name", TYPED)
def test_the_callers_columns_have_the_types_of_the_schema(name: str) -> None:
    path, type_ = TYPED[name]
    found = results_columns(manifest_of([], output_schema=TICKET), key={}, columns={name: path})
    assert found[-1] == Column(name, type_)


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
def test_the_output_has_the_type_of_what_the_endpoint_gives(endpoint: str, several: bool, type_: ColumnType) -> None:
    manifest = manifest_of([], endpoint=endpoint, several_inputs=several)
    found = {column.name: column.type for column in results_columns(manifest, key={}, columns={})}
    assert found["output"] is type_


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
def test_a_column_that_would_be_there_twice_is_an_error_that_names_it(
    key: dict[str, str], carry: list[str], columns: dict[str, str], store_response: bool, name: str
) -> None:
    manifest = manifest_of([], output_schema=TICKET, carry=[Column(one, ColumnType.TEXT) for one in carry])
    with pytest.raises(SchemaError, match=rf"column '{name}' twice"):
        results_columns(manifest, key=key, columns=columns, store_response=store_response)


def test_a_carried_column_may_be_called_response_where_none_is_stored() -> None:
    manifest = manifest_of([], carry=[Column("response", ColumnType.TEXT)])
    assert results_columns(manifest, key={}, columns={})[-1].name == "response"


def test_columns_without_a_schema_are_an_error() -> None:
    with pytest.raises(SchemaError, match=r"label.*has no output_schema"):
        results_columns(manifest_of([]), key={}, columns={"label": "label"})


def test_a_path_that_the_schema_does_not_have_is_an_error() -> None:
    with pytest.raises(SchemaError, match=r"place\.town"):
        results_columns(manifest_of([], output_schema=TICKET), key={}, columns={"town": "place.town"})


@pytest.mark.parametrize("value", [None, object()])
def test_a_key_value_that_names_no_row_is_an_error(value: Any) -> None:
    with pytest.raises(SchemaError, match="key= gives column 'run'"):
        results_columns(manifest_of([]), key={"run": value}, columns={})


# A row


def test_a_row_holds_the_answer_and_everything_about_it(folder: LocalFolder) -> None:
    shards = seal_all(folder, [request("a")], carry=[["bug"]])
    manifest = manifest_of(shards, carry=[Column("gold", ColumnType.TEXT)], logical_date=NOW)
    (row,) = Landed(folder, manifest, [settle(folder, shards[0], [chat_line("a", "fine")])], key={"run": "r1"}).given
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
        "landed_at": LANDED,
        "gold": "bug",
    }


def test_a_failed_row_says_why_and_names_the_model_that_was_asked(folder: LocalFolder) -> None:
    (shard,) = seal_all(folder, [request("a", model="gpt-5")])
    settled = settle(folder, shard, errors=[chat_line("a", status=500)])
    (row,) = Landed(folder, manifest_of([shard]), [settled]).given
    assert (row["outcome"], row["output"], row["error_code"]) == ("failed", None, "server_error")
    assert (row["error_message"], row["model"]) == ("no", "gpt-5")
    assert (row["input_tokens"], row["output_tokens"], row["cost_usd"]) == (0, 0, 0)


def test_carried_values_land_with_their_types(folder: LocalFolder) -> None:
    carried = CarriedColumns(["price", "day", "at", "raw", "tags"], range(5))
    values = (Decimal("1.10"), date(2026, 1, 2), datetime(2026, 1, 2, 3, 4), b"\x00", {"a": [1]})
    shards = seal_all(folder, [request("a"), request("b")], carry=[carried.take(v, 1) for v in (values, (None,) * 5)])
    manifest = manifest_of(shards, carry=carried.columns())
    table = Landed(folder, manifest, [settle(folder, shards[0], [chat_line("a"), chat_line("b")])]).table
    assert [table["a"][name] for name in ("price", "day", "at", "raw", "tags")] == [
        Decimal("1.10"),
        date(2026, 1, 2),
        datetime(2026, 1, 2, 3, 4, tzinfo=UTC),
        b"\x00",
        {"a": [1]},
    ]
    assert [table["b"][name] for name in ("price", "day", "at", "raw", "tags")] == [None] * 5


def ticket(**changes: Any) -> str:
    whole = {
        "label": "bug",
        "urgency": 3,
        "score": 0.5,
        "spam": False,
        "due": "2026-12-01",
        "seen": "2026-11-20T10:00:00+02:00",
        "tags": ["x", "y"],
        "place": {"city": "Graz"},
    }
    return json.dumps({**whole, **changes})


def test_the_callers_columns_get_python_values_of_their_types(folder: LocalFolder) -> None:
    (shard,) = seal_all(folder, [request("a"), request("b")])
    manifest = manifest_of([shard], output_schema=TICKET)
    settled = settle(folder, shard, [chat_line("a", ticket()), chat_line("b", ticket(due=None, tags=[]))])
    table = Landed(folder, manifest, [settled], columns=PATHS).table
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


def test_an_answer_that_is_no_success_leaves_the_callers_columns_empty(folder: LocalFolder) -> None:
    (shard,) = seal_all(folder, [request("a")])
    manifest = manifest_of([shard], output_schema=TICKET)
    (row,) = Landed(folder, manifest, [settle(folder, shard, [chat_line("a", "no json")])], columns=PATHS).given
    assert (row["outcome"], row["output"]) == ("invalid_output", "no json")
    assert all(row[name] is None for name in PATHS)


def test_an_answer_that_does_not_fit_its_column_is_invalid_output(folder: LocalFolder) -> None:
    """JSON Schema takes any integer; a column of 64 bits does not."""
    (shard,) = seal_all(folder, [request("a")])
    manifest = manifest_of([shard], output_schema=TICKET)
    landed = Landed(folder, manifest, [settle(folder, shard, [chat_line("a", ticket(urgency=2**70))])], columns=PATHS)
    (row,) = landed.given
    assert (row["outcome"], row["error_code"]) == ("invalid_output", "column_type")
    assert "urgency" in row["error_message"]
    assert all(row[name] is None for name in PATHS)
    assert landed.landing.outcomes == {"invalid_output": 1}


def test_the_whole_answer_lands_where_that_is_asked_for(folder: LocalFolder) -> None:
    (shard,) = seal_all(folder, [request("a"), request("b")])
    settled = settle(folder, shard, [chat_line("a", "fine")], [chat_line("b", status=500)])
    table = Landed(folder, manifest_of([shard]), [settled], store_response=True).table
    assert table["a"]["response"]["choices"][0]["message"]["content"] == "fine"
    assert table["b"]["response"]["error"]["message"] == "no"


def test_an_embedding_lands_as_a_vector(folder: LocalFolder) -> None:
    (shard,) = seal_all(folder, [request("a")], endpoint=EMBEDDINGS)
    body = {"data": [{"index": 0, "embedding": [0.5, 1.0]}], "model": "text-embedding-3-small"}
    line = msgspec.json.encode({"custom_id": "a", "response": {"status_code": 200, "body": body}, "error": None})
    (row,) = Landed(folder, manifest_of([shard], endpoint=EMBEDDINGS), [settle(folder, shard, [line])]).given
    assert row["output"] == [0.5, 1.0]


# Rows that are not settled


def test_rows_without_a_settled_batch_are_pending(folder: LocalFolder) -> None:
    shards = seal_all(folder, [request(str(n)) for n in range(4)], limits=Limits(requests=2))
    records: list[Record] = [
        settle(folder, shards[0], [chat_line("0"), chat_line("1")]),
        Created("s0002", 1, "batch_x", NOW),
    ]
    landed = Landed(folder, manifest_of(shards), records)
    assert landed.outcomes == {"0": "succeeded", "1": "succeeded", "2": "pending", "3": "pending"}
    assert landed.landing.outcomes == {"succeeded": 2, "pending": 2}
    pending = landed.table["2"]
    assert (pending["attempt"], pending["batch_id"], pending["model"]) == (0, "batch_x", "gpt-5-mini")
    assert all(pending[name] is None for name in ("output", "input_tokens", "output_tokens", "cost_usd"))


def test_a_job_of_which_nothing_was_sent_is_all_pending(folder: LocalFolder) -> None:
    shards = seal_all(folder, [request("a")])
    (row,) = Landed(folder, manifest_of(shards), []).given
    assert (row["outcome"], row["batch_id"], row["attempt"]) == ("pending", None, 0)


@pytest.mark.parametrize("failure", [Failure.CAPACITY, Failure.FILE, Failure.ACCOUNT])
def test_a_batch_that_the_provider_had_no_room_for_is_no_attempt(folder: LocalFolder, failure: Failure) -> None:
    shards = seal_all(folder, [request("a")])
    (row,) = Landed(folder, manifest_of(shards), [settle(folder, shards[0], status="failed", failure=failure)]).given
    assert (row["outcome"], row["attempt"], row["input_tokens"], row["cost_usd"]) == ("pending", 0, None, None)
    refused: list[Record] = [Intent("s0001", 1, "n", "f", NOW), Refused("s0001", 1, failure, "no", NOW)]
    (row,) = Landed(folder, manifest_of(shards), refused).given
    assert (row["outcome"], row["attempt"], row["batch_id"]) == ("pending", 0, None)


def test_a_shard_with_no_room_at_first_lands_its_later_answers(folder: LocalFolder) -> None:
    (shard,) = seal_all(folder, [request("a")])
    records: list[Record] = [
        settle(folder, shard, status="failed", failure=Failure.CAPACITY),
        settle(folder, shard, [chat_line("a")], number=2),
    ]
    (row,) = Landed(folder, manifest_of([shard]), records).given
    assert (row["outcome"], row["batch_id"], row["attempt"]) == ("succeeded", "batch_s0001_2", 1)


def test_a_job_of_no_rows_lands_nothing(folder: LocalFolder) -> None:
    landed = Landed(folder, manifest_of([]), [])
    assert (landed.given, landed.landing.outcomes, landed.landing.cost) == ([], {}, Decimal(0))


# Rows that were asked again


def test_a_row_asked_again_lands_its_better_answer_under_its_own_key(folder: LocalFolder) -> None:
    shards = seal_all(folder, [request(n) for n in "abcd"], limits=Limits(requests=2), carry=[[1], [2], [3], [4]])
    again, w1 = retry_round(folder, 1, 2, (shards[0], "b"), (shards[1], "c"))
    records: list[Record] = [
        settle(folder, shards[0], [chat_line("a")], [never_ran_line("b")]),
        settle(folder, shards[1], [chat_line("d")], [chat_line("c", status=500)]),
        again,
        settle(folder, w1, [chat_line("c", "second"), chat_line("b", "second")]),
    ]
    landed = Landed(folder, manifest_of(shards, carry=[Column("gold", ColumnType.INTEGER)]), records)
    assert landed.outcomes == dict.fromkeys("abcd", "succeeded")
    assert [landed.table[n]["attempt"] for n in "abcd"] == [1, 2, 2, 1]
    assert [landed.table[n]["gold"] for n in "abcd"] == [1, 2, 3, 4]
    assert landed.table["b"]["batch_id"] == "batch_r01-0001_1"
    assert landed.landing.outcomes == {"succeeded": 4}
    assert landed.landing.retried == 2


def test_an_older_better_answer_is_not_replaced_by_a_newer_worse_one(folder: LocalFolder) -> None:
    (shard,) = seal_all(folder, [request("a")])
    again, w1 = retry_round(folder, 1, 2, (shard, "a"))
    records: list[Record] = [
        settle(folder, shard, errors=[chat_line("a", status=500)]),
        again,
        settle(folder, w1, errors=[never_ran_line("a")], status="expired"),
    ]
    landed = Landed(folder, manifest_of([shard]), records)
    assert [row["outcome"] for row in landed.given] == ["expired", "failed"]
    assert (landed.table["a"]["outcome"], landed.table["a"]["attempt"]) == ("failed", 1)
    assert landed.landing.outcomes == {"failed": 1}


def test_of_equally_good_answers_the_newest_lands(folder: LocalFolder) -> None:
    (shard,) = seal_all(folder, [request("a")])
    again, w1 = retry_round(folder, 1, 2, (shard, "a"))
    records: list[Record] = [
        settle(folder, shard, errors=[chat_line("a", status=500)]),
        again,
        settle(folder, w1, errors=[chat_line("a", status=500)]),
    ]
    landed = Landed(folder, manifest_of([shard]), records)
    assert [row["attempt"] for row in landed.given] == [2]


def test_while_rows_are_asked_again_their_answer_so_far_stands(folder: LocalFolder) -> None:
    (shard,) = seal_all(folder, [request("a"), request("b")])
    again, _ = retry_round(folder, 1, 2, (shard, "b"))
    records: list[Record] = [settle(folder, shard, [chat_line("a")], [never_ran_line("b")]), again]
    landed = Landed(folder, manifest_of([shard]), records)
    assert landed.outcomes == {"a": "succeeded", "b": "expired"}
    assert landed.landing.outcomes == {"succeeded": 1, "expired": 1}


def test_the_rest_of_a_batch_with_a_bad_line_lands_from_where_it_was_asked(folder: LocalFolder) -> None:
    (shard,) = seal_all(folder, [request("a"), request("b"), request("c")])
    again, w1 = retry_round(folder, 1, 1, (shard, "a"), (shard, "c"))
    bad = settle(folder, shard, status="failed", failure=Failure.LINES, message="m", line_errors={1: "invalid_url: no"})
    landed = Landed(folder, manifest_of([shard]), [bad, again, settle(folder, w1, [chat_line("a"), chat_line("c")])])
    assert landed.outcomes == {"a": "succeeded", "b": "failed", "c": "succeeded"}
    assert landed.table["b"]["error_code"] == "invalid_line"
    assert landed.landing.outcomes == {"succeeded": 2, "failed": 1}


# The account


def test_tokens_and_cost_are_counted_for_every_answer_also_for_those_replaced(folder: LocalFolder) -> None:
    (shard,) = seal_all(folder, [request("a"), request("b")])
    again, w1 = retry_round(folder, 1, 2, (shard, "a"))
    manifest = manifest_of([shard], output_schema=TICKET)
    records: list[Record] = [
        settle(folder, shard, [chat_line("a", "no json", usage=(1000, 10)), chat_line("b", ticket(), usage=(500, 5))]),
        again,
        settle(folder, w1, [chat_line("a", ticket(), usage=(1000, 20))]),
    ]
    landing = Landed(folder, manifest, records).landing
    assert landing.tokens == {"input": 2500, "output": 35, "cached": 0, "reasoning": 0}
    assert landing.cost == (2500 * Decimal("0.125") + 35 * 1) / 1_000_000
    assert landing.standard_cost == 2 * landing.cost
    assert landing.retried_cost == (1000 * Decimal("0.125") + 20 * 1) / 1_000_000


def test_a_price_that_is_not_known_makes_the_cost_unknown_and_not_zero(folder: LocalFolder) -> None:
    shards = seal_all(folder, [request("a", model="gpt-5-mini"), request("b", model="my-model")])
    line = chat_line("b").replace(b"gpt-5-mini-2025-08-07", b"my-model")
    records: list[Record] = [settle(folder, shards[0], [chat_line("a")]), settle(folder, shards[1], [line])]
    landed = Landed(folder, manifest_of(shards), records)
    assert (landed.landing.cost, landed.landing.standard_cost) == (None, None)
    assert landed.landing.retried_cost == 0
    assert landed.table["a"]["cost_usd"] is not None
    assert landed.table["b"]["cost_usd"] is None


def test_what_was_asked_again_at_an_unknown_price_costs_an_unknown_part(folder: LocalFolder) -> None:
    (shard,) = seal_all(folder, [request("a", model="my-model")])
    again, w1 = retry_round(folder, 1, 2, (shard, "a"))
    line = chat_line("a").replace(b"gpt-5-mini-2025-08-07", b"my-model")
    records: list[Record] = [settle(folder, shard, errors=[never_ran_line("a")]), again, settle(folder, w1, [line])]
    landing = Landed(folder, manifest_of([shard]), records).landing
    assert (landing.retried, landing.retried_cost) == (1, None)


def test_the_authors_own_price_counts(folder: LocalFolder) -> None:
    (shard,) = seal_all(folder, [request("a", model="my-model")])
    manifest = manifest_of([shard], prices={"my-model": {"input": 1, "output": 5}})
    landed = Landed(folder, manifest, [settle(folder, shard, [chat_line("a", usage=(1_000_000, 100_000))])])
    assert landed.landing.cost == landed.table["a"]["cost_usd"] == Decimal("1.5")


def test_rows_that_never_ran_cost_nothing_even_if_no_price_is_known(folder: LocalFolder) -> None:
    (shard,) = seal_all(folder, [request("a", model="my-model")])
    landed = Landed(folder, manifest_of([shard]), [settle(folder, shard, errors=[never_ran_line("a")])])
    assert landed.landing.cost == 0


def test_the_reasons_are_counted_the_commonest_first(folder: LocalFolder) -> None:
    (shard,) = seal_all(folder, [request(n) for n in "abcd"])
    records: list[Record] = [settle(folder, shard, [chat_line("a")], [never_ran_line("b"), never_ran_line("c")])]
    landing = Landed(folder, manifest_of([shard]), records).landing
    found = landing.most_common_reasons(5)
    assert [(one.outcome, one.code, one.rows) for one in found] == [
        ("expired", "batch_expired", 2),
        ("missing", "no_result_line", 1),
    ]
    assert found[0].message == "batch_expired"
    assert landing.most_common_reasons(1) == found[:1]


@pytest.mark.parametrize("content", ['{"label": "a secret"}', "a secret"])
def test_what_the_model_said_is_in_the_row_and_not_among_the_reasons(folder: LocalFolder, content: str) -> None:
    (shard,) = seal_all(folder, [request("a")])
    landed = Landed(
        folder, manifest_of([shard], output_schema=TICKET), [settle(folder, shard, [chat_line("a", content)])]
    )
    assert landed.table["a"]["output"] == content
    (reason,) = landed.landing.most_common_reasons(5)
    assert "secret" not in reason.message


# The law

KINDS: dict[str, tuple[str, Any]] = {
    "succeeded": ("output", lambda name: chat_line(name, "fine", usage=(10, 1))),
    "incomplete": ("output", lambda name: chat_line(name, "", usage=(10, 1))),
    "failed": ("error", lambda name: chat_line(name, status=500)),
    "expired": ("error", lambda name: never_ran_line(name)),
    "cancelled": ("error", lambda name: never_ran_line(name, "batch_cancelled")),
    "missing": ("", None),
}


class DrawnProvider:
    """Answers batches as hypothesis draws it: the outcome of each row, and the order of the lines."""

    def __init__(self, data: st.DataObject, folder: Folder) -> None:
        self.data = data
        self.folder = folder
        #: of each row it answered, the answer that must land: its rank, attempt and outcome
        self.best: dict[str, tuple[int, int, str]] = {}
        self.paid = 0

    def answer(self, shard: Shard) -> Settled:
        """End the shard's batch."""
        files: dict[str, list[bytes]] = {"output": [], "error": []}
        for row in self.data.draw(st.permutations(read_rows(self.folder, shard))):
            kind = self.data.draw(st.sampled_from(sorted(KINDS)))
            where, line = KINDS[kind]
            if where:
                files[where].append(line(row.custom_id))
            self.paid += where == "output"
            mark = (Outcome(kind).rank, shard.attempt, kind)
            self.best[row.custom_id] = max(self.best.get(row.custom_id, (0, 0, "")), mark)
        return settle(self.folder, shard, files["output"], files["error"])


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_whatever_happened_every_row_lands_its_best_answer_and_every_answer_is_paid(data: st.DataObject) -> None:
    names = [f"row-{number}" for number in range(data.draw(st.integers(1, 6)))]
    with temporary_folder() as folder:
        provider = DrawnProvider(data, folder)
        shards = seal_all(folder, [request(name) for name in names], limits=Limits(requests=3))
        sent = data.draw(st.lists(st.sampled_from(shards), unique_by=lambda shard: shard.name))
        records: list[Record] = [Uploaded(shard.name, 1, "f", NOW) for shard in shards]
        records += [provider.answer(shard) for shard in sent]
        asked = [(shard, row.custom_id) for shard in sent for row in read_rows(folder, shard)]
        for number in (1, 2):
            chosen = data.draw(st.lists(st.sampled_from(asked), unique=True) if asked else st.just([]))
            if not chosen:
                break
            again, sealed = retry_round(folder, number, number + 1, *chosen)
            records += [again, provider.answer(sealed)]
            asked = [(sealed, custom_id) for _, custom_id in chosen]
        landed = Landed(folder, manifest_of(shards), data.draw(st.permutations(records)))
    best, paid = provider.best, provider.paid
    assert landed.outcomes == {name: best[name][2] if name in best else "pending" for name in names}
    assert {n: row["attempt"] for n, row in landed.table.items()} == {n: best[n][1] if n in best else 0 for n in names}
    assert landed.landing.outcomes == dict(Counter(landed.outcomes.values()))
    assert sum(landed.landing.outcomes.values()) == len(names)
    assert (landed.landing.tokens["input"], landed.landing.tokens["output"]) == (10 * paid, paid)
    assert landed.landing.cost == paid * (10 * Decimal("0.125") + 1) / 1_000_000
