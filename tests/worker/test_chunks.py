"""Rows are rendered and sealed in chunks. Neither the files nor the errors depend on how large the chunks are."""

from __future__ import annotations

import math
import re
import tempfile
from collections.abc import Iterator
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_provider_batch.core.ledger.job import JobKey, Manifest
from airflow_provider_batch.core.provider.limits import Limits
from airflow_provider_batch.core.requests.spec import RequestSpec
from airflow_provider_batch.core.schema.native import NativeValue
from airflow_provider_batch.core.sealing import canary_rows
from airflow_provider_batch.exceptions import InputError
from airflow_provider_batch.sources.source import Source
from airflow_provider_batch.staging.local import LocalFolder
from airflow_provider_batch.worker import build as build_module
from airflow_provider_batch.worker import chunks
from airflow_provider_batch.worker.build import Plan, build
from airflow_provider_batch.worker.chunks import ChunkSize, chunks_of

CHAT, EMBEDDINGS = "/v1/chat/completions", "/v1/embeddings"
COLUMNS = ("id", "a", "b", "model")


class PlainRows(Source):
    """A source of rows that are in memory."""

    def __init__(self, rows: list[tuple[Any, ...]]) -> None:
        super().__init__()
        self._rows = rows
        self.columns = COLUMNS

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        return iter(self._rows)


def plan_of(spec: RequestSpec, limits: Limits, **options: Any) -> Plan:
    return Plan(
        key=JobKey("dag", "submit", "run"),
        spec=spec,
        carry=["a"],
        context={},
        openai_conn_id="openai_default",
        limits=limits,
        prices={"m1": "gpt-5-mini", "m2": "gpt-4.1-mini", "m3": {"input": 1, "output": 2}},
        max_cost_usd=None,
        completion_window="24h",
        metadata={},
        logical_date=None,
        **options,
    )


def seal_in_chunks(plan: Plan, rows: list[tuple[Any, ...]], max_rows: int) -> tuple[dict[str, bytes], Any]:
    """Return the files of a build, and its manifest and sample, or its error. Random names and times are left out."""
    with tempfile.TemporaryDirectory() as path, pytest.MonkeyPatch.context() as patch:
        patch.setattr(build_module, "CHUNK_ROWS", max_rows)
        folder = LocalFolder(Path(path))
        try:
            result = build(plan, PlainRows(rows), folder)
        except InputError as error:
            return {}, (type(error), str(error))
        files = {file.name: file.read_bytes() for file in Path(path).rglob("*") if file.is_file()}
    manifest = msgspec.structs.replace(result.manifest, job_uid="", sealed_at=datetime(2026, 1, 1, tzinfo=UTC))
    text = re.sub(rb"build-[0-9a-f]{16}", b"build", msgspec.json.encode(manifest))
    return files, (msgspec.json.decode(text, type=Manifest), result.sample)


def function(row: dict[str, Any]) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": f"{row['a']}{row['b']}"}]}


SPECS = [
    RequestSpec(endpoint=CHAT, custom_id="{{ row.id }}", model="m1", prompt="{{ row.a }} {{ row.b }}"),
    RequestSpec(endpoint=CHAT, custom_id="{{ row.id }}", model="{{ row.model }}", prompt="{{ row.a }}"),
    RequestSpec(
        endpoint=CHAT,
        custom_id="{{ row.id }}-x",
        model="m1",
        system="{{ row.b }}",
        prompt="Label: {{ row.a | upper }}",
        body={"metadata": {"b": "{{ row.b }}"}, "max_completion_tokens": 9},
    ),
    RequestSpec(
        endpoint=CHAT,
        custom_id="{{ row.id }}",
        model="{{ row.model }}",
        prompt=[
            {"type": "text", "text": "{{ row.a }}"},
            {"type": "text", "text": "{{ row.b }}"},
        ],
    ),
    RequestSpec(endpoint=CHAT, custom_id="{{ row.id }}", model="m2", request=function),
    RequestSpec(endpoint=EMBEDDINGS, custom_id="{{ row.id }}", model="m3", body={"input": "{{ row.a }}"}),
    RequestSpec(endpoint=EMBEDDINGS, custom_id="{{ row.id }}", model="m3", prompt=["{{ row.a }}", "{{ row.b }}"]),
]

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12) | st.sampled_from(
    ["x", "y", "Größe 1234567 " * 9, "two\u2028lines\u0085", '"quoted"\\', "ticket " * 40, "\0"]
)
ODD_VALUES = st.sampled_from(
    [
        *(None, "", " \t", "\ud800", math.nan, math.inf, 2**70, -1, True, 1.5, b"bytes", {"k": [1, None]}, [], {1: 2}),
        *(Decimal("1.50"), Decimal("NaN"), date(2026, 1, 2), datetime(2026, 1, 2, tzinfo=UTC), object(), {"x"}),
        *(["a", "b"], [1, 2, 3], NativeValue({"a": 1}, '{"a":  1}', is_json=True), "z" * 3_000),
    ]
)
MODELS = st.sampled_from(["m1", "m1", "m1", "m2", "m3"])


