"""How each call of the hook handles unusable, ambiguous and endless answers.

A scripted server sends each answer byte for byte. `docs/reference/provider-facts.md` says which real behaviour they
represent.
"""

from __future__ import annotations

import io
import itertools
import json
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qs

import pytest

from airflow_provider_batch.exceptions import ProviderError
from tests.airflow.scripted import Request, Script, ScriptedServer, reply, serve_script

pytestmark = pytest.mark.usefixtures("airflow_home")
Serve = Callable[..., AbstractContextManager[tuple[ScriptedServer, Any]]]
LONG_AGO = datetime(2026, 1, 1, tzinfo=UTC)

#: answers with status 200 (204 in one case) that are not a batch, a file or a list
GARBAGE = {
    "a web page": reply(b"<html>Bad gateway</html>", content_type="text/html"),
    "a web page with a JSON content type": reply(b"<html>Bad gateway</html>"),
    "an empty body": reply(b""),
    "an empty object": reply({}),
    "null": reply(None),
    "an array": reply([]),
    "a number": reply(17),
    "an error": reply({"error": {"message": "upstream is away", "code": "bad_gateway"}}),
    "nested too deeply": reply(b'{"id": "batch_1", "status": "completed", "metadata": ' + b"[" * 100_000),
    "half a JSON text": reply(b'{"id": "batch_1", "sta'),
    "not UTF-8": reply(b'{"id": "\xff\xfe"}'),
    "a truncated body": reply(b'{"id": "batch_1", "sta', length=4000),
    "not gzip despite its header": reply(b"plain", Content_Encoding="gzip"),
    "no status line": b"hello\r\n\r\n",
    "a closed connection": b"",
    "204": reply(b"", status=204),
}


@pytest.fixture
def serve(connect: Callable[..., None]) -> Serve:
    """Return a context manager that starts a scripted server and yields it with a hook; no retries by default."""

    @contextmanager
    def start(script: Script | bytes, *, retries: int = 0) -> Iterator[tuple[ScriptedServer, Any]]:
        from airflow_provider_batch.hooks.batch import BatchHook

        with serve_script(script if callable(script) else lambda _: script) as server:
            extra = {"openai_client_kwargs": {"max_retries": retries, "timeout": 20}}
            connect("openai_default", conn_type="openai", password="local", host=server.base_url, extra=extra)
            yield server, BatchHook()

    return start


def create(hook: Any) -> Any:
    return hook.create("file-1", endpoint="/v1/chat/completions", completion_window="24h", metadata={"nonce": "n1"})


def find(hook: Any, *, not_before: datetime = LONG_AGO) -> Any:
    return hook.find_batches("n1", "file-1", not_before=not_before)


CALLS: dict[str, Callable[[Any], Any]] = {
    "upload": lambda hook: hook.upload(io.BytesIO(b"{}\n"), "s0001.jsonl"),
    "retrieve": lambda hook: hook.retrieve("batch_1"),
    "cancel": lambda hook: hook.cancel("batch_1"),
    "find": find,
}


@pytest.mark.parametrize("garbage", GARBAGE.values(), ids=GARBAGE)
def test_after_an_unusable_answer_to_a_creation_it_is_unknown_whether_a_batch_exists(
    serve: Serve, garbage: bytes
) -> None:
    from airflow_provider_batch.hooks.calls import CreateUnconfirmedError

    with serve(garbage, retries=5) as (server, hook):
        with pytest.raises(CreateUnconfirmedError):
            create(hook)
        assert server.calls("POST /batches") == 1


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
@pytest.mark.parametrize("garbage", GARBAGE.values(), ids=GARBAGE)
def test_an_unusable_answer_raises_a_provider_error(serve: Serve, garbage: bytes, call: Callable[[Any], Any]) -> None:
    with serve(garbage) as (_, hook), pytest.raises(ProviderError):
        call(hook)


@pytest.mark.parametrize(
    ("status", "headers"),
    [
        (408, {}),
        (409, {}),
        (500, {}),
        (503, {"x_should_retry": "true"}),
        (504, {"retry_after": "1"}),
        (429, {"retry_after": "0"}),
        (429, {"retry_after": "7200"}),
        (429, {"x_should_retry": "true"}),
    ],
)
def test_a_creation_is_sent_once_even_if_the_answer_asks_for_a_retry(
    serve: Serve, status: int, headers: dict[str, Any]
) -> None:
    from airflow_provider_batch.hooks.calls import CreateRefusedError, CreateUnconfirmedError

    with serve(reply({"error": {"message": "no"}}, status=status, **headers), retries=5) as (server, hook):
        with pytest.raises(CreateRefusedError if status == 429 else CreateUnconfirmedError):
            create(hook)
        assert server.calls("POST /batches") == 1


