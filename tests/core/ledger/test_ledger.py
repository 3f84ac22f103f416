"""The ledger: every record is created once, and the state does not depend on the order of the records."""

from __future__ import annotations

from datetime import timedelta
from threading import Barrier, Thread
from typing import Any, get_args

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_provider_batch.core.ledger.fold import HANDLERS, fold
from airflow_provider_batch.core.ledger.job import FORMAT, Manifest
from airflow_provider_batch.core.ledger.ledger import Ledger, open_ledger, seal
from airflow_provider_batch.core.ledger.records import (
    CancelRequested,
    CollectedFile,
    CollectionFailed,
    Created,
    Deadline,
    Failure,
    Intent,
    JobCancelled,
    Landed,
    Reason,
    Record,
    Refused,
    RetryRound,
    Settled,
    Uploaded,
    UploadRefused,
)
from airflow_provider_batch.core.ledger.state import JobState, Phase
from airflow_provider_batch.core.schema.columns import Column, ColumnType
from airflow_provider_batch.exceptions import LedgerError
from airflow_provider_batch.staging.local import LocalFolder
from tests.core.building import NOW, manifest_of, plain_shard

MANIFEST = manifest_of([plain_shard("s0001"), plain_shard("s0002", model="large")])


def uploaded(n: int = 1, shard: str = "s0001") -> Uploaded:
    return Uploaded(shard, n, f"file-{n}", NOW)


def intent(n: int = 1, shard: str = "s0001") -> Intent:
    return Intent(shard, n, f"nonce-{n}", f"file-{n}", NOW)


def created(n: int = 1, shard: str = "s0001") -> Created:
    return Created(shard, n, f"batch-{n}", NOW)


def refused(failure: Failure, n: int = 1) -> Refused:
    return Refused("s0001", n, failure, "no", NOW)


def settled(n: int = 1, failure: Failure | None = None, shard: str = "s0001", **more: Any) -> Settled:
    return Settled(shard, n, f"batch-{n}", "completed", NOW, failure=failure, **more)


def state(*records: Record) -> JobState:
    return fold(MANIFEST, records)


# Phases of a shard


@pytest.mark.parametrize(
    ("records", "phase", "next_number"),
    [
        ([], Phase.SEALED, 1),
        ([uploaded()], Phase.UPLOADED, 1),
        ([uploaded(), intent()], Phase.CREATING, 1),
        ([intent()], Phase.CREATING, 1),
        ([uploaded(), intent(), created()], Phase.LIVE, 1),
        ([uploaded(), intent(), created(), CancelRequested("s0001", 1, "deadline", NOW)], Phase.LIVE, 1),
        ([uploaded(), intent(), created(), settled()], Phase.SETTLED, 1),
        ([uploaded(), intent(), created(), settled(failure=Failure.LINES)], Phase.SETTLED, 1),
        ([uploaded(), intent(), refused(Failure.CAPACITY)], Phase.SEALED, 2),
        ([uploaded(), intent(), refused(Failure.ACCOUNT)], Phase.SEALED, 2),
        ([uploaded(), intent(), refused(Failure.LOST)], Phase.SEALED, 2),
        ([uploaded(), intent(), created(), settled(failure=Failure.CAPACITY)], Phase.SEALED, 2),
        ([uploaded(), intent(), created(), settled(failure=Failure.FILE)], Phase.SEALED, 2),
        ([uploaded(), intent(), refused(Failure.FILE), uploaded(2)], Phase.UPLOADED, 2),
        ([uploaded(), intent(), refused(Failure.CAPACITY), intent(2)], Phase.CREATING, 2),
        ([uploaded(), intent(), refused(Failure.CAPACITY), intent(2), created(2)], Phase.LIVE, 2),
        ([uploaded(), intent(), refused(Failure.CAPACITY), intent(2), created(2), settled(2)], Phase.SETTLED, 2),
    ],
)
def test_the_phase_of_a_shard_follows_from_its_newest_submission(
    records: list[Any], phase: Phase, next_number: int
) -> None:
    shard = state(*records).shards["s0001"]
    assert (shard.phase, shard.next_number) == (phase, next_number)


