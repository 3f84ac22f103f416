"""Which generation of a job a start of the submit task works on.

A *generation* is the set of rows that were sealed together. Airflow starts submit again for two reasons that must not
be confused. A *retry* follows a crash or a failed attempt: it works from the sealed shards and never reads the
warehouse again. A *clear* is a person's decision: the query and the templates may have changed since, so the rows are
read, rendered and compared with the sealed ones. What is unchanged keeps its batch and its answer; the rest is sealed
as a new generation.

Airflow counts attempts up over retries and clears alike, but only a clear moves `max_tries`. Each start records the
`max_tries` that it saw (`TaskStarted`), so a value that no earlier start saw means that the task was cleared. So does
any start after submit had returned.

`RULES` is the whole decision, from the first rule that holds. `docs/lifecycle.md` shows the same table.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from typing import NamedTuple

from airflow_provider_batch.core.ledger.records import Task
from airflow_provider_batch.core.ledger.state import JobState


class Action(StrEnum):
    """What a start of submit does."""

    #: seal the first generation
    SEAL = "seal"
    #: work from the newest seal, without reading the warehouse
    CONTINUE = "continue"
    #: read the warehouse, and keep what is unchanged since the newest generation
    COMPARE = "compare"
    #: the same, but compare with the newest generation that its canary did not stop
    COMPARE_WITH_VALID = "compare_with_valid"
    #: read the warehouse, and send every row from scratch
    START_OVER = "start_over"


class Start(NamedTuple):
    """A start of submit for a job that has a seal."""

    state: JobState
    #: the task instance's max_tries, which only a clear moves
    clear_epoch: int
    #: whether the author or the run's configuration wants every row sent again after a clear
    resubmit: bool

    @property
    def is_cleared(self) -> bool:
        """Whether a person cleared the task since it last worked on this generation."""
        seen = self.state.clear_epochs_of(Task.SUBMIT)
        return self.state.submit_returned or (bool(seen) and self.clear_epoch not in seen)


class Rule(NamedTuple):
    """If the condition holds, the action follows."""

    condition_text: str
    condition: Callable[[Start], bool]
    consequence_text: str
    action: Action


RULES = (
    Rule(
        "`airflow-batch jobs resubmit` was called for the job",
        lambda start: start.state.resubmit_requested,
        "Send every row from scratch.",
        Action.START_OVER,
    ),
    Rule(
        "the task was cleared, and `resubmit` or the run's `batch_resubmit` is set",
        lambda start: start.is_cleared and start.resubmit,
        "Send every row from scratch.",
        Action.START_OVER,
    ),
    Rule(
        "the canary stopped the newest generation",
        lambda start: start.state.canary_verdict is not None and bool(start.state.canary_verdict.void),
        "Read the rows again, and compare them with the newest generation that no canary stopped.",
        Action.COMPARE_WITH_VALID,
    ),
    Rule(
        "the task was cleared",
        lambda start: start.is_cleared,
        "Read the rows again, and compare them with the newest generation.",
        Action.COMPARE,
    ),
    Rule(
        "otherwise: it is a retry",
        lambda start: True,
        "Continue from the sealed shards, without reading the warehouse.",
        Action.CONTINUE,
    ),
)


class Decision(NamedTuple):
    """What a start of submit does, and for which generation."""

    action: Action
    #: number of the generation to work on, from 1
    generation: int
    #: whether answers in the table of `reuse_from` count
    reuse: bool


def choose_generation(state: JobState | None, clear_epoch: int, *, resubmit: bool) -> Decision:
    """Decide whether a start of submit continues, compares or starts over.

    :param state: what is recorded of the newest generation; None if nothing was sealed yet.
    :param clear_epoch: the task instance's `max_tries`.
    :param resubmit: whether every row is to be sent again after a clear.
    """
    if state is None:
        return Decision(Action.SEAL, 1, reuse=not resubmit)
    start = Start(state, clear_epoch, resubmit)
    action = next(rule.action for rule in RULES if rule.condition(start))
    generation = state.manifest.generation + (action is not Action.CONTINUE)
    return Decision(action, generation, reuse=not resubmit and action is not Action.START_OVER)
