"""Cost of waiting for many batches in a triggerer's event loop.

    python -m benchmarks.triggers [--json FILE] [--triggers 1000] [--only ours|peers|first|triggerer]

Each case runs in a separate process, with a bare event loop or a complete `airflow triggerer`
(benchmarks/triggerer.py). The provider is on loopback and answers each request after `latency` seconds. All triggers
start at the same time, as after a restart of the triggerer.

Measured while no batch ends:

* lag of the loop, that is, how late a timer of 5 ms fires: p50, p99 and maximum;
* HTTP requests per 50 status checks of a batch, CPU in percent of one core, memory per trigger, and number of clients.

Then some jobs' batches are ended, and the time until their triggers fire is measured.

The same is measured for the triggers of apache-airflow-providers-openai and -common-ai, with one batch each, which is
their maximum. `first` measures how long the first trigger of a process blocks the loop, because Airflow imports its
class there.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.airflow_home import temporary_airflow_home
from benchmarks.measure import Figure, read_memory, report
from benchmarks.worker import Worker

#: maximum number of seconds between two status checks by the same trigger
INTERVAL = 20.0
#: seconds to measure while no batch ends
STEADY_SECONDS = 20.0
#: number of jobs to end afterwards
ENDED_JOBS = 20
#: targets: lag of the loop in ms, and requests per 50 status checks
MAX_LAG, MAX_REQUESTS = 10.0, 1.0
#: targets by latency: seconds until 10,000 batches have been checked once
MAX_FIRST_ROUND = {0.2: 4.0, 2.0: 30.0}
#: target: seconds from a job's end to its event
MAX_TO_EVENT = 15.0

#: maximum number of other packages' triggers in a triggerer: with more of those that block it, one round of status
#: checks takes longer than their interval
MAX_PEERS_IN_TRIGGERER = 40

#: implementation -> class path of its trigger
CLASSES = {
    "ours": "airflow_provider_batch.triggers.batch.BatchTrigger",
    "official": "airflow.providers.openai.triggers.openai.OpenAIBatchTrigger",
    "common.ai": "airflow.providers.common.ai.triggers.llm_batch.LLMBatchTrigger",
}


@contextmanager
def provider(batches: int, latency: float) -> Iterator[str]:
    """Start a provider on loopback. Yield its address."""
    command = [sys.executable, "-m", "benchmarks.batches_server", f"--batches={batches}", f"--latency={latency}"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        yield process.stdout.readline().strip()
    finally:
        process.terminate()
        process.wait()


def trigger_arguments(implementation: str, batch_ids: Sequence[str]) -> dict[str, Any]:
    """Return the arguments of a trigger."""
    if implementation == "ours":
        return {
            "openai_conn_id": "openai_default",
            "job_uid": batch_ids[0],
            "batch_ids": batch_ids,
            "deadline": None,
            "poll_interval": INTERVAL,
        }
    if implementation == "official":
        return {
            "conn_id": "openai_default",
            "batch_id": batch_ids[0],
            "poll_interval": INTERVAL,
            "timeout": 86_400.0,
        }
    return {
        "llm_conn_id": "pydanticai_default",
        "adapter": "openai",
        "batch_id": batch_ids[0],
        "poll_interval": INTERVAL,
        "end_time": time.time() + 86_400,
        "cancel_on_kill": False,
        "cancel_on_timeout": False,
    }


class LagMeter:
    """Measures the lag of an event loop: how late a timer of 5 ms fires."""

    def __init__(self) -> None:
        #: in ms
        self.lags: list[float] = []

    async def measure(self) -> None:
        """Measure until cancelled."""
        while True:
            due = time.perf_counter() + 0.005
            await asyncio.sleep(0.005)
            self.lags.append(1000 * (time.perf_counter() - due))

    def percentile(self, share: float) -> float:
        """Return the lag in ms that this share of all measurements does not exceed."""
        lags = sorted(self.lags)
        return lags[min(len(lags) - 1, int(share * len(lags)))]


def send_request(url: str, method: str = "GET") -> Any:
    """Send a request to the benchmark's server. Return the parsed answer."""
    with urllib.request.urlopen(urllib.request.Request(url, method=method), timeout=60) as answer:
        return json.load(answer)


