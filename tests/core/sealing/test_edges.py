"""The real limits of providers at their edges: requests, bytes and embedding inputs in a file."""

from __future__ import annotations

import base64
import hashlib
import struct
from array import array
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from airflow_provider_batch.core.answers.outcome import Outcome
from airflow_provider_batch.core.answers.result_files import read_answers, read_rows
from airflow_provider_batch.core.ledger.job import Shard
from airflow_provider_batch.core.ledger.records import CollectedFile, Settled
from airflow_provider_batch.core.provider.limits import Limits
from airflow_provider_batch.core.requests.request import Request
from airflow_provider_batch.core.sealing.sealer import Sealer
from airflow_provider_batch.exceptions import RowTooLargeError
from airflow_provider_batch.staging.local import LocalFolder
from tests.core.building import CHAT, EMBEDDINGS, NOW, add_row, request_line, temporary_folder


@pytest.fixture
def folder() -> Iterator[LocalFolder]:
    """Provide a job's folder that is deleted right after the test, because these files are large."""
    with temporary_folder() as job_folder:
        yield job_folder


BODY = b'{"max_tokens":9,"model":"gpt-5-mini"}'


def embeddings_body(inputs: int, encoding: str = "base64") -> bytes:
    body = {"model": "text-embedding-3-small", "input": ["x"] * inputs, "encoding_format": encoding}
    return msgspec.json.encode(body)


def seal(folder: LocalFolder, bodies: list[tuple[bytes, int]], endpoint: str) -> list[Shard]:
    """Seal these pairs of body and number of inputs within OpenAI's limits."""
    sealer = Sealer(folder, "g001/build", endpoint, Limits())
    try:
        for number, (body, inputs) in enumerate(bodies, start=1):
            add_row(sealer, Request(f"{number:05d}", "m", body, inputs), [], number, 1)
        return sealer.finish()
    finally:
        sealer.abandon()


@pytest.mark.parametrize(
    ("requests", "sizes"), [(49_999, [49_999]), (50_000, [50_000]), (50_001, [50_000, 1])], ids=lambda value: str(value)
)
def test_fifty_thousand_requests_fit_one_file_and_one_more_needs_another(
    folder: LocalFolder, requests: int, sizes: list[int]
) -> None:
    shards = seal(folder, [(BODY, 1)] * requests, CHAT)
    assert [shard.requests for shard in shards] == sizes
    assert [len(read_rows(folder, shard)) for shard in shards] == sizes


@pytest.mark.parametrize(("spare", "sizes"), [(-1, [2_000]), (0, [2_000]), (1, [1_999, 1])])
def test_two_hundred_million_bytes_fit_one_file_and_one_more_needs_another(
    folder: LocalFolder, spare: int, sizes: list[int]
) -> None:
    template = b'{"max_tokens":9,"text":"%b"}'
    overhead = len(request_line("00001", CHAT, template % b""))
    body = template % (b"x" * (100_000 - overhead))
    last = template % (b"x" * (100_000 - overhead + spare))
    shards = seal(folder, [(body, 1)] * 1_999 + [(last, 1)], CHAT)
    assert [shard.requests for shard in shards] == sizes
    assert sum(shard.bytes for shard in shards) == 200_000_000 + spare
    for shard in shards:
        assert Path(folder.path / shard.file).stat().st_size == shard.bytes <= 200_000_000


def test_a_row_of_two_hundred_million_bytes_gets_its_own_file_and_a_larger_one_is_rejected(folder: LocalFolder) -> None:
    template = b'{"max_tokens":9,"text":"%b"}'
    overhead = len(request_line("00001", CHAT, template % b""))
    largest = template % (b"x" * (200_000_000 - overhead))
    shards = seal(folder, [(BODY, 1), (largest, 1), (BODY, 1)], CHAT)
    assert [shard.requests for shard in shards] == [1, 1, 1]
    assert shards[1].bytes == 200_000_000
    too_large = largest[:-2] + b'x"}'
    del largest
    with pytest.raises(RowTooLargeError, match=r"Row 2 \(custom_id '00002'\) .*200,000,001.* Nothing was uploaded"):
        seal(folder, [(BODY, 1), (too_large, 1)], CHAT)


@pytest.mark.parametrize(
    ("inputs", "sizes"),
    [
        ([2_000] * 25, [25]),
        ([2_000] * 24 + [1_999], [25]),
        ([2_000] * 25 + [1], [25, 1]),
        ([1_999, 2_000] * 13, [25, 1]),
    ],
    ids=["50,000", "49,999", "50,001", "51,987"],
)
def test_fifty_thousand_embedding_inputs_fit_one_file_in_any_distribution_over_rows(
    folder: LocalFolder, inputs: list[int], sizes: list[int]
) -> None:
    shards = seal(folder, [(embeddings_body(count), count) for count in inputs], EMBEDDINGS)
    assert [shard.requests for shard in shards] == sizes
    for shard in shards:
        assert sum(row.inputs for row in read_rows(folder, shard)) <= 50_000


@pytest.mark.parametrize(
    ("encoding", "files"), [("base64", 1), ("float", 3)], ids=["0.47 GB in base64", "1.14 GB as numbers"]
)
def test_fifty_thousand_embeddings_need_one_file_in_base64_and_three_as_numbers(
    folder: LocalFolder, encoding: str, files: int
) -> None:
    shards = seal(folder, [(embeddings_body(1, encoding), 1)] * 50_000, EMBEDDINGS)
    assert len(shards) == files
    assert sum(shard.requests for shard in shards) == 50_000


def test_fifty_thousand_base64_embeddings_of_1536_dimensions_are_each_read_once(folder: LocalFolder) -> None:
    (shard,) = seal(folder, [(embeddings_body(1), 1)] * 50_000, EMBEDDINGS)
    vector = [n / 1_536 for n in range(1_536)]
    encoded = base64.b64encode(struct.pack("<1536f", *vector))
    line = (
        b'{"id":"batch_req_1","custom_id":"%05d","error":null,"response":{"status_code":200,"request_id":"r","body":'
        b'{"object":"list","model":"text-embedding-3-small","usage":{"prompt_tokens":8,"total_tokens":8},'
        b'"data":[{"object":"embedding","index":0,"embedding":"%b"}]}}}\n'
    )
    name, size, digest = "g001/collected/s0001.1/output.jsonl", 0, hashlib.sha256()
    with folder.writer(name) as results:
        for number in range(1, 50_001):
            size += results.write(line % (number, encoded))
            digest.update(line % (number, encoded))
    assert size > 400_000_000
    file = CollectedFile(name, size, digest.hexdigest())
    settled = Settled(shard.name, 1, "batch_1", "completed", NOW, files=[file])
    reads = bytearray(50_000)
    for number, answer in read_answers(folder, shard, settled, read_rows(folder, shard), EMBEDDINGS, None):
        reads[number] += 1
        assert answer.outcome is Outcome.SUCCEEDED
    assert reads == b"\x01" * 50_000
    assert array("f", answer.value) == array("f", vector)
