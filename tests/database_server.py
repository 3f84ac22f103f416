"""Database servers of the tests' own: processes in a temporary folder, waited for and stopped."""

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
    """Where a server keeps its data, its socket and its log."""

    path: Path
    #: the user and groups that its programs run as; empty for those of the tests
    identity: dict[str, Any] = field(default_factory=dict)

    @property
    def log(self) -> Path:
        """What its programs print."""
        return self.path / "log"

    def start(self, command: Sequence[str | Path]) -> subprocess.Popen[bytes]:
        """Start one of its programs; Ctrl-C ends the tests first, then this program."""
        with self.log.open("ab") as out:
            return subprocess.Popen(
                [str(part) for part in command],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                cwd=self.path,
                start_new_session=True,
                **self.identity,
            )

    def run(self, command: Sequence[str | Path], seconds: float) -> None:
        """Run one of its programs to completion.

        :raises RuntimeError: if it fails.
        """
        if self.start(command).wait(seconds):
            raise RuntimeError(f"{command[0]} failed:\n{self.log.read_text()}")

    @contextlib.contextmanager
    def serving(
        self,
        command: Sequence[str | Path],
        connect: Callable[[], None],
        not_yet: type[Exception],
        seconds: float,
        stop: signal.Signals,
    ) -> Iterator[None]:
        """Start the server, wait until `connect` no longer raises `not_yet`, and stop it at the end.

        :raises RuntimeError: if it ends, or still refuses connections after `seconds`.
        """
        server = self.start(command)
        try:
            deadline = time.monotonic() + seconds
            while True:
                try:
                    connect()
                    break
                except not_yet:
                    if server.poll() is not None or time.monotonic() > deadline:
                        raise RuntimeError(f"{command[0]} did not start:\n{self.log.read_text()}") from None
                    time.sleep(0.05)
            yield
        finally:
            server.send_signal(stop)
            try:
                server.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                server.kill()
                server.wait()


@contextlib.contextmanager
def temporary_home(prefix: str) -> Iterator[Path]:
    """A folder right under /tmp, removed at the end: a socket's path may have 107 bytes, and others must reach it."""
    home = Path(tempfile.mkdtemp(prefix=prefix, dir="/tmp"))
    try:
        yield home
    finally:
        shutil.rmtree(home, ignore_errors=True)
