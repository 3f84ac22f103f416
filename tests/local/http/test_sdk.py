"""Everything of the official SDK that this server answers, with its client and with its asynchronous client."""

from __future__ import annotations

import asyncio
import inspect
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import openai
import pytest
from openai import AsyncOpenAI, OpenAI
from openai.types import Batch, Completion, CreateEmbeddingResponse, FileDeleted, FileObject, Model
from openai.types.chat import ChatCompletion
from openai.types.responses import Response
from pydantic import BaseModel

from airflow_provider_batch.local.process import LocalServer
from tests.local.conftest import Serve
from tests.local.driving import CHAT, DEADLINE, FINAL_STATUSES, chat, chats, jsonl

Scenario = Callable[[Any], Awaitable[None]]
Run = Callable[[Scenario], None]


@pytest.fixture(params=[OpenAI, AsyncOpenAI], ids=["sync", "async"])
def kind(request: pytest.FixtureRequest) -> type[OpenAI] | type[AsyncOpenAI]:
    chosen: type[OpenAI] | type[AsyncOpenAI] = request.param
    return chosen


def play(scenario: Scenario, kind: type[OpenAI] | type[AsyncOpenAI], base_url: str, **options: Any) -> None:
    """Play a scenario with a client of this kind; it awaits what the asynchronous one gives."""

    async def opened() -> None:
        async with entered(kind(**{"base_url": base_url, "api_key": "local", "max_retries": 0, **options})) as client:
            await scenario(client)

    asyncio.run(asyncio.wait_for(opened(), DEADLINE))


@pytest.fixture
def run(kind: type[OpenAI] | type[AsyncOpenAI], server: LocalServer) -> Run:
    """Play a scenario against the shared server."""
    return lambda scenario: play(scenario, kind, server.base_url)


async def got(answer: Any) -> Any:
    """What a call answers, sync or async."""
    return await answer if inspect.isawaitable(answer) else answer


@asynccontextmanager
async def entered(manager: Any) -> AsyncIterator[Any]:
    """A context manager, sync or async."""
    if hasattr(manager, "__aenter__"):
        async with manager as value:
            yield value
    else:
        with manager as value:
            yield value


async def every(iterable: Any) -> list[Any]:
    """All items, sync or async; of a list call: from all its pages."""
    if hasattr(iterable, "__aiter__"):
        return [item async for item in iterable]
    return list(iterable)


async def ended(client: Any, batch: Batch) -> Batch:
    while batch.status not in FINAL_STATUSES:
        await asyncio.sleep(0.01)
        batch = await got(client.batches.retrieve(batch.id))
    return batch


def methods(resource: object) -> set[str]:
    return {name for name in dir(type(resource)) if not name.startswith(("_", "with_"))}


def test_the_scenarios_here_cover_every_method_for_files_and_batches(server: LocalServer) -> None:
    with OpenAI(base_url=server.base_url, api_key="local") as client:
        assert methods(client.files) == {
            "content",
            "create",
            "delete",
            "list",
            "retrieve",
            "retrieve_content",
            "wait_for_processing",
        }
        assert methods(client.batches) == {"cancel", "create", "list", "retrieve"}


def test_files(run: Run, tmp_path: Path) -> None:
    content = jsonl(chats(3))
    (tmp_path / "on-disk.jsonl").write_bytes(content)

    async def scenario(client: Any) -> None:
        made: list[FileObject] = []
        with open(tmp_path / "on-disk.jsonl", "rb") as opened:
            for given in (("bytes.jsonl", content), tmp_path / "on-disk.jsonl", opened):
                made.append(await got(client.files.create(file=given, purpose="batch")))
        assert [file.filename for file in made] == ["bytes.jsonl", "on-disk.jsonl", "on-disk.jsonl"]
        assert {(file.object, file.bytes, file.purpose) for file in made} == {("file", len(content), "batch")}
        kept: FileObject = await got(
            client.files.create(
                file=("a.txt", b"x"), purpose="user_data", expires_after={"anchor": "created_at", "seconds": 3600}
            )
        )
        assert kept.expires_at == kept.created_at + 3600

        file = await got(client.files.retrieve(made[0].id))
        assert file == made[0]
        assert await got(client.files.wait_for_processing(file.id, poll_interval=0.01)) == file
        ids = [one.id for one in await every(client.files.list(purpose="batch", order="asc", after=file.id, limit=1))]
        assert ids[:2] == [made[1].id, made[2].id]
        assert [one.id for one in (await got(client.files.list(limit=4))).data] == [
            kept.id,
            *(one.id for one in made[::-1]),
        ]

        assert (await got(client.files.content(file.id))).content == content
        with pytest.warns(DeprecationWarning, match="content"):
            text = await got(client.files.retrieve_content(file.id))
        assert text.encode() == content
        gone: FileDeleted = await got(client.files.delete(file.id))
        assert (gone.id, gone.deleted) == (file.id, True)
        for call in (client.files.retrieve, client.files.content, client.files.delete):
            with pytest.raises(openai.NotFoundError):
                await got(call(file.id))

    run(scenario)


