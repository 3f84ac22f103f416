"""Asks requests synchronously: the canary before anything is uploaded, the finish line after the deadline.

What comes back is written to staging as the result lines of a batch are, so it is counted, landed and asked again by
the same code. Nothing is recorded before all answers of a shard are there: a worker that is killed in between
leaves these few requests to be asked once more, at most `canary` of each model, or 16 at the finish line.
"""

from __future__ import annotations

import hashlib
import secrets
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import msgspec

from airflow_provider_batch.core.ledger.ledger import Ledger
from airflow_provider_batch.core.ledger.records import Collected
from airflow_provider_batch.core.lifecycle.failures import is_of_account
from airflow_provider_batch.core.lifecycle.steps import SendSynchronously
from airflow_provider_batch.core.sealing.final_pass import FINAL_PASS_CONCURRENCY
from airflow_provider_batch.exceptions import StagingError, StoppedError
from airflow_provider_batch.hooks.batch import BatchHook, SynchronousResponse
from airflow_provider_batch.worker.parallel import at_once


class Manner(NamedTuple):
    """How requests are asked."""

    #: what they are, for a person
    name: str
    #: requests on their way at the same time
    at_once: int
    #: seconds before a request that was surely not billed (429, 503) is asked once more, unless its answer says how
    #: long; after the last of them that answer counts
    pauses: tuple[float, ...]
    #: a longer pause than this that the provider asks for is not waited for
    max_pause: float


#: after the last pause a request is left to a batch
CANARY = Manner("canary", 4, (0.5, 2.0), 10.0)
#: there is no batch after it, so more patience; one shard of it is asked wholly at once
FINISH_LINE = Manner("finish line", FINAL_PASS_CONCURRENCY, (1.0, 5.0, 20.0), 30.0)


class _Request(NamedTuple):
    """One request."""

    step: SendSynchronously
    custom_id: str
    body: dict[str, Any]


class _Line(msgspec.Struct):
    custom_id: str
    body: dict[str, Any]


class Answers(NamedTuple):
    """What came back for one shard."""

    step: SendSynchronously
    asked: list[tuple[str, SynchronousResponse]]

    @property
    def account_says(self) -> str | None:
        """Why a person must act; None if a request was answered, or none was refused for the account's sake."""
        refused = [one for _, one in self.asked if is_of_account(one.status, one.code)]
        if not refused or any(one.status == 200 for _, one in self.asked):
            return None
        one = refused[0]
        return f"HTTP {one.status}, {one.code or 'no code'}: {_message(one.body)}"


def ask_all(
    ledger: Ledger,
    hook: BatchHook,
    steps: Sequence[SendSynchronously],
    done: Callable[[Answers], None],
    stopping: Callable[[], bool],
    manner: Manner = CANARY,
) -> None:
    """Ask the requests of these shards, several at once; `done` is told of each shard once it is complete.

    :raises StoppedError: if `stopping` said so before all were asked.
    :raises StagingError: if an input file is not the one that was sealed; nothing was asked then.
    """
    hook.warm_up()
    endpoint = ledger.manifest.endpoint
    requests = [request for step in steps for request in _requests(ledger, step)]
    came: dict[str, list[tuple[str, SynchronousResponse]]] = {}

    def keep(request: _Request, asked: SynchronousResponse) -> None:
        shard = request.step.shard.spec
        answers = came.setdefault(shard.name, [])
        answers.append((request.custom_id, asked))
        if len(answers) == shard.requests:
            done(Answers(request.step, answers))

    def ask(request: _Request) -> SynchronousResponse:
        return _ask(hook, endpoint, request.body, stopping, manner)

    count = at_once(requests, ask, keep, manner.at_once, stop=stopping)
    if count < len(requests):
        raise StoppedError(
            f"This worker was told to end, so {len(requests) - count} of {len(requests)} requests of the {manner.name} "
            "were not asked. Everything done before is recorded; the next attempt goes on from there."
        )


def _requests(ledger: Ledger, step: SendSynchronously) -> list[_Request]:
    shard = step.shard.spec
    with ledger.folder.reader(shard.file) as file:
        data = file.read()
    if hashlib.sha256(data).hexdigest() != shard.sha256:
        raise StagingError(
            f"{ledger.folder.uri}/{shard.file} is not the file that was sealed: its checksum differs. Nothing of "
            "it was asked or uploaded. Put the file back, or start a new run, which reads the warehouse again."
        )
    lines = [msgspec.json.decode(line, type=_Line) for line in data.split(b"\n") if line]
    return [_Request(step, line.custom_id, line.body) for line in lines]


def _ask(
    hook: BatchHook, endpoint: str, body: dict[str, Any], stopping: Callable[[], bool], manner: Manner
) -> SynchronousResponse:
    """One request, with the repetitions that cost nothing."""
    for pause in manner.pauses:
        asked = hook.send_request(endpoint, body)
        wait = max(asked.retry_after or 0.0, pause)
        again = asked.status in (429, 503) and not is_of_account(asked.status, asked.code) and wait <= manner.max_pause
        if not again or stopping():
            return asked
        time.sleep(wait)
        if stopping():
            return asked
    return hook.send_request(endpoint, body)


def write(ledger: Ledger, answers: Answers) -> Collected:
    """The answers as a result file in staging."""
    shard = answers.step.shard.spec
    name = f"{ledger.prefix}/collected/{shard.name}.{answers.step.number}/output.{secrets.token_hex(4)}.jsonl"
    data = b"".join(_line(custom_id, asked) + b"\n" for custom_id, asked in answers.asked)
    with ledger.folder.writer(name) as file:
        file.write(data)
    return Collected(name, len(data), hashlib.sha256(data).hexdigest())


def _line(custom_id: str, asked: SynchronousResponse) -> bytes:
    """An answer as a line of a batch's result file."""
    response, error = None, None
    if asked.status:
        response = {"status_code": asked.status, "request_id": asked.request_id, "body": _parsed(asked.body)}
    else:
        error = {"code": asked.code, "message": asked.body.decode()}
    return msgspec.json.encode(
        {"id": f"asked_{secrets.token_hex(8)}", "custom_id": custom_id, "response": response, "error": error}
    )


def _parsed(body: bytes) -> Any:
    """The body as JSON, else as text: it may be a gateway's page."""
    try:
        return msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return body.decode("utf-8", "replace")


def _message(body: bytes) -> str:
    """The provider's words in an error body."""
    data = _parsed(body)
    error = data.get("error", data) if isinstance(data, dict) else data
    message = error.get("message") if isinstance(error, dict) else error
    return str(message)[:300]
