"""Starts and stops database servers for tests: processes that keep their data in a temporary folder."""

from __future__ import annotations

import contextlib
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

STOP_SECONDS = 30


@dataclass(frozen=True)
class ServerFolder:
    """The folder in which a server keeps its data, its socket and its log."""

    path: Path
    #: user and groups that its programs run as; empty for those of the test process
    identity: dict[str, Any] = field(default_factory=dict)

    @property
    def log(self) -> Path:
        """The file that collects the output of its programs."""
        return self.path / "log"

    def start(self, command: Sequence[str | Path]) -> subprocess.Popen[bytes]:
        """Start one of its programs in a new session, so that Ctrl-C ends the tests before it ends the program."""
        with self.log.open("ab") as output:
            return subprocess.Popen(
                [str(part) for part in command],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd=self.path,
                start_new_session=True,
                **self.identity,
            )

    def run(self, command: Sequence[str | Path], seconds: float) -> None:
        """Run one of its programs to completion.

        :raises RuntimeError: if the program fails.
        """
        if self.start(command).wait(seconds):
            raise RuntimeError(f"{command[0]} failed:\n{self.log.read_text()}")

    @contextlib.contextmanager
    def serving(
        self,
        command: Sequence[str | Path],
        connect: Callable[[], None],
        startup_error: type[Exception],
        seconds: float,
        stop: signal.Signals,
    ) -> Iterator[int]:
        """Start the server, wait until `connect` no longer raises `startup_error`, and stop it at the end.

        Yields the id of its process.

        :raises RuntimeError: if the server ends, or still refuses connections after `seconds`.
        """
        server = self.start(command)
        try:
            deadline = time.monotonic() + seconds
            while True:
                try:
                    connect()
                    break
                except startup_error:
                    if server.poll() is not None or time.monotonic() > deadline:
                        raise RuntimeError(f"{command[0]} did not start:\n{self.log.read_text()}") from None
                    time.sleep(0.05)
            yield server.pid
        finally:
            server.send_signal(stop)
            try:
                server.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                server.kill()
                server.wait()


@contextlib.contextmanager
def temporary_home(prefix: str) -> Iterator[Path]:
    """Create a folder directly under /tmp and remove it at the end.

    The path is short because a socket's path has at most 107 bytes, and the server's user must have access to it.
    """
    home = Path(tempfile.mkdtemp(prefix=prefix, dir="/tmp"))
    try:
        yield home
    finally:
        shutil.rmtree(home, ignore_errors=True)
