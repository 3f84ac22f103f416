"""Runs the server's application in the test process, without a socket. The test moves its clock."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Coroutine, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
from openai import AsyncOpenAI

from airflow_provider_batch.local.api.objects import Status
from airflow_provider_batch.local.dialects import build_dialect
from airflow_provider_batch.local.http.app import create_app
from airflow_provider_batch.local.http.server import Server
from airflow_provider_batch.local.settings import Settings
from tests.local.driving import CHAT, jsonl

#: Seconds of the server's clock for which each state of a batch lasts.
STATE = 100.0


class InProcess:
    """The application and a client for it."""

    def __init__(self, runner: asyncio.Runner, http: httpx2.AsyncClient, server: Server) -> None:
        self._runner = runner
        self._http = http
        self.server = server

    def do(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Run a coroutine in the server's event loop and return its result."""
        return self._runner.run(work)

    def sdk(self) -> AsyncOpenAI:
        """Return a client of the real SDK that is connected to this application."""
        return AsyncOpenAI(base_url="http://server/v1", api_key="local", max_retries=0, http_client=self._http)

    def call(self, method: str, path: str, **options: Any) -> httpx2.Response:
        """Make one call. It carries an API key unless `headers` are passed."""
        options.setdefault("headers", {"Authorization": "Bearer local"})
        answer = self.do(self._http.request(method, path, **options))
        assert isinstance(answer, httpx2.Response)
        return answer

    def get(self, path: str, **params: Any) -> Any:
        """Return the JSON of a GET, which must succeed."""
        answer = self.call("GET", path, params=params)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def upload(self, lines: Sequence[dict[str, Any] | str]) -> Any:
        """Upload lines as an input file and return the JSON response."""
        files = {"file": ("input.jsonl", jsonl(lines))}
        answer = self.call("POST", "/v1/files", files=files, data={"purpose": "batch"})
        assert answer.status_code == 200, answer.text
        return answer.json()

    def try_create(self, file_id: str, **body: Any) -> httpx2.Response:
        """Create a batch and return the response, which may be an error."""
        request = {"input_file_id": file_id, "endpoint": CHAT, "completion_window": "24h", **body}
        return self.call("POST", "/v1/batches", json=request)

    def create(self, lines: Sequence[dict[str, Any] | str], **body: Any) -> Any:
        """Upload lines, create a batch from them and return the JSON response."""
        file = self.upload(lines)
        answer = self.try_create(file.get("data", file)["id"], **body)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def advance_until(self, batch_id: str, *statuses: Status) -> Any:
        """Move the clock until a batch has one of these statuses (in OpenAI's terms), and return its JSON."""
        for _ in range(1000):
            if self.server.engine.batch(batch_id).status in statuses:
                return self.get(f"/v1/batches/{batch_id}")
            self.server.clock.advance(STATE / 4)
            self.pause()
        raise AssertionError(f"The batch never had the status {statuses}: {self.server.engine.batch(batch_id)}")

    def pause(self) -> None:
        """Give the server's tasks time to run."""
        self.do(asyncio.sleep(0.002))

    def content(self, file_id: str) -> list[dict[str, Any]]:
        """Return the lines of a result file."""
        answer = self.call("GET", f"/v1/files/{file_id}/content")
        assert answer.status_code == 200, answer.text
        return [json.loads(line) for line in answer.content.split(b"\n") if line]


@contextmanager
def in_process(state: Path, *dialects: str, **settings: Any) -> Iterator[InProcess]:
    """Run an application in which each state of a batch lasts `STATE` seconds."""
    times = {"validating": STATE, "in_progress": STATE, "finalizing": STATE}
    with asyncio.Runner() as runner:
        # The store must be used in the loop's thread. Here that is the test's thread too.
        app = create_app(state, Settings(dialect=build_dialect(dialects), **{**times, **settings}))
        lifespan = app.router.lifespan_context(app)
        runner.run(lifespan.__aenter__())
        transport = httpx2.ASGITransport(app)
        http = httpx2.AsyncClient(transport=transport, base_url="http://server")
        try:
            yield InProcess(runner, http, app.state.server)
        finally:
            runner.run(http.aclose())
            runner.run(lifespan.__aexit__(None, None, None))