def test_a_batch_id_takes_precedence_over_the_conclusion_that_the_batch_was_lost() -> None:
    """One worker records the id late. Another one did not find the batch in the provider's list in the meantime."""
    shard = state(uploaded(), intent(), refused(Failure.LOST), created()).shards["s0001"]
    assert (shard.phase, shard.next_number) == (Phase.LIVE, 1)


def test_a_submission_that_reuses_a_file_takes_its_id_from_the_intent() -> None:
    assert state(intent()).shards["s0001"].submissions[0].file_id == "file-1"


def test_records_of_one_shard_do_not_change_the_others() -> None:
    assert state(uploaded(), intent(), created()).shards["s0002"].phase is Phase.SEALED


def test_live_batches_are_those_that_were_created_and_have_not_ended() -> None:
    submissions = state(
        uploaded(),
        intent(),
        created(),
        intent(shard="s0002"),
        created(shard="s0002"),
        settled(shard="s0002"),
    ).live_submissions()
    assert [(shard.name, submission.batch_id) for shard, submission in submissions] == [("s0001", "batch-1")]


def test_settled_submissions_are_ordered_by_attempt_and_exclude_rejected_ones() -> None:
    retry_rounds = [RetryRound(1, [("s0002", 1)], [plain_shard("r01-0001", attempt=2)], NOW)]
    submissions = state(
        settled(failure=Failure.CAPACITY),
        settled(2),
        settled(1, shard="r01-0001"),
        settled(1, Failure.LINES, shard="s0002"),
        *retry_rounds,
    ).settled_submissions()
    assert [(shard.name, submission.number) for shard, submission, _ in submissions] == [
        ("s0001", 2),
        ("s0002", 1),
        ("r01-0001", 1),
    ]


def test_a_retry_round_adds_its_shards_to_the_job_and_marks_its_sources_as_retried() -> None:
    retry_round = RetryRound(1, [("s0001", 1), ("s0002", 1)], [plain_shard("r01-0001", attempt=2)], NOW)
    job = state(retry_round, uploaded(shard="r01-0001"))
    assert job.shards["r01-0001"].phase is Phase.UPLOADED
    assert job.retried_submissions == {("s0001", 1), ("s0002", 1)}


def test_the_newest_landing_counts() -> None:
    assert state(*HISTORY).landed == state(*reversed(HISTORY)).landed
    newest = state(*HISTORY).landed
    assert newest
    assert newest.number == 2


def test_a_record_of_a_shard_that_was_never_sealed_is_an_error() -> None:
    with pytest.raises(LedgerError, match="'s0009'"):
        state(uploaded(shard="s0009"))


def test_every_type_of_record_is_folded() -> None:
    assert set(get_args(Record)) == set(HANDLERS)


# The order of records

HISTORY: list[Record] = [
    uploaded(),
    intent(),
    refused(Failure.CAPACITY),
    intent(2),
    created(2),
    settled(2, Failure.CAPACITY),
    intent(3),
    created(3),
    CancelRequested("s0001", 3, "deadline", NOW),
    CollectionFailed("s0001", 3, 1, "batch-3", "cut off", NOW, ["0"]),
    CollectionFailed("s0001", 3, 2, "batch-3", "cut off", NOW),
    settled(3, files=[CollectedFile("x", 1, "0")], outcomes={"expired": 3}),
    uploaded(shard="s0002"),
    intent(shard="s0002"),
    created(shard="s0002"),
    settled(1, Failure.LINES, shard="s0002", line_errors={0: "bad"}, transient=2),
    RetryRound(1, [("s0002", 1)], [plain_shard("r01-0001")], NOW),
    RetryRound(2, [("s0001", 3), ("r01-0001", 1)], [plain_shard("r02-0001", attempt=2)], NOW),
    uploaded(shard="r01-0001"),
    intent(shard="r01-0001"),
    Refused("r01-0001", 1, Failure.LOST, "no", NOW),
    uploaded(shard="r02-0001"),
    Deadline(NOW + timedelta(hours=30), NOW),
    UploadRefused(1, "storage is full", NOW),
    UploadRefused(2, "storage is full", NOW, 60.0),
    Landed(1, "labels", {"pending": 6}, None, None, [Reason("expired", "batch_expired", "late", 3)], NOW),
    Landed(2, "labels", {"succeeded": 6}, "0.1", "0.2", [], NOW),
]


