"""What a job found out that the next one may use: the queue limit that its provider told, and how long answers are.

Each lesson is a small file, created exclusively and never rewritten; of those about the same thing the newest few are
kept. They lie beside the jobs, one folder for each connection:

    limit.MODEL.TIME.ID.json           a refusal of the provider named the enqueued tokens that a model may have
    output.TASK.MODEL.TIME.ID.json     the output tokens of the answers that a job of this task had from a model

MODEL and TASK are digests. The limit is of the connection and model alone; prompts differ, so the output is of the
task of the DAG too. Nothing of a key or of a row is in them.

They may be out of date, so little depends on them. The limit makes shards smaller and holds nothing back; the output
narrows the estimate that is shown, and neither refuses a job nor counts for its budget.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable
from datetime import datetime, timedelta

import msgspec

from airflow_provider_batch.core.ledger.folder import Folder
from airflow_provider_batch.core.ledger.job import JobKey
from airflow_provider_batch.core.ledger.records import Failure
from airflow_provider_batch.core.ledger.state import JobState
from airflow_provider_batch.core.lifecycle.capacity import parse_queue_limit

#: older lessons count no more
MAX_AGE = timedelta(days=30)
#: lessons about the same thing that are kept
MAX_KEPT = 5
#: answers that tell how long answers are; fewer tell too little
MIN_ANSWERS = 20


class QueueLimit(msgspec.Struct, frozen=True, tag="limit"):
    """The provider named the enqueued tokens that a model may have at once."""

    model: str
    tokens: int
    #: when it refused
    time: datetime


class Output(msgspec.Struct, frozen=True, tag="output"):
    """The answers that a job had from a model."""

    job_uid: str
    dag_id: str
    task_id: str
    model: str
    #: answers that report what they used, and their output tokens
    answers: int
    output_tokens: int
    #: when the job was sealed
    time: datetime


Lesson = QueueLimit | Output


class LearnedFacts(msgspec.Struct, frozen=True):
    """What the next job of a task may use, by model."""

    #: the newest limit that was told
    limits: dict[str, QueueLimit] = {}
    #: answers of earlier jobs and their output tokens, where there are enough
    outputs: dict[str, tuple[int, int]] = {}


def lessons_from(state: JobState) -> list[Lesson]:
    """What a job teaches: only limits that were told, never what was inferred from a refusal without a number."""
    return [*queue_limits(state), *_outputs(state)]


def queue_limits(state: JobState) -> list[QueueLimit]:
    """For each model the newest limit that the provider named to this job."""
    found: dict[str, QueueLimit] = {}
    for shard in state.shards.values():
        for submission in shard.submissions:
            rejection, model = submission.rejection, shard.model
            tokens = (
                parse_queue_limit(rejection.message) if rejection and rejection.failure is Failure.CAPACITY else None
            )
            if rejection and tokens and (model not in found or rejection.time > found[model].time):
                found[model] = QueueLimit(model, tokens, rejection.time)
    return list(found.values())


def _outputs(state: JobState) -> list[Output]:
    answers: defaultdict[str, int] = defaultdict(int)
    tokens: defaultdict[str, int] = defaultdict(int)
    for shard, _, settled in state.settled_submissions():
        answers[shard.model] += settled.answers
        tokens[shard.model] += settled.output_tokens
    of = state.manifest
    return [
        Output(of.job_uid, of.key.dag_id, of.key.task_id, model, answers[model], tokens[model], of.sealed_at)
        for model in answers
        if tokens[model]
    ]


def save_lessons(folder: Folder, found: Iterable[Lesson]) -> list[Lesson]:
    """Keep lessons in the folder of their connection; those that are new to it.

    A job that teaches the same again, as after a clear, changes nothing.
    """
    new = []
    for lesson in found:
        about = _about(lesson)
        name = f"{about}.{_stamp(lesson.time)}.{_digest(msgspec.json.encode(_identity(lesson)))}.json"
        if folder.create(name, msgspec.json.encode(lesson)):
            new.append(lesson)
            of_it = [one for one in folder.names("") if one.startswith(f"{about}.")]
            for old in of_it[:-MAX_KEPT]:
                folder.remove(old)
    return new


def load_lessons(folder: Folder, key: JobKey, now: datetime) -> LearnedFacts:
    """What the next job of this task may use. A file that does not read as a lesson is passed over."""
    limits: dict[str, QueueLimit] = {}
    outputs: defaultdict[str, list[int]] = defaultdict(lambda: [0, 0])
    kinds = ("limit.", f"output.{_task(key.dag_id, key.task_id)}.")
    # by name they are in the order of time
    for name in folder.names(""):
        data = folder.read(name) if name.startswith(kinds) else None
        lesson = _decode(data) if data is not None else None
        if lesson is None or not now - MAX_AGE < lesson.time:
            continue
        if isinstance(lesson, QueueLimit):
            limits[lesson.model] = lesson
        else:
            outputs[lesson.model][0] += lesson.answers
            outputs[lesson.model][1] += lesson.output_tokens
    enough = {model: (answers, tokens) for model, (answers, tokens) in outputs.items() if answers >= MIN_ANSWERS}
    return LearnedFacts(limits, enough)


def _decode(data: bytes) -> Lesson | None:
    try:
        lesson: Lesson = msgspec.json.decode(data, type=Lesson)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    return lesson


def _about(lesson: Lesson) -> str:
    """How the names of lessons about the same thing begin."""
    model = _digest(lesson.model.encode())
    if isinstance(lesson, QueueLimit):
        return f"limit.{model}"
    return f"output.{_task(lesson.dag_id, lesson.task_id)}.{model}"


def _identity(lesson: Lesson) -> str:
    return str(lesson.tokens) if isinstance(lesson, QueueLimit) else lesson.job_uid


def _task(dag_id: str, task_id: str) -> str:
    return _digest(msgspec.json.encode([dag_id, task_id]))


def _stamp(moment: datetime) -> str:
    return f"{moment:%Y%m%dT%H%M%S%f}"


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:24]
