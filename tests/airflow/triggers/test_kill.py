"""When a killed trigger cancels its batches.

The answers of Airflow come from a stand-in, because only a running triggerer provides them.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from importlib.metadata import version
from typing import Any
from uuid import UUID, uuid4

import pytest

from tests.airflow.triggers.provider import Provider, ReceivedRequest, Reply

pytestmark = pytest.mark.skipif(
    tuple(map(int, version("apache-airflow-core").split(".")[:2])) < (3, 3),
    reason="Before Airflow 3.3 a trigger does not learn that a person ended its task (there is no BaseTrigger.on_kill)",
)

Run = Callable[[Any], Any]


class Supervisor:
    """Answers the trigger's requests to Airflow: for the state of the task and for the try that deferred last."""

    def __init__(self, state: str | None, attempt: UUID | None) -> None:
        self.state, self.attempt = state, attempt

    def send(self, message: Any) -> Any:
        """Answer a request of the task SDK."""
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


def killed_trigger(batch_ids: list[str], state: str | None, *, later_attempt: bool | None = False) -> Any:
    """Return a trigger whose task is in this state.

    :param later_attempt: whether a later try has deferred; None if a later try has started and not deferred yet.
    """
    from airflow.sdk.execution_time import task_runner

    from airflow_provider_batch.triggers.batch import BatchTrigger

    attempt = Attempt()
    deferred = {True: uuid4(), False: attempt.id, None: None}[later_attempt]
    task_runner.SUPERVISOR_COMMS = Supervisor(state, deferred)  # type: ignore[assignment]
    trigger = BatchTrigger(openai_conn_id="openai_default", job_uid="0123456789", batch_ids=batch_ids, deadline=None)
    trigger._task_instance = attempt  # the public setter would also read the serialized DAG
    return trigger


@pytest.fixture(autouse=True)
def restore_supervisor(monkeypatch: pytest.MonkeyPatch) -> None:
    from airflow.sdk.execution_time import task_runner

    monkeypatch.setattr(task_runner, "SUPERVISOR_COMMS", None, raising=False)


def names(count: int) -> list[str]:
    return [f"batch_{number}" for number in range(count)]


def cancelled(provider: Provider) -> set[str]:
    return {request.batch_id for request in provider.requests if request.path.endswith("/cancel")}


@pytest.mark.parametrize("state", ["failed", "skipped", "removed", None])
def test_a_persons_decision_cancels_every_batch(with_provider: Run, state: str | None) -> None:
    async def test(provider: Provider) -> None:
        ids = provider.add(*names(5))
        await killed_trigger(ids, state).on_kill()
        assert cancelled(provider) == set(ids)

    with_provider(test)


@pytest.mark.parametrize("state", ["success", "queued", "scheduled", "deferred", "running", "up_for_retry", "none"])
def test_any_other_state_cancels_nothing(with_provider: Run, state: str) -> None:
    async def test(provider: Provider) -> None:
        await killed_trigger(provider.add(*names(5)), state).on_kill()
        assert provider.requests == []

    with_provider(test)


@pytest.mark.parametrize("later_attempt", [True, None], ids=["has deferred since", "has begun since"])
def test_a_later_try_that_failed_on_its_own_cancels_nothing(with_provider: Run, later_attempt: bool | None) -> None:
    """A clear starts another try. If that fails quickly, the kill of the first try sees a failed task."""

    async def test(provider: Provider) -> None:
        await killed_trigger(provider.add(*names(5)), "failed", later_attempt=later_attempt).on_kill()
        assert provider.requests == []

    with_provider(test)


def test_five_hundred_batches_are_cancelled_within_airflows_thirty_seconds(with_provider: Run) -> None:
    """Each cancel takes as long as at OpenAI, and every tenth one fails at first."""

    async def test(provider: Provider) -> None:
        ids = provider.add(*names(500))
        failed_ids: set[str] = set()

        def reply(request: ReceivedRequest) -> Reply | None:
            if request.batch_id.endswith("7") and request.batch_id not in failed_ids:
                failed_ids.add(request.batch_id)
                return 500, b"oh no", {}
            return None

        provider.override, provider.latency = reply, 0.3
        started_at = time.monotonic()
        await killed_trigger(ids, "failed").on_kill()
        assert time.monotonic() - started_at < 30
        assert {batch["status"] for batch in provider.batches.values()} == {"cancelling"}

    with_provider(test)


def test_a_batch_that_has_ended_counts_as_cancelled(with_provider: Run) -> None:
    async def test(provider: Provider) -> None:
        ids = provider.add(*names(3))
        provider.override = lambda request: (409, {"error": {"message": "it is completed"}}, {})
        await killed_trigger(ids, "failed").on_kill()
        assert sorted(request.batch_id for request in provider.requests) == sorted(ids)

    with_provider(test)


def test_a_batch_that_the_provider_never_cancels_is_logged_with_the_providers_message(
    with_provider: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    from airflow_provider_batch.triggers import cancel

    monkeypatch.setattr(cancel, "ATTEMPTS", 2)
    not_cancelled: dict[str, str] = {}

    async def test(provider: Provider) -> int:
        ids = provider.add(*names(3))
        provider.override = lambda request: (
            (503, {"error": {"message": "later"}}, {}) if request.batch_id == ids[1] else None
        )
        return await cancel.cancel_batches("openai_default", ids, not_cancelled.__setitem__)

    assert with_provider(test) == 2
    assert not_cancelled == {"batch_1": "HTTP 503: Error code: 503 - later"}


def test_the_batches_are_cancelled_even_if_airflow_cancels_the_kill(with_provider: Run) -> None:
    """Airflow 3.3 cancels `on_kill` again in each round of its loop, about every second."""

    async def test(provider: Provider) -> None:
        ids = provider.add(*names(40))
        provider.latency = 0.1
        kill = asyncio.ensure_future(killed_trigger(ids, "failed").on_kill())
        while not cancelled(provider):
            await asyncio.sleep(0.01)
        kill.cancel()
        while cancelled(provider) != set(ids):
            await asyncio.sleep(0.01)

    with_provider(test)
