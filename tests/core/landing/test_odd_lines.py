"""Whatever is in a result line, it costs that row and never its neighbours: from the line to the values of its row."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_batch.core.answers.outcome import MAX_MESSAGE, MAX_NAME, MAX_TOKENS, Outcome
from airflow_provider_batch.core.landing.columns import results_columns
from airflow_provider_batch.core.landing.landing import Landing
from airflow_provider_batch.core.ledger.fold import fold
from airflow_provider_batch.core.ledger.folder import Folder
from airflow_provider_batch.core.schema.columns import Column, ColumnType
from tests.core.answers.odd_lines import COLUMNS, ODD_VALUES, SCHEMA, good_line, odd_lines
from tests.core.building import (
    CHAT,
    EMBEDDINGS,
    MODERATIONS,
    NOW,
    RESPONSES,
    manifest_of,
    request,
    seal_all,
    settle,
    temporary_folder,
)


def land_lines(
    folder: Folder, ids: Sequence[str], lines: Sequence[bytes], *, endpoint: str = CHAT, structured: bool = True
) -> tuple[dict[str, dict[str, Any]], Landing, list[Column]]:
    """Return the rows of a landing of these lines by custom_id, the landing, and its columns."""
    (shard,) = seal_all(folder, [request(custom_id, text=custom_id) for custom_id in ids], endpoint=endpoint)
    manifest = manifest_of([shard], endpoint=endpoint, output_schema=SCHEMA if structured else None)
    arguments: dict[str, Any] = {"key": {}, "columns": COLUMNS if structured else {}, "store_response": True}
    columns = results_columns(manifest, **arguments)
    state = fold(manifest, [settle(folder, shard, lines)])
    landing = Landing(folder, state, run_id="run", landed_at=NOW, **arguments)
    names = [column.name for column in columns]
    rows = [dict(zip(names, row, strict=True)) for row in landing]
    assert len(rows) == len(ids)
    return {row["custom_id"]: row for row in rows}, landing, columns


def check_values(row: dict[str, Any], columns: Sequence[Column]) -> None:
    """Check that every value has the type of its column and can be written by any driver."""
    for column in columns:
        value = row[column.name]
        if value is None:
            continue
        match column.type:
            case ColumnType.TEXT:
                assert isinstance(value, str)
                value.encode()
            case ColumnType.INTEGER:
                assert type(value) is int
                assert -(2**63) <= value < 2**63
            case ColumnType.JSON:
                msgspec.json.encode(value).decode()
            case ColumnType.VECTOR:
                assert all(type(number) in (int, float) for number in value)
                assert all(abs(number) < 3.5e38 for number in value)
    assert row["outcome"] in set(Outcome)
    assert all(len(row[name] or "") <= MAX_NAME for name in ("model", "finish_reason", "error_code"))
    assert len(row["error_message"] or "") <= MAX_MESSAGE
    for name in ("input_tokens", "cached_tokens", "reasoning_tokens", "output_tokens"):
        assert row[name] is None or 0 <= row[name] <= MAX_TOKENS
    assert row["outcome"] == "succeeded" or row["error_code"], row


def check_good_row(row: dict[str, Any]) -> None:
    assert (row["outcome"], row["label"], row["count"], row["tree"]) == ("succeeded", "fine", 7, {"child": None})
    assert (row["input_tokens"], row["output_tokens"], row["cost_usd"]) == (1000, 10, Decimal("0.000135"))


def test_an_odd_value_in_any_place_costs_its_row_and_no_other() -> None:
    odd = odd_lines()
    ids, lines = [], []
    for number, (custom_id, line) in enumerate(odd.items()):
        ids += [f"good {number}", custom_id]
        lines += [good_line(f"good {number}"), line]
    with temporary_folder() as folder:
        rows, landing, columns = land_lines(folder, ids, lines)
    for custom_id, row in rows.items():
        check_values(row, columns)
        if custom_id not in odd:
            check_good_row(row)
        elif " in custom_id" not in custom_id:
            assert row["outcome"] != "missing", custom_id
    assert landing.outcomes == Counter(row["outcome"] for row in rows.values())
    assert all(isinstance(number, int) for number in landing.totals.tokens.values())


@pytest.mark.parametrize(
    ("place", "outcome"),
    [
        ("response.extra", "succeeded"),
        ("error", "succeeded"),
        ("response.body.usage", "succeeded"),
        ("response.body.usage.prompt_tokens", "succeeded"),
        ("response.body.choices.0.message.tool_calls", "succeeded"),
        ("response.body.choices.0.message.refusal", "refused"),
        ("response.body.choices.0.message.content", "invalid_output"),
    ],
)
@pytest.mark.parametrize("value", ["201 objects", "256 objects", "100,000 objects"])
def test_a_value_nested_too_deeply_counts_only_if_it_is_part_of_the_answer(
    place: str, outcome: str, value: str
) -> None:
    custom_id = f"{value} in {place}"
    with temporary_folder() as folder:
        rows, _, _ = land_lines(folder, [custom_id], [odd_lines()[custom_id]])
    assert rows[custom_id]["outcome"] == outcome, rows[custom_id]["error_message"]
    assert (rows[custom_id]["output_tokens"] is None) is (place == "response.body.usage")


@pytest.mark.parametrize("depth", [254, 255, 256, 257, 1_000, 100_000])
def test_an_answer_nested_too_deeply_for_the_schema_is_an_invalid_output(depth: int) -> None:
    content = "[" * depth + "]" * depth
    with temporary_folder() as folder:
        ids, lines = ["a", "b", "c"], [good_line("a"), good_line("b", content), good_line("c")]
        rows, _, _ = land_lines(folder, ids, lines)
    check_good_row(rows["a"])
    check_good_row(rows["c"])
    assert (rows["b"]["outcome"], rows["b"]["error_code"]) == ("invalid_output", "schema")
    assert rows["b"]["output"] == content
    assert rows["b"]["cost_usd"] == Decimal("0.000135")


BODIES: dict[str, Any] = {
    CHAT: {"choices": [{"message": {"content": "fine"}, "finish_reason": "stop"}]},
    RESPONSES: {
        "status": "completed",
        "output": [
            {"type": "message", "content": [{"type": "output_text", "text": "fine"}]},
            {"type": "function_call", "arguments": "{}"},
        ],
    },
    "/v1/completions": {"choices": [{"text": "fine", "finish_reason": "stop"}]},
    EMBEDDINGS: {"data": [{"index": 0, "embedding": [0.5, 1]}]},
    MODERATIONS: {"results": [{"flagged": False}]},
}


def positions(value: Any) -> list[tuple[Any, Any]]:
    """Return every pair of container and key in a JSON value."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [position for key, inner in items for position in [(value, key), *positions(inner)]]


