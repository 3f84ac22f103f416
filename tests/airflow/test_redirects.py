"""Where the requests of a connection may be redirected, and what they carry there.

Two scripted servers stand for the host of the connection and for another one. A different port is another origin.
"""

from __future__ import annotations

import asyncio
import io
import logging
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from typing import Any, NamedTuple

import httpx2
import openai
import pytest

from airflow_provider_batch.exceptions import AwayError, ProviderError
from tests.airflow.scripted import Request, ScriptedServer, reply, serve_script

pytestmark = pytest.mark.usefixtures("airflow_home")

LONG_AGO = datetime(2026, 1, 1, tzinfo=UTC)
KEY = "sk-proj-0123456789abcdef"
ROWS = b'{"custom_id": "a", "body": {"prompt": "a secret prompt"}}\n'
BATCH = {"id": "batch_1", "object": "batch", "status": "in_progress", "input_file_id": "file-1"}
#: what the other host answers, which would be believed if the redirect was followed
BELIEVABLE = {"data": [], "has_more": False, **BATCH}


class Hosts(NamedTuple):
    """The two servers, and a hook for the connection to the first."""

    own: ScriptedServer
    other: ScriptedServer
    hook: Any

    @property
    def names(self) -> list[str]:
        """Scheme, host and port of the servers."""
        return [server.base_url.removesuffix("/v1") for server in (self.own, self.other)]


@pytest.fixture
def redirect(connect: Callable[..., None]) -> Iterator[Callable[..., Hosts]]:
    """Return a function that starts the servers: the first redirects every request with this status.

    :param to: the location. `{own}` and `{other}` are replaced with the base URLs, and `{target}` with the path.
    """
    from airflow_provider_batch.hooks.batch import BatchHook

    with ExitStack() as stack:

        def start(status: int, to: str = "{other}{target}", *, answer: bytes | None = None) -> Hosts:
            other = stack.enter_context(serve_script(lambda _: answer or reply(BELIEVABLE)))
            redirected: set[str] = set()

            def script(request: Request) -> bytes:
                if request.target in redirected:  # a redirect within the host arrives
                    return answer or reply(BELIEVABLE)
                location = to.format(own=own.base_url, other=other.base_url, target=request.target)
                redirected.add(location.removeprefix(own.base_url))
                return reply(BELIEVABLE, status=status, location=location)

            own = stack.enter_context(serve_script(script))
            headers = {"X-Gateway-Token": "gw-0123456789", "X-Team": "billing"}
            extra = {"openai_client_kwargs": {"max_retries": 3, "timeout": 20, "default_headers": headers}}
            connect("openai_default", conn_type="openai", password=KEY, host=own.base_url, extra=extra)
            return Hosts(own, other, BatchHook())

        yield start


def create(hook: Any) -> Any:
    return hook.create("file-1", endpoint="/v1/chat/completions", completion_window="24h", metadata={"nonce": "n1"})


WRITES: dict[str, Callable[[Any], Any]] = {
    "upload": lambda hook: hook.upload(io.BytesIO(ROWS), "s0001.jsonl"),
    "create": create,
    "cancel": lambda hook: hook.cancel("batch_1"),
    "delete": lambda hook: hook.delete("file-1"),
}
READS: dict[str, Callable[[Any], Any]] = {
    "retrieve": lambda hook: hook.retrieve("batch_1"),
    "list": lambda hook: hook.list_job_batches("j1", not_before=LONG_AGO),
}


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("call", (WRITES | READS).values(), ids=WRITES | READS)
def test_nothing_is_redirected_to_another_host(
    redirect: Callable[..., Hosts], status: int, call: Callable[[Any], Any]
) -> None:
    hosts = redirect(status)
    with pytest.raises(ProviderError) as raised:
        call(hosts.hook)
    assert hosts.other.requests == []
    assert len(hosts.own.requests) == 1
    assert not isinstance(raised.value, AwayError)
    for name in (*hosts.names, "'openai_default'", "base URL"):
        assert name in str(raised.value)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("call", WRITES.values(), ids=WRITES)
def test_a_request_that_changes_something_is_not_redirected_within_its_host(
    redirect: Callable[..., Hosts], status: int, call: Callable[[Any], Any]
) -> None:
    hosts = redirect(status, "{own}/elsewhere{target}")
    with pytest.raises(ProviderError, match=r"redirected (POST|DELETE) .*/v1/elsewhere/"):
        call(hosts.hook)
    assert len(hosts.own.requests) == 1


@pytest.mark.parametrize("call", READS.values(), ids=READS)
def test_a_read_is_redirected_within_its_host(redirect: Callable[..., Hosts], call: Callable[[Any], Any]) -> None:
    hosts = redirect(307, "{own}/elsewhere{target}")
    call(hosts.hook)
    assert [request.headers["authorization"] for request in hosts.own.requests] == [f"Bearer {KEY}"] * 2


