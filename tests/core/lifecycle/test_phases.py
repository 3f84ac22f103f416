"""Every arrow of the diagram: a record moves a shard from one phase to another."""

from __future__ import annotations

import pytest

from airflow_provider_batch.core.ledger.fold import fold
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
from airflow_provider_batch.core.ledger.state import Phase
from airflow_provider_batch.core.lifecycle.phases import TRANSITIONS
from tests.core.building import NOW, manifest_of, plain_shard

UPLOADED = Uploaded("s0001", 1, "file", NOW)
INTENT = Intent("s0001", 1, "nonce", "file", NOW)
CREATED = Created("s0001", 1, "batch", NOW)
LOST = Refused("s0001", 1, Failure.LOST, "lost", NOW)
SETTLED = Settled("s0001", 1, "batch", "completed", NOW)
FAILED = Settled("s0001", 1, "batch", "failed", NOW, failure=Failure.CAPACITY)
ANSWERED = Settled("s0001", 1, "", "answered", NOW)

CASES: list[tuple[list[Record], Record, Phase]] = [
    ([], UPLOADED, Phase.UPLOADED),
    ([], INTENT, Phase.CREATING),
    ([UPLOADED], INTENT, Phase.CREATING),
    ([UPLOADED, INTENT], CREATED, Phase.LIVE),
    ([UPLOADED, INTENT], LOST, Phase.SEALED),
    ([UPLOADED, INTENT, LOST], CREATED, Phase.LIVE),
    ([UPLOADED, INTENT, CREATED], SETTLED, Phase.SETTLED),
    ([UPLOADED, INTENT, CREATED], FAILED, Phase.SEALED),
    ([], ANSWERED, Phase.SETTLED),
    ([INTENT], ANSWERED, Phase.SETTLED),
    ([INTENT], RetryRound(1, [("s0001", 1)], [], NOW), Phase.RESEALED),
]


def phase(records: list[Record]) -> Phase:
    return fold(manifest_of([plain_shard("s0001")]), records).shards["s0001"].phase


@pytest.mark.parametrize(("before", "record", "after"), CASES)
def test_a_record_moves_a_shard_to_its_next_phase(before: list[Record], record: Record, after: Phase) -> None:
    assert phase([*before, record]) is after


@pytest.mark.parametrize("failure", [Failure.ACCOUNT, Failure.LOST])
@pytest.mark.parametrize("first", ["answered", "refused"])
def test_an_answered_canary_is_not_sent_again_even_if_another_worker_was_refused(failure: Failure, first: str) -> None:
    records: list[Record] = [ANSWERED, Refused("s0001", 1, failure, "refused", NOW)]
    state = fold(manifest_of([plain_shard("s0001")]), records if first == "answered" else records[::-1])
    shard = state.shards["s0001"]
    assert shard.phase is Phase.SETTLED
    assert shard.next_number == 1
    assert [settled for _, _, settled in state.settled_submissions()] == [ANSWERED]


def test_the_diagram_has_these_arrows_and_no_others() -> None:
    arrows = [(transition.before, transition.record, transition.after) for transition in TRANSITIONS]
    assert sorted(map(str, arrows)) == sorted(
        str((phase(before), type(record), after)) for before, record, after in CASES
    )
