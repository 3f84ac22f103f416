"""The phases of a shard: which record moves it from one to another. `docs/lifecycle.md` draws its diagram from this.

`ShardState.phase` computes the phase from the records. The laws of the lifecycle check that no other transition occurs.
"""

from __future__ import annotations

from typing import NamedTuple

from airflow_provider_batch.core.ledger.records import Created, Intent, Record, Refused, RetryRound, Settled, Uploaded
from airflow_provider_batch.core.ledger.state import Phase


class Transition(NamedTuple):
    """A record takes a shard from one phase to another."""

    before: Phase
    record: type[Record]
    after: Phase
    #: what happened, in the words of the diagram
    text: str


TRANSITIONS: tuple[Transition, ...] = (
    Transition(Phase.SEALED, Uploaded, Phase.UPLOADED, "the provider has the input file"),
    Transition(Phase.SEALED, Intent, Phase.CREATING, "a worker claims it"),
    Transition(Phase.UPLOADED, Intent, Phase.CREATING, "a worker is about to create the batch"),
    Transition(Phase.CREATING, Created, Phase.LIVE, "the batch exists"),
    Transition(Phase.CREATING, Refused, Phase.SEALED, "there is no batch, it was refused or lost"),
    Transition(Phase.SEALED, Created, Phase.LIVE, "a batch taken for lost appears"),
    Transition(Phase.LIVE, Settled, Phase.SETTLED, "the batch ended and is collected"),
    Transition(Phase.LIVE, Settled, Phase.SEALED, "the batch failed before any request ran"),
    Transition(Phase.SEALED, Settled, Phase.SETTLED, "a canary is answered"),
    Transition(Phase.CREATING, Settled, Phase.SETTLED, "the final pass is answered, or the shard is given up"),
    Transition(Phase.CREATING, RetryRound, Phase.RESEALED, "its rows are in other shards"),
)
