"""`serve --upstream`: another server answers over real HTTP. Each of its failures affects only one request."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from openai import APIStatusError, OpenAI
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, RedirectResponse, Response

from airflow_provider_batch.local.process import LocalServer
from tests.local.conftest import Serve, make_client
from tests.local.driving import (
    CHAT,
    EMBEDDINGS,
    RESPONSES,
    answers,
    chat,
    chats,
    failures,
    run,
    submit,
    wait,
)
from tests.local.schemas import assert_fits
from tests.local.upstreams import CountingUpstream, TruncatedResponse, chat_completion

CONCURRENCY = 3
MESSAGES: Any = [{"role": "user", "content": "Hello"}]


@pytest.fixture(scope="module")
def forwarding_client(server: LocalServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenAI]:
    """A client of a server whose upstream is the offline server of `client`."""
    state = tmp_path_factory.mktemp("in-front")
    with LocalServer(state, upstream=server.base_url) as running, make_client(running) as client:
        yield client


@pytest.fixture(scope="module")
def counting() -> Iterator[CountingUpstream]:
    with CountingUpstream() as running:
        yield running


@pytest.fixture(scope="module")
def counting_client(counting: CountingUpstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenAI]:
    state = tmp_path_factory.mktemp("of-counting")
    options: Any = {"upstream": counting.url, "concurrency": CONCURRENCY}
    with LocalServer(state, **options) as running, make_client(running) as client:
        yield client


@pytest.fixture
def upstream(counting: CountingUpstream) -> CountingUpstream:
    """The upstream of `counting_client`, without any requests so far."""
    counting.reset()
    return counting


def rejection(client: OpenAI, **body: Any) -> tuple[int, dict[str, Any]]:
    """Send a chat that is rejected. Return the status and the error."""
    with pytest.raises(APIStatusError) as error:
        client.chat.completions.create(model="small", messages=MESSAGES, **body)
    return error.value.status_code, error.value.response.json()["error"]


def log_of(server: LocalServer) -> str:
    return (server.state / "server.log").read_text()


def free_url() -> str:
    """Return a URL at which no server listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return f"http://127.0.0.1:{listener.getsockname()[1]}/v1"


# answers


@pytest.mark.parametrize(
    ("endpoint", "model", "parameters"),
    [
        (CHAT, "gpt-5-mini", {"messages": MESSAGES}),
        (RESPONSES, "gpt-5-mini", {"input": "Hello"}),
        (EMBEDDINGS, "text-embedding-3-small", {"input": ["Hello", "you"], "dimensions": 8}),
        ("/v1/completions", "gpt-3.5-turbo-instruct", {"prompt": "Hello"}),
        ("/v1/moderations", "omni-moderation-latest", {"input": "Hello"}),
    ],
)
def test_the_answer_of_the_upstream_is_returned_unchanged(
    client: OpenAI, forwarding_client: OpenAI, endpoint: str, model: str, parameters: dict[str, Any]
) -> None:
    def comparable(body: dict[str, Any]) -> dict[str, Any]:
        """Return the body without the values that differ in every answer."""
        output = [{**item, "id": ""} for item in body.get("output", [])]
        return {**body, "id": "", "created": 0, "created_at": 0, "completed_at": 0, "output": output}

    line = {"custom_id": "a", "method": "POST", "url": endpoint, "body": {"model": model, **parameters}}
    direct, forwarded = run(client, [line], endpoint), run(forwarding_client, [line], endpoint)

    answer = answers(forwarding_client, forwarded)["a"]
    assert comparable(answer) == comparable(answers(client, direct)["a"])
    assert answer["model"] == f"offline-responder/{model}"
    assert forwarded.usage == direct.usage
    assert forwarded.model == model
    synchronous: Any = forwarding_client.post(endpoint.removeprefix("/v1"), cast_to=object, body=line["body"])
    assert comparable(synchronous) == comparable(answer)


def test_a_request_is_forwarded_unchanged_to_the_same_path(counting_client: OpenAI, upstream: CountingUpstream) -> None:
    body = {"seed": 2**60, "temperature": 0.1, "unheard_of": {"é": [None, True, "\u2028"]}, "max_tokens": 3}

    run(counting_client, [chat("a", "Grüße", **body)])

    ((path, headers, forwarded_body),) = upstream.requests
    assert path == CHAT
    assert forwarded_body == {"model": "gpt-5-mini", "messages": [{"role": "user", "content": "Grüße"}], **body}
    assert headers["content-type"] == "application/json"


