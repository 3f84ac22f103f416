"""One case in a process of its own, so that its memory is measured and no other case disturbs it.

    with Worker("benchmarks.sealing:ours", folder="…") as worker:
        worker.run()

The process prepares the case (imports, connections), then runs it as often as it is asked. The memory of a run is the
most that was resident while it ran, less what was resident before the first one. Linux only.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

from benchmarks.measure import MB, memory, timed


class Measured(NamedTuple):
    """One run."""

    seconds: float
    #: peak of the resident memory over that of the process before its first run
    extra_mb: float
    #: what the case itself returned
    returned: Any


class Worker:
    """A process that runs one case. `case` is `module:function`; called with the arguments it gives the run.

    What the process writes to standard error goes to a log in `logs`; its end is shown if the process fails.
    """

    def __init__(self, case: str, *, logs: Path, environment: dict[str, str] | None = None, **arguments: Any) -> None:
        self.case = case
        self._arguments = json.dumps(arguments)
        self._environment = {**os.environ, **(environment or {})}
        self._log = logs / f"{case.replace(':', '.')}.{os.urandom(4).hex()}.log"
        self._process: subprocess.Popen[str] | None = None

    def run(self) -> Measured:
        """Run it once."""
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.write("run\n")
        self._process.stdin.flush()
        return Measured(*self._answer())

    def _answer(self) -> Any:
        assert self._process is not None
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self.case} ended with {self._process.wait()}:\n{self._log.read_text()[-4000:]}")
        return json.loads(line)

    def __enter__(self) -> Self:
        with open(self._log, "wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "benchmarks.worker", self.case, self._arguments],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env=self._environment,
                text=True,
            )
        self._answer()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._process is not None
        # Closes its pipes, at which it ends, and waits for it.
        self._process.__exit__(kind, error, trace)


def forget_peak() -> int:
    """Let the kernel count this process's peak of resident memory anew; bytes that are resident now."""
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")
    return memory(os.getpid())[0]


def main() -> None:
    """Prepare the case that the arguments name, and run it once for each line on standard input."""
    # Standard output is for answers only: whatever a library prints goes to the log.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    module, _, function = sys.argv[1].partition(":")
    prepare: Callable[..., Callable[[], Any]] = getattr(importlib.import_module(module), function)
    run = prepare(**json.loads(sys.argv[2]))
    before = forget_peak()
    print(json.dumps("ready"), file=answers)
    for _ in sys.stdin:
        forget_peak()
        with timed() as took:
            returned = run()
        print(json.dumps([took.seconds, (memory(os.getpid())[1] - before) / MB, returned]), file=answers)


if __name__ == "__main__":
    main()
