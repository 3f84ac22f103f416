"""Sends requests synchronously: the canary before anything is uploaded, and the final pass after the deadline.

The responses are written to staging as result lines of a batch, so the same code counts, retries and lands them.
Nothing is recorded until all responses of a shard have arrived. If a worker is killed before that, these few requests
are sent once more: at most `canary` requests of each model, or 16 requests of the final pass.
"""

from __future__ import annotations

import hashlib
import secrets
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import msgspec

from airflow_provider_batch.core.answers.tolerant_json import parse
from airflow_provider_batch.core.ledger.ledger import Ledger
from airflow_provider_batch.core.ledger.records import CollectedFile
from airflow_provider_batch.core.ledger.sealed_file import open_sealed
from airflow_provider_batch.core.lifecycle.failures import is_account_failure
from airflow_provider_batch.core.lifecycle.steps import SendSynchronously
from airflow_provider_batch.core.sealing.final_pass import FINAL_PASS_CONCURRENCY
from airflow_provider_batch.exceptions import StoppedError
from airflow_provider_batch.hooks.batch import BatchHook, SynchronousResponse
from airflow_provider_batch.worker.parallel import run_concurrently


class SyncPolicy(NamedTuple):
    """How a kind of request is sent synchronously."""

    #: what the requests are called in logs and errors
    name: str
    #: requests in flight at the same time
    concurrency: int
    #: seconds before each retry of a request that was certainly not billed (429, 503), unless the response says how
    #: long to wait; after the last retry its response counts
    pauses: tuple[float, ...]
    #: longest pause, in seconds, that a response can ask for; if it asks for more, the request is not retried
    max_pause: float


#: a request of the canary that still fails after the last pause is left to a batch
CANARY = SyncPolicy("canary", 4, (0.5, 2.0), 10.0)
#: no batch follows the final pass, so it is more patient; all requests of a shard are in flight together
FINAL_PASS = SyncPolicy("final pass", FINAL_PASS_CONCURRENCY, (1.0, 5.0, 20.0), 30.0)


class _Request(NamedTuple):
    step: SendSynchronously
    custom_id: str
    body: dict[str, Any]


class _Line(msgspec.Struct):
    custom_id: str
    body: dict[str, Any]


class ShardResponses(NamedTuple):
    """The responses to all requests of one shard."""

    step: SendSynchronously
    #: custom_id and response of each request
    responses: list[tuple[str, SynchronousResponse]]

    @property
    def account_error(self) -> str | None:
        """The message for a person if the provider refused the account.

        None if a request succeeded, or if none was refused for that reason.
        """
        refusals = [response for _, response in self.responses if is_account_failure(response.status, response.code)]
        if not refusals or any(response.status == 200 for _, response in self.responses):
            return None
        first = refusals[0]
        return f"HTTP {first.status}, {first.code or 'no code'}: {_message(first.body)}"


def send_all(
    ledger: Ledger,
    hook: BatchHook,
    steps: Sequence[SendSynchronously],
    on_shard: Callable[[ShardResponses], None],
    stopping: Callable[[], bool],
    policy: SyncPolicy = CANARY,
) -> None:
    """Send the requests of these shards, several at the same time.

    :param on_shard: receives the responses of each shard once it is complete.
    :raises StoppedError: if `stopping` returned True before all requests were sent.
    :raises StagingError: if an input file differs from the one that was sealed; in that case nothing was sent.
    """
    hook.warm_up()
    endpoint = ledger.manifest.endpoint
    requests = [request for step in steps for request in _requests(ledger, step)]
    by_shard: dict[str, list[tuple[str, SynchronousResponse]]] = {}

    def add_response(request: _Request, response: SynchronousResponse) -> None:
        shard = request.step.shard
        responses = by_shard.setdefault(shard.name, [])
        responses.append((request.custom_id, response))
        if len(responses) == shard.requests:
            on_shard(ShardResponses(request.step, responses))

    def send(request: _Request) -> SynchronousResponse:
        return _send(hook, endpoint, request.body, stopping, policy)

    count = run_concurrently(requests, send, add_response, policy.concurrency, stop=stopping)
    if count < len(requests):
        raise StoppedError(
            f"This worker is being stopped, so {len(requests) - count} of {len(requests)} requests of the "
            f"{policy.name} were not sent. Everything done so far is recorded, and the next attempt continues from "
            "there."
        )


def _requests(ledger: Ledger, step: SendSynchronously) -> list[_Request]:
    shard = step.shard.spec
    with open_sealed(ledger.folder, shard.file, shard.sha256, "None of its requests was sent.") as file:
        lines = [msgspec.json.decode(line, type=_Line) for line in file]
    return [_Request(step, line.custom_id, line.body) for line in lines]


def _send(
    hook: BatchHook, endpoint: str, body: dict[str, Any], stopping: Callable[[], bool], policy: SyncPolicy
) -> SynchronousResponse:
    """Send one request, with the retries that cost nothing."""
    for pause in policy.pauses:
        response = hook.send_request(endpoint, body)
        wait = max(response.retry_after or 0.0, pause)
        can_retry = response.status in (429, 503) and not is_account_failure(response.status, response.code)
        if not can_retry or wait > policy.max_pause or stopping():
            return response
        time.sleep(wait)
        if stopping():
            return response
    return hook.send_request(endpoint, body)


def write_responses(ledger: Ledger, shard_responses: ShardResponses) -> CollectedFile:
    """Write the responses of a shard to staging as a result file, and return its record."""
    step = shard_responses.step
    name = f"{ledger.prefix}/collected/{step.shard.name}.{step.number}/output.{secrets.token_hex(4)}.jsonl"
    data = b"".join(result_line(custom_id, response) + b"\n" for custom_id, response in shard_responses.responses)
    with ledger.folder.writer(name) as file:
        file.write(data)
    return CollectedFile(name, len(data), hashlib.sha256(data).hexdigest())


def result_line(custom_id: str, response: SynchronousResponse) -> bytes:
    """Return a response as a line of a batch's result file."""
    line: dict[str, Any] = {
        "id": f"sync_{secrets.token_hex(8)}",
        "custom_id": custom_id,
        "response": None,
        "error": None,
    }
    body = _parse_body(response.body)
    if response.status == 200 and isinstance(body, str):
        # a gateway sent a page of its own, so the provider has not answered, and a retry may succeed
        line["error"] = {"code": "not_json", "message": f"HTTP 200, but not with JSON: {body[:200]}"}
    elif response.status:
        line["response"] = {"status_code": response.status, "request_id": response.request_id, "body": body}
    else:
        line["error"] = {"code": response.code, "message": response.body.decode("utf-8", "replace")}
    return msgspec.json.encode(line)


def _parse_body(body: bytes) -> Any:
    """Return the body as JSON, or as text if it is not JSON, such as the error page of a gateway."""
    value = parse(body)
    return body.decode("utf-8", "replace") if value is None else value


def _message(body: bytes) -> str:
    """Return the provider's message from an error body."""
    data = _parse_body(body)
    error = data.get("error", data) if isinstance(data, dict) else data
    message = error.get("message") if isinstance(error, dict) else error
    return str(message)[:300]