def test_only_the_model_is_replaced_if_one_is_configured(serve: Serve, upstream: CountingUpstream) -> None:
    server, client = serve(upstream=upstream.url, upstream_model="small")

    batch = run(client, [chat("a", "Hello", temperature=0)])

    assert upstream.requests[0][2] == {"model": "small", "messages": MESSAGES, "temperature": 0}
    assert batch.model == answers(client, batch)["a"]["model"] == "small"
    assert "always with the model small" in log_of(server)


@pytest.mark.parametrize(
    ("key", "authorization"), [("key-of-upstream", "Bearer key-of-upstream"), (None, "Bearer none")]
)
def test_only_the_upstreams_key_is_sent_to_it_and_the_key_is_never_printed(
    serve: Serve, upstream: CountingUpstream, monkeypatch: pytest.MonkeyPatch, key: str | None, authorization: str
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "key-of-openai")
    monkeypatch.setenv("OPENAI_ORG_ID", "org-of-openai")
    if key is not None:
        monkeypatch.setenv("OPENAI_UPSTREAM_API_KEY", key)
    upstream.answer = lambda _: JSONResponse({"error": {"message": "Who are you?"}}, 401)
    server, client = serve(upstream=upstream.url)

    assert rejection(client) == (
        401,
        {"message": "Who are you?", "type": "invalid_request_error", "param": None, "code": None},
    )
    ((_, headers, _),) = upstream.requests
    assert headers["authorization"] == authorization
    assert "of-openai" not in str(headers)
    assert "key-of-upstream" not in log_of(server)


@pytest.mark.parametrize("usage", [None, ["?"], {"prompt_tokens": None, "completion_tokens": "3"}])
def test_an_invalid_usage_is_removed_from_the_answer(
    counting_client: OpenAI, upstream: CountingUpstream, usage: Any
) -> None:
    upstream.answer = lambda body: chat_completion(body, usage=usage)

    batch = run(counting_client, chats(1))

    assert answers(counting_client, batch)["row-0"].get("usage") is None
    assert batch.usage is not None
    assert batch.usage.total_tokens == 0


def test_the_upstreams_models_are_listed(counting_client: OpenAI, upstream: CountingUpstream) -> None:
    (model,) = counting_client.models.list().data
    assert model.to_dict() == {"id": "small", "object": "model", "created": 0, "owned_by": "upstream"}

    upstream.models = ["no list of models"]
    assert counting_client.models.list().data == []


# errors


def test_a_request_that_the_upstream_rejects_is_in_the_error_file(forwarding_client: OpenAI) -> None:
    invalid = chat("invalid", "Hello", temperature=7)
    batch = run(
        forwarding_client, [chat("bad", "[[fail:422]]"), invalid, chat("busy", "[[fail:429]]"), chat("good", "Hello")]
    )

    assert set(answers(forwarding_client, batch)) == {"good"}
    failed = failures(forwarding_client, batch)
    assert {name: line["response"]["status_code"] for name, line in failed.items()} == {
        "bad": 422,
        "invalid": 400,
        "busy": 429,
    }
    for line in failed.values():
        assert_fits(line, "BatchRequestOutput")
        assert_fits(line["response"]["body"], "ErrorResponse")
    assert failed["busy"]["response"]["body"]["error"]["code"] == "rate_limit_exceeded"
    assert failed["invalid"]["response"]["body"]["error"]["param"] == "temperature"


#: an answer of an upstream, and the message, type and code of the resulting error
FOREIGN_ERRORS = {
    "old vLLM": (
        JSONResponse({"object": "error", "message": "Too long", "type": "BadRequestError", "code": 400}, 400),
        ("Too long", "BadRequestError", None),
    ),
    "old Ollama": (
        JSONResponse({"error": "try pulling it"}, 400),
        ("try pulling it", "invalid_request_error", None),
    ),
    "FastAPI": (JSONResponse({"detail": "Bad token"}, 403), ("Bad token", "invalid_request_error", None)),
    "numeric code": (
        JSONResponse({"error": {"message": "No", "type": "T", "param": 3, "code": 409}}, 422),
        ("No", "T", None),
    ),
    "HTML page of a gateway": (
        HTMLResponse("<h1>Bad gateway</h1>", 502, {"x-should-retry": "false"}),
        ("{url} answered 502: <h1>Bad gateway</h1>", "server_error", None),
    ),
    "FastAPI list of problems": (
        JSONResponse({"detail": [{"msg": "no"}]}, 422),
        ('{url} answered 422: {"detail":[{"msg":"no"}]}', "invalid_request_error", None),
    ),
    "empty body": (Response(status_code=418), ("{url} answered 418: nothing", "invalid_request_error", None)),
    "missing model": (
        JSONResponse({"error": {"message": "model 'x' not found"}}, 404),
        ("model 'x' not found", "invalid_request_error", None),
    ),
    "missing path": (
        PlainTextResponse("404 page not found", 404),
        (
            "The upstream has no /v1/chat/completions: {url} answered 404 (404 page not found).",
            "invalid_request_error",
            None,
        ),
    ),
}


