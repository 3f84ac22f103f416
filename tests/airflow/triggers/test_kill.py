"""Whose batches a killed trigger cancels. What Airflow would answer it is stood in for, as only a triggerer has it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from importlib.metadata import version
from typing import Any
from uuid import UUID, uuid4

import pytest

from tests.airflow.triggers.provider import Asked, Provider, Reply

pytestmark = pytest.mark.skipif(
    tuple(map(int, version("apache-airflow-core").split(".")[:2])) < (3, 3),
    reason="Before Airflow 3.3 a trigger is not told that a person ended its task (there is no BaseTrigger.on_kill)",
)

Run = Callable[[Any], Any]


class Supervisor:
    """Answers what the trigger asks Airflow: the state of the task, and the attempt that deferred last."""

    def __init__(self, state: str | None, attempt: UUID | None) -> None:
        self.state, self.attempt = state, attempt

    def send(self, message: Any) -> Any:
        """A request of the task SDK."""
        from airflow.sdk.execution_time.comms import GetTaskStates, TaskStatesResult, XComResult

        if isinstance(message, GetTaskStates):
            assert message.run_ids
            states = {message.run_ids[0]: {"wait": self.state}} if self.state else {}
            return TaskStatesResult(task_states=states)
        return XComResult(key=message.key, value=str(self.attempt) if self.attempt else None)


class Attempt:
    """The task instance that a triggerer gives its trigger."""

    dag_id, run_id, task_id, map_index = "dag", "run", "wait", -1

    def __init__(self) -> None:
        self.id = uuid4()


def killed(batch_ids: list[str], state: str | None, *, later_attempt: bool | None = False) -> Any:
    """A trigger whose task is in this state; `later_attempt` None: none has deferred since it began."""
    from airflow.sdk.execution_time import task_runner

    from airflow_provider_batch.triggers.batch import BatchTrigger

    attempt = Attempt()
    deferred = {True: uuid4(), False: attempt.id, None: None}[later_attempt]
    task_runner.SUPERVISOR_COMMS = Supervisor(state, deferred)  # type: ignore[assignment]
    one = BatchTrigger(openai_conn_id="openai_default", job_uid="0123456789", batch_ids=batch_ids, deadline=None)
    one._task_instance = attempt  # what the setter keeps, without the serialized DAG that it reads
    return one


@pytest.fixture(autouse=True)
def supervisor_of_before(monkeypatch: pytest.MonkeyPatch) -> None:
    from airflow.sdk.execution_time import task_runner

    monkeypatch.setattr(task_runner, "SUPERVISOR_COMMS", None, raising=False)


def names(count: int) -> list[str]:
    return [f"batch_{number}" for number in range(count)]


def cancelled(provider: Provider) -> set[str]:
    return {asked.batch_id for asked in provider.asked if asked.path.endswith("/cancel")}


@pytest.mark.parametrize("state", ["failed", "skipped", "removed", None])
def test_a_persons_decision_cancels_every_batch(with_provider: Run, state: str | None) -> None:
    async def test(provider: Provider) -> None:
        ids = provider.add(*names(5))
        await killed(ids, state).on_kill()
        assert cancelled(provider) == set(ids)

    with_provider(test)


@pytest.mark.parametrize("state", ["success", "queued", "scheduled", "deferred", "running", "up_for_retry", "none"])
def test_any_other_state_cancels_nothing(with_provider: Run, state: str) -> None:
    async def test(provider: Provider) -> None:
        await killed(provider.add(*names(5)), state).on_kill()
        assert provider.asked == []

    with_provider(test)


@pytest.mark.parametrize("later_attempt", [True, None], ids=["has deferred since", "has begun since"])
def test_a_later_attempt_that_failed_by_itself_cancels_nothing(with_provider: Run, later_attempt: bool | None) -> None:
    """A clear starts another attempt; if that fails at once, this one's kill sees a task that failed."""

    async def test(provider: Provider) -> None:
        await killed(provider.add(*names(5)), "failed", later_attempt=later_attempt).on_kill()
        assert provider.asked == []

    with_provider(test)


def test_five_hundred_batches_are_cancelled_within_airflows_thirty_seconds(with_provider: Run) -> None:
    """Each cancel takes as long as at OpenAI, and every tenth first fails. Half of the time is left for others."""

    async def test(provider: Provider) -> None:
        ids = provider.add(*names(500))
        tried: set[str] = set()

        def reply(asked: Asked) -> Reply | None:
            if asked.batch_id.endswith("7") and asked.batch_id not in tried:
                tried.add(asked.batch_id)
                return 500, b"oh no", {}
            return None

        provider.instead, provider.latency = reply, 0.3
        began = time.monotonic()
        await killed(ids, "failed").on_kill()
        assert time.monotonic() - began < 30
        assert {batch["status"] for batch in provider.batches.values()} == {"cancelling"}

    with_provider(test)


def test_a_batch_that_has_ended_counts_as_cancelled(with_provider: Run) -> None:
    async def test(provider: Provider) -> None:
        ids = provider.add(*names(3))
        provider.instead = lambda asked: (409, {"error": {"message": "it is completed"}}, {})
        await killed(ids, "failed").on_kill()
        assert sorted(asked.batch_id for asked in provider.asked) == sorted(ids)

    with_provider(test)


def test_a_batch_that_the_provider_never_cancels_is_logged_in_its_words(
    with_provider: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    from airflow_provider_batch.triggers import cancel

    monkeypatch.setattr(cancel, "ATTEMPTS", 2)
    not_cancelled: dict[str, str] = {}

    async def test(provider: Provider) -> int:
        ids = provider.add(*names(3))
        provider.instead = lambda asked: (
            (503, {"error": {"message": "later"}}, {}) if asked.batch_id == ids[1] else None
        )
        return await cancel.cancel_batches("openai_default", ids, not_cancelled.__setitem__)

    assert with_provider(test) == 2
    assert not_cancelled == {"batch_1": "HTTP 503: Error code: 503 - later"}


def test_the_cancelling_goes_on_when_airflow_cancels_the_kill(with_provider: Run) -> None:
    """Airflow 3.3 cancels `on_kill` anew with each round of its loop, about every second."""

    async def test(provider: Provider) -> None:
        ids = provider.add(*names(40))
        provider.latency = 0.1
        kill = asyncio.ensure_future(killed(ids, "failed").on_kill())
        while not cancelled(provider):
            await asyncio.sleep(0.01)
        kill.cancel()
        while cancelled(provider) != set(ids):
            await asyncio.sleep(0.01)

    with_provider(test)
