"""The phases of a shard, and which record moves it from one phase to another.

`ShardState.phase` computes the phase from the records. This table documents it: `docs/explanation/lifecycle.md` draws
its diagram from the table, and `tests/core/lifecycle/test_laws.py` checks that no other transition occurs.
"""

from __future__ import annotations

from typing import NamedTuple

from airflow_provider_batch.core.ledger.records import Created, Intent, Record, Refused, RetryRound, Settled, Uploaded
from airflow_provider_batch.core.ledger.state import Phase


class Transition(NamedTuple):
    """A record that moves a shard from one phase to another."""

    before: Phase
    record: type[Record]
    after: Phase
    #: label of the arrow in the diagram
    text: str


TRANSITIONS: tuple[Transition, ...] = (
    Transition(Phase.SEALED, Uploaded, Phase.UPLOADED, "the provider has the input file"),
    Transition(Phase.SEALED, Intent, Phase.CREATING, "a worker claims it"),
    Transition(Phase.UPLOADED, Intent, Phase.CREATING, "a worker is about to create the batch"),
    Transition(Phase.CREATING, Created, Phase.LIVE, "the batch exists"),
    Transition(Phase.CREATING, Refused, Phase.SEALED, "it was refused or lost, so there is no batch"),
    Transition(Phase.SEALED, Created, Phase.LIVE, "a batch that was considered lost appears"),
    Transition(Phase.LIVE, Settled, Phase.SETTLED, "the batch ended and is collected"),
    Transition(Phase.LIVE, Settled, Phase.SEALED, "the batch failed before any request ran"),
    Transition(Phase.SEALED, Settled, Phase.SETTLED, "the canary is answered"),
    Transition(Phase.CREATING, Settled, Phase.SETTLED, "the final pass is answered, or the shard is given up"),
    Transition(Phase.CREATING, RetryRound, Phase.RESEALED, "its rows were sealed into other shards"),
)
