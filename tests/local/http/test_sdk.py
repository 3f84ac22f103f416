"""Every method of the official SDK that this server supports, with the synchronous and the asynchronous client."""

from __future__ import annotations

import asyncio
import inspect
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import openai
import pytest
from openai import AsyncOpenAI, OpenAI
from pydantic import BaseModel

from airflow_provider_batch.local.process import LocalServer
from tests.local.conftest import Serve
from tests.local.driving import CHAT, DEADLINE, FINAL_STATUSES, chat, chats, jsonl

if TYPE_CHECKING:
    from openai.types import Batch, Completion, CreateEmbeddingResponse, FileDeleted, FileObject, Model
    from openai.types.chat import ChatCompletion
    from openai.types.responses import Response

Scenario = Callable[[Any], Awaitable[None]]
Run = Callable[[Scenario], None]


@pytest.fixture(params=[OpenAI, AsyncOpenAI], ids=["sync", "async"])
def kind(request: pytest.FixtureRequest) -> type[OpenAI] | type[AsyncOpenAI]:
    client_class: type[OpenAI] | type[AsyncOpenAI] = request.param
    return client_class


def play_scenario(scenario: Scenario, kind: type[OpenAI] | type[AsyncOpenAI], base_url: str, **options: Any) -> None:
    """Run a scenario with a client of this kind. The scenario awaits results with `result_of`."""

    async def run_scenario() -> None:
        async with open_manager(
            kind(**{"base_url": base_url, "api_key": "local", "max_retries": 0, **options})
        ) as client:
            await scenario(client)

    asyncio.run(asyncio.wait_for(run_scenario(), DEADLINE))


@pytest.fixture
def run(kind: type[OpenAI] | type[AsyncOpenAI], server: LocalServer) -> Run:
    """Return a function that runs a scenario against the shared server."""
    return lambda scenario: play_scenario(scenario, kind, server.base_url)


async def result_of(answer: Any) -> Any:
    """Return the result of a call to either client."""
    return await answer if inspect.isawaitable(answer) else answer


@asynccontextmanager
async def open_manager(manager: Any) -> AsyncIterator[Any]:
    """Enter a context manager of either client."""
    if hasattr(manager, "__aenter__"):
        async with manager as value:
            yield value
    else:
        with manager as value:
            yield value


async def collect(iterable: Any) -> list[Any]:
    """Return all items of an iterable of either client. A list call yields the items of all its pages."""
    if hasattr(iterable, "__aiter__"):
        return [item async for item in iterable]
    return list(iterable)


async def wait_until_ended(client: Any, batch: Batch) -> Batch:
    while batch.status not in FINAL_STATUSES:
        await asyncio.sleep(0.01)
        batch = await result_of(client.batches.retrieve(batch.id))
    return batch


def methods(resource: object) -> set[str]:
    return {name for name in dir(type(resource)) if not name.startswith(("_", "with_"))}


def test_the_scenarios_cover_every_method_for_files_and_batches(server: LocalServer) -> None:
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
        created: list[FileObject] = []
        with open(tmp_path / "on-disk.jsonl", "rb") as opened_file:
            for source in (("bytes.jsonl", content), tmp_path / "on-disk.jsonl", opened_file):
                created.append(await result_of(client.files.create(file=source, purpose="batch")))
        assert [file.filename for file in created] == ["bytes.jsonl", "on-disk.jsonl", "on-disk.jsonl"]
        assert {(file.object, file.bytes, file.purpose) for file in created} == {("file", len(content), "batch")}
        user_file: FileObject = await result_of(
            client.files.create(
                file=("a.txt", b"x"), purpose="user_data", expires_after={"anchor": "created_at", "seconds": 3600}
            )
        )
        assert user_file.expires_at == user_file.created_at + 3600

        file = await result_of(client.files.retrieve(created[0].id))
        assert file == created[0]
        assert await result_of(client.files.wait_for_processing(file.id, poll_interval=0.01)) == file
        ids = [
            file.id for file in await collect(client.files.list(purpose="batch", order="asc", after=file.id, limit=1))
        ]
        assert ids[:2] == [created[1].id, created[2].id]
        assert [file.id for file in (await result_of(client.files.list(limit=4))).data] == [
            user_file.id,
            *(file.id for file in created[::-1]),
        ]

        assert (await result_of(client.files.content(file.id))).content == content
        with pytest.warns(DeprecationWarning, match="content"):
            text = await result_of(client.files.retrieve_content(file.id))
        assert text.encode() == content
        deletion: FileDeleted = await result_of(client.files.delete(file.id))
        assert (deletion.id, deletion.deleted) == (file.id, True)
        for call in (client.files.retrieve, client.files.content, client.files.delete):
            with pytest.raises(openai.NotFoundError):
                await result_of(call(file.id))

    run(scenario)


