"""What it costs a triggerer's event loop to wait for many batches.

    python -m benchmarks.triggers [--json FILE] [--triggers 1000] [--only ours|peers|first|triggerer]

Each case is a process of its own, with a bare event loop or the whole of `airflow triggerer` (benchmarks/triggerer.py),
against a provider on loopback whose every answer takes `latency` seconds. All triggers start at once, as after a
restart of the triggerer. Measured while nothing ends:

* how late the loop is (a timer of 5 ms measures it): p50, p99 and the longest;
* HTTP requests for every 50 looks at a batch, the share of one CPU core, the memory a trigger takes, and the clients;
* then from the end of some jobs' batches to the events of their triggers.

Beside it the triggers of apache-airflow-providers-openai and -common-ai, with one batch each, which is all they can.
"first" is what the first trigger of a process does to the loop, which Airflow lets import its class.
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

from benchmarks.airflow_home import airflow_home
from benchmarks.measure import Figure, memory, report
from benchmarks.worker import Worker

#: seconds between two looks of the same trigger, at most
INTERVAL = 20.0
#: seconds in which nothing ends
STEADY = 20.0
#: jobs that then end
ENDING = 20
#: targets: the loop's lag in ms, and requests for 50 looks
MOST_LAG, MOST_REQUESTS = 50.0, 1.0

#: triggers of others in a whole triggerer: with more, those that block it need longer for a round than their interval
MOST_IN_TRIGGERER = 40

CLASSES = {
    "ours": "airflow_provider_batch.triggers.batch.BatchTrigger",
    "official": "airflow.providers.openai.triggers.openai.OpenAIBatchTrigger",
    "common.ai": "airflow.providers.common.ai.triggers.llm_batch.LLMBatchTrigger",
}


@contextmanager
def provider(batches: int, latency: float) -> Iterator[str]:
    """A provider on loopback; its address."""
    command = [sys.executable, "-m", "benchmarks.batches_server", f"--batches={batches}", f"--latency={latency}"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        yield process.stdout.readline().strip()
    finally:
        process.terminate()
        process.wait()


def arguments(who: str, batch_ids: Sequence[str]) -> dict[str, Any]:
    """What a trigger is built with."""
    if who == "ours":
        return {
            "openai_conn_id": "openai_default",
            "job_uid": batch_ids[0],
            "batch_ids": batch_ids,
            "deadline": None,
            "poll_interval": INTERVAL,
        }
    if who == "official":
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


class Lag:
    """How late a timer of 5 ms is, in ms."""

    def __init__(self) -> None:
        self.late: list[float] = []

    async def measure(self) -> None:
        """Until cancelled."""
        while True:
            due = time.perf_counter() + 0.005
            await asyncio.sleep(0.005)
            self.late.append(1000 * (time.perf_counter() - due))

    def percentile(self, share: float) -> float:
        """The lag that is not exceeded in this share of all times."""
        late = sorted(self.late)
        return late[min(len(late) - 1, int(share * len(late)))]


def ask(url: str, method: str = "GET") -> Any:
    """One request of the benchmark's own."""
    with urllib.request.urlopen(urllib.request.Request(url, method=method), timeout=60) as answer:
        return json.load(answer)


class Counts:
    """Looks at batches and clients of a process, counted where they are made."""

    def __init__(self) -> None:
        from openai import AsyncOpenAI, OpenAI

        from airflow_provider_batch.triggers.reading import PollResult, Reader, ReadFailure

        self.looks = self.clients = 0
        self.seen: set[str] = set()
        look = Reader.read

        async def counted(
            reader: Reader, wanted: Iterable[str], tell: Callable[[str, PollResult], None]
        ) -> ReadFailure | None:
            left = set(wanted)

            def told(batch_id: str, answer: PollResult) -> None:
                self.looks += batch_id in left
                left.discard(batch_id)
                self.seen.add(batch_id)
                tell(batch_id, answer)

            return await look(reader, wanted, told)

        Reader.read = counted  # type: ignore[assignment,method-assign]  # its first argument has another name
        for kind in (AsyncOpenAI, OpenAI):
            self._count(kind)

    def _count(self, kind: Any) -> None:
        build = kind.__init__

        def counted(client: Any, **options: Any) -> None:
            # a client made of another shares its connections
            self.clients += "_strict_response_validation" not in options and "http_client" not in options
            build(client, **options)

        kind.__init__ = counted


