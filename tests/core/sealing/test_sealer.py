"""Requests into sealed files: every limit kept, nothing lost, nothing twice, every custom_id proven unique."""

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
from airflow_provider_batch.core.requests.render import Request, request_line, request_sha256
from airflow_provider_batch.core.sealing.sealer import BLOCK, MAX_MODELS, Sealer
from airflow_provider_batch.exceptions import CustomIdError, InputError, RowTooLargeError
from airflow_provider_batch.staging.local import LocalFolder
from tests.core.building import CHAT, EMBEDDINGS, request, seal_all, temporary_folder


def contents(folder: LocalFolder, shard: Shard) -> bytes:
    with folder.reader(shard.file) as file:
        return file.read()


def size_of(custom_id: str) -> int:
    one = request(custom_id)
    return len(request_line(one.custom_id, CHAT, one.body))


# What a sealed file is


def test_a_sealed_file_holds_the_lines_that_the_provider_takes(folder: LocalFolder) -> None:
    (shard,) = seal_all(folder, [request("a", text="é\n\u2028")])
    assert json.loads(contents(folder, shard)) == {
        "custom_id": "a",
        "method": "POST",
        "url": CHAT,
        "body": {"model": "gpt-5-mini", "text": "é\n\u2028"},
    }
    assert contents(folder, shard).endswith(b"}\n")


def test_a_shard_knows_its_size_its_checksum_and_its_tokens(folder: LocalFolder) -> None:
    (shard,) = seal_all(folder, [request("a"), request("b")])
    data = contents(folder, shard)
    assert (shard.name, shard.model, shard.attempt) == ("s0001", "gpt-5-mini", 1)
    assert (shard.requests, shard.bytes, shard.tokens) == (2, len(data), 14)
    assert shard.sha256 == hashlib.sha256(data).hexdigest()


def test_the_index_names_what_must_be_known_when_the_answer_lands(folder: LocalFolder) -> None:
    (shard,) = seal_all(folder, [request("a", inputs=3)], endpoint=EMBEDDINGS, carry=[["bug", None]])
    assert read_rows(folder, shard) == [
        RowIndex("a", request_sha256(EMBEDDINGS, request("a").body), ["bug", None], 1, 3, 7)
    ]


def test_the_order_of_the_rows_is_the_order_of_the_files(folder: LocalFolder) -> None:
    shards = seal_all(folder, [request(str(n)) for n in range(7)], limits=Limits(requests=3))
    assert [shard.name for shard in shards] == ["s0001", "s0002", "s0003"]
    assert [row.custom_id for shard in shards for row in read_rows(folder, shard)] == [str(n) for n in range(7)]


def test_no_requests_are_no_shards(folder: LocalFolder) -> None:
    assert seal_all(folder, []) == []


# Limits, at their edges


@pytest.mark.parametrize(("requests", "sizes"), [(4, [4]), (5, [5]), (6, [5, 1]), (10, [5, 5]), (11, [5, 5, 1])])
def test_a_file_takes_as_many_requests_as_allowed_and_the_next_starts_another(
    folder: LocalFolder, requests: int, sizes: list[int]
) -> None:
    shards = seal_all(folder, [request(str(n)) for n in range(requests)], limits=Limits(requests=5))
    assert [shard.requests for shard in shards] == sizes


@pytest.mark.parametrize(("spare", "sizes"), [(-1, [1, 1]), (0, [2]), (1, [2])])
def test_a_file_takes_exactly_as_many_bytes_as_allowed(folder: LocalFolder, spare: int, sizes: list[int]) -> None:
    limit = size_of("a") + size_of("b") + spare
    shards = seal_all(folder, [request("a"), request("b")], limits=Limits(bytes=limit))
    assert [shard.requests for shard in shards] == sizes
    assert all(len(contents(folder, shard)) == shard.bytes <= limit for shard in shards)


def test_bytes_are_counted_in_utf_8_not_in_characters(folder: LocalFolder) -> None:
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


def test_a_request_that_alone_is_over_the_limit_of_bytes_is_named_with_its_row(folder: LocalFolder) -> None:
    small, large = request("small"), request("large", text="x" * 1000)
    with pytest.raises(RowTooLargeError) as caught:
        seal_all(folder, [small, large], limits=Limits(bytes=1000))
    for part in ("Row 2", "custom_id 'large'", "1,000", "Nothing was uploaded"):
        assert part in str(caught.value)


def test_a_request_with_too_many_inputs_is_named_with_its_row(folder: LocalFolder) -> None:
    with pytest.raises(RowTooLargeError, match=r"Row 1 \(custom_id 'a'\) has 6 embedding inputs; .* takes 5"):
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