class Counts:
    """Counts the status checks and the OpenAI clients of this process by wrapping the code that creates them."""

    def __init__(self) -> None:
        from openai import AsyncOpenAI, OpenAI

        from airflow_provider_batch.triggers.reading import PollResult, Reader, ReadFailure

        self.status_checks = self.clients = 0
        #: ids of the batches whose status was read at least once
        self.checked_batches: set[str] = set()
        read = Reader.read

        async def count_and_read(
            reader: Reader, batch_ids: Iterable[str], deliver: Callable[[str, PollResult], None]
        ) -> ReadFailure | None:
            uncounted_ids = set(batch_ids)

            def count_and_deliver(batch_id: str, result: PollResult) -> None:
                self.status_checks += batch_id in uncounted_ids
                uncounted_ids.discard(batch_id)
                self.checked_batches.add(batch_id)
                deliver(batch_id, result)

            return await read(reader, batch_ids, count_and_deliver)

        Reader.read = count_and_read  # type: ignore[assignment,method-assign]  # its first argument has another name
        for client_class in (AsyncOpenAI, OpenAI):
            self._count_instances(client_class)

    def _count_instances(self, client_class: Any) -> None:
        init = client_class.__init__

        def count_and_init(client: Any, **options: Any) -> None:
            # A client copied from another one shares its connections, so it is not counted.
            self.clients += "_strict_response_validation" not in options and "http_client" not in options
            init(client, **options)

        client_class.__init__ = count_and_init


async def await_event(trigger: Any) -> float:
    """Run a trigger until it fires. Return the time of the loop's clock at its event."""
    async for _ in trigger.run():
        return asyncio.get_running_loop().time()
    raise RuntimeError("The trigger ended without an event.")


async def start(triggers: Sequence[Any]) -> list[asyncio.Task[float]]:
    """Start triggers as Airflow's triggerer does."""
    tasks = []
    for trigger in triggers:
        await asyncio.sleep(0)
        tasks.append(asyncio.create_task(await_event(trigger)))
    return tasks


