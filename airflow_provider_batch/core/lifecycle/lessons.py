"""Lessons: what one job learns for the next one: queue limits that the provider named, and the tokens of requests.

Each lesson is a small file, created exclusively and never rewritten. Of several lessons about the same subject, the
newest few are kept. They lie next to the jobs in staging, in one folder per connection:

    limit.MODEL.TIME.ID.json           the enqueued tokens that a model may have, from a refusal of the provider
    output.TASK.MODEL.TIME.ID.json     the output tokens of the answers that a job of this task got from a model, and
                                       their input tokens, reported and estimated

MODEL and TASK are digests. A limit applies to a connection and a model. Prompts differ, so an output applies to a task
of a DAG as well. Lessons contain no keys and no row data.

A lesson may be out of date, so little depends on it. A limit makes shards smaller, but holds nothing back. An output
narrows the estimate that is shown, but never refuses a job and does not count against its budget. Input tokens correct
the estimate that is shown, the sizes of shards, and what the budget reserves until the first answers of the job are
there. They never refuse a job either.
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
from airflow_provider_batch.core.ledger.samples import InputSample, OutputSample
from airflow_provider_batch.core.ledger.state import JobState
from airflow_provider_batch.core.lifecycle.capacity import parse_queue_limit
from airflow_provider_batch.core.pricing.input_correction import input_factor

#: age from which a lesson is ignored
MAX_AGE = timedelta(days=30)
#: number of lessons about the same subject that are kept
MAX_KEPT = 5
#: minimum number of answers from which the length of future answers is estimated
MIN_ANSWERS = 20


class QueueLimit(msgspec.Struct, frozen=True, tag="limit"):
    """The number of enqueued tokens that a model may have, as the provider named it."""

    model: str
    tokens: int
    #: when the provider refused a shard with this limit
    time: datetime


class Output(msgspec.Struct, frozen=True, tag="output"):
    """The number and length of the answers that a job got from a model."""

    job_uid: str
    dag_id: str
    task_id: str
    model: str
    #: the output of the answers that report their usage
    outputs: OutputSample
    #: their input tokens, as reported and as estimated, before any correction
    inputs: InputSample
    #: when the job was sealed
    time: datetime


Lesson = QueueLimit | Output


class LearnedFacts(msgspec.Struct, frozen=True):
    """The lessons that apply to the next job of a task, by model."""

    #: the newest limit that the provider named
    limits: dict[str, QueueLimit] = {}
    #: the output of the answers of earlier jobs, for models with enough answers
    outputs: dict[str, OutputSample] = {}
    #: reported divided by estimated input tokens of earlier jobs, for models with enough answers
    input_factors: dict[str, float] = {}


def lessons_from(state: JobState) -> list[Lesson]:
    """Return the lessons of a job. Limits that were inferred from refusals without a number are not among them."""
    return [*queue_limits(state), *_outputs(state)]


def queue_limits(state: JobState) -> list[QueueLimit]:
    """Return the newest limit of each model that the provider named to this job."""
    limits: dict[str, QueueLimit] = {}
    for shard in state.shards.values():
        for submission in shard.submissions:
            rejection, model = submission.rejection, shard.model
            tokens = (
                parse_queue_limit(rejection.message) if rejection and rejection.failure is Failure.CAPACITY else None
            )
            if rejection and tokens and (model not in limits or rejection.time > limits[model].time):
                limits[model] = QueueLimit(model, tokens, rejection.time)
    return list(limits.values())


def _outputs(state: JobState) -> list[Output]:
    outputs: defaultdict[str, OutputSample] = defaultdict(OutputSample)
    inputs: defaultdict[str, InputSample] = defaultdict(InputSample)
    for shard, _, settled in state.settled_submissions():
        outputs[shard.model] += settled.outputs
        inputs[shard.model] += settled.inputs
    job_uid, key, sealed_at = state.manifest.job_uid, state.manifest.key, state.manifest.sealed_at
    return [
        Output(job_uid, key.dag_id, key.task_id, model, sample, inputs[model], sealed_at)
        for model, sample in outputs.items()
        if sample.tokens or inputs[model].reported
    ]


def save_lessons(folder: Folder, lessons: Iterable[Lesson]) -> list[Lesson]:
    """Save lessons in the folder of their connection, and return the ones that are new.

    Saving the same lesson again, for example after a clear of the job, changes nothing.
    """
    new_lessons = []
    for lesson in lessons:
        subject = _subject(lesson)
        name = f"{subject}.{_stamp(lesson.time)}.{_digest(msgspec.json.encode(_identity(lesson)))}.json"
        if folder.create(name, msgspec.json.encode(lesson)):
            new_lessons.append(lesson)
            same_subject = [name for name in folder.names("") if name.startswith(f"{subject}.")]
            for old_name in same_subject[:-MAX_KEPT]:
                folder.remove(old_name)
    return new_lessons


def load_lessons(folder: Folder, key: JobKey, now: datetime) -> LearnedFacts:
    """Return the lessons that apply to the next job of this task. Files that are not valid lessons are skipped."""
    limits: dict[str, QueueLimit] = {}
    outputs: defaultdict[str, OutputSample] = defaultdict(OutputSample)
    inputs: defaultdict[str, InputSample] = defaultdict(InputSample)
    kinds = ("limit.", f"output.{_task(key.dag_id, key.task_id)}.")
    # The names sort by time, so the newest limit of a model is read last.
    for name in folder.names(""):
        data = folder.read(name) if name.startswith(kinds) else None
        lesson = _decode(data) if data is not None else None
        if lesson is None or not now - MAX_AGE < lesson.time:
            continue
        if isinstance(lesson, QueueLimit):
            limits[lesson.model] = lesson
        else:
            outputs[lesson.model] += lesson.outputs
            inputs[lesson.model] += lesson.inputs
    enough = {model: sample for model, sample in outputs.items() if sample.answers >= MIN_ANSWERS and sample.tokens}
    factors = {
        model: input_factor(sample.reported, sample.estimated)
        for model, sample in inputs.items()
        if sample.answers >= MIN_ANSWERS
    }
    return LearnedFacts(limits, enough, {model: factor for model, factor in factors.items() if factor is not None})


def _decode(data: bytes) -> Lesson | None:
    try:
        lesson: Lesson = msgspec.json.decode(data, type=Lesson)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    return lesson


def _subject(lesson: Lesson) -> str:
    """Return the common prefix of the file names of all lessons about the same subject."""
    model = _digest(lesson.model.encode())
    if isinstance(lesson, QueueLimit):
        return f"limit.{model}"
    return f"output.{_task(lesson.dag_id, lesson.task_id)}.{model}"


def _identity(lesson: Lesson) -> str:
    return str(lesson.tokens) if isinstance(lesson, QueueLimit) else lesson.job_uid


def _task(dag_id: str, task_id: str) -> str:
    return _digest(msgspec.json.encode([dag_id, task_id]))


def _stamp(time: datetime) -> str:
    return f"{time:%Y%m%dT%H%M%S%f}"


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:24]