@pytest.mark.parametrize("name", FOREIGN_ERRORS)
def test_errors_in_any_format_keep_their_status_and_get_openais_format(
    counting_client: OpenAI, upstream: CountingUpstream, name: str
) -> None:
    answer, (message, kind, code) = FOREIGN_ERRORS[name]
    upstream.answer = lambda _: answer

    status, error = rejection(counting_client)

    assert status == answer.status_code
    assert error == {
        "message": message.replace("{url}", upstream.url + CHAT),
        "type": kind,
        "param": None,
        "code": code,
    }


@pytest.mark.parametrize(
    ("answer", "status", "excerpt"),
    [
        (
            HTMLResponse("<title>Welcome</title>"),
            502,
            "The answer (text/html; charset=utf-8) was: <title>Welcome</title>",
        ),
        (Response(status_code=204), 502, "answered 204 without `choices`"),
        (JSONResponse([1]), 502, "[1]"),
        (JSONResponse({"status": "ok"}), 502, '{"status":"ok"}'),
        (Response(b'{"choices": [NaN]}'), 502, "NaN"),
        (JSONResponse({"error": "Unexpected endpoint or method."}), 502, "Unexpected endpoint or method."),
        (JSONResponse({"error": {"message": "All busy", "code": 429}}), 429, "All busy"),
        (RedirectResponse("https://example.com/v1", 302), 502, "redirected to https://example.com/v1"),
    ],
)
def test_a_reply_that_is_not_an_answer_becomes_an_error(
    counting_client: OpenAI, upstream: CountingUpstream, answer: Response, status: int, excerpt: str
) -> None:
    upstream.answer = lambda _: answer

    actual_status, error = rejection(counting_client)

    assert actual_status == status
    assert excerpt in error["message"]


def test_an_upstream_without_the_responses_endpoint_is_reported(
    counting_client: OpenAI, upstream: CountingUpstream
) -> None:
    upstream.answer = lambda _: JSONResponse({"detail": "Not Found"}, 404)
    line = {"custom_id": "a", "method": "POST", "url": RESPONSES, "body": {"model": "small", "input": "Hello"}}

    batch = run(counting_client, [line], RESPONSES)

    response = failures(counting_client, batch)["a"]["response"]
    assert response["status_code"] == 404
    message = response["body"]["error"]["message"]
    assert message.startswith("The upstream has no /v1/responses: ")
    assert message.endswith("(Not Found). It may support /v1/chat/completions.")


def test_a_dropped_connection_is_retried_and_then_fails_only_its_row(
    counting_client: OpenAI, upstream: CountingUpstream
) -> None:
    upstream.answer = lambda body: (
        TruncatedResponse() if "1" in body["messages"][0]["content"] else chat_completion(body)
    )

    batch = run(counting_client, chats(3))

    assert set(answers(counting_client, batch)) == {"row-0", "row-2"}
    response = failures(counting_client, batch)["row-1"]["response"]
    assert response["status_code"] == 502
    assert f"{upstream.url}/v1 closed the connection without an answer" in response["body"]["error"]["message"]
    assert upstream.prompts.count("Question 1") == 3


def test_an_answer_that_takes_too_long_is_a_request_timeout(serve: Serve, upstream: CountingUpstream) -> None:
    upstream.hold_if = lambda body: "slow" in body["messages"][0]["content"]
    _, client = serve(upstream=upstream.url, upstream_timeout=0.4)

    batch = run(client, [chat("slow", "slow"), chat("fast", "fast")])

    assert set(answers(client, batch)) == {"fast"}
    line = failures(client, batch)["slow"]
    assert line["response"] is None
    assert line["error"]["code"] == "request_timeout"
    assert "within 0.4 s" in line["error"]["message"]
    assert upstream.prompts.count("slow") == 1
    with pytest.raises(APIStatusError) as error:
        client.chat.completions.create(model="small", messages=[{"role": "user", "content": "slow"}])
    assert (error.value.status_code, error.value.code) == (408, "request_timeout")


def test_streaming_is_rejected_without_a_request_to_the_upstream(
    counting_client: OpenAI, upstream: CountingUpstream
) -> None:
    status, error = rejection(counting_client, stream=True)

    assert (status, error["param"]) == (400, "stream")
    assert upstream.requests == []