@pytest.mark.parametrize(
    ("status", "code", "message", "failure"),
    [
        (429, "insufficient_quota", "You exceeded your current quota.", "account"),
        (401, "invalid_api_key", "Incorrect API key provided.", "account"),
        (400, "invalid_value", "Invalid value: '/v1/x'. Supported values are: '/v1/responses'.", "account"),
        (429, "rate_limit_exceeded", "2,000 batches were created in this hour.", "capacity"),
        (400, None, "Cannot find file file-1 or project proj-x does not have access to it.", "file"),
    ],
)
def test_the_error_of_a_refused_creation_has_the_servers_code_and_message(
    serve: Serve, status: int, code: str | None, message: str, failure: str
) -> None:
    from airflow_provider_batch.hooks.calls import CreateRefusedError

    error = {"error": {"message": message, "type": "invalid_request_error", "param": None, "code": code}}
    with serve(reply(error, status=status)) as (_, hook):
        with pytest.raises(CreateRefusedError) as raised:
            create(hook)
    assert raised.value.failure == failure
    assert raised.value.message.startswith(f"HTTP {status}, {code}: " if code else f"HTTP {status}: ")
    assert raised.value.message.endswith(message)


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_a_retry_after_of_hours_raises_an_error_instead_of_a_wait(serve: Serve, call: Callable[[Any], Any]) -> None:
    refusal = reply({"error": {"message": "come back in two hours"}}, status=429, retry_after="7200")
    with serve(refusal, retries=5) as (server, hook):
        with pytest.raises(ProviderError, match=r"HTTP 429: .*come back in two hours"):
            call(hook)
        assert len(server.requests) == 1


@pytest.mark.parametrize("call", [call for name, call in CALLS.items() if name not in ("cancel", "find")])
def test_calls_that_cost_nothing_are_repeated_after_a_transient_error(serve: Serve, call: Callable[[Any], Any]) -> None:
    calls = itertools.count()
    batch = reply({"id": "batch_1", "object": "batch", "status": "in_progress"})

    with serve(lambda _: b"" if next(calls) < 2 else batch, retries=2) as (server, hook):
        assert call(hook)
        assert len(server.requests) == 3


def test_cancelling_a_batch_that_has_ended_is_not_an_error(serve: Serve) -> None:
    conflict = reply({"error": {"message": "Cannot cancel a batch with status 'completed'."}}, status=409)
    with serve(conflict, retries=5) as (server, hook):
        assert hook.cancel("batch_1") is None
        assert len(server.requests) == 1


def test_the_error_for_a_missing_batch_has_the_servers_message(serve: Serve) -> None:
    with serve(reply({"error": {"message": "No batch found with id 'batch_1'."}}, status=404)) as (_, hook):
        with pytest.raises(ProviderError, match=r"HTTP 404: .*No batch found with id 'batch_1'"):
            hook.retrieve("batch_1")


# the list of batches, which is searched for the batch of an unanswered creation


def entry(number: int, **changes: Any) -> dict[str, Any]:
    """Return a list entry. A higher number means a later creation time."""
    stamp = int(LONG_AGO.timestamp()) + number
    return {"id": f"batch_{number}", "object": "batch", "status": "in_progress", "created_at": stamp, **changes}


OURS = {"metadata": {"nonce": "n1"}}


def pages(
    batches: list[dict[str, Any]], *, page_size: int = 100, cursor: str = "after", **extra: Any
) -> Callable[[Request], bytes]:
    """Return a script that serves a list of batches page by page.

    :param page_size: maximum number of batches on a page.
    :param cursor: query parameter that names where a page starts.
    :param extra: fields that replace those of the answer.
    """

    def answer(request: Request) -> bytes:
        query = parse_qs(request.target.partition("?")[2])
        ids = [batch["id"] for batch in batches]
        start = ids.index(query[cursor][0]) + 1 if cursor in query else 0
        size = min(page_size, int(query["limit"][0]))
        page, has_more = batches[start : start + size], start + size < len(batches)
        listing: dict[str, Any] = {"object": "list", "data": page}
        if cursor == "cursor":
            listing["paging"] = {"next_cursor": page[-1]["id"] if has_more else None}
        elif cursor == "after":
            listing["has_more"] = has_more
        return reply(listing | extra)

    return answer


@pytest.mark.parametrize("data", [[], None])
def test_an_empty_list_means_that_there_is_no_batch(serve: Serve, data: Any) -> None:
    with serve(reply({"object": "list", "data": data, "has_more": False})) as (server, hook):
        assert find(hook) == []
        assert server.requests[0].target == "/batches?limit=100"


@pytest.mark.parametrize(
    "listing",
    [
        pages([*map(entry, range(300, 1, -1)), entry(1, **OURS)]),
        pages([*map(entry, range(300, 1, -1)), entry(1, **OURS)], page_size=20),
        pages([*map(entry, range(300, 1, -1)), entry(1, **OURS)], has_more=None),
        pages([*map(entry, range(300, 1, -1)), entry(1, **OURS)], has_more=True),
        pages([*map(entry, range(300, 1, -1)), entry(1, **OURS)], cursor="cursor"),
        pages([*map(entry, range(1, 300)), entry(300, **OURS)]),
        pages([entry(2), entry(1, **OURS)], cursor="ignored"),
        pages([entry(2), entry(1, **OURS)], cursor="ignored", has_more=True),
    ],
    ids=[
        "on the last of three pages",
        "pages smaller than requested",
        "has_more is null",
        "has_more is always true",
        "cursor instead of has_more",
        "the oldest first",
        "always the same page",
        "always the same page with has_more",
    ],
)
def test_a_batch_is_found_anywhere_in_the_list(serve: Serve, listing: Script) -> None:
    with serve(listing) as (server, hook):
        (batch,) = find(hook)
        assert batch.metadata == {"nonce": "n1"}
        assert len(server.requests) < 20


