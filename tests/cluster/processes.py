"""Processes that are started, killed and stopped one by one. Each has a session of its own, with all its children."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import psutil

T = TypeVar("T")
#: How long the cluster may take for anything that a step waits for, in seconds.
PATIENCE = 240.0


class ClusterError(AssertionError):
    """Raised when a part of the cluster did not do what a step waits for. The message names the part and its log."""


def wait_until(condition: str, check: Callable[[], T | None], *, patience: float = PATIENCE) -> T:
    """Call `check` until it returns a true value, and return that value.

    :raises ClusterError: if this takes more than `patience` seconds.
    """
    deadline = time.monotonic() + patience
    while not (value := check()):
        if time.monotonic() > deadline:
            raise ClusterError(f"Waited {patience:.0f} s for this: {condition}. The last check returned {value!r}.")
        time.sleep(0.25)
    return value


class Program:
    """A command that runs in a session of its own. Its children belong to the session, also after it has ended.

    :param name: how messages name it.
    :param environment: the whole environment of the process.
    :param log: file to append its output to.
    """

    def __init__(self, name: str, command: Sequence[str], environment: Mapping[str, str], log: Path) -> None:
        self.name, self.log = name, log
        self._command, self._environment = list(command), dict(environment)
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the command."""
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        """Process id, which is also the id of its session."""
        if self._process is None:
            raise ClusterError(f"{self.name} is not running.")
        return self._process.pid

    def check_running(self) -> None:
        """Check that the command has not ended.

        :raises ClusterError: if it has, with the end of its output.
        """
        if self._process is not None and self._process.poll() is not None:
            raise ClusterError(f"{self.name} ended with code {self._process.returncode}:\n{self.log_tail()}")

    def log_tail(self) -> str:
        """Return the last lines of its output."""
        return "\n".join(self.log.read_text("utf-8", errors="replace").splitlines()[-20:])

    def members(self) -> list[psutil.Process]:
        """Return the processes of its session."""
        if self._process is None:
            return []
        members = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error, ProcessLookupError):
                if os.getsid(process.pid) == self._process.pid and process.status() != psutil.STATUS_ZOMBIE:
                    members.append(process)
        return members

    def kill(self) -> None:
        """Send SIGKILL to every process of the session, as if its machine had lost power."""
        while members := self.members():
            for process in members:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
            psutil.wait_procs(members, timeout=5)
        if self._process is not None:
            self._process.wait()
        self._process = None

    def pause(self) -> None:
        """Stop every process of the session with SIGSTOP: connections stay open and nothing answers."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let the processes continue."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        for process in self.members():
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(number)
