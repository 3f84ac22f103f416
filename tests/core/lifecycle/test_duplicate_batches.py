"""Stray batches of a job: which ones are adopted, cancelled, counted or left alone."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_provider_batch.core.ledger.fold import fold
from airflow_provider_batch.core.ledger.records import (
    Created,
    DuplicateBatch,
    Failure,
    Intent,
    Record,
    Refused,
    RetryRound,
    Settled,
    Uploaded,
)
from airflow_provider_batch.core.ledger.state import JobState
from airflow_provider_batch.core.lifecycle.duplicate_batches import find_stray_batches, may_have_lost_batches
from airflow_provider_batch.core.provider.batch import BatchView, Status
from tests.core.building import NOW, manifest_of, plain_shard

MANIFEST = manifest_of([plain_shard("s0001")])


def job(*records: Record) -> JobState:
    return fold(MANIFEST, records)


def batch(name: str, nonce: str = "n1", *, ended: bool = False, job_uid: str = MANIFEST.job_uid) -> BatchView:
    status = Status.COMPLETED if ended else Status.RUNNING
    return BatchView(name, status, status.value, completed=3, metadata={"job_uid": job_uid, "nonce": nonce})


def intent(n: int = 1) -> list[Record]:
    return [Uploaded("s0001", n, "f", NOW), Intent("s0001", n, f"n{n}", "f", NOW)]


LOST = Refused("s0001", 1, Failure.LOST, "lost", NOW)
KEPT = [*intent(), Created("s0001", 1, "kept", NOW)]


def sort_batches(state: JobState, *batches: BatchView) -> dict[str, list[str]]:
    stray = find_stray_batches(state, batches)
    names = {
        "adopt": [view.id for _, _, view in stray.to_adopt],
        "cancel": [view.id for view in stray.to_cancel],
        "ended": [view.id for view in stray.ended],
    }
    return {kind: ids for kind, ids in names.items() if ids}


def test_recorded_batches_and_batches_of_other_jobs_are_left_alone() -> None:
    assert sort_batches(job(*KEPT), batch("kept"), batch("theirs", "n9", job_uid="f" * 32)) == {}
    assert sort_batches(job(*KEPT), BatchView("unnamed", Status.RUNNING, "in_progress")) == {}


@pytest.mark.parametrize("ended", [False, True])
def test_a_duplicate_of_a_recorded_batch_is_cancelled_or_counted(ended: bool) -> None:
    assert sort_batches(job(*KEPT), batch("duplicate", ended=ended)) == {"ended" if ended else "cancel": ["duplicate"]}


@pytest.mark.parametrize("records", [intent(), [*intent(), LOST]])
def test_the_batch_of_an_unanswered_creation_is_adopted_and_a_duplicate_of_it_is_not(records: list[Any]) -> None:
    assert sort_batches(job(*records), batch("late"), batch("duplicate")) == {
        "adopt": ["late"],
        "cancel": ["duplicate"],
    }


def test_the_batch_of_an_earlier_submission_is_a_duplicate() -> None:
    state = job(*intent(), LOST, *intent(2), Created("s0001", 2, "kept", NOW))
    assert sort_batches(state, batch("late", "n1"), batch("kept", "n2")) == {"cancel": ["late"]}


def test_the_batch_of_a_resealed_or_settled_shard_is_a_duplicate() -> None:
    state = job(*intent(), RetryRound(1, [("s0001", 1)], [plain_shard("r01-0001")], NOW))
    assert sort_batches(state, batch("late")) == {"cancel": ["late"]}
    assert sort_batches(job(*intent(), Settled("s0001", 1, "", "given up", NOW)), batch("late")) == {"cancel": ["late"]}


def test_a_duplicate_is_cancelled_once_and_counted_when_it_has_ended() -> None:
    cancelled_duplicate = DuplicateBatch("duplicate", "s0001", "cancelling", False, 1, NOW)
    assert sort_batches(job(*KEPT, cancelled_duplicate), batch("duplicate")) == {}
    assert sort_batches(job(*KEPT, cancelled_duplicate), batch("duplicate", ended=True)) == {"ended": ["duplicate"]}
    ended_duplicate = DuplicateBatch("duplicate", "s0001", "cancelled", True, 2, NOW)
    for state in (job(*KEPT, cancelled_duplicate, ended_duplicate), job(*KEPT, ended_duplicate, cancelled_duplicate)):
        assert sort_batches(state, batch("duplicate", ended=True)) == {}
        assert state.paid_twice == 2


def test_a_job_may_have_lost_batches_if_it_considered_a_creation_lost() -> None:
    assert not may_have_lost_batches(job(*KEPT))
    assert not may_have_lost_batches(job(*intent()))
    assert may_have_lost_batches(job(*intent(), LOST))
    assert not may_have_lost_batches(job(*intent(), LOST, Created("s0001", 1, "kept", NOW)))