async def cancel(*tasks: asyncio.Task[Any]) -> None:
    """Cancel tasks and wait for their end."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def prepare_many(
    implementation: str, triggers: int, batches_per_trigger: int, url: str
) -> Callable[[], dict[str, float]]:
    """Return a function that runs many triggers in one loop and returns a value for each figure."""
    import logging

    import airflow.triggers.base  # noqa: F401
    from airflow._shared.module_loading import import_string

    logging.disable(logging.INFO)
    trigger_class = import_string(CLASSES[implementation])
    counts = Counts()
    # Import this first, because the process needs it once, no matter which trigger is measured.
    import openai.resources.batches  # noqa: F401

    async def run() -> dict[str, float]:
        pid = os.getpid()
        jobs = [
            [f"batch_{batches_per_trigger * number + offset}" for offset in range(batches_per_trigger)]
            for number in range(triggers)
        ]
        instances = [trigger_class(**trigger_arguments(implementation, batch_ids)) for batch_ids in jobs]
        initial_memory, _ = read_memory(pid)
        meter = LagMeter()
        monitor = asyncio.create_task(meter.measure())
        start_time = time.perf_counter()
        tasks = await start(instances)

        def all_checked() -> bool:
            if implementation == "ours":
                return len(counts.checked_batches) == triggers * batches_per_trigger
            return bool(send_request(f"{url}/counts").get("single", 0) >= triggers)

        while not all_checked():
            await asyncio.sleep(0.1 if implementation == "ours" else 1)
        first_round = time.perf_counter() - start_time
        await asyncio.sleep(STEADY_SECONDS / 2)
        initial_requests, initial_checks = send_request(f"{url}/counts"), counts.status_checks
        start_time, start_cpu = time.perf_counter(), time.process_time()
        await asyncio.sleep(STEADY_SECONDS)
        requests = {
            kind: count - initial_requests.get(kind, 0) for kind, count in send_request(f"{url}/counts").items()
        }
        seconds = time.perf_counter() - start_time
        cpu_share = (time.process_time() - start_cpu) / seconds
        our_checks = counts.status_checks - initial_checks
        status_checks = our_checks if implementation == "ours" else requests.get("single", 0)
        used_memory, _ = read_memory(pid)
        # The lag is read before the blocking requests that this benchmark sends next.
        result = {
            "p50": meter.percentile(0.5),
            "p99": meter.percentile(0.99),
            "longest": max(meter.lags),
            "requests": 50 * sum(requests.values()) / max(1, status_checks),
            "status_checks": status_checks / triggers / batches_per_trigger,
            "first_round": first_round,
            "cpu": 100 * cpu_share,
            "kb": (used_memory - initial_memory) / 1000 / triggers,
            "clients": counts.clients,
        }

        def end_jobs() -> dict[int, float]:
            end_times = {}
            for number in range(0, triggers, max(1, triggers // ENDED_JOBS)):
                for batch_id in jobs[number]:
                    send_request(f"{url}/end/{batch_id}", "POST")
                end_times[number] = time.monotonic()  # the loop uses the same clock
            return end_times

        end_times = await asyncio.to_thread(end_jobs)
        fired_tasks, _ = await asyncio.wait([tasks[number] for number in end_times], timeout=10 * INTERVAL)
        assert len(fired_tasks) == len(end_times), (
            f"{len(end_times) - len(fired_tasks)} of {len(end_times)} triggers did not fire"
        )
        result["to_event"] = statistics.median(
            max(0.0, tasks[number].result() - end_time) for number, end_time in end_times.items()
        )
        await cancel(monitor, *tasks)
        return result

    return lambda: asyncio.run(run())


def prepare_first(implementation: str, url: str) -> Callable[[], float]:
    """Return a function that imports and starts a process's first trigger and returns the longest lag in ms."""
    import airflow.triggers.base  # noqa: F401
    from airflow._shared.module_loading import import_string

    async def run() -> float:
        meter = LagMeter()
        monitor = asyncio.create_task(meter.measure())
        await asyncio.sleep(0.1)
        (task,) = await start(
            [import_string(CLASSES[implementation])(**trigger_arguments(implementation, ["batch_0"]))]
        )
        while not await asyncio.to_thread(send_request, f"{url}/counts"):
            await asyncio.sleep(0.05)
        await asyncio.sleep(0.5)
        await cancel(monitor, task)
        return max(meter.lags)

    return lambda: asyncio.run(run())


def make_worker(
    case: str, folder: Path, url: str, environment: dict[str, str] | None = None, **arguments: Any
) -> Worker:
    """Return a process for a case, with the connections that the triggers use."""
    connections = {
        f"AIRFLOW_CONN_{conn_id.upper()}": json.dumps(
            {"conn_type": conn_type, "password": "local-key", "host": f"{url}/v1"}
        )
        for conn_id, conn_type in (("openai_default", "openai"), ("pydanticai_default", "pydanticai"))
    }
    return Worker(case, logs=folder, environment=connections | (environment or {}), url=url, **arguments)