def test_the_search_stops_at_batches_that_are_too_old(serve: Serve) -> None:
    with serve(pages([entry(number) for number in range(900, 0, -1)])) as (server, hook):
        assert find(hook, not_before=datetime.fromtimestamp(LONG_AGO.timestamp() + 850, UTC)) == []
        assert len(server.requests) == 2


def test_a_list_with_the_oldest_first_is_searched_to_its_newest(serve: Serve) -> None:
    batches = [*map(entry, range(1, 250)), entry(250, **OURS)]
    with serve(pages(batches)) as (_, hook):
        (batch,) = find(hook, not_before=datetime.fromtimestamp(LONG_AGO.timestamp() + 240, UTC))
        assert batch.id == "batch_250"


def test_a_repeated_full_page_does_not_prove_that_there_is_no_batch(serve: Serve) -> None:
    with serve(pages([entry(number) for number in range(900, 0, -1)], cursor="ignored")) as (server, hook):
        with pytest.raises(ProviderError, match=r"the same 100 batches again.*Nothing was created"):
            find(hook)
        assert len(server.requests) == 2


def test_an_endless_list_raises_an_error_and_does_not_prove_that_there_is_no_batch(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    from airflow_provider_batch.hooks import batch

    monkeypatch.setattr(batch, "MAX_PAGES", 7)
    numbers = itertools.count(10**9, -1)
    with serve(lambda _: reply({"object": "list", "data": [entry(next(numbers))], "has_more": True})) as (server, hook):
        with pytest.raises(ProviderError, match=r"did not end after 7 pages \(7 batches\). Nothing was created"):
            find(hook)
        assert len(server.requests) == 7


def test_a_batch_without_a_nonce_is_found_by_its_input_file(serve: Serve) -> None:
    """Together, for example, returns batches without metadata."""
    batches = [entry(3), entry(2, input_file_id="file-1"), entry(1, input_file_id="")]
    with serve(pages(batches)) as (_, hook):
        assert [batch.id for batch in find(hook)] == ["batch_2"]


# result files


def download(hook: Any) -> bytes:
    target = io.BytesIO()
    hook.download("file-2", target)
    return target.getvalue()


@pytest.mark.parametrize(
    ("answer", "size"),
    [
        (reply({"id": "file-2", "bytes": 1234}), 1234),
        (reply({"id": "file-2", "bytes": 0}), 0),
        (reply({"id": "file-2"}), None),
        (reply({"id": "file-2", "bytes": None}), None),
        (reply({"id": "file-2", "bytes": "1234"}), None),
        (reply({"id": "file-2", "bytes": True}), None),
        (reply({"id": "file-2", "bytes": -1}), None),
        (reply([1234]), None),
        (reply(b"<html>", content_type="text/html"), None),
        (reply(b"<html>"), None),
        (reply({"error": {"message": "no such file"}}, status=404), None),
        (reply({"error": {"message": "down"}}, status=503), None),
        (b"", None),
    ],
    ids=range(13),
)
def test_the_size_of_a_file_is_a_number_of_bytes_or_unknown(serve: Serve, answer: bytes, size: int | None) -> None:
    with serve(answer) as (_, hook):
        assert hook.file_size("file-2") == size


@pytest.mark.parametrize("status", [404, 410])
def test_the_error_for_a_deleted_result_file_says_that_it_is_gone(serve: Serve, status: int) -> None:
    with serve(reply({"error": {"message": "no such file"}}, status=status)) as (_, hook):
        with pytest.raises(ProviderError, match=rf"HTTP {status}: .*no such file. The file was deleted or has expired"):
            download(hook)


def test_a_download_is_repeated_and_its_error_says_that_the_provider_still_has_the_file(serve: Serve) -> None:
    with serve(reply(b"Bad gateway", status=502, content_type="text/plain", retry_after_ms="1"), retries=2) as (
        server,
        hook,
    ):
        with pytest.raises(ProviderError, match=r"HTTP 502.*The provider still has the file"):
            download(hook)
        assert len(server.requests) == 3


def test_a_result_file_is_read_byte_for_byte_regardless_of_its_headers(serve: Serve) -> None:
    line = json.dumps({"custom_id": "é\u2028"}, ensure_ascii=False).encode() + b"\n"
    with serve(reply(line, content_type="text/plain; charset=iso-8859-1")) as (_, hook):
        assert download(hook) == line