def test_requests_that_are_no_embeddings_have_no_embedding_inputs(folder: LocalFolder) -> None:
    """A provider that takes 100,000 requests a file takes as many chats, whatever it takes of embedding inputs."""
    (shard,) = seal_all(folder, [request(str(n)) for n in range(6)], limits=Limits(inputs=5))
    assert shard.requests == 6


def test_a_request_with_more_tokens_than_a_file_may_have_is_named_with_its_row(folder: LocalFolder) -> None:
    with pytest.raises(
        RowTooLargeError, match=r"Row 1 \(custom_id 'a'\) is about 7 input tokens; .* takes 6\. Nothing"
    ):
        seal_all(folder, [request("a")], limits=Limits(tokens=6))


def test_a_request_that_expects_too_large_an_answer_is_named_with_its_row(folder: LocalFolder) -> None:
    with pytest.raises(RowTooLargeError, match=r"Row 1 \(custom_id 'a'\) expects an answer of about 5,000 bytes"):
        seal_all(folder, [request("a")], limits=Limits(output_bytes=4_999))


# Models


def test_each_model_gets_a_chain_of_files_of_its_own(folder: LocalFolder) -> None:
    requests = [request(str(n), model="large" if n % 3 == 0 else "small") for n in range(9)]
    shards = seal_all(folder, requests, limits=Limits(requests=4))
    assert [(shard.model, shard.requests) for shard in shards] == [("large", 3), ("small", 4), ("small", 2)]
    for shard in shards:
        bodies = [json.loads(line)["body"] for line in contents(folder, shard).splitlines()]
        assert {body["model"] for body in bodies} == {shard.model}


def test_as_many_models_as_allowed_may_alternate_and_one_more_is_refused(folder: LocalFolder) -> None:
    requests = [request(f"{n}-{turn}", model=f"m{n}") for turn in (1, 2) for n in range(MAX_MODELS)]
    shards = seal_all(folder, requests)
    assert len({shard.model for shard in shards}) == len(shards) == MAX_MODELS
    with pytest.raises(InputError, match="name more than 100 models"):
        seal_all(folder, [*requests, request("one more", model="m100")])


def test_a_model_that_has_a_file_already_may_start_the_next_one_at_the_limit_of_models(folder: LocalFolder) -> None:
    requests = [request(f"{n}-{turn}", model=f"m{n}") for turn in (1, 2) for n in range(MAX_MODELS)]
    assert len(seal_all(folder, requests, limits=Limits(requests=1))) == 2 * MAX_MODELS


# Unique custom_ids


def test_a_custom_id_that_two_rows_share_is_named_with_its_rows(folder: LocalFolder) -> None:
    with pytest.raises(CustomIdError) as caught:
        seal_all(folder, [request("a"), request("b"), request("c"), request("b")])
    for part in ("1 of them", "'b' (rows 2, 4)", "Nothing was uploaded"):
        assert part in str(caught.value)


def test_duplicates_are_found_across_files_and_models(folder: LocalFolder) -> None:
    requests = [request("a"), request("b"), request("c", model="large"), request("a", model="large")]
    with pytest.raises(CustomIdError, match=r"'a' \(rows 1, 4\)"):
        seal_all(folder, requests, limits=Limits(requests=1))


def test_many_duplicates_are_counted_and_some_of_them_shown(folder: LocalFolder) -> None:
    with pytest.raises(CustomIdError) as caught:
        seal_all(folder, [request(f"id{n % 7}") for n in range(49)])
    assert "7 of them" in str(caught.value)
    assert str(caught.value).count("(rows ") == 5
    assert "'id0' (rows 1, 8, 15, 22, …)" in str(caught.value)


# Waves: lines that are known good already


def test_rows_on_different_attempts_are_packed_into_different_files(folder: LocalFolder) -> None:
    sealer = Sealer(folder, "g001/retry-1", CHAT, Limits(), names="r01-{:04d}")
    for name, attempt in (("a", 2), ("b", 3), ("c", 2)):
        line = request_line(name, CHAT, request(name).body)
        sealer.add_line("gpt-5-mini", line, RowIndex(name, "0"), inputs=1, tokens=1, attempt=attempt)
    shards = sealer.finish()
    assert [(shard.name, shard.attempt, shard.requests) for shard in shards] == [("r01-0001", 2, 2), ("r01-0002", 3, 1)]


def test_a_line_packed_again_is_the_same_bytes(folder: LocalFolder) -> None:
    (first,) = seal_all(folder, [request("a"), request("b")])
    sealer = Sealer(folder, "g001/retry-1", CHAT, Limits())
    for line, row in zip(contents(folder, first).splitlines(keepends=True), read_rows(folder, first), strict=True):
        sealer.add_line(first.model, line, row, inputs=row.inputs, tokens=1, attempt=2)
    (again,) = sealer.finish()
    assert contents(folder, again) == contents(folder, first)
    assert again.sha256 == first.sha256