def test_batches(run: Run) -> None:
    async def scenario(client: Any) -> None:
        file = await result_of(client.files.create(file=("a.jsonl", jsonl(chats(3))), purpose="batch"))
        created: Batch = await result_of(
            client.batches.create(
                input_file_id=file.id,
                endpoint=CHAT,
                completion_window="24h",
                metadata={"job": "x"},
                output_expires_after={"anchor": "created_at", "seconds": 3600},
            )
        )
        assert (created.object, created.input_file_id, created.metadata) == ("batch", file.id, {"job": "x"})
        batch = await wait_until_ended(client, created)
        assert batch.status == "completed"
        assert batch.request_counts is not None
        assert (batch.request_counts.total, batch.request_counts.completed) == (3, 3)
        results = (await result_of(client.files.content(batch.output_file_id))).content
        assert {json.loads(line)["custom_id"] for line in results.splitlines()} == {"row-0", "row-1", "row-2"}
        with pytest.raises(openai.ConflictError):
            await result_of(client.batches.cancel(batch.id))
        assert (await result_of(client.batches.list(limit=1))).data[0] == batch

    run(scenario)


def test_cancelling_a_batch_twice_changes_nothing(kind: type[OpenAI] | type[AsyncOpenAI], serve: Serve) -> None:
    async def scenario(client: Any) -> None:
        file = await result_of(client.files.create(file=("a.jsonl", jsonl(chats(3))), purpose="batch"))
        batch = await result_of(client.batches.create(input_file_id=file.id, endpoint=CHAT, completion_window="24h"))
        assert (await result_of(client.batches.cancel(batch.id))).status == "cancelling"
        second = await result_of(client.batches.cancel(batch.id))
        assert second.status in ("cancelling", "cancelled")
        assert (await wait_until_ended(client, second)).status == "cancelled"
        assert (await result_of(client.batches.cancel(batch.id))).status == "cancelled"

    server, _ = serve(in_progress=60, finalizing=0.2)
    play_scenario(scenario, kind, server.base_url)


def test_lists_can_be_paged_through(kind: type[OpenAI] | type[AsyncOpenAI], serve: Serve) -> None:
    async def scenario(client: Any) -> None:
        created = [
            (await result_of(client.batches.create(input_file_id="x", endpoint=CHAT, completion_window="24h"))).id
            for _ in range(5)
        ]
        assert [batch.id for batch in await collect(client.batches.list(limit=2))] == created[::-1]
        page = await result_of(client.batches.list(limit=2))
        assert page.has_next_page()
        page = await result_of(page.get_next_page())
        assert [batch.id for batch in page.data] == created[2:0:-1]
        page = await result_of(page.get_next_page())
        assert not page.has_next_page()
        assert [batch.id for batch in await collect(page)] == created[:1]

    server, _ = serve()
    play_scenario(scenario, kind, server.base_url)


def test_a_download_can_be_streamed(run: Run, tmp_path: Path) -> None:
    content = jsonl([chat("a", "x" * 3_000_000)])

    async def scenario(client: Any) -> None:
        file = await result_of(client.files.create(file=("a.jsonl", content), purpose="batch"))
        async with open_manager(client.files.with_streaming_response.content(file.id)) as response:
            assert response.headers["content-type"] == "application/octet-stream"
            assert int(response.headers["content-length"]) == len(content)
            parts = await collect(response.iter_bytes(65_536))
        assert len(parts) > 40
        assert b"".join(parts) == content
        async with open_manager(client.files.with_streaming_response.content(file.id)) as response:
            await result_of(response.stream_to_file(tmp_path / "copy"))
        assert (tmp_path / "copy").read_bytes() == content

    run(scenario)


