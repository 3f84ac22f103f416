"""The hook with every call that a job makes to its provider.

It uses the connection type of the official OpenAI provider. Each call decides for itself what its errors mean and
whether the SDK may repeat it. `batches.create` costs money and has no idempotency key, so it is never repeated here:
its errors say whether a batch certainly does not exist (`CreateRefusedError`) or may exist (`CreateUnconfirmedError`).
Uploads, reads, downloads and deletions cost nothing, so the SDK repeats them as often as the connection allows.

No call sends rows, keys or headers to another host than the connection's; see `guard`.
"""

from __future__ import annotations

import asyncio
import hashlib
import inspect
import os
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, BinaryIO

import httpx2
import openai
from airflow.providers.common.compat.connection import get_async_connection, get_async_extra_dejson
from airflow.providers.common.compat.sdk import AirflowNotFoundException, conf
from airflow.providers.openai.hooks.openai import OpenAIHook

from airflow_provider_batch.core.lifecycle.canary_verdict import DEFAULT_REQUESTS as DEFAULT_CANARY
from airflow_provider_batch.core.lifecycle.failures import classify_refusal, is_account_failure
from airflow_provider_batch.core.lifecycle.shared_budget import SharedBudget, parse_connection_budget
from airflow_provider_batch.core.pricing.prices import Prices
from airflow_provider_batch.core.provider.batch import BatchView, read_batch
from airflow_provider_batch.core.provider.catalogue import find_provider, is_openai
from airflow_provider_batch.core.provider.connection import (
    ConnectionFields,
    connection_problems,
    connection_warnings,
)
from airflow_provider_batch.core.provider.http_status import is_transient
from airflow_provider_batch.core.provider.limits import Limits, read_limits
from airflow_provider_batch.core.provider.retry_after import parse_retry_after
from airflow_provider_batch.core.provider.uploaded_file import read_file_id
from airflow_provider_batch.exceptions import AwayError, BrokenDownloadError, CapacityError, InputError, ProviderError
from airflow_provider_batch.hooks.calls import (
    SYNCHRONOUS_TIMEOUT,
    CreateRefusedError,
    CreateUnconfirmedError,
    SynchronousResponse,
)
from airflow_provider_batch.hooks.guard import RedirectError, guard_client

if TYPE_CHECKING:
    from openai.types import FilePurpose

__all__ = ["BatchHook"]

#: names of the arguments that a client takes
_CLIENT_ARGUMENTS = frozenset(
    name for name in inspect.signature(openai.AsyncOpenAI).parameters if not name.startswith("_")
)
#: timeout for `batches.create`, the call that costs money, in seconds
CREATE_TIMEOUT = 60.0
#: batches per page of a list, the most that OpenAI allows
_PAGE_SIZE = 100
#: timeout for the test of a connection, in seconds
_TEST_TIMEOUT = 20.0
#: timeout for deleting a file, in seconds
_DELETE_TIMEOUT = 30.0
#: maximum number of pages to read in search of a batch
MAX_PAGES = 200
#: size of the chunks of a download, in bytes
_CHUNK_BYTES = 1 << 20
#: Errors that a call without a usable answer raises. The SDK raises the parser's ValueError if an answer claims to be
#: JSON and is not, and a RecursionError for an answer that is nested too deeply.
_NO_ANSWER = (openai.OpenAIError, ValueError, RecursionError)
#: HTTP statuses of a server or gateway that stopped waiting for an answer, which may still have been written and billed
_ABANDONED_STATUSES = frozenset({408, 504, 520, 524})
#: causes of an error that occurred before the request was sent
_NOT_CONNECTED = (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout, httpx2.UnsupportedProtocol)


