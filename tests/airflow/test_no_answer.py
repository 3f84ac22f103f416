"""Answers that are none, that leave open what happened, or that never end: what each call of the hook makes of them.

Each is given word for word by a scripted server. What they stand for is in docs/provider-facts.md.
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

from airflow_provider_batch.exceptions import BrokenDownloadError, ProviderError
from tests.airflow.scripted import Request, Script, Scripted, reply, scripted

pytestmark = pytest.mark.usefixtures("airflow_home")
Serve = Callable[..., AbstractContextManager[tuple[Scripted, Any]]]
LONG_AGO = datetime(2026, 1, 1, tzinfo=UTC)

#: 200 with what is no batch, no file and no list
GARBAGE = {
    "a web page": reply(b"<html>Bad gateway</html>", content_type="text/html"),
    "a web page that calls itself JSON": reply(b"<html>Bad gateway</html>"),
    "nothing": reply(b""),
    "an empty object": reply({}),
    "null": reply(None),
    "an array": reply([]),
    "a number": reply(17),
    "an error": reply({"error": {"message": "upstream is away", "code": "bad_gateway"}}),
    "half a JSON text": reply(b'{"id": "batch_1", "sta'),
    "no UTF-8": reply(b'{"id": "\xff\xfe"}'),
    "a body that breaks off": reply(b'{"id": "batch_1", "sta', length=4000),
    "no gzip, though it says so": reply(b"plain", Content_Encoding="gzip"),
    "no status line": b"hello\r\n\r\n",
    "a closed connection": b"",
    "204": reply(b"", status=204),
}


@pytest.fixture
def serve(connect: Callable[..., None]) -> Serve:
    """`serve(script)` gives the server and a hook for it; calls are not repeated unless `retries` says so."""

    @contextmanager
    def start(script: Script | bytes, *, retries: int = 0) -> Iterator[tuple[Scripted, Any]]:
        from airflow_provider_batch.hooks.batch import BatchHook

        with scripted(script if callable(script) else lambda _: script) as server:
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
def test_an_answer_to_a_creation_that_is_no_batch_leaves_it_open_whether_there_is_one(
    serve: Serve, garbage: bytes
) -> None:
    from airflow_provider_batch.hooks.batch import CreateUnconfirmedError

    with serve(garbage, retries=5) as (server, hook):
        with pytest.raises(CreateUnconfirmedError):
            create(hook)
        assert server.calls("POST /batches") == 1


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
@pytest.mark.parametrize("garbage", GARBAGE.values(), ids=GARBAGE)
def test_an_answer_that_is_none_is_an_error_of_the_provider(
    serve: Serve, garbage: bytes, call: Callable[[Any], Any]
) -> None:
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
def test_a_creation_is_sent_once_whatever_the_answer_says_about_sending_it_again(
    serve: Serve, status: int, headers: dict[str, Any]
) -> None:
    from airflow_provider_batch.hooks.batch import CreateRefusedError, CreateUnconfirmedError

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
def test_a_refused_creation_is_told_with_its_code_and_the_servers_words(
    serve: Serve, status: int, code: str | None, message: str, failure: str
) -> None:
    from airflow_provider_batch.hooks.batch import CreateRefusedError

    said = {"error": {"message": message, "type": "invalid_request_error", "param": None, "code": code}}
    with serve(reply(said, status=status)) as (_, hook):
        with pytest.raises(CreateRefusedError) as refused:
            create(hook)
    assert refused.value.failure == failure
    assert refused.value.message.startswith(f"HTTP {status}, {code}: " if code else f"HTTP {status}: ")
    assert refused.value.message.endswith(message)


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_a_wait_of_hours_that_a_server_asks_for_is_told_and_not_sat_out(
    serve: Serve, call: Callable[[Any], Any]
) -> None:
    later = reply({"error": {"message": "come back in two hours"}}, status=429, retry_after="7200")
    with serve(later, retries=5) as (server, hook):
        with pytest.raises(ProviderError, match=r"HTTP 429: .*come back in two hours"):
            call(hook)
        assert len(server.requests) == 1


@pytest.mark.parametrize("call", [call for name, call in CALLS.items() if name not in ("cancel", "find")])
def test_what_costs_nothing_is_asked_again_after_a_passing_error(serve: Serve, call: Callable[[Any], Any]) -> None:
    times = itertools.count()
    good = reply({"id": "batch_1", "object": "batch", "status": "in_progress"})

    with serve(lambda _: b"" if next(times) < 2 else good, retries=2) as (server, hook):
        assert call(hook)
        assert len(server.requests) == 3


def test_a_batch_that_has_ended_cannot_be_cancelled_and_that_is_no_error(serve: Serve) -> None:
    ended = reply({"error": {"message": "Cannot cancel a batch with status 'completed'."}}, status=409)
    with serve(ended, retries=5) as (server, hook):
        assert hook.cancel("batch_1") is None
        assert len(server.requests) == 1


def test_a_batch_that_is_not_there_is_told_with_the_servers_words(serve: Serve) -> None:
    with serve(reply({"error": {"message": "No batch found with id 'batch_1'."}}, status=404)) as (_, hook):
        with pytest.raises(ProviderError, match=r"HTTP 404: .*No batch found with id 'batch_1'"):
            hook.retrieve("batch_1")


# the list of batches, in which an unanswered creation is looked for


def entry(number: int, **changes: Any) -> dict[str, Any]:
    """Batch `number`; the higher, the later it was created."""
    stamp = int(LONG_AGO.timestamp()) + number
    return {"id": f"batch_{number}", "object": "batch", "status": "in_progress", "created_at": stamp, **changes}


OURS = {"metadata": {"nonce": "n1"}}


def pages(
    batches: list[dict[str, Any]], *, most: int = 100, follows: str = "after", **extra: Any
) -> Callable[[Request], bytes]:
    """A list of batches by pages of at most `most`, which go on from the parameter `follows`."""

    def answer(request: Request) -> bytes:
        query = parse_qs(request.target.partition("?")[2])
        ids = [batch["id"] for batch in batches]
        start = ids.index(query[follows][0]) + 1 if follows in query else 0
        size = min(most, int(query["limit"][0]))
        page, more = batches[start : start + size], start + size < len(batches)
        found: dict[str, Any] = {"object": "list", "data": page}
        if follows == "cursor":
            found["paging"] = {"next_cursor": page[-1]["id"] if more else None}
        elif follows == "after":
            found["has_more"] = more
        return reply(found | extra)

    return answer


@pytest.mark.parametrize("data", [[], None])
def test_an_empty_list_says_that_there_is_no_batch(serve: Serve, data: Any) -> None:
    with serve(reply({"object": "list", "data": data, "has_more": False})) as (server, hook):
        assert find(hook) == []
        assert server.requests[0].target == "/batches?limit=100"


@pytest.mark.parametrize(
    "listing",
    [
        pages([*map(entry, range(300, 1, -1)), entry(1, **OURS)]),
        pages([*map(entry, range(300, 1, -1)), entry(1, **OURS)], most=20),
        pages([*map(entry, range(300, 1, -1)), entry(1, **OURS)], has_more=None),
        pages([*map(entry, range(300, 1, -1)), entry(1, **OURS)], has_more=True),
        pages([*map(entry, range(300, 1, -1)), entry(1, **OURS)], follows="cursor"),
        pages([*map(entry, range(1, 300)), entry(300, **OURS)]),
        pages([entry(2), entry(1, **OURS)], follows="nothing"),
        pages([entry(2), entry(1, **OURS)], follows="nothing", has_more=True),
    ],
    ids=[
        "on the last of three pages",
        "pages smaller than asked for",
        "has_more is null",
        "has_more is true for ever",
        "by cursor and without has_more",
        "the oldest first",
        "one page again and again",
        "one page again and again that says there are more",
    ],
)
def test_a_batch_is_found_wherever_the_list_shows_it(serve: Serve, listing: Script) -> None:
    with serve(listing) as (server, hook):
        (found,) = find(hook)
        assert found.metadata == {"nonce": "n1"}
        assert len(server.requests) < 20


def test_the_list_is_read_no_further_than_to_batches_that_are_older(serve: Serve) -> None:
    with serve(pages([entry(number) for number in range(900, 0, -1)])) as (server, hook):
        assert find(hook, not_before=datetime.fromtimestamp(LONG_AGO.timestamp() + 850, UTC)) == []
        assert len(server.requests) == 2


def test_of_a_list_with_the_oldest_first_the_newest_are_read_too(serve: Serve) -> None:
    batches = [*map(entry, range(1, 250)), entry(250, **OURS)]
    with serve(pages(batches)) as (_, hook):
        (found,) = find(hook, not_before=datetime.fromtimestamp(LONG_AGO.timestamp() + 240, UTC))
        assert found.id == "batch_250"


def test_a_full_page_that_comes_again_is_no_proof_that_there_is_no_batch(serve: Serve) -> None:
    with serve(pages([entry(number) for number in range(900, 0, -1)], follows="nothing")) as (server, hook):
        with pytest.raises(ProviderError, match=r"the same 100 batches again.*Nothing was created"):
            find(hook)
        assert len(server.requests) == 2


def test_a_list_that_never_ends_is_given_up_and_is_no_proof_that_there_is_no_batch(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    from airflow_provider_batch.hooks import batch

    monkeypatch.setattr(batch, "MAX_PAGES", 7)
    numbers = itertools.count(10**9, -1)
    with serve(lambda _: reply({"object": "list", "data": [entry(next(numbers))], "has_more": True})) as (server, hook):
        with pytest.raises(ProviderError, match=r"no end after 7 pages, 7 batches. Nothing was created"):
            find(hook)
        assert len(server.requests) == 7


def test_without_the_nonce_the_input_file_tells_which_batch_it_is(serve: Serve) -> None:
    """Together's batches have no metadata."""
    batches = [entry(3), entry(2, input_file_id="file-1"), entry(1, input_file_id="")]
    with serve(pages(batches)) as (_, hook):
        assert [found.id for found in find(hook)] == ["batch_2"]