def test_raw_responses(run: Run) -> None:
    async def scenario(client: Any) -> None:
        raw = await result_of(client.batches.with_raw_response.list())
        assert raw.status_code == 200
        assert raw.headers["content-type"] == "application/json"
        assert (await result_of(raw.parse())).object == "list"

    run(scenario)


def test_models(run: Run) -> None:
    async def scenario(client: Any) -> None:
        models: list[Model] = await collect(client.models.list())
        assert {"gpt-5-mini", "omni-moderation-latest", "text-embedding-3-small"} <= {model.id for model in models}
        assert await result_of(client.models.retrieve("gpt-5-mini")) in models
        with pytest.raises(openai.APIStatusError, match="Invalid method for URL"):
            await result_of(client.models.delete("gpt-5-mini"))

    run(scenario)


class Label(BaseModel):
    """A structured answer."""

    label: str


def test_the_synchronous_endpoints(run: Run) -> None:
    async def scenario(client: Any) -> None:
        messages: Any = [{"role": "user", "content": "hello"}]
        completion: ChatCompletion = await result_of(
            client.chat.completions.create(model="gpt-5-mini", messages=messages)
        )
        assert completion.choices[0].message.content
        parsed = await result_of(
            client.chat.completions.parse(model="gpt-5-mini", messages=messages, response_format=Label)
        )
        assert isinstance(parsed.choices[0].message.parsed, Label)
        response: Response = await result_of(client.responses.create(model="gpt-5-mini", input="hello"))
        assert response.output_text
        parsed_response = await result_of(client.responses.parse(model="gpt-5-mini", input="hello", text_format=Label))
        assert isinstance(parsed_response.output_parsed, Label)
        vectors: CreateEmbeddingResponse = await result_of(
            client.embeddings.create(model="text-embedding-3-small", input=["a", "b"])
        )
        assert [len(item.embedding) for item in vectors.data] == [1536, 1536]
        text: Completion = await result_of(client.completions.create(model="gpt-3.5-turbo-instruct", prompt="hello"))
        assert text.choices[0].text
        verdict = await result_of(client.moderations.create(input="[[flag:hate]]"))
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
def test_an_error_raises_the_sdks_exception_for_its_status(
    run: Run, status: int, error: type[openai.APIStatusError]
) -> None:
    async def scenario(client: Any) -> None:
        with pytest.raises(error) as error_info:
            await result_of(client.responses.create(model="gpt-5-mini", input=f"[[fail:{status}]]"))
        assert error_info.value.status_code == status
        assert error_info.value.type
        assert error_info.value.body == error_info.value.response.json()["error"]

    run(scenario)


def test_a_timeout_affects_only_its_own_call(
    kind: type[OpenAI] | type[AsyncOpenAI], serve: Serve, tmp_path: Path
) -> None:
    async def scenario(client: Any) -> None:
        with pytest.raises(openai.APITimeoutError):
            await result_of(client.with_options(timeout=0.3).batches.retrieve("batch_x"))
        assert await collect(client.batches.list()) == []

    faults = tmp_path / "faults.json"
    faults.write_bytes(msgspec.json.encode([{"kind": "hang", "calls": ["retrieve"], "seconds": 30}]))
    server, _ = serve(faults=faults)
    play_scenario(scenario, kind, server.base_url)


def test_the_sdk_retries_after_injected_faults(
    kind: type[OpenAI] | type[AsyncOpenAI], serve: Serve, tmp_path: Path
) -> None:
    async def scenario(client: Any) -> None:
        assert await collect(client.batches.list()) == []
        file = await result_of(client.files.create(file=("a.jsonl", jsonl(chats(1))), purpose="batch"))
        assert (await result_of(client.files.content(file.id))).content == jsonl(chats(1))

    faults = tmp_path / "faults.json"
    plan = [
        {"kind": "status", "calls": ["list"], "status": 503, "times": 1},
        {"kind": "drop", "calls": ["upload"], "times": 1},
        {"kind": "truncate", "calls": ["download"], "times": 1},
    ]
    faults.write_bytes(msgspec.json.encode(plan))
    server, _ = serve(faults=faults)
    play_scenario(scenario, kind, server.base_url, max_retries=2)
