"""Which generation of a job a start of the submit task works on.

A *generation* is the set of rows that were sealed together. Airflow starts submit again for two reasons that must not
be confused:

* A *retry* follows a crash or a failed attempt. It works from the sealed shards and never reads the warehouse again:
  the rows may have changed since, and some of them may already be paid for.
* A *clear* is a person's decision, possibly after the query or a template was changed. The rows are read and rendered
  again, and compared with the sealed ones. Unchanged rows keep their batches and answers. The others are sealed as a
  new generation.

Airflow's try number does not tell them apart, because it counts up in both cases. `max_tries` does, because only a
clear changes it. With `retries=1`:

    start        try   max_tries   recorded before                      what it is
    first          1           1   nothing                              the first start
    after a crash  2           1   the task started in epoch 1          a retry: continue
    cleared        3           3   the task started in epoch 1          a clear: compare
    after a crash  4           3   the task started in epochs 1 and 3   a retry: continue

Each start records the `max_tries` that it sees as its *clear epoch* (`TaskStarted`). If earlier starts of this
generation recorded only other values, the task was cleared. The same holds if submit has already succeeded, because
Airflow does not retry a task that succeeded.

A job without a seal gets its first generation. For all other starts, the first of the `RULES` that holds decides.
`docs/explanation/lifecycle.md` shows the same table. `core.ledger.ledger` describes how the generations of a job lie
in its folder.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from typing import NamedTuple

from airflow_provider_batch.core.ledger.records import Task
from airflow_provider_batch.core.ledger.state import JobState


class Action(StrEnum):
    """What a start of the submit task does."""

    #: seal the first generation
    SEAL = "seal"
    #: work from the newest seal, without reading the warehouse
    CONTINUE = "continue"
    #: read the warehouse, and keep the rows that are unchanged since the newest generation
    COMPARE = "compare"
    #: the same, but compare with the newest generation that its canary did not stop
    COMPARE_WITH_VALID = "compare_with_valid"
    #: read the warehouse, and send every row from scratch
    START_OVER = "start_over"


class Start(NamedTuple):
    """A start of the submit task, for a job that has a seal."""

    state: JobState
    #: the `max_tries` of the task instance, which only a clear changes
    clear_epoch: int
    #: whether the author or the run's configuration wants every row sent again after a clear
    resubmit: bool

    @property
    def is_cleared(self) -> bool:
        """Whether a person cleared the task since it last worked on this generation."""
        epochs = self.state.clear_epochs_of(Task.SUBMIT)
        return self.state.submit_returned or (bool(epochs) and self.clear_epoch not in epochs)


class Rule(NamedTuple):
    """A condition and the action that follows if it holds. The texts are shown in the docs."""

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
    """The action of a start of the submit task, and its generation."""

    action: Action
    #: number of the generation to work on, from 1
    generation: int
    #: whether answers in the table `reuse_from` are reused
    reuse: bool


def choose_generation(state: JobState | None, clear_epoch: int, *, resubmit: bool) -> Decision:
    """Decide whether a start of submit continues, compares or starts over.

    :param state: the state of the newest generation, or None if nothing is sealed.
    :param clear_epoch: the `max_tries` of the task instance.
    :param resubmit: whether the author or the run's configuration wants every row sent again after a clear.
    """
    if state is None:
        return Decision(Action.SEAL, 1, reuse=not resubmit)
    start = Start(state, clear_epoch, resubmit)
    action = next(rule.action for rule in RULES if rule.condition(start))
    generation = state.manifest.generation + (action is not Action.CONTINUE)
    return Decision(action, generation, reuse=not resubmit and action is not Action.START_OVER)
