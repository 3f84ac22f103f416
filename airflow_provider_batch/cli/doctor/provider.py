"""Checks of the connection to the provider. All calls are free, and none is repeated."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any, NamedTuple

import httpx2
import msgspec
import openai

from airflow_provider_batch.cli.doctor.check import Check, Status
from airflow_provider_batch.core.formatting import format_count, format_usd
from airflow_provider_batch.core.lifecycle.failures import is_account_failure
from airflow_provider_batch.core.pricing.prices import Prices
from airflow_provider_batch.core.provider.catalogue import find_provider, is_openai
from airflow_provider_batch.exceptions import InputError
from airflow_provider_batch.hooks.batch import BatchHook, describe_error
from airflow_provider_batch.hooks.guard import RedirectError

#: timeout of one call, in seconds
TIMEOUT = 6.0
#: largest difference between the clocks of the server and of this machine that does not matter, in seconds
MAX_SKEW = 60
_CERTIFICATES_FIX = (
    "If a proxy or the server has certificates of your company, set SSL_CERT_FILE to a file that contains its CA."
)


class Answer(NamedTuple):
    """The answer to a free call, or why there is none."""

    #: the parsed JSON object, or None
    document: Mapping[str, Any] | None
    #: HTTP status; 0 if there was no answer
    status: int
    #: what the server said, or what happened
    message: str
    headers: Mapping[str, str]
    fix: str = ""


def check_provider(conn_id: str, models: Sequence[str]) -> Iterator[Check]:
    """Check the connection, the key, the Batch API, the models and their prices, and the clock."""
    yield from _check_proxies()
    hook = BatchHook(conn_id)
    try:
        hook.check()
    except InputError as error:
        message, separator, fix = str(error).removeprefix("openai_conn_id: ").partition(" Nothing was sent. ")
        yield Check("connection", Status.PROBLEM, message, fix if separator else "")
        return
    base_url = hook.conn.base_url
    address = f"{base_url.scheme}://{base_url.netloc.decode()}{base_url.path.rstrip('/')}"
    name = find_provider(hook.host).name
    listed = name != "OpenAI" or is_openai(hook.host)
    server = f"{name} at {address}" if listed else address
    yield Check("connection", Status.OK, f"{conn_id!r} has the form of a connection to {server}.")
    for warning in hook.warnings():
        yield Check("connection", Status.WARNING, f"{warning[0].upper()}{warning[1:]}")
    answer = _get(hook, "/models")
    if answer.status == 0:
        yield Check("server", Status.PROBLEM, answer.message, answer.fix)
        yield from _check_prices(hook, models)
        return
    yield _server_check(answer, address)
    if answer.status not in (401, 407):
        yield _batches_check(_get(hook, "/batches", limit="1"))
        yield _files_check(_get(hook, "/files", limit="1"))
        yield from _check_models(answer, models, hook)
    yield from _check_prices(hook, models)
    yield _clock_check(answer)


def _get(hook: BatchHook, path: str, **params: str) -> Answer:
    client = hook.conn.with_options(max_retries=0, timeout=TIMEOUT)
    try:
        response = client.get(path, cast_to=httpx2.Response, options={"params": params})
    except openai.APIStatusError as error:
        text = re.sub(r"Error code: \d+ - ", "", describe_error(error)).rstrip(".")
        if "<html" in text.lower() or error.message == f"Error code: {error.status_code}":
            text = f"HTTP {error.status_code}, without an error of an API"
        return Answer(None, error.status_code, text[:400], error.response.headers)
    except openai.APITimeoutError:
        message = f"{hook.host} did not answer within {TIMEOUT:.0f} seconds."
        fix = "Check Host, and whether a firewall or proxy is in between. In some networks, HTTPS_PROXY must be set."
        return Answer(None, 0, message, {}, fix)
    except RedirectError as error:
        return Answer(
            None, 0, f"{error}.", {}, "Enter the address to which the server redirects, if it is the right one."
        )
    except openai.OpenAIError as error:
        return Answer(None, 0, f"{describe_error(error)}.", {}, _connection_fix(error))
    try:
        document = msgspec.json.decode(response.content)
    except (msgspec.DecodeError, UnicodeError):
        document = None
    return Answer(document if isinstance(document, dict) else None, response.status_code, "", response.headers)


def _connection_fix(error: openai.OpenAIError) -> str:
    text = f"{error} {error.__cause__}".lower()
    if "certificate" in text or "ssl" in text:
        return _CERTIFICATES_FIX
    if "refused" in text:
        return "Check the port in Host, and whether the server runs."
    if "name or service" in text or "resolution" in text or "nodename" in text or "getaddrinfo" in text:
        return "Check the spelling of Host, and whether this machine can resolve it."
    if "proxy" in text:
        return "Check HTTPS_PROXY and NO_PROXY."
    return "Check Host, and whether this machine may reach it."


def _server_check(answer: Answer, address: str) -> Check:
    status = answer.status
    if status == 200:
        if answer.document is None or not isinstance(answer.document.get("data"), list | None):
            return Check(
                "server",
                Status.PROBLEM,
                f"{address}/models answered with something other than a list of models, such as a web page.",
                "Enter the address of the API into Host. It often ends in /v1.",
            )
        return Check("server", Status.OK, "The server accepts the key.")
    message = f"Listing the models failed: {answer.message}."
    if status == 401:
        fix = "Create a new key and enter it into the field API Key. A key of OpenAI belongs to a project."
        return Check("server", Status.PROBLEM, f"The server refuses the key: {answer.message}.", fix)
    if status == 407:
        return Check("server", Status.PROBLEM, message, "Put user and password of the proxy into HTTPS_PROXY.")
    if status == 403:
        fix = "If the key is restricted, allow it to read models. Otherwise check organization, project and region."
        return Check("server", Status.WARNING, message, fix)
    if status in (404, 405):
        fix = "Check the path in Host. It often ends in /v1. Some gateways do not list models."
        return Check("server", Status.WARNING, message, fix)
    if is_account_failure(status, None) or "insufficient_quota" in answer.message:
        return Check("server", Status.PROBLEM, message, "Check the billing and the limits of the account.")
    return Check("server", Status.UNKNOWN, message, "Try again later.")


def _batches_check(answer: Answer) -> Check:
    if answer.status == 200:
        if answer.document is not None and isinstance(answer.document.get("data", ""), list | None):
            return Check("batches", Status.OK, "The key may use the Batch API.")
        return Check(
            "batches",
            Status.PROBLEM,
            "The answer to GET /batches is not a list, so this is not OpenAI's Batch API.",
            "Enter the address of an API that has it into Host.",
        )
    message = f"Listing batches failed: {answer.message.rstrip('.')}."
    if answer.status in (401, 403):
        fix = "Allow the key to use batches and files (permissions Batches and Files: write), or create another key."
        return Check("batches", Status.PROBLEM, f"The key may not use the Batch API: {answer.message}.", fix)
    if answer.status in (404, 405, 501):
        fix = "Check the path in Host. If it is right, the server has no Batch API: use the address of one that has it."
        return Check("batches", Status.PROBLEM, message, fix)
    fix = answer.fix or "Try again later."
    return Check("batches", Status.PROBLEM if answer.status == 0 else Status.UNKNOWN, message, fix)


def _files_check(answer: Answer) -> Check:
    if answer.status == 200 and answer.document is not None:
        return Check("files", Status.OK, "The key may use files.")
    message = f"Listing files failed: {answer.message.rstrip('.') or 'the answer is not JSON'}."
    if answer.status in (401, 403):
        fix = "Allow the key to write files: the requests of a batch are uploaded as a file."
        return Check("files", Status.PROBLEM, message, fix)
    return Check("files", Status.UNKNOWN, message, "Some servers do not list files. Uploads may work nevertheless.")


def _check_models(answer: Answer, models: Sequence[str], hook: BatchHook) -> Iterator[Check]:
    data = answer.document.get("data") if answer.document is not None else None
    names = [str(item.get("id")) for item in data or [] if isinstance(item, Mapping)]
    if not names:
        if models:
            yield Check("model", Status.UNKNOWN, "The server lists no models.")
        return
    if not models:
        yield Check("model", Status.OK, f"The server lists {format_count(len(names), 'model')}. --model checks one.")
    for model in models:
        if model in names:
            yield Check("model", Status.OK, f"The server lists {model!r}.")
            continue
        similar = difflib.get_close_matches(model, names, n=1)
        advice = f" Did you mean {similar[0]!r}?" if similar else ""
        if find_provider(hook.host).name == "Azure OpenAI":
            message = f"Azure does not list deployments, so {model!r} cannot be checked."
            yield Check("model", Status.UNKNOWN, message, "It must be the name of a deployment of a batch type.")
        else:
            status = Status.PROBLEM if is_openai(hook.host) else Status.WARNING
            fix = f"Correct the name, or ask for access to it.{advice}"
            yield Check("model", status, f"The server does not list {model!r}.", fix)


def _check_prices(hook: BatchHook, models: Sequence[str]) -> Iterator[Check]:
    prices = Prices(hook.prices(), hook.price_list)
    fix = (
        'Set "batch_prices" in the extra of the connection: {"MODEL": {"input": 0.5, "output": 2}}, per million tokens.'
    )
    for model in models:
        rate = prices.rate(model)
        if rate is None:
            message = f"The price of {model!r} is unknown, so a job with max_cost_usd refuses it."
            yield Check("prices", Status.WARNING, message, fix)
        else:
            amounts = f"{format_usd(rate.input)} for a million input tokens, {format_usd(rate.output)} for output"
            yield Check("prices", Status.OK, f"{model!r} costs {amounts} in a batch.")
    if not models and not hook.price_list and not hook.prices():
        message = "No prices are known for this server, so a job with max_cost_usd refuses its models."
        yield Check("prices", Status.WARNING, message, fix)
    elif not models:
        yield Check(
            "prices",
            Status.OK,
            f"Jobs are priced with the price list of {hook.price_list or 'the connection'}. --model shows a price.",
        )


def _clock_check(answer: Answer) -> Check:
    try:
        server_time = parsedate_to_datetime(answer.headers["date"])
    except (KeyError, ValueError, TypeError):
        return Check("clock", Status.UNKNOWN, "The server does not send the time.")
    if server_time.tzinfo is None:
        server_time = server_time.replace(tzinfo=UTC)
    skew = (datetime.now(UTC) - server_time).total_seconds()
    if abs(skew) <= MAX_SKEW:
        return Check("clock", Status.OK, "The clock of this machine agrees with the server's.")
    direction = "ahead of" if skew > 0 else "behind"
    message = f"The clock of this machine is {abs(skew):,.0f} seconds {direction} the server's, which shifts deadlines."
    return Check("clock", Status.WARNING, message, "Synchronize the clock, such as with chrony or systemd-timesyncd.")


def _check_proxies() -> Iterator[Check]:
    for name in ("SSL_CERT_FILE", "SSL_CERT_DIR"):
        path = os.environ.get(name)
        if path and not Path(path).exists():
            fix = f"Correct or unset {name}."
            yield Check("certificates", Status.PROBLEM, f"{name} is {path}, which does not exist.", fix)
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        if os.environ.get(name) and not os.environ.get("SSL_CERT_FILE"):
            message = f"{name} is set, but the OpenAI client reads SSL_CERT_FILE instead."
            yield Check("certificates", Status.WARNING, message, f"Set SSL_CERT_FILE to the same file as {name}.")
    names = [name for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy") if os.environ.get(name)]
    if names:
        exceptions = os.environ.get("NO_PROXY") or os.environ.get("no_proxy") or "none"
        message = f"Calls go through the proxy in {names[0]}, with exceptions (NO_PROXY): {exceptions}."
        yield Check("proxy", Status.OK, message)