# result files


def download(hook: Any) -> bytes:
    into = io.BytesIO()
    hook.download("file-2", into)
    return into.getvalue()


@pytest.mark.parametrize(
    "page",
    [
        reply(b"<!DOCTYPE html><html>502 Bad gateway</html>", content_type="text/html"),
        reply(b"\n <html>log in</html>", content_type="application/octet-stream"),
        reply(b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>', content_type="application/xml"),
    ],
)
def test_a_web_page_in_place_of_a_result_file_is_no_result_file(serve: Serve, page: bytes) -> None:
    with serve(page) as (_, hook), pytest.raises(BrokenDownloadError, match="a web page came in place of the file"):
        download(hook)


@pytest.mark.parametrize("status", [404, 410])
def test_a_result_file_that_is_gone_is_told_as_gone(serve: Serve, status: int) -> None:
    with serve(reply({"error": {"message": "no such file"}}, status=status)) as (_, hook):
        with pytest.raises(ProviderError, match=rf"HTTP {status}: .*no such file. It was deleted or has expired there"):
            download(hook)


def test_a_result_file_that_cannot_be_had_just_now_is_asked_for_again_and_then_told_as_kept(serve: Serve) -> None:
    with serve(reply(b"Bad gateway", status=502, content_type="text/plain", retry_after_ms="1"), retries=2) as (
        server,
        hook,
    ):
        with pytest.raises(ProviderError, match=r"HTTP 502.*The provider still has it"):
            download(hook)
        assert len(server.requests) == 3


def test_a_result_file_is_taken_byte_for_byte_whatever_the_headers_say(serve: Serve) -> None:
    line = json.dumps({"custom_id": "é\u2028"}, ensure_ascii=False).encode() + b"\n"
    with serve(reply(line, content_type="text/plain; charset=iso-8859-1")) as (_, hook):
        assert download(hook) == line