async def first_of(trigger: Any) -> float:
    """When a trigger fires, by the clock of the loop."""
    async for _ in trigger.run():
        return asyncio.get_running_loop().time()
    raise RuntimeError("the trigger ended without an event")


async def start(triggers: Sequence[Any]) -> list[asyncio.Task[float]]:
    """Start them as Airflow's triggerer does."""
    tasks = []
    for trigger in triggers:
        await asyncio.sleep(0)
        tasks.append(asyncio.create_task(first_of(trigger)))
    return tasks


async def leave(*tasks: asyncio.Task[Any]) -> None:
    """End tasks."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def many(who: str, triggers: int, each: int, url: str) -> Callable[[], dict[str, float]]:
    """A case: many triggers in one loop."""
    import logging

    import airflow.triggers.base  # noqa: F401
    from airflow._shared.module_loading import import_string

    logging.disable(logging.INFO)
    kind = import_string(CLASSES[who])
    counts = Counts()
    # what the process needs once, whoever waits
    import openai.resources.batches  # noqa: F401

    async def run() -> dict[str, float]:
        pid = os.getpid()
        jobs = [[f"batch_{each * n + k}" for k in range(each)] for n in range(triggers)]
        built = [kind(**arguments(who, job)) for job in jobs]
        before, _ = memory(pid)
        lag = Lag()
        monitor = asyncio.create_task(lag.measure())
        began = time.perf_counter()
        tasks = await start(built)
        while len(counts.seen) < triggers * each if who == "ours" else ask(f"{url}/asked").get("single", 0) < triggers:
            await asyncio.sleep(1)
        first_seen = time.perf_counter() - began
        await asyncio.sleep(STEADY / 2)
        asked, looks = ask(f"{url}/asked"), counts.looks
        began, cpu = time.perf_counter(), time.process_time()
        await asyncio.sleep(STEADY)
        asked = {name: count - asked.get(name, 0) for name, count in ask(f"{url}/asked").items()}
        seconds = time.perf_counter() - began
        took = (time.process_time() - cpu) / seconds
        looked = counts.looks - looks if who == "ours" else asked.get("single", 0)
        now, _ = memory(pid)
        ending = range(0, triggers, max(1, triggers // ENDING))
        # Lag until here: what follows is the benchmark's own blocking requests.
        result = {
            "p50": lag.percentile(0.5),
            "p99": lag.percentile(0.99),
            "longest": max(lag.late),
            "requests": 50 * sum(asked.values()) / max(1, looked),
            "looks": looked / triggers / each,
            "first": first_seen,
            "cpu": 100 * took,
            "kb": (now - before) / 1000 / triggers,
            "clients": counts.clients,
        }

        def end() -> dict[int, float]:
            at = {}
            for number in ending:
                for batch_id in jobs[number]:
                    ask(f"{url}/end/{batch_id}", "POST")
                at[number] = time.monotonic()  # which is also the clock of the loop
            return at

        ended = await asyncio.to_thread(end)
        done, _ = await asyncio.wait([tasks[number] for number in ended], timeout=10 * INTERVAL)
        assert len(done) == len(ended), f"{len(ended) - len(done)} of {len(ended)} triggers did not fire"
        result["to_event"] = statistics.median(max(0.0, tasks[n].result() - at) for n, at in ended.items())
        await leave(monitor, *tasks)
        return result

    return lambda: asyncio.run(run())


def first(who: str, url: str) -> Callable[[], float]:
    """A case: the first trigger of a process, from its class path on; the longest gap in the loop, in ms."""
    import airflow.triggers.base  # noqa: F401
    from airflow._shared.module_loading import import_string

    async def run() -> float:
        lag = Lag()
        monitor = asyncio.create_task(lag.measure())
        await asyncio.sleep(0.1)
        (task,) = await start([import_string(CLASSES[who])(**arguments(who, ["batch_0"]))])
        while not await asyncio.to_thread(ask, f"{url}/asked"):
            await asyncio.sleep(0.05)
        await asyncio.sleep(0.5)
        await leave(monitor, task)
        return max(lag.late)

    return lambda: asyncio.run(run())


def case(name: str, folder: Path, url: str, environment: dict[str, str] | None = None, **given: Any) -> Worker:
    """A process for a case, with the connections of all triggers."""
    connections = {
        f"AIRFLOW_CONN_{conn_id.upper()}": json.dumps({"conn_type": kind, "password": "local-key", "host": f"{url}/v1"})
        for conn_id, kind in (("openai_default", "openai"), ("pydanticai_default", "pydanticai"))
    }
    return Worker(name, logs=folder, environment=connections | (environment or {}), url=url, **given)


def measured(
    who: str, triggers: int, each: int, latency: float, runs: int, folder: Path, *, whole: bool = False
) -> list[Figure]:
    """One row of figures: of a bare loop, or of a whole triggerer."""
    # A page is read for few batches too: the targets are for many.
    ours = who == "ours" and triggers * each >= 1000
    place = " in a triggerer" if whole else ""
    title = f"{who}{place}: {triggers:,} triggers, {triggers * each:,} batches, answers in {latency:g} s"
    figures = {
        "p50": Figure(f"{title}: loop lag p50", "ms"),
        "p99": Figure("  p99", "ms", most=MOST_LAG if ours else None),
        "longest": Figure("  longest", "ms"),
        "blocked": Figure("  warnings of a blocked loop in Airflow's log", ""),
        "requests": Figure("  HTTP requests for 50 looks at a batch", "", most=MOST_REQUESTS if ours else None),
        "looks": Figure(f"  looks at each batch in {STEADY:g} s", ""),
        "first": Figure("  until each batch was looked at once", "s"),
        "cpu": Figure("  CPU", "%"),
        "supervisor": Figure("  CPU of Airflow's supervisor", "%"),
        "kb": Figure("  memory of a trigger", "kB"),
        "clients": Figure("  clients", "", most=1 if ours else None),
        "to_event": Figure("  from a job's end to its event", "s"),
    }
    for _ in range(runs):
        with provider(triggers * each, latency) as url:
            name, environment = "benchmarks.triggers:many", {}
            if whole:
                name = "benchmarks.triggerer:many"
                environment = {"AIRFLOW_HOME": tempfile.mkdtemp(dir=folder)}
            with case(name, folder, url, environment, who=who, triggers=triggers, each=each) as worker:
                for name, value in worker.run().returned.items():
                    figures[name].add(value)
    return [figure for figure in figures.values() if figure.runs]


def firsts(runs: int, folder: Path) -> list[Figure]:
    """What the first trigger of a process does to the loop."""
    figures = []
    for who in CLASSES:
        figure = Figure(f"{who}: the first trigger of a process: longest loop lag", "ms")
        for _ in range(max(3, runs)):
            with provider(10, 0.0) as url, case("benchmarks.triggers:first", folder, url, who=who) as worker:
                figure.add(worker.run().returned)
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
    parser.add_argument("--json", type=Path, help="write the figures here too")
    args = parser.parse_args()
    figures: list[Figure] = []
    with tempfile.TemporaryDirectory() as name, airflow_home():
        folder = Path(name)
        if args.only in (None, "first"):
            figures += firsts(args.runs, folder)
        if args.only in (None, "ours"):
            for latency in args.latency:
                figures += measured("ours", args.triggers, 10, latency, args.runs, folder)
        if args.only in (None, "peers"):
            for triggers in args.peers:
                for who in CLASSES:
                    if who != "ours" or triggers == max(args.peers):
                        figures += measured(who, triggers, 1, 0.2, args.runs, folder)
        if args.only in (None, "triggerer"):
            figures += measured("idle", args.triggers, 1, 0.0, args.runs, folder, whole=True)
            for latency in args.latency:
                figures += measured("ours", args.triggers, 10, latency, args.runs, folder, whole=True)
            for who in CLASSES:
                if who != "ours" and args.peers:
                    triggers = min(MOST_IN_TRIGGERER, max(args.peers))
                    figures += measured(who, triggers, 1, 0.2, args.runs, folder, whole=True)
    report("Many waits in one event loop", figures, args.json)


if __name__ == "__main__":
    main()