class BatchHook(OpenAIHook):
    """Files, batches and synchronous requests of one OpenAI connection.

    `OpenAIHook` builds the clients (key, base URL, workload identity, `openai_client_kwargs`). This class adds the
    calls of a job, each with the retries that are safe for it.

    :param conn_id: connection to the provider. Default: `openai_default`.
    """

    def _client_kwargs(self, conn: Any, extras: dict[str, Any]) -> dict[str, Any]:
        """Return the arguments of the client, checked before anything can be sent with them.

        :raises InputError: if the connection has a value that no client can use.
        """
        fields = _fields_of(conn, extras)
        problems = connection_problems(fields, known_arguments=_CLIENT_ARGUMENTS, environment=os.environ)
        if problems:
            raise self._connection_error(problems)
        return super()._client_kwargs(
            conn, {**extras, "openai_client_kwargs": extras.get("openai_client_kwargs") or {}}
        )

    def _connection_error(self, problems: Sequence[str]) -> InputError:
        sentences = " ".join(
            f"({number}) {_as_sentence(problem)}" if len(problems) > 1 else _as_sentence(problem)
            for number, problem in enumerate(problems, 1)
        )
        return InputError(
            f"openai_conn_id: Connection {self.conn_id!r} cannot be used: {sentences} Nothing was sent. Correct the "
            "connection (Admin > Connections)."
        )

    def get_conn(self) -> openai.OpenAI:
        """Return a new client, guarded against redirects."""
        return guard_client(super().get_conn(), self.conn_id)

    async def aget_conn(self) -> openai.AsyncOpenAI:
        """Return a new asynchronous client, guarded against redirects.

        A client reads the certificates of the system, which takes long, so a thread creates it.
        """
        conn = await get_async_connection(self.conn_id, hook=self)
        arguments = self._client_kwargs(conn, await get_async_extra_dejson(conn))
        return guard_client(await asyncio.to_thread(openai.AsyncOpenAI, **arguments), self.conn_id)

    def warm_up(self) -> None:
        """Build the client now, so that several threads can share it.

        Call this from the task's main thread: only that thread may read the connection from Airflow.
        """
        _ = self.conn

    def check(self) -> None:
        """Build the client and read the settings, so that an unusable connection fails before the warehouse is read.

        :raises InputError: if the connection does not exist, or anything in it cannot be used. Nothing was sent.
        """
        try:
            self.warm_up()
        except AirflowNotFoundException as error:
            raise self._absent_error() from error
        except (
            openai.OpenAIError,
            httpx2.InvalidURL,
            ValueError,
            TypeError,
            AttributeError,
            ImportError,
            OSError,
        ) as error:
            raise self._connection_error([f"no OpenAI client can be created from it: {error}"]) from error
        self._check_settings()

    def _check_settings(self) -> None:
        problems = []
        for read in (self.limits, self.prices, lambda: self.budget, lambda: self.has_flex):
            try:
                read()
            except InputError as error:
                problems.append(str(error).removesuffix(" Nothing was sent."))
        if problems:
            raise InputError(f"{' '.join(problems)} Nothing was sent. Correct the connection (Admin > Connections).")

    def _absent_error(self) -> InputError:
        variable = f"AIRFLOW_CONN_{self.conn_id.upper()}"
        if variable in os.environ:
            return InputError(
                f"openai_conn_id: The environment variable {variable} is set, but its value cannot be read as a "
                "connection. Nothing was sent. Correct the variable: expected is a URI such as openai://:KEY@/ or JSON "
                'such as {"conn_type": "openai", "password": "KEY"}.'
            )
        return InputError(
            f"openai_conn_id: There is no connection {self.conn_id!r}. Nothing was uploaded. Create one of type "
            "OpenAI, with the API key as its password (Admin > Connections)."
        )

    def warnings(self) -> list[str]:
        """Return what is odd about a connection that can be used, as sentences."""
        conn = self.get_connection(self.conn_id)
        warnings = connection_warnings(_fields_of(conn, conn.extra_dejson), environment=os.environ)
        return [_as_sentence(warning) for warning in warnings]

    def test_connection(self) -> tuple[bool, str]:
        """Check the connection and list the models, for the button *Test* in Airflow. Nothing is billed."""
        try:
            self.check()
            self.conn.with_options(max_retries=0, timeout=_TEST_TIMEOUT).get("/models", cast_to=object)
        except InputError as error:
            return False, str(error)
        except _NO_ANSWER as error:
            return False, f"{_sentence_of(error)} `airflow-batch doctor --conn-id {self.conn_id}` says more."
        return True, "The server accepts the key. `airflow-batch doctor` also checks whether it may use batches."

    @property
    def host(self) -> str:
        """Host that the client calls."""
        return self.conn.base_url.host

    def limits(self, overrides: Mapping[str, Any] | None = None) -> Limits:
        """Return the limits of an input file.

        The overrides take precedence over the limits in the connection's extra, such as
        `{"batch_limits": {"requests": 10000, "tokens": 2000000}}`. Those take precedence over the provider's limits,
        which are looked up by its host.

        :raises InputError: if a limit is unknown or invalid; the message names its source.
        """
        connection_limits = self._connection_limits()
        source = f"openai_conn_id: batch_limits in the extra of connection {self.conn_id!r}"
        provider_limits = find_provider(self.host).limits
        return read_limits(overrides, base=read_limits(connection_limits, base=provider_limits, source=source))

    def has_explicit_token_limit(self, overrides: Mapping[str, Any] | None = None) -> bool:
        """Return whether the overrides or the connection's extra set a token limit for input files.

        None (no limit) counts as set. A limit that is set takes precedence over what earlier jobs learned.
        """
        sources = (overrides, self._connection_limits())
        return any(isinstance(limits, Mapping) and "tokens" in limits for limits in sources)

    def _connection_limits(self) -> Any:
        return self.get_connection(self.conn_id).extra_dejson.get("batch_limits")

    @property
    def price_list(self) -> str:
        """Price list of the provider; empty if its prices are unknown."""
        return find_provider(self.host).price_list

    def prices(self, overrides: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Return the prices that people set: those in the connection's extra, replaced by the overrides.

        The connection holds them as `{"batch_prices": {"my-deployment": "gpt-4o-mini"}}`.

        :raises InputError: if a price is invalid; the message names its source.
        """
        connection_prices = self.get_connection(self.conn_id).extra_dejson.get("batch_prices")
        source = f"openai_conn_id: batch_prices in the extra of connection {self.conn_id!r}"
        Prices(connection_prices, self.price_list, source=source)
        prices = {**(connection_prices or {}), **(overrides or {})}
        Prices(prices, self.price_list)
        return prices

    @property
    def budget(self) -> SharedBudget | None:
        """The budget that all jobs of the connection share, or None if it has none.

        It is `batch_budget` in the connection's extra, such as `{"batch_budget": {"usd": 50, "per": "day"}}`, or
        without that, the config option `[openai_batch] connection_budget`. `null` in the extra means no budget.

        :raises InputError: if it is invalid; the message names its source.
        """
        extra = self.get_connection(self.conn_id).extra_dejson
        if "batch_budget" in extra:
            source = f"openai_conn_id: batch_budget in the extra of connection {self.conn_id!r}"
            return parse_connection_budget(source, extra["batch_budget"], self.conn_id)
        option = conf.get("openai_batch", "connection_budget", fallback="")
        return parse_connection_budget("config [openai_batch] connection_budget", option, self.conn_id)

    @property
    def canary(self) -> int:
        """Default number of canary requests per model; 0 if the provider's models answer no synchronous requests."""
        return DEFAULT_CANARY if find_provider(self.host).synchronous else 0

    @property
    def has_flex(self) -> bool:
        """Whether the server has OpenAI's flex tier: `batch_flex` in the connection's extra, or else its host says so.

        :raises InputError: if `batch_flex` is neither true nor false.
        """
        value = self.get_connection(self.conn_id).extra_dejson.get("batch_flex")
        if value is None:
            return is_openai(self.host)
        if not isinstance(value, bool):
            raise InputError(
                f"openai_conn_id: batch_flex in the extra of connection {self.conn_id!r} must be true or false, not "
                f"{value!r}."
            )
        return value

    def send_request(
        self, endpoint: str, body: dict[str, Any], timeout: float = SYNCHRONOUS_TIMEOUT
    ) -> SynchronousResponse:
        """Send one synchronous request. The SDK never repeats it, and no error is raised.

        :param timeout: seconds after which the request is abandoned. It may be billed nevertheless.
        """
        client = self.conn.with_options(max_retries=0, timeout=timeout)
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
                may_be_billed=error.status_code in _ABANDONED_STATUSES,
            )
        except openai.APITimeoutError as error:
            message = f"No answer within {timeout:.0f} seconds.".encode()
            return SynchronousResponse(0, "", message, "request_timeout", may_be_billed=_was_sent(error))
        except openai.OpenAIError as error:
            message = describe_error(error).encode()
            return SynchronousResponse(0, "", message, type(error).__name__, may_be_billed=_was_sent(error))
        return SynchronousResponse(
            answer.response.status_code, answer.response.headers.get("x-request-id", ""), answer.content
        )

    def upload(
        self, file: BinaryIO, name: str, *, purpose: FilePurpose = "batch", mime: str = "application/jsonl"
    ) -> str:
        """Upload a file, streamed from disk, and return the provider's file id. An upload is not billed.

        :param purpose: what the file is for: "batch" for an input file, "vision" or "user_data" for a file to which
            requests refer.

        :raises CapacityError: if the provider takes no more files for now: it answered 429, or 5xx with a `Retry-After`
            that was too long for the client to wait.
        :raises ProviderError: if the upload failed in any other way.
        """
        try:
            answer = self.conn.files.create(file=(name, file, mime), purpose=purpose)
        except openai.APIStatusError as error:
            message = f"Uploading {name} failed: {_sentence_of(error)} No batch was created for it."
            retry_after = parse_retry_after(error.response.headers.get("retry-after"))
            is_temporary = error.status_code == 429 or (error.status_code >= 500 and retry_after is not None)
            if is_temporary and not is_account_failure(error.status_code, error.code):
                raise CapacityError(message, retry_after) from error
            raise ProviderError(message) from error
        except _NO_ANSWER as error:
            raise ProviderError(
                f"Uploading {name} failed: {_sentence_of(error)} No batch was created for it."
            ) from error
        file_id = read_file_id(answer)
        if not file_id:
            raise ProviderError(
                f"Uploading {name} failed: the server's answer contains no file id. No batch was created for it."
            )
        return file_id

    def create(self, file_id: str, *, endpoint: str, completion_window: str, metadata: dict[str, str]) -> BatchView:
        """Create a batch. This is the call that costs money; the SDK never repeats it, as it has no idempotency key.

        :raises CreateRefusedError: if the provider refused. No batch exists.
        :raises CreateUnconfirmedError: if the outcome is unknown. Look the batch up by its nonce before a new attempt.
        :raises ProviderError: if the server redirected the call. The outcome is unknown then, too, but a new attempt is
            pointless until a person has corrected the connection.
        """
        client = self.conn.with_options(max_retries=0, timeout=CREATE_TIMEOUT)
        try:
            answer = client.batches.create(
                input_file_id=file_id,
                endpoint=endpoint,  # type: ignore[arg-type]  # other servers have more endpoints than the SDK knows
                completion_window=completion_window,  # type: ignore[arg-type]  # and more completion windows
                metadata=metadata,
            )
        except openai.APIStatusError as error:
            failure = classify_refusal(error.status_code, error.code, error.message)
            if failure is not None:
                retry_after = parse_retry_after(error.response.headers.get("retry-after"))
                raise CreateRefusedError(failure, describe_error(error), retry_after) from error
            raise CreateUnconfirmedError(describe_error(error)) from error
        except RedirectError as error:
            raise ProviderError(
                f"Creating a batch failed: {error}. Everything done so far is kept. The next attempt looks for the "
                "batch before it creates one."
            ) from error
        except _NO_ANSWER as error:
            raise CreateUnconfirmedError(describe_error(error)) from error
        try:
            return read_batch(answer)
        except ProviderError as error:
            raise CreateUnconfirmedError(str(error)) from error

    def retrieve(self, batch_id: str, *, timeout: float | None = None) -> BatchView:
        """Return the current state of a batch.

        :param timeout: seconds for a single read that is not repeated, for a person who is waiting for it. By default,
            the SDK repeats reads that fail, with the timeout of the connection.
        :raises AwayError: if a later read may succeed: no usable answer, 408, 409, 429 or 5xx.
        :raises ProviderError: if the server refuses the read, or redirects it to another host.
        """
        message = f"Reading batch {batch_id} failed: {{}} The batch itself is not affected."
        try:
            client = self.conn if timeout is None else self.conn.with_options(max_retries=0, timeout=timeout)
            return read_batch(client.batches.retrieve(batch_id))
        except openai.APIStatusError as error:
            error_class = AwayError if is_transient(error.status_code) else ProviderError
            raise error_class(message.format(_sentence_of(error))) from error
        except RedirectError as error:
            raise ProviderError(message.format(_sentence_of(error))) from error
        except (*_NO_ANSWER, ProviderError) as error:
            raise AwayError(message.format(_sentence_of(error))) from error

    def cancel(self, batch_id: str) -> BatchView | None:
        """Cancel a batch and return its new state, or None if it had already ended (HTTP 409).

        :raises ProviderError: if the provider did not accept the request.
        """
        try:
            # the SDK would repeat the call after a 409, which means here that the batch has already ended
            return read_batch(self.conn.with_options(max_retries=0).batches.cancel(batch_id))
        except _NO_ANSWER as error:
            if is_already_ended(error):
                return None
            raise ProviderError(
                f"Cancelling batch {batch_id} failed: {_sentence_of(error)} The batch may still be running."
            ) from error

    def find_batches(self, nonce: str, file_id: str, *, not_before: datetime) -> list[BatchView]:
        """Return the batches with this nonce or, if there are none, those with this input file; oldest first.

        :param file_id: an empty id matches no batch, although some servers give batches an empty one.
        :param not_before: time before which no such batch can have been created; ends the search early.
        :raises ProviderError: if the list cannot be read.
        """
        by_nonce, by_file = [], []
        for batch in self._list_recent(not_before):
            if batch.metadata.get("nonce") == nonce:
                by_nonce.append(batch)
            elif file_id and batch.input_file_id == file_id:
                by_file.append(batch)
        matches = by_nonce or by_file
        # lists are newest first and timestamps are whole seconds: within a second, the last in the list is the oldest
        matches.reverse()
        return sorted(matches, key=lambda batch: batch.created_at)

    def list_job_batches(self, job_uid: str, *, not_before: datetime) -> list[BatchView]:
        """Return the batches whose metadata names this job.

        :param not_before: time at which the job was sealed; none of its batches can be older.
        :raises ProviderError: if the list cannot be read.
        """
        return [batch for batch in self._list_recent(not_before) if batch.metadata.get("job_uid") == job_uid]

    def _list_recent(self, not_before: datetime) -> Iterator[BatchView]:
        """Yield all batches created since a time, and possibly some older ones.

        This pages by hand instead of with the SDK, because some servers ignore `after` and some never say that there
        are no more pages.

        :raises ProviderError: if the list cannot be read completely. A batch that was not listed may still exist, so
            the caller must not take this as permission to create one.
        """
        seen_ids: set[str] = set()
        position: dict[str, str] = {}
        for _ in range(MAX_PAGES):
            page = self._page(position)
            batches = [read_batch(item) for item in page["data"] or []]
            new_batches = [batch for batch in batches if batch.id not in seen_ids]
            if not new_batches:
                if len(batches) >= _PAGE_SIZE:
                    raise ProviderError(
                        f"Listing batches failed: the server returned the same {len(batches)} batches again instead of "
                        "the next page. Nothing was created, because the batch in question may be on a page that the "
                        "server did not return."
                    )
                return
            seen_ids.update(batch.id for batch in new_batches)
            yield from new_batches
            times = [batch.created_at for batch in new_batches]
            # Most servers list the newest first, but none promises it. If the oldest come first, newer ones follow.
            if times[0] >= times[-1] and all(0 < time < not_before.timestamp() for time in times):
                return
            paging = page.get("paging")
            if isinstance(paging, Mapping) and "next_cursor" in paging:  # Groq, which has no has_more
                if not paging["next_cursor"]:
                    return
                position = {"cursor": str(paging["next_cursor"])}
            elif page.get("has_more") is False:
                return
            else:
                position = {"after": batches[-1].id}
        raise ProviderError(
            f"Listing batches failed: the list did not end after {MAX_PAGES} pages ({len(seen_ids):,} batches). "
            "Nothing was created, because the batch in question may be on a later page."
        )

    def _page(self, position: dict[str, str]) -> Mapping[str, Any]:
        params = {"limit": str(_PAGE_SIZE), **position}
        try:
            page = self.conn.get("/batches", cast_to=object, options={"params": params})
        except _NO_ANSWER as error:
            raise ProviderError(f"Listing batches failed: {_sentence_of(error)} Nothing was created.") from error
        # servers written in Go send an empty list as null
        if isinstance(page, Mapping) and isinstance(page.get("data", ""), list | None):
            return page
        raise ProviderError("Listing batches failed: the server's answer is not a list. Nothing was created.")

    def file_size(self, file_id: str) -> int | None:
        """Return the size of a file in bytes, as the provider states it, or None if it does not state one."""
        try:
            answer = self.conn.get(f"/files/{file_id}", cast_to=object)
        except _NO_ANSWER:
            return None
        size = answer.get("bytes") if isinstance(answer, Mapping) else None
        return size if isinstance(size, int) and not isinstance(size, bool) and size >= 0 else None

    def delete(self, file_id: str) -> None:
        """Delete a file at the provider. A file that no longer exists counts as deleted.

        :raises ProviderError: if the provider did not delete it.
        """
        try:
            self.conn.with_options(timeout=_DELETE_TIMEOUT).files.delete(file_id)
        except openai.NotFoundError:
            return
        except _NO_ANSWER as error:
            raise ProviderError(f"Deleting file {file_id} failed: {_sentence_of(error)}") from error

    def download(self, file_id: str, target: BinaryIO) -> tuple[int, str]:
        """Stream a result file into `target` and return its size in bytes and its sha256 (hex).

        :raises BrokenDownloadError: if the download was interrupted, or stalled for longer than the client's timeout
            (from the connection's `openai_client_kwargs`; 10 minutes by default). A file that was cut off cleanly, or
            another page instead of the file, raises nothing: compare the size, or the content.
        :raises ProviderError: if the provider refused the download.
        """
        size, digest = 0, hashlib.sha256()
        try:
            with self.conn.files.with_streaming_response.content(file_id) as response:
                for chunk in response.iter_bytes(_CHUNK_BYTES):
                    target.write(chunk)
                    digest.update(chunk)
                    size += len(chunk)
        except openai.APIStatusError as error:
            advice = (
                "The file was deleted or has expired at the provider, so its answers are lost. To send its rows again, "
                "start a new run, or resubmit the job. The answers of other batches are kept."
                if error.status_code in (404, 410)
                else "The provider still has the file."
            )
            raise ProviderError(f"Downloading {file_id} failed: {_sentence_of(error)} {advice}") from error
        except openai.OpenAIError as error:
            raise ProviderError(
                f"Downloading {file_id} failed: {_sentence_of(error)} The provider still has the file."
            ) from error
        except OSError:
            raise
        except Exception as error:  # a truncated body raises a transport error, from httpx2 or httpx
            raise BrokenDownloadError(
                f"Downloading {file_id} was interrupted after {size:,} bytes: {error}. The provider still has the file."
            ) from error
        return size, digest.hexdigest()


