"""Sends requests synchronously: the canary, the final pass before the deadline, and the rows of a job sent on flex.

A request goes to the flex tier if its model has it, because flex costs as much as a batch. Flex can refuse a request
for lack of resources (HTTP 429). That costs nothing, so the request is repeated, and then sent at the standard price if
its shard allows that. A request that timed out or was cut off may have been billed, so it is never repeated here.

The responses are written to staging as result lines of a batch, so the same code counts, retries and lands them.
Nothing is recorded until all responses of a shard have arrived. If a worker is killed before that, these few requests
are sent once more: at most `canary` requests of each model, or 16 other requests.
"""

from __future__ import annotations

import hashlib
import secrets
import time
from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from airflow_provider_batch.core.answers.outcome import FLEX_UNAVAILABLE, MAY_BE_BILLED
from airflow_provider_batch.core.answers.tolerant_json import parse
from airflow_provider_batch.core.formatting import format_count
from airflow_provider_batch.core.ledger.job import Manifest
from airflow_provider_batch.core.ledger.ledger import Ledger
from airflow_provider_batch.core.ledger.records import CollectedFile
from airflow_provider_batch.core.ledger.sealed_file import open_sealed
from airflow_provider_batch.core.lifecycle.failures import is_account_failure
from airflow_provider_batch.core.lifecycle.steps import SendSynchronously
from airflow_provider_batch.core.pricing.prices import Prices
from airflow_provider_batch.core.provider.lane import FLEX_ENDPOINTS, SERVICE_TIER, Lane, asks_for_a_tier
from airflow_provider_batch.core.requests.uploaded_files import with_file_ids
from airflow_provider_batch.core.sealing.final_pass import FINAL_PASS_CONCURRENCY
from airflow_provider_batch.exceptions import StoppedError
from airflow_provider_batch.hooks.calls import SYNCHRONOUS_TIMEOUT, SynchronousResponse
from airflow_provider_batch.worker.uploaded_files import UploadedFiles

if TYPE_CHECKING:
    from airflow_provider_batch.hooks.batch import BatchHook


class Tries(NamedTuple):
    """How a request is sent in one lane, and how it is repeated if it was certainly not billed (429, 503)."""

    #: seconds before each repetition, unless the response says how long to wait; after the last one its response counts
    pauses: tuple[float, ...]
    #: longest pause, in seconds, that a response can ask for; if it asks for more, the request is not repeated
    max_pause: float
    #: seconds after which a request is abandoned
    timeout: float = SYNCHRONOUS_TIMEOUT


class SyncPolicy(NamedTuple):
    """How a kind of request is sent synchronously."""

    #: requests in flight at the same time
    concurrency: int
    standard: Tries
    flex: Tries


