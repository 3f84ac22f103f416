"""The server as a real subprocess, for tests, demo and benchmarks."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypedDict, Unpack

import msgspec

from airflow_provider_batch.local.faults import Fault
from airflow_provider_batch.local.storage.store import ADDRESS_FILE

#: seconds a server may take to answer, and to end
_DEADLINE = 60.0


class ServerStartError(Exception):
    """The server ended before it answered, or never answered. Carries the end of its log."""


class Options(TypedDict, total=False):
    """The options of `airflow-batch serve`, by their names there with `_` for `-`; see `Settings`."""

    speed: float
    validating: float
    in_progress: float
    finalizing: float
    window: int
    seed: int
    concurrency: int
    models: tuple[str, ...]
    enqueued_token_limit: int | None
    release_after: float
    creates_per_hour: int
    uploads_per_minute: int
    upstream: str | None
    upstream_api_key: str | None
    upstream_model: str | None
    upstream_timeout: float
    upstream_patience: float
    dialects: tuple[str, ...]
    api_key: str | None
    webhook_duplicates: float
    admin: bool
    faults: Path | None


#: options whose flag is another than their name, as it may be repeated
_REPEATED = {"models": "model", "dialects": "dialect"}


def _flags(name: str, value: object) -> list[str]:
    flag = f"--{_REPEATED.get(name, name).replace('_', '-')}"
    if value is None or value is False:
        return []
    if value is True:
        return [flag]
    return [f"{flag}={one}" for one in (value if isinstance(value, tuple) else (value,))]


class LocalServer:
    """A context manager: the server answers when the block begins and has ended when the block is left.

    :param state: its state directory; created if need be. Its output goes to `server.log` there.
    :param port: 0 picks a free one. A later `start` listens on the same again.
    :param options: those of `airflow-batch serve`; unless given, no state of a batch takes time.
    """

    def __init__(self, state: Path, *, port: int = 0, **options: Unpack[Options]) -> None:
        self.state = state
        #: for instance `http://127.0.0.1:8321/v1`; empty before the first start
        self.base_url = ""
        self._port = port
        given: dict[str, Any] = {"validating": 0, "in_progress": 0, "finalizing": 0, **options}
        self._options = [flag for name, value in given.items() for flag in _flags(name, value)]
        #: a key that the server accepts
        self.api_key = options.get("api_key") or "local"
        self._admin = options.get("admin", False)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """The process id of the running server."""
        if self._process is None:
            raise RuntimeError("The local batch server is not running; call start().")
        return self._process.pid

    def start(self) -> Self:
        """Start the server and wait until it answers.

        :raises ServerStartError: it ended, or did not answer in time.
        """
        if self._process is not None:
            raise RuntimeError(f"The local batch server already runs as process {self._process.pid}.")
        self.state.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "airflow_provider_batch.local"]
        with open(self.state / "server.log", "ab") as log:
            self._process = subprocess.Popen(
                [*command, f"--port={self._port}", f"--state={self.state}", *self._options],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        try:
            self.base_url = self._await_answer(self._process)
        except BaseException:
            self.kill()
            raise
        self._port = int(self.base_url.removesuffix("/v1").rpartition(":")[2])
        return self

    def _await_answer(self, process: subprocess.Popen[bytes]) -> str:
        deadline = time.monotonic() + _DEADLINE
        while time.monotonic() < deadline:
            if process.poll() is not None:
                raise ServerStartError(f"The server ended with {process.returncode}.\n{self._log_end()}")
            base_url = self._published(process.pid)
            if base_url is not None:
                # The socket listens already; the answer comes when the server has taken up its batches. If it
                # dies meanwhile, the next round reports how.
                with suppress(OSError):
                    self._call("GET", f"{base_url}/models", timeout=max(1.0, deadline - time.monotonic()))
                    return base_url
            time.sleep(0.02)
        raise ServerStartError(f"The server did not answer within {_DEADLINE:.0f} s.\n{self._log_end()}")

    def _published(self, pid: int) -> str | None:
        try:
            address = json.loads((self.state / ADDRESS_FILE).read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        # A killed predecessor leaves its own address behind.
        return str(address["base_url"]) if address["pid"] == pid else None

    def _log_end(self) -> str:
        log = (self.state / "server.log").read_text(encoding="utf-8", errors="replace")
        return "\n".join(log.splitlines()[-20:])

    def _call(self, method: str, url: str, body: bytes | None = None, timeout: float = _DEADLINE) -> bytes:
        request = urllib.request.Request(url, body, {"Authorization": f"Bearer {self.api_key}"}, method=method)
        direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with direct.open(request, timeout=timeout) as answer:
            content: bytes = answer.read()
        return content

    # for tests, through the admin routes

    def set_faults(self, *faults: Fault) -> None:
        """Let these faults happen instead of all others, from now until the server ends; none to end all."""
        self._administer("PUT", "faults", msgspec.json.encode(faults))

    def advance(self, seconds: float) -> None:
        """Let the server's clock jump so many seconds ahead."""
        self._administer("POST", "clock", msgspec.json.encode({"advance": seconds}))

    def calls(self) -> dict[str, int]:
        """How many calls came in since the last start, by the name of `Call`; faults and refusals count too."""
        return msgspec.json.decode(self._administer("GET", "calls"), type=dict[str, int])

    def hits(self) -> list[int]:
        """How often each of the faults that were set has hit."""
        plan = msgspec.json.decode(self._administer("GET", "faults"))
        return [fault["hits"] for fault in plan]

    def _administer(self, method: str, what: str, body: bytes | None = None) -> bytes:
        if not self._admin:
            raise RuntimeError("This local batch server has no admin routes; create it with admin=True.")
        pid = self.pid
        try:
            return self._call(method, f"{self.base_url.removesuffix('/v1')}/admin/{what}", body)
        except urllib.error.HTTPError as refused:
            answer = refused.read().decode(errors="replace")
            raise ValueError(f"The local batch server (process {pid}) refused {method} {what}: {answer}") from refused

    def kill(self) -> None:
        """End it with SIGKILL, as a crash would. `start` takes up the same state again."""
        self._end(signal.SIGKILL)

    def stop(self) -> int | None:
        """End it cleanly; its exit code, or None if it did not run."""
        return self._end(signal.SIGTERM)

    def _end(self, how: signal.Signals) -> int | None:
        process, self._process = self._process, None
        if process is None:
            return None
        process.send_signal(how)
        try:
            return process.wait(timeout=_DEADLINE)
        except subprocess.TimeoutExpired:
            process.kill()
            return process.wait()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()