@given(st.permutations(HISTORY))
def test_the_order_in_which_records_are_read_does_not_matter(records: list[Any]) -> None:
    assert fold(MANIFEST, records) == fold(MANIFEST, HISTORY)


@given(st.permutations(HISTORY), st.data())
def test_no_further_record_makes_a_shard_forget_a_live_batch(records: list[Any], data: st.DataObject) -> None:
    """A worker may not see all records yet. Once it sees a batch id, it never repeats that submission."""
    visible_records = records[: data.draw(st.integers(0, len(records)))]
    shard_names = {
        shard.name for record in visible_records if isinstance(record, RetryRound) for shard in record.shards
    } | {
        "s0001",
        "s0002",
    }
    foldable_records = [
        record for record in visible_records if not hasattr(record, "shard") or record.shard in shard_names
    ]
    for shard in fold(MANIFEST, foldable_records).shards.values():
        last = shard.latest
        if last and last.batch_id and not last.settled:
            assert shard.phase is Phase.LIVE


# On disk


def test_every_reader_of_the_ledger_sees_the_same_state(folder: LocalFolder) -> None:
    first_ledger = seal(folder, MANIFEST)
    for record in (uploaded(), intent(), created(), Deadline(NOW, NOW)):
        assert first_ledger.add(record)
    second_ledger = open_ledger(folder)
    assert second_ledger is not None
    assert second_ledger.manifest == MANIFEST
    assert (
        second_ledger.state()
        == first_ledger.state()
        == fold(MANIFEST, [uploaded(), intent(), created(), Deadline(NOW, NOW)])
    )
    second_ledger.add(settled())
    assert first_ledger.state().shards["s0001"].phase is Phase.SETTLED


@settings(max_examples=25, deadline=None)
@given(st.permutations(HISTORY))
def test_every_record_survives_writing_and_reading(
    tmp_path_factory: pytest.TempPathFactory, records: list[Any]
) -> None:
    folder = LocalFolder(tmp_path_factory.mktemp("ledger"))
    ledger = seal(folder, MANIFEST)
    assert all(ledger.add(record) for record in records)
    read_back = Ledger(folder, MANIFEST)
    assert read_back.state() == fold(MANIFEST, HISTORY)


def test_an_event_is_recorded_once_and_the_first_record_stays(folder: LocalFolder) -> None:
    ledger = seal(folder, MANIFEST)
    assert ledger.add(Created("s0001", 1, "first", NOW))
    assert not ledger.add(Created("s0001", 1, "second", NOW))
    assert not Ledger(folder, MANIFEST).add(Created("s0001", 1, "third", NOW))
    assert ledger.state().shards["s0001"].submissions[0].batch_id == "first"


def test_a_numbered_record_takes_the_next_free_number(folder: LocalFolder) -> None:
    first_ledger, second_ledger = seal(folder, MANIFEST), seal(folder, MANIFEST)

    first_ledger.append(JobCancelled(1, NOW))
    second_ledger.append(JobCancelled(1, NOW))

    names = sorted(path.name for path in folder.path.glob("**/records/job_cancelled.*.json"))
    assert names == ["job_cancelled.1.json", "job_cancelled.2.json"]


def test_a_deadline_is_set_once(folder: LocalFolder) -> None:
    ledger = seal(folder, MANIFEST)
    ledger.add(Deadline(NOW, NOW))
    assert not ledger.add(Deadline(NOW + timedelta(days=9), NOW))
    assert ledger.state().deadline == NOW