def test_batches(run: Run) -> None:
    async def scenario(client: Any) -> None:
        file = await got(client.files.create(file=("a.jsonl", jsonl(chats(3))), purpose="batch"))
        made: Batch = await got(
            client.batches.create(
                input_file_id=file.id,
                endpoint=CHAT,
                completion_window="24h",
                metadata={"job": "x"},
                output_expires_after={"anchor": "created_at", "seconds": 3600},
            )
        )
        assert (made.object, made.input_file_id, made.metadata) == ("batch", file.id, {"job": "x"})
        batch = await ended(client, made)
        assert batch.status == "completed"
        assert batch.request_counts is not None
        assert (batch.request_counts.total, batch.request_counts.completed) == (3, 3)
        results = (await got(client.files.content(batch.output_file_id))).content
        assert {json.loads(line)["custom_id"] for line in results.splitlines()} == {"row-0", "row-1", "row-2"}
        with pytest.raises(openai.ConflictError):
            await got(client.batches.cancel(batch.id))
        assert (await got(client.batches.list(limit=1))).data[0] == batch

    run(scenario)


def test_a_batch_is_cancelled_twice_without_harm(kind: type[OpenAI] | type[AsyncOpenAI], serve: Serve) -> None:
    async def scenario(client: Any) -> None:
        file = await got(client.files.create(file=("a.jsonl", jsonl(chats(3))), purpose="batch"))
        batch = await got(client.batches.create(input_file_id=file.id, endpoint=CHAT, completion_window="24h"))
        assert (await got(client.batches.cancel(batch.id))).status == "cancelling"
        again = await got(client.batches.cancel(batch.id))
        assert again.status in ("cancelling", "cancelled")
        assert (await ended(client, again)).status == "cancelled"
        assert (await got(client.batches.cancel(batch.id))).status == "cancelled"

    running, _ = serve(in_progress=60, finalizing=0.2)
    play(scenario, kind, running.base_url)


def test_lists_go_on_from_page_to_page(kind: type[OpenAI] | type[AsyncOpenAI], serve: Serve) -> None:
    async def scenario(client: Any) -> None:
        made = [
            (await got(client.batches.create(input_file_id="x", endpoint=CHAT, completion_window="24h"))).id
            for _ in range(5)
        ]
        assert [batch.id for batch in await every(client.batches.list(limit=2))] == made[::-1]
        page = await got(client.batches.list(limit=2))
        assert page.has_next_page()
        page = await got(page.get_next_page())
        assert [batch.id for batch in page.data] == made[2:0:-1]
        page = await got(page.get_next_page())
        assert not page.has_next_page()
        assert [batch.id for batch in await every(page)] == made[:1]

    running, _ = serve()
    play(scenario, kind, running.base_url)


def test_a_download_streams(run: Run, tmp_path: Path) -> None:
    content = jsonl([chat("a", "x" * 3_000_000)])

    async def scenario(client: Any) -> None:
        file = await got(client.files.create(file=("a.jsonl", content), purpose="batch"))
        async with entered(client.files.with_streaming_response.content(file.id)) as response:
            assert response.headers["content-type"] == "application/octet-stream"
            assert int(response.headers["content-length"]) == len(content)
            parts = await every(response.iter_bytes(65_536))
        assert len(parts) > 40
        assert b"".join(parts) == content
        async with entered(client.files.with_streaming_response.content(file.id)) as response:
            await got(response.stream_to_file(tmp_path / "copy"))
        assert (tmp_path / "copy").read_bytes() == content

    run(scenario)