@st.composite
def many_rows(draw: st.DrawFn) -> list[tuple[Any, ...]]:
    """Draw rows of which a few are odd, or have the custom_id or the request of another."""
    values = draw(st.lists(st.tuples(TEXTS, st.sampled_from(["", "b", " "]), MODELS), max_size=25))
    rows: list[tuple[Any, ...]] = [(number, *row) for number, row in enumerate(values)]
    for _ in range(draw(st.sampled_from([0, 0, 1, 2]))):
        if rows:
            position, column = draw(st.integers(0, len(rows) - 1)), draw(st.integers(0, 3))
            row = list(rows[position])
            row[column] = draw(ODD_VALUES)
            rows[position] = tuple(row)
    return rows


LIMITS = st.builds(
    Limits,
    requests=st.sampled_from([1, 3, 50]),
    bytes=st.sampled_from([900, 2_000, 10_000]),
    inputs=st.sampled_from([2, 5, 100]),
    tokens=st.sampled_from([None, 100, 300]),
    output_bytes=st.sampled_from([20_000, 512_000_000]),
)
OPTIONS = st.fixed_dictionaries(
    {"deduplicate": st.booleans(), "canary": st.sampled_from([0, 1, 4]), "max_rows": st.sampled_from([None, 7])}
)


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(SPECS), LIMITS, OPTIONS, many_rows(), st.integers(2, 30))
def test_chunks_of_any_size_are_sealed_like_single_rows(
    spec: RequestSpec, limits: Limits, options: dict[str, Any], rows: list[tuple[Any, ...]], max_rows: int
) -> None:
    plan = plan_of(spec, limits, **options)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(canary_rows, "CANDIDATE_BYTES", 1_500)
        assert seal_in_chunks(plan, rows, max_rows) == seal_in_chunks(plan, rows, 1)


def test_the_rows_before_an_invalid_one_are_checked_first() -> None:
    """The first row that cannot be sealed is the one to report, whatever is wrong with it."""
    plan = plan_of(SPECS[0], Limits(bytes=1_000))
    rows: list[tuple[Any, ...]] = [(number, "x", "b", "m1") for number in range(6)]
    rows[2], rows[4] = (2, "z" * 3_000, "b", "m1"), (4, b"", "b", "m1")
    _, (_, message) = seal_in_chunks(plan, rows, 100)
    assert message.startswith("Row 3 (custom_id '2') makes a request of ")
    rows[2] = (2, "x", "b", "m1")
    _, (_, message) = seal_in_chunks(plan, rows, 100)
    assert message.startswith("Row 5 (custom_id '4'), prompt, column 'a': The value is binary")


def test_an_invalid_row_is_reported_before_an_error_of_the_source_after_it(tmp_path: Path) -> None:
    class BrokenRows(PlainRows):
        def __iter__(self) -> Iterator[tuple[Any, ...]]:
            yield from super().__iter__()
            raise InputError("row 4 cannot be read")

    rows = [(1, "x", "b", "m1"), (2, b"", "b", "m1"), (3, "x", "b", "m1")]
    with pytest.raises(InputError, match=r"^Row 2 "):
        build(plan_of(SPECS[0], Limits()), BrokenRows(rows), LocalFolder(tmp_path))
    rows[1] = (2, "y", "b", "m1")
    with pytest.raises(InputError, match=r"^row 4 cannot be read$"):
        build(plan_of(SPECS[0], Limits()), BrokenRows(rows), LocalFolder(tmp_path))


@given(st.lists(st.tuples(TEXTS | ODD_VALUES)), st.integers(1, 9), st.integers(1, 400))
def test_a_chunk_ends_at_its_number_of_rows_or_of_bytes(
    rows: list[tuple[Any, ...]], max_rows: int, max_bytes: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(chunks, "CHUNK_BYTES", max_bytes)
        parts = list(chunks_of(rows, ChunkSize(max_rows)))
    assert [row for part in parts for row in part] == rows
    assert all(1 <= len(part) <= max_rows for part in parts)


def test_large_values_end_a_chunk_wherever_they_are_in_a_row() -> None:
    large = "x" * 5_000_000
    for value in (large, large.encode(), {"k": [large]}, NativeValue(None, large)):
        assert [len(part) for part in chunks_of([(1, value)] * 5, ChunkSize(100))] == [2, 2, 1]


def test_chunks_grow_until_their_requests_have_the_bytes_of_a_chunk() -> None:
    size, row_counts = ChunkSize(2_000), []
    for chunk in chunks_of([(number,) for number in range(500)], size):
        row_counts.append(len(chunk))
        size.adjust(len(chunk), len(chunk) * chunks.CHUNK_BYTES // 100)
    assert row_counts == [16, 32, 64, 100, 100, 100, 88]


def test_the_function_is_called_once_for_each_row_before_an_invalid_one() -> None:
    texts: list[str] = []

    def refuse_repeated_texts(row: dict[str, Any]) -> dict[str, Any]:
        if row["a"] in texts:
            raise ValueError("repeated")
        texts.append(row["a"])
        return function(row)

    plan = plan_of(RequestSpec(custom_id="{{ row.id }}", model="m1", request=refuse_repeated_texts), Limits())
    rows: list[tuple[Any, ...]] = [(number, f"text {number}", "b", "m1") for number in range(9)]
    rows[7] = (7, "text 3", "b", "m1")
    _, (_, message) = seal_in_chunks(plan, rows, 100)
    assert message.startswith("Row 8 (custom_id '7'), request: ")
    assert len(texts) == 7
