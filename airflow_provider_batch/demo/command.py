"""`airflow-batch demo`: prepare the folder, run the DAG, and print its progress and its results."""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import sys
from collections.abc import Iterator
from datetime import datetime
from importlib.metadata import version
from pathlib import Path

from rich.console import Console

from airflow_provider_batch.demo import companies, documents, eval_cases, report, spending, standalone, tickets
from airflow_provider_batch.demo.home import DemoError, Home, Provider, dags_folder
from airflow_provider_batch.demo.story import Story
from airflow_provider_batch.local.process import LocalServer, ServerStartError

# Airflow loads the provider for the warehouse by name. Fail now, not inside Airflow, if it is not installed.
version("apache-airflow-providers-sqlite")

DESCRIPTION = "Run the DAG label_tickets on real Airflow, with a local warehouse and a local batch server."
#: how long a batch stays in each state, in seconds: long enough to see, short enough to wait for
VALIDATING, IN_PROGRESS, FINALIZING = 2.0, 9.0, 2.0
#: seconds between two polls of the batches
_POLL_LOCAL, _POLL_LIVE = 1.0, 20.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `airflow-batch demo`."""
    parser.add_argument(
        "--home",
        type=Path,
        help="folder for all files of the demo (default: .demo, or .demo/live with --live)",
    )
    parser.add_argument(
        "--live", action="store_true", help="use the real API with the key in OPENAI_API_KEY; this costs money"
    )
    parser.add_argument("--model", default="gpt-5-mini", help="model to use (default: gpt-5-mini)")
    parser.add_argument("--airflow", action="store_true", help="start a full Airflow with its UI instead, until Ctrl-C")
    parser.add_argument("--port", type=int, default=8080, help="port of Airflow's UI, with --airflow (default: 8080)")
    parser.add_argument(
        "--server-port", type=int, default=0, help="port of the local batch server (default: any free port)"
    )


def run(arguments: argparse.Namespace) -> int:
    """Run the demo and return the exit code."""
    console = Console(width=None if sys.stdout.isatty() else 110)
    try:
        return _demo(console, arguments)
    except DemoError as error:
        console.print(str(error), style="bold red", markup=False, highlight=False, soft_wrap=True)
        return 1
    except KeyboardInterrupt:
        console.print("Stopped.")
        if arguments.live:
            console.print(
                "A batch that was already submitted continues and is billed. Its id is in the log; you can cancel it "
                "at the provider."
            )
        return 130


def _demo(console: Console, arguments: argparse.Namespace) -> int:
    live: bool = arguments.live
    # the live demo has a folder of its own, so that it never continues runs that were started offline
    home = Home((arguments.home or Path(".demo/live" if live else ".demo")).absolute())
    story = Story(console)
    key = os.environ.get("OPENAI_API_KEY", "")
    if live and not key:
        raise DemoError(
            "The live demo uses the real API. Set OPENAI_API_KEY, or run the demo without --live (make: LIVE=1)."
        )
    home.prepare()
    story.step(f"Airflow {version('apache-airflow')}; all files are in {home.path}")
    with _provider(home, story, key=key if live else "", port=arguments.server_port) as provider:
        environment = home.environment(provider)
        home.migrate(environment)
        story.step("Airflow's database is ready")
        _seed(home, story, live=live)
        if arguments.airflow:
            return standalone.serve(story, home, environment, port=arguments.port, live=live)
        if live:
            ceilings = {ceiling.dag_id: ceiling for ceiling in spending.read_ceilings(home, environment)}
            ceiling = ceilings["label_tickets"].text
            story.step(f"[bold]label_tickets runs once and may spend up to {ceiling}[/]. Press Ctrl-C to stop")
        story.step("[bold]airflow dags test label_tickets[/] runs the tasks submit, wait and land")
        run_id = story.run(
            "label_tickets",
            {"model": arguments.model},
            environment=environment,
            log=home.log,
            poll_interval=_POLL_LIVE if live else _POLL_LOCAL,
        )
    rows = report.read_labels(home.warehouse, run_id)
    story.step(f"{len(rows)} answers landed in the table ticket_labels, one per ticket\n")
    report.show(console, rows, model=arguments.model, live=live)
    _print_locations(console, home, live=live)
    return 0


@contextlib.contextmanager
def _provider(home: Home, story: Story, *, key: str, port: int) -> Iterator[Provider]:
    if key:
        base_url = os.environ.get("OPENAI_BASE_URL") or None
        story.step(f"using the real API{f' at {base_url}' if base_url else ''}: this costs money and may take hours")
        yield Provider(base_url, key)
        return
    try:
        server = LocalServer(
            home.server,
            port=port,
            validating=VALIDATING,
            in_progress=IN_PROGRESS,
            finalizing=FINALIZING,
            examples=tickets.examples_file(),
            forget=(f"{eval_cases.PLANTED_MODEL}:{eval_cases.PLANTED_SKILL}",),
        ).start()
    except ServerStartError as error:
        raise DemoError(f"The local batch server did not start. Is another demo using {home.path}?\n{error}") from error
    try:
        story.step(f"local batch server at {server.base_url}: its offline responder answers without a model")
        yield Provider(server.base_url, "sk-local", local=True)
    finally:
        server.stop()


def _seed(home: Home, story: Story, *, live: bool) -> None:
    failing_tickets = [] if live else tickets.failing_tickets(datetime.now())
    count = tickets.seed(home.warehouse, [*tickets.load(), *failing_tickets])
    for data_set in (companies, documents, eval_cases):
        data_set.seed(home.warehouse)
    note = f", {len(failing_tickets)} of them designed to fail" if failing_tickets else ""
    story.step(f"SQLite warehouse filled with {count} support tickets{note}, and with the tables of the other DAGs")


def _print_locations(console: Console, home: Home, *, live: bool) -> None:
    def shorten(path: Path) -> str:
        return os.path.relpath(path) if path.is_relative_to(Path.cwd()) else str(path)

    query = "SELECT outcome, category, count(*) FROM ticket_labels GROUP BY 1, 2"
    lines = [
        ("warehouse", shorten(home.warehouse)),
        ("  query it with", _query_command(shorten(home.warehouse), query)),
        ("sealed input, ledger and answers", shorten(home.staging)),
        ("Airflow's log of this run", shorten(home.log)),
        ("the DAG", shorten(dags_folder() / "label_tickets.py")),
        ("next: run it in Airflow's UI", "make airflow"),
    ]
    if not live:
        lines.append(("next: use the real API", "OPENAI_API_KEY=… make demo LIVE=1"))
    console.print()
    width = max(len(name) for name, _ in lines)
    for name, value in lines:
        console.print(f"{name:<{width}}  {value}", markup=False, highlight=False, soft_wrap=True)


def _query_command(warehouse: str, query: str) -> str:
    if shutil.which("sqlite3"):
        return f'sqlite3 {warehouse} "{query}"'
    python = os.path.relpath(sys.executable)
    return f"""{python} -c "import sqlite3; print(*sqlite3.connect('{warehouse}').execute('{query}'), sep='\\n')\""""