def test_exactly_one_of_many_workers_with_an_intent_continues(folder: LocalFolder) -> None:
    workers = 16
    seal(folder, MANIFEST)
    barrier = Barrier(workers)
    winners: list[str] = []

    def work(nonce: str) -> None:
        ledger = Ledger(folder, MANIFEST)
        barrier.wait()
        if ledger.add(Intent("s0001", 1, nonce, "file-1", NOW)):
            winners.append(nonce)

    threads = [Thread(target=work, args=(str(number),)) for number in range(workers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    submission = Ledger(folder, MANIFEST).state().shards["s0001"].submissions[0]
    assert submission.intent is not None
    assert winners == [submission.intent.nonce]


def test_the_first_seal_of_a_generation_counts(folder: LocalFolder) -> None:
    first = seal(folder, MANIFEST)
    second = seal(folder, msgspec.structs.replace(MANIFEST, job_uid="f" * 32))
    assert first.manifest == second.manifest == MANIFEST


def test_a_folder_without_a_seal_is_not_a_job(folder: LocalFolder) -> None:
    assert open_ledger(folder) is None
    with folder.writer("g001/build-1/s0001.jsonl") as file:
        file.write(b"half a")
    assert open_ledger(folder) is None


def test_the_newest_sealed_generation_is_the_job(folder: LocalFolder) -> None:
    second = msgspec.structs.replace(MANIFEST, generation=2, job_uid="2" * 32)
    seal(folder, MANIFEST)
    seal(folder, second).add(uploaded())
    with folder.writer("g003/build-1/s0001.jsonl") as file:
        file.write(b"not sealed")
    ledger = open_ledger(folder)
    assert ledger is not None
    assert ledger.manifest == second
    assert ledger.state().shards["s0001"].phase is Phase.UPLOADED


def test_a_manifest_survives_writing_and_reading(folder: LocalFolder) -> None:
    manifest = msgspec.structs.replace(
        MANIFEST,
        carry=[Column("label", ColumnType.TEXT)],
        output_schema={"type": "object", "properties": {"b": {}, "a": {}}},
        prices={"m": {"input": "0.1", "output": 1}},
        logical_date=NOW,
        metadata={"team": "ä"},
    )
    assert seal(folder, manifest).manifest == manifest
    schema = seal(folder, manifest).manifest.output_schema
    assert schema
    assert list(schema["properties"]) == ["b", "a"]


# Unreadable files


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b'{"type":"uploaded","shard":"\xff"}',
        b"[]",
        b"{}",
        b'{"type":"teleported","shard":"s0001","number":1}',
        b'{"type":"uploaded","shard":"s0001"}',
        b'{"type":"created","shard":"s0001","number":1,"batch_id":3,"time":"2026-11-20T12:00:00Z"}',
    ],
    ids=range(9),
)
def test_an_unreadable_record_is_an_error_that_names_its_file(folder: LocalFolder, data: bytes) -> None:
    ledger = seal(folder, MANIFEST)
    folder.create("g001/records/uploaded.s0001.1.json", data)
    with pytest.raises(LedgerError) as error_info:
        ledger.state()
    assert f"{folder.uri}/g001/records/uploaded.s0001.1.json" in str(error_info.value)
    assert folder.read("g001/records/uploaded.s0001.1.json") == data


@pytest.mark.parametrize("data", [b"", b"garbage", b"{}", b"\xff"])
def test_an_unreadable_seal_is_an_error_that_names_its_file(folder: LocalFolder, data: bytes) -> None:
    folder.create("g001/seal.json", data)
    with pytest.raises(LedgerError, match=r"Cannot read .*g001/seal\.json as a record of a job"):
        open_ledger(folder)


def test_a_job_of_another_format_is_refused_with_advice(folder: LocalFolder) -> None:
    folder.create("g001/seal.json", msgspec.json.encode(msgspec.structs.replace(MANIFEST, format=FORMAT + 1)))
    with pytest.raises(LedgerError, match=rf"has format {FORMAT + 1}, but .* reads format {FORMAT}\. .* new run_id"):
        open_ledger(folder)


def test_fields_added_by_a_later_version_are_ignored(folder: LocalFolder) -> None:
    data = msgspec.to_builtins(MANIFEST) | {"future_field": 1}
    folder.create("g001/seal.json", msgspec.json.encode(data))
    ledger = open_ledger(folder)
    assert ledger is not None
    assert isinstance(ledger.manifest, Manifest)