def test_a_file_written_in_many_blocks_is_whole_and_so_is_its_index(
    folder: LocalFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("airflow_provider_batch.core.sealing.sealer.BLOCK", 1_000)
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


def test_nothing_goes_on_after_a_build_has_ended(folder: LocalFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("airflow_provider_batch.core.sealing.sealer.BLOCK", 10)
    seal_all(folder, [request("a"), request("b")])
    sealer = Sealer(folder, "g001/other", CHAT, Limits())
    sealer.add(request("a"), [], 1, 1)
    assert any(thread.name.startswith("seal_") for thread in threading.enumerate())
    sealer.abandon()
    assert not any(thread.name.startswith("seal_") for thread in threading.enumerate())


# Trouble


def test_an_abandoned_build_leaves_no_file_open_and_may_be_abandoned_twice(folder: LocalFolder) -> None:
    sealer = Sealer(folder, "g001/build", CHAT, Limits())
    before = len(os.listdir("/proc/self/fd"))
    sealer.add(request("a"), [], 1, 1)
    assert len(os.listdir("/proc/self/fd")) > before
    sealer.abandon()
    assert len(os.listdir("/proc/self/fd")) == before
    sealer.abandon()


@pytest.mark.parametrize("rows", [BLOCK // 50, BLOCK // 200])
def test_a_disk_that_fills_up_is_told_as_staging_with_its_path(tmp_path: Path, rows: int) -> None:
    """The limit on file size stands in for the end of the disk: a write fails in the same way.

    Among many blocks, and in the only one, which is written at the end.
    """
    code = """
        import resource, signal, sys
        from pathlib import Path
        from airflow_provider_batch.exceptions import StagingError
        from airflow_provider_batch.core.provider.limits import Limits
        from airflow_provider_batch.core.sealing.sealer import Sealer
        from airflow_provider_batch.staging.local import LocalFolder
        from tests.core.building import CHAT, request
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
        sealer = Sealer(LocalFolder(Path(sys.argv[1])), "g001/build", CHAT, Limits())
        try:
            for number in range(int(sys.argv[2])):
                sealer.add(request(str(number)), [], number, 1)
            sealer.finish()
        except StagingError as error:
            print(error)
        sealer.abandon()
    """
    done = subprocess.run(
        [sys.executable, "-c", dedent(code), str(tmp_path), str(rows)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert f"cannot write {tmp_path}/g001/build/s0001" in done.stdout
    assert "File too large" in done.stdout


# The law


class Row(NamedTuple):
    custom_id: str
    model: str
    inputs: int
    tokens: int
    #: cap of the answer, which tells its expected size
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
#: each takes every row alone
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
        sealer.add(row.request(), [], number, row.tokens)
    return sealer.finish()


def size_of_rows(rows: list[Row], endpoint: str) -> Size:
    """What these rows take together, counted in the plain way."""
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
def test_the_sealed_files_hold_exactly_the_input_once_each_in_order_within_every_limit(
    rows: list[Row], limits: Limits, endpoint: str
) -> None:
    if endpoint == EMBEDDINGS:
        limits = msgspec.structs.replace(limits, output_bytes=limits.output_bytes * 40)
    by_name = {row.custom_id: row for row in rows}
    with temporary_folder() as folder:
        shards = seal_rows(folder, rows, limits, endpoint)
        found: dict[str, list[Row]] = defaultdict(list)
        for shard in shards:
            data = contents(folder, shard)
            lines = [json.loads(line)["custom_id"] for line in data.splitlines()]
            held = [by_name[name] for name in lines]
            size = size_of_rows(held, endpoint)
            assert held
            assert size.exceeded_limit(limits) is None
            assert (shard.requests, shard.bytes, shard.tokens) == (size.requests, len(data), size.tokens)
            assert shard.sha256 == hashlib.sha256(data).hexdigest()
            assert [(row.custom_id, row.tokens, row.inputs) for row in read_rows(folder, shard)] == [
                (row.custom_id, row.tokens, row.inputs) for row in held
            ]
            found[shard.model] += held
        assert found == {model: [row for row in rows if row.model == model] for model in {row.model for row in rows}}


@settings(max_examples=100, deadline=None)
@given(ROWS, LIMITS)
def test_a_file_is_closed_only_when_the_next_request_does_not_fit(rows: list[Row], limits: Limits) -> None:
    one_model = [row._replace(model="m") for row in rows]
    with temporary_folder() as folder:
        shards = seal_rows(folder, one_model, limits, CHAT)
    left = iter(one_model)
    held = [[next(left) for _ in range(shard.requests)] for shard in shards]
    for these, following in pairwise(held):
        assert size_of_rows([*these, following[0]], CHAT).exceeded_limit(limits)