#: seconds after its first try from which a request is not repeated, so that a worker keeps within `CLAIM_LIFETIME`
PATIENCE = 240.0
#: seconds after which a request on flex is abandoned. OpenAI advises 15 minutes
#: (https://platform.openai.com/docs/guides/flex-processing); the SDK would stop after 10.
FLEX_TIMEOUT = 900.0
#: A person may be waiting for the canary, so it waits less. A request of it that still fails is left to a batch.
CANARY = SyncPolicy(4, Tries((0.5, 2.0), 10.0), Tries((1.0, 4.0), 10.0, timeout=300.0))
#: the final pass, and the rows of a job that is sent on flex
ROWS = SyncPolicy(
    FINAL_PASS_CONCURRENCY,
    Tries((1.0, 5.0, 20.0), 30.0),
    Tries((2.0, 8.0, 20.0, 40.0, 60.0, 60.0), 60.0, timeout=FLEX_TIMEOUT),
)


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
    #: the responses with which flex refused requests in the end
    flex_refusals: list[SynchronousResponse]

    @property
    def unanswered(self) -> int:
        """Number of requests that got no answer although they may have been billed. Nobody knows at what cost."""
        return sum(_may_be_billed(response) for _, response in self.responses)

    @property
    def flex_problem(self) -> str | None:
        """What happened to the requests that flex refused, as full sentences, or None if it refused none."""
        if not self.flex_refusals:
            return None
        first = self.flex_refusals[0]
        consequence = (
            "They were sent at the standard price."
            if self.step.shard.spec.lane is Lane.STANDARD
            else "They were not sent at the standard price, and cost nothing."
        )
        return (
            f"the flex tier did not take {len(self.flex_refusals)} of {format_count(len(self.responses), 'request')} "
            f"(HTTP {first.status}: {_message(first.body).rstrip('.')}). {consequence}"
        )

    @property
    def account_error(self) -> str | None:
        """The message for a person if the provider refused the account.

        None if a request succeeded or may have been billed, or if none was refused for that reason.
        """
        refusals = [response for _, response in self.responses if is_account_failure(response.status, response.code)]
        if not refusals or self.unanswered or any(response.status == 200 for _, response in self.responses):
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
    *,
    flex_models: Callable[[], Collection[str]] = frozenset,
    start: Callable[[SendSynchronously], bool] = lambda step: True,
) -> None:
    """Send the requests of these shards, several at the same time.

    A shard is started only if the requests of all shards that are started and not recorded remain within the policy's
    concurrency, so that a worker that is killed loses no more than these.

    :param on_shard: receives the responses of each shard once it is complete, in the calling thread.
    :param flex_models: returns the models whose requests are sent on flex first, each time a shard is started.
    :param start: called in the calling thread before the first request of a shard is sent; if it returns False, the
        shard is skipped.
    :raises StoppedError: if `stopping` returned True before all requests were sent.
    :raises StagingError: if an input file differs from the one that was sealed; in that case nothing was sent.
    """
    hook.warm_up()
    sender = _Sender(hook, ledger.manifest.endpoint, stopping, policy)
    files = UploadedFiles(ledger.folder, hook)
    shards = [(step, _requests(ledger, step, files)) for step in steps]
    waiting = deque(shards)
    #: responses by shard, of the shards that are started and not complete
    open_shards: dict[str, ShardResponses] = {}
    running: dict[Future[_Reply], _Request] = {}
    skipped = 0
    first_error: Exception | None = None
    with ThreadPoolExecutor(policy.concurrency, thread_name_prefix="batch") as pool:
        try:
            while waiting or running:
                while waiting and not stopping():
                    step, requests = waiting[0]
                    if open_shards and len(requests) + _in_flight(open_shards) > policy.concurrency:
                        break
                    waiting.popleft()
                    if start(step):
                        open_shards[step.shard.name] = ShardResponses(step, [], [])
                        has_flex = step.shard.model in flex_models()
                        running |= {pool.submit(sender.send, request, has_flex): request for request in requests}
                if waiting and stopping():
                    skipped += sum(len(requests) for _, requests in waiting)
                    waiting.clear()
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    request = running.pop(future)
                    try:
                        reply = future.result()
                    except _SkippedError:
                        skipped += 1
                        continue
                    except Exception as error:  # noqa: BLE001  # raised below, once nothing is running
                        first_error = first_error or error
                        waiting.clear()
                        continue
                    responses = open_shards[request.step.shard.name]
                    responses.responses.append((request.custom_id, reply.response))
                    if reply.flex_refusal is not None:
                        responses.flex_refusals.append(reply.flex_refusal)
                    if len(responses.responses) == request.step.shard.requests:
                        on_shard(open_shards.pop(request.step.shard.name))
        finally:
            for future in running:
                future.cancel()  # the caller may have been interrupted
    if first_error is not None:
        raise first_error
    if skipped:
        raise StoppedError(
            f"This worker is being stopped, so {skipped} of {sum(len(requests) for _, requests in shards)} synchronous "
            "requests were not sent. Everything done so far is recorded, and the next attempt continues from there."
        )


def _in_flight(open_shards: Mapping[str, ShardResponses]) -> int:
    return sum(responses.step.shard.requests for responses in open_shards.values())


def _requests(ledger: Ledger, step: SendSynchronously, files: UploadedFiles) -> list[_Request]:
    shard = step.shard.spec
    with open_sealed(ledger.folder, shard.file, shard.sha256, "None of its requests was sent.") as file:
        lines = [msgspec.json.decode(with_file_ids(line, files.file_id), type=_Line) for line in file]
    return [_Request(step, line.custom_id, line.body) for line in lines]