def test_a_synchronous_request_is_not_redirected(redirect: Callable[..., Hosts]) -> None:
    hosts = redirect(307)
    response = hosts.hook.send_request("/v1/chat/completions", {"messages": []})
    assert (response.status, response.code) == (0, "RedirectError")
    assert all(name in response.body.decode() for name in hosts.names)
    assert hosts.other.requests == []


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_download_is_redirected_to_an_object_store_without_key_and_headers(
    redirect: Callable[..., Hosts], caplog: pytest.LogCaptureFixture, status: int
) -> None:
    hosts = redirect(status, "{other}/bucket/file?X-Amz-Signature=abc", answer=reply(b"{}\n"))
    target = io.BytesIO()
    with caplog.at_level(logging.INFO, logger="httpx2"):
        hosts.hook.download("file-1", target)
    assert "/bucket/file" in caplog.text
    assert "Signature" not in caplog.text
    assert target.getvalue() == b"{}\n"
    (request,) = hosts.other.requests
    assert request.target == "/bucket/file?X-Amz-Signature=abc"
    assert set(request.headers) <= {"accept", "accept-encoding", "connection", "host"}


@pytest.mark.parametrize("location", ["file:///etc/passwd", "ftp://host/file", "http://[::1/", "data:,x"])
def test_a_download_is_redirected_to_web_addresses_only(redirect: Callable[..., Hosts], location: str) -> None:
    hosts = redirect(302, location)
    with pytest.raises(ProviderError, match="to an invalid address"):
        hosts.hook.download("file-1", io.BytesIO())


def test_a_redirect_never_shows_the_secrets_of_an_address(redirect: Callable[..., Hosts]) -> None:
    hosts = redirect(302, "http://user:hidden@127.0.0.1:9/x?sig=hidden#hidden")
    with pytest.raises(ProviderError) as raised:
        hosts.hook.retrieve("batch_1")
    assert "http://127.0.0.1:9/x" in str(raised.value)
    assert "hidden" not in str(raised.value)


def test_the_client_of_the_triggers_is_not_redirected_to_another_host(redirect: Callable[..., Hosts]) -> None:
    from airflow_provider_batch.triggers.clients import shared_client
    from airflow_provider_batch.triggers.list_trust import ListTrust
    from airflow_provider_batch.triggers.reading import Reader, Refusal

    hosts = redirect(307)
    results: list[Any] = []

    async def read() -> None:
        async with shared_client("openai_default") as shared:
            await Reader(shared, ListTrust()).read(["batch_1"], lambda _, result: results.append(result))
            with pytest.raises(openai.OpenAIError):
                await (await shared.get()).batches.cancel("batch_1")

    asyncio.run(read())
    assert hosts.other.requests == []
    (result,) = results
    assert isinstance(result, Refusal)
    assert all(name in result.message for name in hosts.names)


def test_a_download_is_not_redirected_from_https_to_http() -> None:
    from airflow_provider_batch.hooks.guard import RedirectError, guard_client

    def answer(request: httpx2.Request) -> httpx2.Response:
        assert request.url.scheme == "https"
        return httpx2.Response(302, headers={"location": "http://store.example/file"})

    http_client = openai.DefaultHttpxClient(transport=httpx2.MockTransport(answer))
    client = guard_client(
        openai.OpenAI(api_key=KEY, base_url="https://host.example/v1", http_client=http_client), "openai_default"
    )
    with pytest.raises(RedirectError, match="result files are not read over an unencrypted connection"):
        client.files.content("file-1")


@pytest.mark.parametrize(
    ("base_url", "warnings"),
    [
        ("http://gateway.example/v1", 1),
        ("http://10.0.0.1:8000/v1", 1),
        ("http://[2001:db8::1]/v1", 1),
        ("https://gateway.example/v1", 0),
        ("http://localhost:8000/v1", 0),
        ("http://api.localhost/v1", 0),
        ("http://127.0.0.2/v1", 0),
        ("http://[::1]:8000/v1", 0),
    ],
)
def test_a_key_that_is_sent_unencrypted_is_reported_once(
    connect: Callable[..., None],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    base_url: str,
    warnings: int,
) -> None:
    from airflow_provider_batch.hooks import guard
    from airflow_provider_batch.hooks.batch import BatchHook

    monkeypatch.setattr(guard, "_warned_hosts", set())
    connect("openai_default", conn_type="openai", password=KEY, host=base_url)
    with caplog.at_level(logging.WARNING, logger=guard.__name__):
        for _ in range(3):
            BatchHook().warm_up()
    messages = [record.getMessage() for record in caplog.records if record.name == guard.__name__]
    assert len(messages) == warnings
    assert KEY not in "".join(messages)