def _fields_of(conn: Any, extra: Any) -> ConnectionFields:
    return ConnectionFields(
        conn.conn_type, conn.host, conn.port, conn.schema, conn.login, conn.password, conn.extra, extra
    )


def _sentence_of(error: BaseException) -> str:
    return _as_sentence(describe_error(error))


def _as_sentence(problem: str) -> str:
    return problem if problem.endswith("?") else problem.rstrip(".") + "."


def is_already_ended(error: Exception) -> bool:
    """Return whether the answer to a cancel says that the batch had already ended (HTTP 409)."""
    return isinstance(error, openai.ConflictError)


def _was_sent(error: openai.OpenAIError) -> bool:
    """Return whether a request without an HTTP error may have reached the provider."""
    is_about_a_response = isinstance(error, openai.APIConnectionError | openai.APIResponseValidationError)
    return is_about_a_response and not isinstance(error.__cause__, _NOT_CONNECTED)


def describe_error(error: BaseException) -> str:
    """Return the provider's own words for an HTTP error, or the type and message of any other error."""
    if isinstance(error, openai.APIStatusError):
        code = f", {error.code}" if error.code else ""
        return f"HTTP {error.status_code}{code}: {error.message}"
    if isinstance(error, RedirectError):
        return str(error)
    if isinstance(error, openai.APIConnectionError) and isinstance(error.__cause__, httpx2.ConnectError):
        url = error.request.url
        return f"Cannot connect to {url.host}:{url.port or (443 if url.scheme == 'https' else 80)}: {error.__cause__}"
    return f"{type(error).__name__}: {error}".rstrip(".")
