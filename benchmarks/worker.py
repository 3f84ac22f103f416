"""Runs one case of a benchmark in a separate process, so that it can be measured and no other case disturbs it.

    with Worker("benchmarks.sealing:prepare_ours", folder="…") as worker:
        measurement = worker.run()

The process first prepares the case (imports, connections), then runs one of its functions each time `run` is called.
The memory of a run is the peak of resident memory during that run minus the resident memory before the first run.
Linux only.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

from benchmarks.measure import MB, measure_time, read_cpu, read_memory


class Measurement(NamedTuple):
    """One run of a function of a case."""

    #: wall time
    seconds: float
    #: CPU time of the process, with all its threads
    own_cpu_seconds: float
    #: CPU time of the server; 0 without one
    server_cpu_seconds: float
    #: peak of resident memory minus the resident memory before the first run
    extra_mb: float
    #: return value of the function
    result: Any

    @property
    def cpu_seconds(self) -> float:
        """CPU time of the process and of the server."""
        return self.own_cpu_seconds + self.server_cpu_seconds


class Worker:
    """A process that runs one case.

    The standard error of the process goes to a log in `logs`. If the process fails, the error shows the end of that
    log.

    :param case: `module:function`. The function gets `arguments` and returns the function to run, or a dict of
        functions by name.
    :param environment: variables to set in addition to those of this process.
    :param server_pid: process of a server that the case uses. Nothing else may use it during a run.
    """

    def __init__(
        self,
        case: str,
        *,
        logs: Path,
        environment: dict[str, str] | None = None,
        server_pid: int | None = None,
        **arguments: Any,
    ) -> None:
        self.case = case
        self._arguments = json.dumps(arguments)
        self._environment = {**os.environ, **(environment or {})}
        self._log = logs / f"{case.replace(':', '.')}.{os.urandom(4).hex()}.log"
        self._server_pid = server_pid
        self._process: subprocess.Popen[str] | None = None

    def run(self, function: str = "run") -> Measurement:
        """Run the case once.

        :param function: which of its functions, if the case has several.
        """
        assert self._process is not None
        assert self._process.stdin is not None
        initial_cpu = self._read_server_cpu()
        self._process.stdin.write(f"{function}\n")
        self._process.stdin.flush()
        answer = self._read_answer()
        return Measurement(server_cpu_seconds=self._read_server_cpu() - initial_cpu, **answer)

    def _read_server_cpu(self) -> float:
        return 0 if self._server_pid is None else read_cpu(self._server_pid)

    def _read_answer(self) -> Any:
        assert self._process is not None
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            code = self._process.wait()
            raise RuntimeError(f"{self.case} ended with exit code {code}. Its log:\n{self._log.read_text()[-4000:]}")
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
        self._read_answer()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._process is not None
        # Closes the pipes, which ends the process, and waits for it.
        self._process.__exit__(kind, error, trace)


def reset_peak_memory() -> int:
    """Reset this process's peak of resident memory in the kernel. Return the current resident memory, in bytes."""
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")
    return read_memory(os.getpid())[0]


def main() -> None:
    """Prepare the case named on the command line, then run the function named by each line on standard input."""
    # Standard output carries only our answers: everything that a library prints goes to the log.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    module, _, function = sys.argv[1].partition(":")
    prepare: Callable[..., Any] = getattr(importlib.import_module(module), function)
    prepared = prepare(**json.loads(sys.argv[2]))
    functions: dict[str, Callable[[], Any]] = prepared if isinstance(prepared, dict) else {"run": prepared}
    initial_memory = reset_peak_memory()
    print(json.dumps("ready"), file=answers)
    for line in sys.stdin:
        reset_peak_memory()
        initial_cpu = time.process_time()
        with measure_time() as timer:
            result = functions[line.strip()]()
        answer = {
            "seconds": timer.seconds,
            "own_cpu_seconds": time.process_time() - initial_cpu,
            "extra_mb": (read_memory(os.getpid())[1] - initial_memory) / MB,
            "result": result,
        }
        print(json.dumps(answer), file=answers)


if __name__ == "__main__":
    main()
