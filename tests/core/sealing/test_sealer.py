"""The sealer: files within every limit, every request in exactly one of them, and unique custom_ids."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import threading
from collections import defaultdict
from itertools import pairwise
from pathlib import Path
from textwrap import dedent
from typing import NamedTuple

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_provider_batch.core.answers.result_files import read_rows
from airflow_provider_batch.core.ledger.folder import Folder
from airflow_provider_batch.core.ledger.job import RowIndex, Shard
from airflow_provider_batch.core.provider.limits import Limits, Size
from airflow_provider_batch.core.requests.answer_size import expected_bytes
from airflow_provider_batch.core.requests.request import Request
from airflow_provider_batch.core.requests.value import canonical_json
from airflow_provider_batch.core.sealing.errors import MAX_MODELS
from airflow_provider_batch.core.sealing.open_shard import BLOCK
from airflow_provider_batch.core.sealing.sealer import Sealer
from airflow_provider_batch.exceptions import CustomIdError, InputError, RowTooLargeError
from airflow_provider_batch.staging.local import LocalFolder
from tests.core.building import (
    CHAT,
    EMBEDDINGS,
    add_row,
    request,
    request_line,
    request_sha256,
    seal_all,
    temporary_folder,
)

#: every character at which `str.splitlines` splits
LINE_ENDS = "\n\r\v\f\x1c\x1d\x1e\x85\u2028\u2029"


def contents(folder: LocalFolder, shard: Shard) -> bytes:
    with folder.reader(shard.file) as file:
        return file.read()


def size_of(custom_id: str) -> int:
    rendered_request = request(custom_id)
    return len(request_line(rendered_request.custom_id, CHAT, rendered_request.body))


# The contents of a sealed file


def test_a_sealed_file_has_the_lines_that_the_provider_expects(folder: LocalFolder) -> None:
    (shard,) = seal_all(folder, [request("a", text="é\n\u2028")])
    assert json.loads(contents(folder, shard)) == {
        "custom_id": "a",
        "method": "POST",
        "url": CHAT,
        "body": {"model": "gpt-5-mini", "text": "é\n\u2028"},
    }
    assert contents(folder, shard).endswith(b"}\n")


@given(st.lists(st.text(st.one_of(st.characters(codec="utf-8"), st.sampled_from(LINE_ENDS))), min_size=1, max_size=5))
def test_a_server_that_splits_at_unicode_line_ends_gets_one_line_per_request(texts: list[str]) -> None:
    requests = [
        msgspec.structs.replace(request(f"{number}{text}"), body=canonical_json({"text": text}))
        for number, text in enumerate(texts)
    ]
    with temporary_folder() as folder:
        (shard,) = seal_all(folder, requests)
        lines = contents(folder, shard).decode().splitlines()
        rows = read_rows(folder, shard)
    assert [json.loads(line)["custom_id"] for line in lines] == [row.custom_id for row in requests]
    assert [json.loads(line)["body"] for line in lines] == [{"text": text} for text in texts]
    assert [row.sha256 for row in rows] == [request_sha256(CHAT, row.body) for row in requests]


@pytest.mark.parametrize("character", ["\x85", "\u2028", "\u2029"])
def test_the_limit_of_bytes_counts_a_line_separator_as_its_escape(folder: LocalFolder, character: str) -> None:
    plain, escaped = (
        msgspec.structs.replace(request("a"), body=canonical_json({"text": text})) for text in ("", character)
    )
    size = len(request_line("a", CHAT, plain.body)) + len("\\u2028")
    with pytest.raises(RowTooLargeError):
        seal_all(folder, [escaped], limits=Limits(bytes=size - 1))
    assert seal_all(folder, [escaped], limits=Limits(bytes=size))[0].bytes == size


def test_a_shard_has_its_size_checksum_and_tokens(folder: LocalFolder) -> None:
    (shard,) = seal_all(folder, [request("a"), request("b")])
    data = contents(folder, shard)
    assert (shard.name, shard.model, shard.attempt) == ("s0001", "gpt-5-mini", 1)
    assert (shard.requests, shard.bytes, shard.tokens) == (2, len(data), 14)
    assert shard.sha256 == hashlib.sha256(data).hexdigest()


def test_the_index_has_what_landing_needs(folder: LocalFolder) -> None:
    (shard,) = seal_all(folder, [request("a", inputs=3)], endpoint=EMBEDDINGS, carry=[["bug", None]])
    assert read_rows(folder, shard) == [
        RowIndex("a", request_sha256(EMBEDDINGS, request("a").body), ["bug", None], 1, 3, 7)
    ]


def test_rows_are_sealed_in_the_order_of_the_query(folder: LocalFolder) -> None:
    shards = seal_all(folder, [request(str(n)) for n in range(7)], limits=Limits(requests=3))
    assert [shard.name for shard in shards] == ["s0001", "s0002", "s0003"]
    assert [row.custom_id for shard in shards for row in read_rows(folder, shard)] == [str(n) for n in range(7)]


def test_a_job_without_requests_has_no_shards(folder: LocalFolder) -> None:
    assert seal_all(folder, []) == []


# Limits at their edges


@pytest.mark.parametrize(("requests", "sizes"), [(4, [4]), (5, [5]), (6, [5, 1]), (10, [5, 5]), (11, [5, 5, 1])])
def test_a_file_has_at_most_the_allowed_number_of_requests(
    folder: LocalFolder, requests: int, sizes: list[int]
) -> None:
    shards = seal_all(folder, [request(str(n)) for n in range(requests)], limits=Limits(requests=5))
    assert [shard.requests for shard in shards] == sizes


@pytest.mark.parametrize(("spare", "sizes"), [(-1, [1, 1]), (0, [2]), (1, [2])])
def test_a_file_has_at_most_the_allowed_number_of_bytes(folder: LocalFolder, spare: int, sizes: list[int]) -> None:
    limit = size_of("a") + size_of("b") + spare
    shards = seal_all(folder, [request("a"), request("b")], limits=Limits(bytes=limit))
    assert [shard.requests for shard in shards] == sizes
    assert all(len(contents(folder, shard)) == shard.bytes <= limit for shard in shards)


def test_the_limit_of_bytes_counts_utf_8_bytes_not_characters(folder: LocalFolder) -> None:
    wide = request("a", text="😀" * 10)
    wide = msgspec.structs.replace(wide, body=json.dumps(json.loads(wide.body), ensure_ascii=False).encode())
    size = len(request_line("a", CHAT, wide.body))
    assert size > len(request_line("a", CHAT, wide.body).decode())
    with pytest.raises(RowTooLargeError):
        seal_all(folder, [wide], limits=Limits(bytes=size - 1))
    assert seal_all(folder, [wide], limits=Limits(bytes=size))[0].bytes == size


@pytest.mark.parametrize(
    ("inputs", "sizes"), [([3, 2], [2]), ([3, 3], [1, 1]), ([5, 1], [1, 1]), ([1, 1, 1, 1, 1, 1], [5, 1])]
)
def test_embedding_inputs_are_counted_over_all_requests_of_a_file(
    folder: LocalFolder, inputs: list[int], sizes: list[int]
) -> None:
    requests = [request(str(n), inputs=count) for n, count in enumerate(inputs)]
    shards = seal_all(folder, requests, limits=Limits(inputs=5), endpoint=EMBEDDINGS)
    assert [shard.requests for shard in shards] == sizes


def test_a_request_larger_than_a_file_is_rejected_with_its_row(folder: LocalFolder) -> None:
    small, large = request("small"), request("large", text="x" * 1000)
    with pytest.raises(RowTooLargeError) as error_info:
        seal_all(folder, [small, large], limits=Limits(bytes=1000))
    for part in ("Row 2", "custom_id 'large'", "1,000", "Nothing was uploaded"):
        assert part in str(error_info.value)


def test_a_request_with_too_many_inputs_is_rejected_with_its_row(folder: LocalFolder) -> None:
    with pytest.raises(RowTooLargeError, match=r"Row 1 \(custom_id 'a'\) has 6 embedding inputs, but .* at most 5"):
        seal_all(folder, [request("a", inputs=6)], limits=Limits(inputs=5), endpoint=EMBEDDINGS)


@pytest.mark.parametrize(("tokens", "sizes"), [(21, [3, 3]), (20, [2, 2, 2]), (42, [6]), (41, [5, 1]), (None, [6])])
def test_estimated_tokens_are_counted_over_all_requests_of_a_file(
    folder: LocalFolder, tokens: int | None, sizes: list[int]
) -> None:
    shards = seal_all(folder, [request(str(n)) for n in range(6)], limits=Limits(tokens=tokens))
    assert [shard.requests for shard in shards] == sizes
    assert [shard.tokens for shard in shards] == [7 * size for size in sizes]


@pytest.mark.parametrize(("spare", "sizes"), [(-1, [1, 1]), (0, [2])])
def test_expected_answers_are_counted_over_all_requests_of_a_file(
    folder: LocalFolder, spare: int, sizes: list[int]
) -> None:
    expected = expected_bytes(CHAT, request_line("a", CHAT, request("a").body), 1)
    shards = seal_all(folder, [request("a"), request("b")], limits=Limits(output_bytes=2 * expected + spare))
    assert [shard.requests for shard in shards] == sizes


def test_only_embedding_requests_count_as_embedding_inputs(folder: LocalFolder) -> None:
    """If a provider accepts 100,000 requests per file, its limit of embedding inputs does not apply to chats."""
    (shard,) = seal_all(folder, [request(str(n)) for n in range(6)], limits=Limits(inputs=5))
    assert shard.requests == 6


def test_a_request_with_more_tokens_than_a_file_may_have_is_rejected_with_its_row(folder: LocalFolder) -> None:
    with pytest.raises(
        RowTooLargeError, match=r"Row 1 \(custom_id 'a'\) has about 7 input tokens, but .* at most 6\. Nothing"
    ):
        seal_all(folder, [request("a")], limits=Limits(tokens=6))


def test_a_request_that_expects_too_large_an_answer_is_rejected_with_its_row(folder: LocalFolder) -> None:
    with pytest.raises(RowTooLargeError, match=r"Row 1 \(custom_id 'a'\) would get an answer of about 5,000 bytes"):
        seal_all(folder, [request("a")], limits=Limits(output_bytes=4_999))


# Models


def test_each_model_has_its_own_series_of_files(folder: LocalFolder) -> None:
    requests = [request(str(n), model="large" if n % 3 == 0 else "small") for n in range(9)]
    shards = seal_all(folder, requests, limits=Limits(requests=4))
    assert [(shard.model, shard.requests) for shard in shards] == [("large", 3), ("small", 4), ("small", 2)]
    for shard in shards:
        bodies = [json.loads(line)["body"] for line in contents(folder, shard).splitlines()]
        assert {body["model"] for body in bodies} == {shard.model}


def test_a_job_may_alternate_between_the_allowed_number_of_models_but_not_one_more(folder: LocalFolder) -> None:
    requests = [request(f"{n}-{turn}", model=f"m{n}") for turn in (1, 2) for n in range(MAX_MODELS)]
    shards = seal_all(folder, requests)
    assert len({shard.model for shard in shards}) == len(shards) == MAX_MODELS
    with pytest.raises(InputError, match="use more than 100 models"):
        seal_all(folder, [*requests, request("one more", model="m100")])


def test_a_model_may_start_another_file_at_the_limit_of_models(folder: LocalFolder) -> None:
    requests = [request(f"{n}-{turn}", model=f"m{n}") for turn in (1, 2) for n in range(MAX_MODELS)]
    assert len(seal_all(folder, requests, limits=Limits(requests=1))) == 2 * MAX_MODELS


# Unique custom_ids


def test_a_repeated_custom_id_is_rejected_with_its_rows(folder: LocalFolder) -> None:
    with pytest.raises(CustomIdError) as error_info:
        seal_all(folder, [request("a"), request("b"), request("c"), request("b")])
    for part in ("1 custom_id is used", "'b' (rows 2, 4)", "Nothing was uploaded"):
        assert part in str(error_info.value)


def test_repeated_custom_ids_are_detected_across_files_and_models(folder: LocalFolder) -> None:
    requests = [request("a"), request("b"), request("c", model="large"), request("a", model="large")]
    with pytest.raises(CustomIdError, match=r"'a' \(rows 1, 4\)"):
        seal_all(folder, requests, limits=Limits(requests=1))


def test_many_repeated_custom_ids_are_counted_and_some_are_shown(folder: LocalFolder) -> None:
    with pytest.raises(CustomIdError) as error_info:
        seal_all(folder, [request(f"id{n % 7}") for n in range(49)])
    assert "7 custom_ids are used" in str(error_info.value)
    assert str(error_info.value).count("(rows ") == 5
    assert "'id0' (rows 1, 8, 15, 22, …)" in str(error_info.value)


# Retry rounds: lines that were sealed before


def test_rows_on_different_attempts_go_to_different_files(folder: LocalFolder) -> None:
    sealer = Sealer(folder, "g001/retry-1", CHAT, Limits(), name_format="r01-{:04d}")
    for name, attempt in (("a", 2), ("b", 3), ("c", 2)):
        line = request_line(name, CHAT, request(name).body)
        sealer.add_line("gpt-5-mini", line, RowIndex(name, "0", tokens=1), attempt=attempt)
    shards = sealer.finish()
    assert [(shard.name, shard.attempt, shard.requests) for shard in shards] == [("r01-0001", 2, 2), ("r01-0002", 3, 1)]


def test_a_line_that_is_sealed_again_keeps_its_bytes(folder: LocalFolder) -> None:
    (first,) = seal_all(folder, [request("a"), request("b")])
    sealer = Sealer(folder, "g001/retry-1", CHAT, Limits())
    for line, row in zip(contents(folder, first).splitlines(keepends=True), read_rows(folder, first), strict=True):
        sealer.add_line(first.model, line, row, attempt=2)
    (second,) = sealer.finish()
    assert contents(folder, second) == contents(folder, first)
    assert second.sha256 == first.sha256


def test_a_line_that_was_sealed_without_escapes_is_sealed_again_with_them(folder: LocalFolder) -> None:
    escaped_line = request_line("a", CHAT, canonical_json({"max_tokens": 5, "text": LINE_ENDS}))
    earlier_line = msgspec.json.encode(msgspec.json.decode(escaped_line)) + b"\n"
    assert "\u2028" in earlier_line.decode()
    sealer = Sealer(folder, "g001/retry-1", CHAT, Limits())
    sealer.add_line("gpt-5-mini", earlier_line, RowIndex("a", "0"), attempt=2)
    (shard,) = sealer.finish()
    assert contents(folder, shard) == escaped_line
    assert shard.bytes == len(escaped_line)


def test_a_file_written_in_many_blocks_is_complete_with_its_index(
    folder: LocalFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("airflow_provider_batch.core.sealing.open_shard.BLOCK", 1_000)
    names = [str(number) for number in range(500)]
    shards = seal_all(folder, map(request, names), limits=Limits(requests=200))
    assert [row.custom_id for shard in shards for row in read_rows(folder, shard)] == names
    lines = [request_line(name, CHAT, request(name).body) for name in names]
    assert [contents(folder, shard) for shard in shards] == [
        b"".join(lines[start : start + 200]) for start in (0, 200, 400)
    ]
    assert [shard.sha256 for shard in shards] == [
        hashlib.sha256(contents(folder, shard)).hexdigest() for shard in shards
    ]


def test_no_thread_survives_the_end_of_a_build(folder: LocalFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("airflow_provider_batch.core.sealing.open_shard.BLOCK", 10)
    seal_all(folder, [request("a"), request("b")])
    sealer = Sealer(folder, "g001/other", CHAT, Limits())
    add_row(sealer, request("a"), [], 1, 1)
    assert any(thread.name.startswith("seal_") for thread in threading.enumerate())
    sealer.abandon()
    assert not any(thread.name.startswith("seal_") for thread in threading.enumerate())


# Failures


def test_an_abandoned_build_closes_its_files_and_may_be_abandoned_twice(folder: LocalFolder) -> None:
    sealer = Sealer(folder, "g001/build", CHAT, Limits())
    open_files = len(os.listdir("/proc/self/fd"))
    add_row(sealer, request("a"), [], 1, 1)
    assert len(os.listdir("/proc/self/fd")) > open_files
    sealer.abandon()
    assert len(os.listdir("/proc/self/fd")) == open_files
    sealer.abandon()


@pytest.mark.parametrize("rows", [BLOCK // 50, BLOCK // 200])
def test_a_full_disk_is_a_staging_error_with_the_path(tmp_path: Path, rows: int) -> None:
    """Use a limit on the file size instead of a full disk: a write fails in the same way.

    It fails once among many blocks, and once in the only block, which is written at the end.
    """
    code = """
        import resource, signal, sys
        from pathlib import Path
        from airflow_provider_batch.exceptions import StagingError
        from airflow_provider_batch.core.provider.limits import Limits
        from airflow_provider_batch.core.sealing.sealer import Sealer
        from airflow_provider_batch.staging.local import LocalFolder
        from tests.core.building import CHAT, add_row, request
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
        sealer = Sealer(LocalFolder(Path(sys.argv[1])), "g001/build", CHAT, Limits())
        try:
            for number in range(int(sys.argv[2])):
                add_row(sealer, request(str(number)), [], number, 1)
            sealer.finish()
        except StagingError as error:
            print(error)
        sealer.abandon()
    """
    process = subprocess.run(
        [sys.executable, "-c", dedent(code), str(tmp_path), str(rows)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert process.returncode == 0, process.stderr
    assert f"cannot write {tmp_path}/g001/build/s0001" in process.stdout
    assert "File too large" in process.stdout


# What always holds


class Row(NamedTuple):
    custom_id: str
    model: str
    inputs: int
    tokens: int
    #: cap of the answer, which determines its expected size
    cap: int
    text: str

    def request(self) -> Request:
        body = {"model": self.model, "max_tokens": self.cap, "text": self.text}
        return Request(self.custom_id, self.model, json.dumps(body).encode(), self.inputs)


ROWS = st.lists(
    st.builds(
        Row,
        st.text(st.characters(exclude_categories=["Cs"]), max_size=5),
        st.sampled_from(["m1", "m2", "m3"]),
        inputs=st.integers(1, 4),
        tokens=st.integers(0, 50),
        cap=st.integers(1, 200),
        text=st.text(max_size=30),
    ),
    unique_by=lambda row: row.custom_id,
    max_size=25,
)
#: limits that every single row satisfies
LIMITS = st.builds(
    Limits,
    requests=st.integers(1, 6),
    bytes=st.integers(600, 1500),
    inputs=st.integers(4, 9),
    tokens=st.none() | st.integers(50, 120),
    output_bytes=st.integers(6_000, 12_000),
)


def seal_rows(folder: Folder, rows: list[Row], limits: Limits, endpoint: str) -> list[Shard]:
    sealer = Sealer(folder, "g001/build", endpoint, limits)
    for number, row in enumerate(rows, start=1):
        add_row(sealer, row.request(), [], number, row.tokens)
    return sealer.finish()


def size_of_rows(rows: list[Row], endpoint: str) -> Size:
    """Return the size of these rows together, added up row by row."""
    lines = [request_line(row.custom_id, endpoint, row.request().body) for row in rows]
    return Size(
        requests=len(rows),
        bytes=sum(map(len, lines)),
        inputs=sum(row.inputs for row in rows) if endpoint == EMBEDDINGS else 0,
        tokens=sum(row.tokens for row in rows),
        output_bytes=sum(expected_bytes(endpoint, line, row.inputs) for line, row in zip(lines, rows, strict=True)),
    )


@settings(max_examples=100, deadline=None)
@given(ROWS, LIMITS, st.sampled_from([CHAT, EMBEDDINGS]))
def test_every_request_is_sealed_exactly_once_in_order_and_within_every_limit(
    rows: list[Row], limits: Limits, endpoint: str
) -> None:
    if endpoint == EMBEDDINGS:
        limits = msgspec.structs.replace(limits, output_bytes=limits.output_bytes * 40)
    by_name = {row.custom_id: row for row in rows}
    with temporary_folder() as folder:
        shards = seal_rows(folder, rows, limits, endpoint)
        sealed_rows: dict[str, list[Row]] = defaultdict(list)
        for shard in shards:
            data = contents(folder, shard)
            lines = [json.loads(line)["custom_id"] for line in data.splitlines()]
            shard_rows = [by_name[name] for name in lines]
            size = size_of_rows(shard_rows, endpoint)
            assert shard_rows
            assert size.exceeded_limit(limits) is None
            assert (shard.requests, shard.bytes, shard.tokens) == (size.requests, len(data), size.tokens)
            assert shard.sha256 == hashlib.sha256(data).hexdigest()
            assert [(row.custom_id, row.tokens, row.inputs) for row in read_rows(folder, shard)] == [
                (row.custom_id, row.tokens, row.inputs) for row in shard_rows
            ]
            sealed_rows[shard.model] += shard_rows
        assert sealed_rows == {
            model: [row for row in rows if row.model == model] for model in {row.model for row in rows}
        }


@settings(max_examples=100, deadline=None)
@given(ROWS, LIMITS)
def test_a_file_is_closed_only_when_the_next_request_does_not_fit(rows: list[Row], limits: Limits) -> None:
    one_model = [row._replace(model="m") for row in rows]
    with temporary_folder() as folder:
        shards = seal_rows(folder, one_model, limits, CHAT)
    remaining_rows = iter(one_model)
    files = [[next(remaining_rows) for _ in range(shard.requests)] for shard in shards]
    for rows_of_file, next_rows in pairwise(files):
        assert size_of_rows([*rows_of_file, next_rows[0]], CHAT).exceeded_limit(limits)
