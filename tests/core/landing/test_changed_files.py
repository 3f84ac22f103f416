"""A staged file that was changed after it was sealed lands no value, and the error names it."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import pytest

from airflow_provider_batch.core.ledger.job import Manifest
from airflow_provider_batch.core.ledger.records import Record
from airflow_provider_batch.exceptions import StagingError
from airflow_provider_batch.staging.local import LocalFolder
from tests.core.building import chat_line, request, settle
from tests.core.landing.test_landing import LandedRows, retry_round
from tests.core.sealing.test_reuse_generation import answer, land, new_shards, seal_generation
from tests.core.sealing.test_reused_answers import answer_to, seal_with_reuse

CHANGES: dict[str, Callable[[bytes], bytes]] = {
    "a changed bit at the start": lambda data: bytes([data[0] ^ 1]) + data[1:],
    "a changed bit in the middle": lambda data: data[:20] + bytes([data[20] ^ 1]) + data[21:],
    "the last line is missing": lambda data: b"".join(data.splitlines(keepends=True)[:-1]),
    "cut off within a line": lambda data: data[:-5],
    "an extra line": lambda data: data + data.splitlines(keepends=True)[-1],
    "an empty line": lambda data: data + b"\n",
    "not UTF-8": lambda data: data.replace(b'"', b'"\xff', 1),
    "not JSON": lambda data: b"<html>" + data[6:],
    "nested too deeply": lambda data: b"[" * 100_000,
    "empty": lambda data: b"",
}


def job(folder: LocalFolder) -> tuple[Manifest, list[Record]]:
    """Return a job with rows in a shard, retried rows, duplicates and reused answers."""
    texts = {"a1": "x", "a2": "y", "a3": "x", "a4": "reused"}
    requests = [request(name, text=text) for name, text in texts.items()]
    manifest = seal_with_reuse(folder, requests, [answer_to(requests[-1])])
    (shard,) = manifest.shards
    retry, retry_shard = retry_round(folder, 1, 2, (shard, "a2"))
    first = settle(folder, shard, [chat_line("a1"), chat_line("a2", status=500)])
    return manifest, [first, retry, settle(folder, retry_shard, [chat_line("a2")])]


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize(
    "name",
    [
        "s0001.rows.jsonl",
        "r01-0001.rows.jsonl",
        "duplicates-0001.jsonl",
        "duplicates-0001.segments.json",
        "k0001.jsonl",
    ],
)
def test_a_changed_file_is_an_error_that_names_it(folder: LocalFolder, name: str, change: str) -> None:
    manifest, records = job(folder)
    assert set(LandedRows(folder, manifest, records).outcomes) == {"a1", "a2", "a3", "a4"}
    (path,) = folder.path.rglob(name)
    data = path.read_bytes()
    path.write_bytes(CHANGES[change](data))
    assert path.read_bytes() != data
    with pytest.raises(StagingError) as error_info:
        LandedRows(folder, manifest, records)
    for part in (path.as_uri(), "is not the file that was sealed", "Restore it", "clear the task", "new run"):
        assert part in str(error_info.value)


def test_an_index_in_place_of_another_is_an_error(folder: LocalFolder) -> None:
    manifest, records = job(folder)
    (first,), (second,) = folder.path.rglob("s0001.rows.jsonl"), folder.path.rglob("r01-0001.rows.jsonl")
    first.write_bytes(second.read_bytes())
    with pytest.raises(StagingError, match=r"s0001\.rows\.jsonl is not the file that was sealed: its checksum differs"):
        LandedRows(folder, manifest, records)


@pytest.mark.parametrize("name", ["s0001.rows.jsonl", "duplicates-0001.jsonl", "k0001.jsonl"])
def test_a_missing_file_is_an_error_that_names_it(folder: LocalFolder, name: str) -> None:
    manifest, records = job(folder)
    (path,) = folder.path.rglob(name)
    path.unlink()
    with pytest.raises(StagingError, match=f"cannot read {path}"):
        LandedRows(folder, manifest, records)


def test_a_changed_index_of_a_kept_shard_is_an_error(folder: LocalFolder) -> None:
    earlier = seal_generation(folder, {"a": "x", "b": "y"})
    for shard in new_shards(earlier):
        answer(earlier, shard)
    ledger = seal_generation(folder, {"a": "x", "c": "z"}, earlier)
    assert set(land(ledger).outcomes) == {"a", "c"}
    (path,) = (folder.path / "g002").rglob("s0001.rows.jsonl")
    path.write_bytes(path.read_bytes().replace(b"a/2", b"b/2"))
    with pytest.raises(StagingError, match=r"g002/build/s0001\.rows\.jsonl is not the file that was sealed"):
        land(ledger)


def test_a_changed_index_is_an_error_when_the_next_generation_is_sealed(folder: LocalFolder) -> None:
    earlier = seal_generation(folder, {"a": "x", "b": "y"})
    (path,) = folder.path.rglob("s0001.rows.jsonl")
    path.write_bytes(path.read_bytes().replace(b"a/1", b"b/1"))
    with pytest.raises(StagingError, match=r"s0001\.rows\.jsonl is not the file that was sealed"):
        seal_generation(folder, {"a": "x"}, earlier)


def test_an_index_that_was_sealed_without_a_checksum_is_read_if_it_is_complete(folder: LocalFolder) -> None:
    manifest, records = job(folder)
    shards = [msgspec.structs.replace(shard, index_sha256="") for shard in manifest.shards]
    earlier_manifest = msgspec.structs.replace(manifest, shards=shards)
    assert set(LandedRows(folder, earlier_manifest, records).outcomes) == {"a1", "a2", "a3", "a4"}
    (path,) = folder.path.rglob("s0001.rows.jsonl")
    path.write_bytes(path.read_bytes() * 2)
    with pytest.raises(StagingError, match="it has 4 rows instead of 2"):
        LandedRows(folder, earlier_manifest, records)