# concurrency and restarts


def test_the_number_of_requests_in_flight_is_limited_over_all_batches(
    counting_client: OpenAI, upstream: CountingUpstream
) -> None:
    upstream.hold_if = lambda _: True
    batches = [submit(counting_client, chats(8)), submit(counting_client, chats(8))]
    with ThreadPoolExecutor(4) as pool:
        calls = [
            pool.submit(counting_client.chat.completions.create, model="small", messages=MESSAGES) for _ in range(4)
        ]
        upstream.wait_for_in_flight(CONCURRENCY)
        upstream.hold_if = lambda _: False
        assert all(call.result().choices for call in calls)

    assert [wait(counting_client, batch).status for batch in batches] == ["completed", "completed"]
    assert len(upstream.requests) == 20
    assert upstream.most_in_flight == CONCURRENCY


def test_after_a_kill_only_unanswered_requests_are_sent_again(serve: Serve, upstream: CountingUpstream) -> None:
    upstream.hold_if = lambda _: len(upstream.requests) > 10
    server, client = serve(upstream=upstream.url, concurrency=CONCURRENCY)
    batch = submit(client, chats(20))
    upstream.wait_for_in_flight(CONCURRENCY)
    wait(client, batch, lambda current: current.request_counts is not None and current.request_counts.completed == 10)
    server.kill()
    upstream.wait_until_idle()
    in_flight = upstream.prompts[10:]
    upstream.hold_if = lambda _: False

    server.start()
    final = wait(client, batch)

    assert final.status == "completed"
    assert set(answers(client, final)) == {f"row-{number}" for number in range(20)}
    assert len(in_flight) == CONCURRENCY
    assert sorted(upstream.prompts) == sorted([f"Question {number}" for number in range(20)] + in_flight)


def test_requests_in_flight_at_a_clean_shutdown_are_sent_again(serve: Serve, upstream: CountingUpstream) -> None:
    upstream.hold_if = lambda _: True
    server, client = serve(upstream=upstream.url, concurrency=1)
    batch = submit(client, chats(2))
    upstream.wait_for_in_flight(1)

    assert server.stop() == 0
    upstream.hold_if = lambda _: False
    server.start()

    assert wait(client, batch).status == "completed"
    assert upstream.prompts == ["Question 0", "Question 0", "Question 1"]


def test_a_request_in_flight_when_its_batch_is_cancelled_is_answered_and_counted(
    counting_client: OpenAI, upstream: CountingUpstream
) -> None:
    upstream.hold_if = lambda _: True
    batch = submit(counting_client, chats(9))
    upstream.wait_for_in_flight(CONCURRENCY)
    counting_client.batches.cancel(batch.id)
    upstream.hold_if = lambda _: False

    final = wait(counting_client, batch)

    assert final.status == "cancelled"
    assert len(answers(counting_client, final)) == len(upstream.requests) == CONCURRENCY
    assert {line["error"]["code"] for line in failures(counting_client, final).values()} == {"batch_cancelled"}


# an unreachable upstream


def test_a_batch_loses_no_row_while_the_upstream_is_unreachable(serve: Serve) -> None:
    upstream, _ = serve()
    server, client = serve(upstream=upstream.base_url, concurrency=4, in_progress=1)
    batch = submit(client, chats(100))
    wait(client, batch, lambda current: current.request_counts is not None and current.request_counts.completed >= 20)
    upstream.kill()
    wait(client, batch, lambda _: "cannot be reached" in log_of(server))
    # Synchronous requests fail immediately.
    status, error = rejection(client.with_options(timeout=30))
    assert (status, upstream.base_url in error["message"]) == (503, True)
    upstream.start()

    final = wait(client, batch)

    assert final.request_counts is not None
    assert (final.request_counts.completed, final.request_counts.failed) == (100, 0)
    assert log_of(server).count(f"The upstream {upstream.base_url} cannot be reached") == 1
    assert f"The upstream {upstream.base_url} is reachable again" in log_of(server)


def test_an_unreachable_upstream_is_named_in_the_greeting_and_in_every_error(serve: Serve) -> None:
    url = free_url()
    server, client = serve(upstream=url, upstream_patience=0.1)
    assert "WARNING: the upstream cannot be reached (Connection refused)" in log_of(server)
    assert client.models.list().data == []

    batch = run(client, chats(3))

    assert batch.status == "completed"
    failed = failures(client, batch)
    assert len(failed) == 3
    for line in failed.values():
        assert line["response"]["status_code"] == 503
        assert f"The upstream {url} cannot be reached" in line["response"]["body"]["error"]["message"]
