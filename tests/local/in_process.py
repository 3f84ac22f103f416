"""The server's application in this process: HTTP without a socket, its clock in the test's hand."""

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

#: seconds of the server's clock that each state of a batch takes
STATE = 100.0


class InProcess:
    """One application and its only client."""

    def __init__(self, runner: asyncio.Runner, http: httpx2.AsyncClient, server: Server) -> None:
        self._runner = runner
        self._http = http
        self.server = server

    def do(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Run something in the server's event loop."""
        return self._runner.run(work)

    def sdk(self) -> AsyncOpenAI:
        """OpenAI's SDK, with this as its server."""
        return AsyncOpenAI(base_url="http://server/v1", api_key="local", max_retries=0, http_client=self._http)

    def call(self, method: str, path: str, **more: Any) -> httpx2.Response:
        """One call, with a key unless `headers` says otherwise."""
        more.setdefault("headers", {"Authorization": "Bearer local"})
        answer = self.do(self._http.request(method, path, **more))
        assert isinstance(answer, httpx2.Response)
        return answer

    def get(self, path: str, **params: Any) -> Any:
        """The JSON of a GET that succeeds."""
        answer = self.call("GET", path, params=params)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def upload(self, lines: Sequence[dict[str, Any] | str]) -> Any:
        """The reply to an upload of these lines."""
        files = {"file": ("input.jsonl", jsonl(lines))}
        answer = self.call("POST", "/v1/files", files=files, data={"purpose": "batch"})
        assert answer.status_code == 200, answer.text
        return answer.json()

    def try_create(self, file_id: str, **body: Any) -> httpx2.Response:
        """The answer to a create."""
        asked = {"input_file_id": file_id, "endpoint": CHAT, "completion_window": "24h", **body}
        return self.call("POST", "/v1/batches", json=asked)

    def create(self, lines: Sequence[dict[str, Any] | str], **body: Any) -> Any:
        """Upload lines and create a batch of them; the reply to create."""
        file = self.upload(lines)
        answer = self.try_create(file.get("data", file)["id"], **body)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def until(self, batch_id: str, *wanted: Status) -> Any:
        """Move the clock until OpenAI's status of a batch is one of these; how the batch is shown then."""
        for _ in range(1000):
            if self.server.engine.batch(batch_id).status in wanted:
                return self.get(f"/v1/batches/{batch_id}")
            self.server.clock.advance(STATE / 4)
            self.pause()
        raise AssertionError(f"never {wanted}: {self.server.engine.batch(batch_id)}")

    def pause(self) -> None:
        """Let the server's own tasks come to rest."""
        self.do(asyncio.sleep(0.002))

    def content(self, file_id: str) -> list[dict[str, Any]]:
        """The lines of a result file."""
        answer = self.call("GET", f"/v1/files/{file_id}/content")
        assert answer.status_code == 200, answer.text
        return [json.loads(line) for line in answer.content.split(b"\n") if line]


@contextmanager
def in_process(state: Path, *dialects: str, **settings: Any) -> Iterator[InProcess]:
    """An application whose states each take `STATE` seconds of its clock."""
    times = {"validating": STATE, "in_progress": STATE, "finalizing": STATE}
    with asyncio.Runner() as runner:
        # The store belongs to the loop's thread; the test and the loop share one.
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
