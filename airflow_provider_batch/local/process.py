"""Runs the local batch server as a subprocess, for tests, the demo and benchmarks."""

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

#: maximum time in seconds for a server to respond after its start, and to exit
_TIMEOUT = 60.0


class ServerStartError(Exception):
    """Raised if the server exited before it responded, or did not respond in time. Includes the end of its log."""


class Options(TypedDict, total=False):
    """The options of `airflow-batch serve`, with `_` instead of `-` in their names. `Settings` describes them."""

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
    flex_latency: float
    flex_concurrency: int
    flex_unavailable: float
    flex_models: tuple[str, ...]
    dialects: tuple[str, ...]
    forget: tuple[str, ...]
    examples: Path | None
    api_key: str | None
    webhook_duplicates: float
    admin: bool
    faults: Path | None


#: options with a list of values, and the name of the flag that is repeated for each value
_LIST_FLAGS = {"models": "model", "dialects": "dialect", "flex_models": "flex_model"}


def _flags(name: str, value: object) -> list[str]:
    flag = f"--{_LIST_FLAGS.get(name, name).replace('_', '-')}"
    if value is None or value is False:
        return []
    if value is True:
        return [flag]
    return [f"{flag}={item}" for item in (value if isinstance(value, tuple) else (value,))]


class LocalServer:
    """A local batch server in a subprocess. As a context manager it runs for the duration of the block.

    :param state: the state directory, created if it does not exist. The server's output goes to `server.log` in it.
    :param port: 0 picks a free port. Every later `start` uses the same port.
    :param options: options of `airflow-batch serve`. By default, the states of a batch take no time.
    """

    def __init__(self, state: Path, *, port: int = 0, **options: Unpack[Options]) -> None:
        self.state = state
        #: for example `http://127.0.0.1:8321/v1`; empty before the first start
        self.base_url = ""
        self._port = port
        all_options: dict[str, Any] = {"validating": 0, "in_progress": 0, "finalizing": 0, **options}
        self._options = [flag for name, value in all_options.items() for flag in _flags(name, value)]
        #: a key that the server accepts
        self.api_key = options.get("api_key") or "sk-local"
        self._admin = options.get("admin", False)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """Process id of the running server."""
        if self._process is None:
            raise RuntimeError("The local batch server is not running. Call start() first.")
        return self._process.pid

    def start(self) -> Self:
        """Start the server and wait until it responds.

        :raises ServerStartError: it exited, or did not respond within 60 s.
        """
        if self._process is not None:
            raise RuntimeError(f"The local batch server is already running (process {self._process.pid}).")
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
            self.base_url = self._wait_for_response(self._process)
        except BaseException:
            self.kill()
            raise
        self._port = int(self.base_url.removesuffix("/v1").rpartition(":")[2])
        return self

    def _wait_for_response(self, process: subprocess.Popen[bytes]) -> str:
        deadline = time.monotonic() + _TIMEOUT
        while time.monotonic() < deadline:
            if process.poll() is not None:
                raise ServerStartError(f"The server exited with code {process.returncode}.\n{self._log_tail()}")
            base_url = self._read_address(process.pid)
            if base_url is not None:
                # The socket is already listening, but the server responds only after it has resumed its batches.
                # If it exits before that, the next iteration raises the error.
                with suppress(OSError):
                    self._call("GET", f"{base_url}/models", timeout=max(1.0, deadline - time.monotonic()))
                    return base_url
            time.sleep(0.02)
        raise ServerStartError(f"The server did not respond within {_TIMEOUT:.0f} s.\n{self._log_tail()}")

    def _read_address(self, pid: int) -> str | None:
        try:
            address = json.loads((self.state / ADDRESS_FILE).read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        # a server that was killed leaves its address file behind
        return str(address["base_url"]) if address["pid"] == pid else None

    def _log_tail(self) -> str:
        log = (self.state / "server.log").read_text(encoding="utf-8", errors="replace")
        return "\n".join(log.splitlines()[-20:])

    def _call(self, method: str, url: str, body: bytes | None = None, timeout: float = _TIMEOUT) -> bytes:
        request = urllib.request.Request(url, body, {"Authorization": f"Bearer {self.api_key}"}, method=method)
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(request, timeout=timeout) as response:
            content: bytes = response.read()
        return content

    # For tests. These methods use the admin routes and need `admin=True`.

    def set_faults(self, *faults: Fault) -> None:
        """Replace all faults with these until the server stops. Without arguments, remove all faults."""
        self._call_admin("PUT", "faults", msgspec.json.encode(faults))

    def advance(self, seconds: float) -> None:
        """Move the server's clock ahead by `seconds`."""
        self._call_admin("POST", "clock", msgspec.json.encode({"advance": seconds}))

    def calls(self) -> dict[str, int]:
        """Return the number of calls since the last start by the value of `Call`, including failed and refused ones."""
        return msgspec.json.decode(self._call_admin("GET", "calls"), type=dict[str, int])

    def hits(self) -> list[int]:
        """Return how often each fault has hit, in the order of `set_faults`."""
        plan = msgspec.json.decode(self._call_admin("GET", "faults"))
        return [fault["hits"] for fault in plan]

    def _call_admin(self, method: str, route: str, body: bytes | None = None) -> bytes:
        if not self._admin:
            raise RuntimeError("This local batch server has no admin routes. Create it with admin=True.")
        pid = self.pid
        try:
            return self._call(method, f"{self.base_url.removesuffix('/v1')}/admin/{route}", body)
        except urllib.error.HTTPError as error:
            answer = error.read().decode(errors="replace")
            raise ValueError(f"The local batch server (process {pid}) refused {method} {route}: {answer}") from error

    def kill(self) -> None:
        """Kill the server with SIGKILL, like a crash. `start` resumes from the same state directory."""
        self._terminate(signal.SIGKILL)

    def stop(self) -> int | None:
        """Stop the server cleanly and return its exit code, or None if it was not running."""
        return self._terminate(signal.SIGTERM)

    def _terminate(self, signal_number: signal.Signals) -> int | None:
        process, self._process = self._process, None
        if process is None:
            return None
        process.send_signal(signal_number)
        try:
            return process.wait(timeout=_TIMEOUT)
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