@st.composite
def damaged_line(draw: st.DrawFn) -> tuple[str, bytes]:
    """Draw an endpoint and a line for it with up to three odd values."""
    endpoint = draw(st.sampled_from(list(BODIES)))
    usage = {"prompt_tokens": 5, "completion_tokens": 7, "prompt_tokens_details": {"cached_tokens": 0}}
    body = {"model": "m", "usage": usage, **json.loads(json.dumps(BODIES[endpoint]))}
    line = {"custom_id": "odd", "response": {"status_code": 200, "body": body}, "error": None}
    raws = []
    for number in range(draw(st.integers(1, 3))):
        holder, key = draw(st.sampled_from(positions(line)))
        holder[key] = f"@{number}@"
        raws.append(draw(st.sampled_from(list(ODD_VALUES.values()))))
    text = json.dumps(line)
    for number, raw in enumerate(raws):
        text = text.replace(f'"@{number}@"', raw)
    return endpoint, text.encode(errors="surrogateescape")


@given(damaged_line(), st.booleans())
def test_every_line_gives_its_row_values_that_can_be_stored(case: tuple[str, bytes], structured: bool) -> None:
    endpoint, line = case
    neighbour = {"custom_id": "good", "response": {"status_code": 200, "body": BODIES[endpoint]}, "error": None}
    with temporary_folder() as folder:
        rows, landing, columns = land_lines(
            folder,
            ["good", "odd"],
            [line, json.dumps(neighbour).encode()],
            endpoint=endpoint,
            structured=structured and endpoint in (CHAT, RESPONSES),
        )
    for row in rows.values():
        check_values(row, columns)
    assert rows["good"]["output"] is not None
    assert sum(landing.outcomes.values()) == 2