class _SkippedError(Exception):
    """The request was not sent, because the worker is being stopped."""


class _Reply(NamedTuple):
    response: SynchronousResponse
    #: the last response of the flex tier, if it refused the request
    flex_refusal: SynchronousResponse | None = None


class _Sender:
    """Sends single requests."""

    def __init__(self, hook: BatchHook, endpoint: str, stopping: Callable[[], bool], policy: SyncPolicy) -> None:
        self._hook, self._endpoint, self._stopping, self._policy = hook, endpoint, stopping, policy
        # only the calling thread may read the connection
        self._has_tiers = hook.has_flex and endpoint in FLEX_ENDPOINTS

    def send(self, request: _Request, has_flex: bool) -> _Reply:
        """Send a request, first on flex if possible, with the repetitions that cost nothing.

        :param has_flex: whether the model has the flex tier.
        :raises _SkippedError: if the worker is being stopped. A shard that was claimed is still sent as a whole.
        """
        if request.step.is_canary and self._stopping():
            raise _SkippedError
        may_cost_more, own_tier = request.step.shard.spec.lane is Lane.STANDARD, asks_for_a_tier(request.body)
        started_at, refusal = time.monotonic(), None
        if not may_cost_more or (has_flex and not own_tier):
            response = self._repeat({**request.body, SERVICE_TIER: "flex"}, self._policy.flex, started_at)
            if not (_is_unbilled_refusal(response) or _is_tier_refused(response)):
                return _Reply(response)
            if not may_cost_more or self._stopping():
                message = f"The flex tier did not take the request (HTTP {response.status}: {_message(response.body)})"
                return _Reply(SynchronousResponse(0, "", message.encode(), FLEX_UNAVAILABLE), response)
            refusal = response
        # Name the tier, because a project can have another default, which costs more.
        tier = {SERVICE_TIER: "default"} if self._has_tiers and not own_tier else {}
        return _Reply(self._repeat({**request.body, **tier}, self._policy.standard, started_at), refusal)

    def _repeat(self, body: dict[str, Any], tries: Tries, started_at: float) -> SynchronousResponse:
        """Send a request in one lane. Repeat it while it is refused without being billed."""
        for pause in tries.pauses:
            response = self._hook.send_request(self._endpoint, body, tries.timeout)
            seconds = max(response.retry_after or 0.0, pause)
            is_over = seconds > tries.max_pause or time.monotonic() + seconds > started_at + PATIENCE
            if not _is_unbilled_refusal(response) or is_over or self._stopping():
                return response
            time.sleep(seconds)
            if self._stopping():
                return response
        return self._hook.send_request(self._endpoint, body, tries.timeout)


def find_flex_models(manifest: Manifest, hook: BatchHook) -> frozenset[str]:
    """Return the models of a job whose requests can be sent on flex: the model, its server and the endpoint have it."""
    if manifest.endpoint not in FLEX_ENDPOINTS or not hook.has_flex:
        return frozenset()
    prices = Prices(manifest.prices, manifest.price_list)
    return frozenset(model for model in {shard.model for shard in manifest.shards} if prices.has_flex(model))


def _is_unbilled_refusal(response: SynchronousResponse) -> bool:
    """Return whether the provider refused a request for now, and certainly did not bill it."""
    return response.status in (429, 503) and not is_account_failure(response.status, response.code)


def _may_be_billed(response: SynchronousResponse) -> bool:
    """Return whether a request may have been billed although there is no answer."""
    return response.may_be_billed or (response.status == 200 and isinstance(_parse_body(response.body), str))


def _is_tier_refused(response: SynchronousResponse) -> bool:
    """Return whether the provider refused a request because its model, or the server, has no flex tier."""
    if response.status != 400:
        return False
    text = response.body.decode("utf-8", "replace").lower()
    return SERVICE_TIER in text or "flex" in text


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
    if _may_be_billed(response):
        line[MAY_BE_BILLED] = True
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