def measure_many(
    implementation: str,
    triggers: int,
    batches_per_trigger: int,
    latency: float,
    runs: int,
    folder: Path,
    *,
    in_triggerer: bool = False,
) -> list[Figure]:
    """Measure many triggers in a bare event loop or in a complete triggerer."""
    batches = triggers * batches_per_trigger
    # The targets are for many batches only, because a page of the list is read even for a few.
    has_targets = implementation == "ours" and batches >= 1000
    location = " in a triggerer" if in_triggerer else ""
    title = f"{implementation}{location}: {triggers:,} triggers, {batches:,} batches, answers after {latency:g} s"
    figures = {
        "p50": Figure(f"{title}: loop lag p50", "ms"),
        "p99": Figure("  p99", "ms", max_median=MAX_LAG if has_targets else None),
        "longest": Figure("  maximum", "ms"),
        "blocked": Figure("  warnings about a blocked loop in Airflow's log", ""),
        "requests": Figure(
            "  HTTP requests per 50 status checks", "", max_median=MAX_REQUESTS if has_targets else None
        ),
        "status_checks": Figure(f"  status checks per batch in {STEADY_SECONDS:g} s", ""),
        "first_round": Figure(
            "  time until each batch was checked once",
            "s",
            max_median=MAX_FIRST_ROUND.get(latency) if has_targets else None,
        ),
        "cpu": Figure("  CPU", "%"),
        "supervisor": Figure("  CPU of Airflow's supervisor", "%"),
        "kb": Figure("  memory per trigger", "kB"),
        "clients": Figure("  OpenAI clients", "", max_median=1 if has_targets else None),
        "to_event": Figure(
            "  time from a job's end to its event", "s", max_median=MAX_TO_EVENT if has_targets else None
        ),
    }
    for _ in range(runs):
        with provider(batches, latency) as url:
            case, environment = "benchmarks.triggers:prepare_many", {}
            if in_triggerer:
                case = "benchmarks.triggerer:prepare_many"
                environment = {"AIRFLOW_HOME": tempfile.mkdtemp(dir=folder)}
            arguments = {"triggers": triggers, "batches_per_trigger": batches_per_trigger}
            with make_worker(case, folder, url, environment, implementation=implementation, **arguments) as worker:
                for name, value in worker.run().result.items():
                    figures[name].add(value)
    return [figure for figure in figures.values() if figure.values]


def measure_first(runs: int, folder: Path) -> list[Figure]:
    """Measure how long the first trigger of a process blocks the loop."""
    figures = []
    for implementation in CLASSES:
        figure = Figure(f"{implementation}: maximum loop lag from the first trigger of a process", "ms")
        for _ in range(max(3, runs)):
            with (
                provider(10, 0.0) as url,
                make_worker("benchmarks.triggers:prepare_first", folder, url, implementation=implementation) as worker,
            ):
                figure.add(worker.run().result)
        figures.append(figure)
    return figures


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--triggers", type=int, default=1000)
    parser.add_argument("--latency", type=float, nargs="+", default=[0.0, 0.2, 2.0])
    parser.add_argument("--peers", type=int, nargs="*", default=[5, 40, 200])
    parser.add_argument("--runs", type=int, default=1)
    parser.add_argument("--only", choices=("ours", "peers", "first", "triggerer"))
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    args = parser.parse_args()
    figures: list[Figure] = []
    with tempfile.TemporaryDirectory() as name, temporary_airflow_home():
        folder = Path(name)
        if args.only in (None, "first"):
            figures += measure_first(args.runs, folder)
        if args.only in (None, "ours"):
            for latency in args.latency:
                figures += measure_many("ours", args.triggers, 10, latency, args.runs, folder)
        if args.only in (None, "peers"):
            for triggers in args.peers:
                for implementation in CLASSES:
                    if implementation != "ours" or triggers == max(args.peers):
                        figures += measure_many(implementation, triggers, 1, 0.2, args.runs, folder)
        if args.only in (None, "triggerer"):
            figures += measure_many("idle", args.triggers, 1, 0.0, args.runs, folder, in_triggerer=True)
            for latency in args.latency:
                figures += measure_many("ours", args.triggers, 10, latency, args.runs, folder, in_triggerer=True)
            for implementation in CLASSES:
                if implementation != "ours" and args.peers:
                    triggers = min(MAX_PEERS_IN_TRIGGERER, max(args.peers))
                    figures += measure_many(implementation, triggers, 1, 0.2, args.runs, folder, in_triggerer=True)
    report("Many waits in one event loop", figures, args.json)


if __name__ == "__main__":
    main()
