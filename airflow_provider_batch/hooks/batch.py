"""The calls that a job makes to its provider, through the connection type of the official OpenAI provider."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any, BinaryIO, NamedTuple

import openai
from airflow.providers.common.compat.sdk import AirflowNotFoundException
from airflow.providers.openai.hooks.openai import OpenAIHook

from airflow_provider_batch.core.ledger.records import Failure
from airflow_provider_batch.core.lifecycle.canary_verdict import DEFAULT as DEFAULT_CANARY
from airflow_provider_batch.core.lifecycle.failures import is_of_account, refusal_of
from airflow_provider_batch.core.provider.batch import BatchView, read_batch
from airflow_provider_batch.core.provider.catalogue import find_provider
from airflow_provider_batch.core.provider.http_status import is_transient
from airflow_provider_batch.core.provider.limits import Limits, read_limits
from airflow_provider_batch.core.provider.retry_after import parse_retry_after
from airflow_provider_batch.exceptions import AwayError, BrokenDownloadError, InputError, NoRoomError, ProviderError

__all__ = ["BatchHook"]

#: seconds that the paid call may take
CREATE_TIMEOUT = 60.0
#: seconds that one synchronous request may take; a batch has no such limit, so a slower row is asked there
SYNCHRONOUS_TIMEOUT = 120.0
#: batches asked for with each page of a list, the most that OpenAI gives
_PAGE = 100
#: seconds that deleting a file may take
_DELETE_TIMEOUT = 30.0
#: pages read at most while a batch is looked for
MAX_PAGES = 200
_CHUNK = 1 << 20
#: what a call ends in without an answer of use. The SDK lets the parser's ValueError through where an answer calls
#: itself JSON and is none
_NO_ANSWER = (openai.OpenAIError, ValueError)


class SynchronousResponse(NamedTuple):
    """What came of one synchronous request."""

    #: HTTP status; 0 if no answer came
    status: int
    request_id: str
    #: the answer's body, whatever it is; without a status what happened instead, in words
    body: bytes
    #: the code of a refusal
    code: str | None = None
    #: seconds after which the provider asks to be asked again
    retry_after: float | None = None


class CreateRefusedError(Exception):
    """The provider said no: surely no batch was created."""

    def __init__(self, failure: Failure, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.failure, self.message = failure, message
        #: seconds after which the provider asks to be called again; None if it does not say
        self.retry_after = retry_after


class CreateUnconfirmedError(Exception):
    """No answer, or one that leaves open whether a batch was created."""


class BatchHook(OpenAIHook):
    """Files and batches of one OpenAI connection.

    `OpenAIHook` builds the clients (key, base URL, workload identity, `openai_client_kwargs`); this class adds
    the calls of a job, each with the retries that are safe for it.
    """

    def warm_up(self) -> None:
        """Build the client now, so that several threads can share it.

        Only the task's own thread may ask Airflow for the connection.
        """
        _ = self.conn

    def check(self) -> None:
        """Build the client, so that a missing or unusable connection is known before the warehouse is read.

        :raises InputError: naming the connection and what it lacks.
        """
        try:
            self.warm_up()
        except AirflowNotFoundException as error:
            raise InputError(
                f"openai_conn_id: there is no connection {self.conn_id!r}. Nothing was uploaded. Make one of type "
                "OpenAI with the API key as its password (Admin > Connections)."
            ) from error
        except (openai.OpenAIError, ValueError) as error:
            raise InputError(
                f"openai_conn_id: connection {self.conn_id!r} makes no client: {error}. Nothing was uploaded."
            ) from error

    @property
    def host(self) -> str:
        """The host that the client calls."""
        return self.conn.base_url.host

    def limits(self, overrides: Mapping[str, Any] | None = None) -> Limits:
        """The limits of an input file: the provider's (by its host), over them the connection's, over them these.

        The connection's are in its extra: `{"batch_limits": {"requests": 10000, "tokens": 2000000}}`.

        :raises InputError: for a limit that there is not, naming the place it comes from.
        """
        stated = self.get_connection(self.conn_id).extra_dejson.get("batch_limits")
        source = f"openai_conn_id: batch_limits in the extra of connection {self.conn_id!r}"
        return read_limits(overrides, base=read_limits(stated, base=find_provider(self.host).limits, source=source))

    def has_explicit_token_limit(self, overrides: Mapping[str, Any] | None = None) -> bool:
        """Whether a person stated how many tokens an input file may have, here or in the connection's extra.

        None, for no limit, is stated too. What earlier jobs learned does not count then.
        """
        stated = self.get_connection(self.conn_id).extra_dejson.get("batch_limits")
        return any(isinstance(one, Mapping) and "tokens" in one for one in (overrides, stated))

    @property
    def canary(self) -> int:
        """Requests of each model to ask first, unless the author says: 0 where models answer batches alone."""
        return DEFAULT_CANARY if find_provider(self.host).synchronous else 0

    def send_request(self, endpoint: str, body: dict[str, Any]) -> SynchronousResponse:
        """One synchronous request, at the standard price. Never repeated by the SDK, and it raises nothing."""
        client = self.conn.with_options(max_retries=0, timeout=SYNCHRONOUS_TIMEOUT)
        try:
            answer = client.post(endpoint.removeprefix("/v1"), body=body, cast_to=openai.HttpxBinaryResponseContent)
        except openai.APIStatusError as error:
            response = error.response
            return SynchronousResponse(
                error.status_code,
                error.request_id or "",
                response.content,
                error.code,
                parse_retry_after(response.headers.get("retry-after")),
            )
        except openai.APITimeoutError:
            return SynchronousResponse(
                0, "", f"No answer within {SYNCHRONOUS_TIMEOUT:.0f} seconds.".encode(), "request_timeout"
            )
        except openai.OpenAIError as error:
            return SynchronousResponse(0, "", str(error).encode(), type(error).__name__)
        return SynchronousResponse(
            answer.response.status_code, answer.response.headers.get("x-request-id", ""), answer.content
        )

    def upload(self, file: BinaryIO, name: str) -> str:
        """Send an input file; streams from disk. Returns the provider's file id.

        :raises NoRoomError: if the provider takes no more files just now: it said 429, or failed and asked to be called
            again after a while that the client did not wait.
        :raises ProviderError: if the provider refuses it. Nothing is billed for a file.
        """
        try:
            answer = self.conn.files.create(file=(name, file, "application/jsonl"), purpose="batch")
        except openai.APIStatusError as error:
            message = f"Uploading {name} failed: {describe_error(error)}. No batch was created for it."
            retry_after = parse_retry_after(error.response.headers.get("retry-after"))
            later = error.status_code == 429 or (error.status_code >= 500 and retry_after is not None)
            if later and not is_of_account(error.status_code, error.code):
                raise NoRoomError(message, retry_after) from error
            raise ProviderError(message) from error
        except _NO_ANSWER as error:
            raise ProviderError(
                f"Uploading {name} failed: {describe_error(error)}. No batch was created for it."
            ) from error
        file_id = getattr(answer, "id", None)
        if not isinstance(file_id, str) or not file_id:
            raise ProviderError(f"Uploading {name}: the server's answer holds no file id. No batch was created for it.")
        return file_id

    def create(self, file_id: str, *, endpoint: str, completion_window: str, metadata: dict[str, str]) -> BatchView:
        """Create a batch: the call that costs money. Never repeated by the SDK, as it has no idempotency key.

        :raises CreateRefusedError: surely no batch exists.
        :raises CreateUnconfirmedError: one may exist; look it up by its nonce before trying again.
        """
        client = self.conn.with_options(max_retries=0, timeout=CREATE_TIMEOUT)
        try:
            answer = client.batches.create(
                input_file_id=file_id,
                endpoint=endpoint,  # type: ignore[arg-type]  # look-alikes know more endpoints than the SDK
                completion_window=completion_window,  # type: ignore[arg-type]  # and more windows
                metadata=metadata,
            )
        except openai.APIStatusError as error:
            failure = refusal_of(error.status_code, error.code, error.message)
            if failure is not None:
                retry_after = parse_retry_after(error.response.headers.get("retry-after"))
                raise CreateRefusedError(failure, describe_error(error), retry_after) from error
            raise CreateUnconfirmedError(describe_error(error)) from error
        except _NO_ANSWER as error:
            raise CreateUnconfirmedError(describe_error(error)) from error
        try:
            return read_batch(answer)
        except ProviderError as error:
            raise CreateUnconfirmedError(str(error)) from error

    def retrieve(self, batch_id: str) -> BatchView:
        """One batch as it is now.

        :raises AwayError: if it may be read later: no answer, one of no use, 408, 409, 429 or 5xx.
        :raises ProviderError: if the server refuses to show it.
        """
        failed = f"Reading batch {batch_id} failed: {{}}. It goes on, and is kept."
        try:
            return read_batch(self.conn.batches.retrieve(batch_id))
        except openai.APIStatusError as error:
            later = is_transient(error.status_code)
            raise (AwayError if later else ProviderError)(failed.format(describe_error(error))) from error
        except (*_NO_ANSWER, ProviderError) as error:
            raise AwayError(failed.format(describe_error(error))) from error

    def cancel(self, batch_id: str) -> BatchView | None:
        """Ask for a batch to be cancelled; None if it had ended before (HTTP 409).

        :raises ProviderError: if the provider does not take the request.
        """
        try:
            return read_batch(self.conn.with_options(max_retries=0).batches.cancel(batch_id))
        except _NO_ANSWER as error:
            if is_already_ended(error):
                return None
            raise ProviderError(
                f"Cancelling batch {batch_id} failed: {describe_error(error)}. It may go on."
            ) from error

    def find_batches(self, nonce: str, file_id: str, *, not_before: datetime) -> list[BatchView]:
        """Batches that carry this nonce, else those of this input file; the oldest first.

        Paged by hand, as servers are known that ignore `after` and never say that they are done.

        :param file_id: empty if no file can be meant; batches may have an empty one too.
        :param not_before: older batches than this cannot be meant.
        """
        by_nonce, by_file = [], []
        for batch in self._recent(not_before):
            if batch.metadata.get("nonce") == nonce:
                by_nonce.append(batch)
            elif file_id and batch.input_file_id == file_id:
                by_file.append(batch)
        found = by_nonce or by_file
        # Lists are newest first, stamps whole seconds: of one second the last in the list is the oldest.
        found.reverse()
        return sorted(found, key=lambda batch: batch.created_at)

    def list_job_batches(self, job_uid: str, *, not_before: datetime) -> list[BatchView]:
        """Batches whose metadata name this job, in one listing.

        :param not_before: when the job was sealed: older batches cannot be its own.
        :raises ProviderError: if the list cannot be read.
        """
        return [batch for batch in self._recent(not_before) if batch.metadata.get("job_uid") == job_uid]

    def _recent(self, not_before: datetime) -> Iterator[BatchView]:
        """The batches of the list that are not older, maybe with some that are.

        :raises ProviderError: if the list cannot be read to its end. What it did not show may be there, so it is no
            reason to create anything.
        """
        seen: set[str] = set()
        place: dict[str, str] = {}
        for _ in range(MAX_PAGES):
            page = self._page(place)
            batches = [read_batch(item) for item in page["data"] or []]
            fresh = [batch for batch in batches if batch.id not in seen]
            if not fresh:
                if len(batches) >= _PAGE:
                    raise ProviderError(
                        f"Listing batches: the server shows the same {len(batches)} batches again, whatever page it is "
                        "asked for. Nothing was created, as the batch that was looked for may be among the others."
                    )
                return
            seen.update(batch.id for batch in fresh)
            yield from fresh
            times = [batch.created_at for batch in fresh]
            # Newest first is customary and not promised; where the oldest come first, the newest are yet to come.
            if times[0] >= times[-1] and all(0 < time < not_before.timestamp() for time in times):
                return
            paging = page.get("paging")
            if isinstance(paging, Mapping) and "next_cursor" in paging:  # Groq, which has no has_more
                if not paging["next_cursor"]:
                    return
                place = {"cursor": str(paging["next_cursor"])}
            elif page.get("has_more") is False:
                return
            else:
                place = {"after": batches[-1].id}
        raise ProviderError(
            f"Listing batches: no end after {MAX_PAGES} pages, {len(seen):,} batches. Nothing was created, as the "
            "batch that was looked for may be among the others."
        )

    def _page(self, place: dict[str, str]) -> Mapping[str, Any]:
        """One page of the list, as it came."""
        params = {"limit": str(_PAGE), **place}
        try:
            page = self.conn.get("/batches", cast_to=object, options={"params": params})
        except _NO_ANSWER as error:
            raise ProviderError(f"Listing batches failed: {describe_error(error)}. Nothing was created.") from error
        # Go writes an empty list as null.
        if isinstance(page, Mapping) and isinstance(page.get("data", ""), list | None):
            return page
        raise ProviderError("Listing batches: the server's answer is no list. Nothing was created.")

    def delete(self, file_id: str) -> None:
        """Delete a file at the provider; one that is not there any more counts as deleted.

        :raises ProviderError: if the provider does not delete it.
        """
        try:
            self.conn.with_options(timeout=_DELETE_TIMEOUT).files.delete(file_id)
        except openai.NotFoundError:
            return
        except _NO_ANSWER as error:
            raise ProviderError(f"Deleting file {file_id} failed: {describe_error(error)}.") from error

    def download(self, file_id: str, into: BinaryIO) -> tuple[int, str]:
        """Stream a result file. Returns its size and sha256 (hex).

        :raises BrokenDownloadError: if it did not come whole, a web page came in its place, or no byte came for as long
            as the client waits (the connection's `openai_client_kwargs`, else 10 minutes).
        :raises ProviderError: if the provider does not give it.
        """
        size, digest = 0, hashlib.sha256()
        try:
            with self.conn.files.with_streaming_response.content(file_id) as response:
                for chunk in response.iter_bytes(_CHUNK):
                    if not size and chunk.lstrip().startswith(b"<"):
                        raise BrokenDownloadError(
                            f"Downloading {file_id}: a web page came in place of the file. The provider still has it."
                        )
                    into.write(chunk)
                    digest.update(chunk)
                    size += len(chunk)
        except openai.APIStatusError as error:
            kept = (
                "It was deleted or has expired there, so its answers cannot be had any more; those of other batches "
                "are kept. Mark the wait as successful to land them: the rows of this file stay pending then, and a "
                "new run asks them anew."
                if error.status_code in (404, 410)
                else "The provider still has it."
            )
            raise ProviderError(f"Downloading {file_id} failed: {describe_error(error)}. {kept}") from error
        except openai.OpenAIError as error:
            raise ProviderError(
                f"Downloading {file_id} failed: {describe_error(error)}. The provider still has it."
            ) from error
        except (OSError, BrokenDownloadError):
            raise
        except Exception as error:  # a body cut short raises the transport's own error, of httpx2 or httpx
            raise BrokenDownloadError(
                f"Downloading {file_id} broke off after {size:,} bytes: {error}. The provider still has it."
            ) from error
        return size, digest.hexdigest()


def is_already_ended(error: Exception) -> bool:
    """Whether this answer to a cancel says that the batch had already ended (HTTP 409)."""
    return isinstance(error, openai.ConflictError)


def describe_error(error: BaseException) -> str:
    """Return an error in the provider's own words, or its type and message if it is no HTTP answer."""
    if isinstance(error, openai.APIStatusError):
        code = f", {error.code}" if error.code else ""
        return f"HTTP {error.status_code}{code}: {error.message}"
    return f"{type(error).__name__}: {error}"