def test_raw_responses(run: Run) -> None:
    async def scenario(client: Any) -> None:
        raw = await got(client.batches.with_raw_response.list())
        assert raw.status_code == 200
        assert raw.headers["content-type"] == "application/json"
        assert (await got(raw.parse())).object == "list"

    run(scenario)


def test_models(run: Run) -> None:
    async def scenario(client: Any) -> None:
        models: list[Model] = await every(client.models.list())
        assert {"gpt-5-mini", "omni-moderation-latest", "text-embedding-3-small"} <= {model.id for model in models}
        assert await got(client.models.retrieve("gpt-5-mini")) in models
        with pytest.raises(openai.APIStatusError, match="Invalid method for URL"):
            await got(client.models.delete("gpt-5-mini"))

    run(scenario)


class Label(BaseModel):
    """A structured answer."""

    label: str


def test_the_synchronous_endpoints(run: Run) -> None:
    async def scenario(client: Any) -> None:
        said: Any = [{"role": "user", "content": "hello"}]
        completion: ChatCompletion = await got(client.chat.completions.create(model="gpt-5-mini", messages=said))
        assert completion.choices[0].message.content
        parsed = await got(client.chat.completions.parse(model="gpt-5-mini", messages=said, response_format=Label))
        assert isinstance(parsed.choices[0].message.parsed, Label)
        response: Response = await got(client.responses.create(model="gpt-5-mini", input="hello"))
        assert response.output_text
        structured = await got(client.responses.parse(model="gpt-5-mini", input="hello", text_format=Label))
        assert isinstance(structured.output_parsed, Label)
        vectors: CreateEmbeddingResponse = await got(
            client.embeddings.create(model="text-embedding-3-small", input=["a", "b"])
        )
        assert [len(item.embedding) for item in vectors.data] == [1536, 1536]
        text: Completion = await got(client.completions.create(model="gpt-3.5-turbo-instruct", prompt="hello"))
        assert text.choices[0].text
        verdict = await got(client.moderations.create(input="[[flag:hate]]"))
        assert verdict.results[0].categories.hate

    run(scenario)


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (400, openai.BadRequestError),
        (401, openai.AuthenticationError),
        (403, openai.PermissionDeniedError),
        (404, openai.NotFoundError),
        (409, openai.ConflictError),
        (422, openai.UnprocessableEntityError),
        (429, openai.RateLimitError),
        (500, openai.InternalServerError),
    ],
)
def test_an_error_becomes_the_sdks_exception_of_that_status(
    run: Run, status: int, error: type[openai.APIStatusError]
) -> None:
    async def scenario(client: Any) -> None:
        with pytest.raises(error) as caught:
            await got(client.responses.create(model="gpt-5-mini", input=f"[[fail:{status}]]"))
        assert caught.value.status_code == status
        assert caught.value.type
        assert caught.value.body == caught.value.response.json()["error"]

    run(scenario)


def test_a_timeout_of_one_call_ends_that_call(
    kind: type[OpenAI] | type[AsyncOpenAI], serve: Serve, tmp_path: Path
) -> None:
    async def scenario(client: Any) -> None:
        with pytest.raises(openai.APITimeoutError):
            await got(client.with_options(timeout=0.3).batches.retrieve("batch_x"))
        assert await every(client.batches.list()) == []

    faults = tmp_path / "faults.json"
    faults.write_bytes(msgspec.json.encode([{"kind": "hang", "calls": ["retrieve"], "seconds": 30}]))
    running, _ = serve(faults=faults)
    play(scenario, kind, running.base_url)


def test_a_retry_gets_the_answer_that_the_first_try_missed(
    kind: type[OpenAI] | type[AsyncOpenAI], serve: Serve, tmp_path: Path
) -> None:
    async def scenario(client: Any) -> None:
        assert await every(client.batches.list()) == []
        file = await got(client.files.create(file=("a.jsonl", jsonl(chats(1))), purpose="batch"))
        assert (await got(client.files.content(file.id))).content == jsonl(chats(1))

    faults = tmp_path / "faults.json"
    plan = [
        {"kind": "status", "calls": ["list"], "status": 503, "times": 1},
        {"kind": "drop", "calls": ["upload"], "times": 1},
        {"kind": "truncate", "calls": ["download"], "times": 1},
    ]
    faults.write_bytes(msgspec.json.encode(plan))
    running, _ = serve(faults=faults)
    play(scenario, kind, running.base_url, max_retries=2)
