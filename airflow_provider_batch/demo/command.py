"""`airflow-batch demo`: set up, run the DAG, tell what happens, show what landed."""

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

from airflow_provider_batch.demo import companies, documents, eval_cases, report, standalone, tickets
from airflow_provider_batch.demo.home import DemoError, Home, Provider, dags_folder
from airflow_provider_batch.demo.story import Story
from airflow_provider_batch.local.process import LocalServer, ServerStartError

# Airflow finds the provider for the warehouse by name, so no import would miss it.
version("apache-airflow-providers-sqlite")

DESCRIPTION = "Run the DAG label_tickets on real Airflow, with a local warehouse and a local batch server."
#: seconds that a batch is in each state: long enough that a person sees it go on, short enough to watch
VALIDATING, IN_PROGRESS, FINALIZING = 2.0, 9.0, 2.0
#: seconds between two looks at the batches
_LOOK_LOCAL, _LOOK_LIVE = 1.0, 20.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `airflow-batch demo`."""
    parser.add_argument("--home", type=Path, default=Path(".demo"), help="folder for everything (default: .demo)")
    parser.add_argument(
        "--live", action="store_true", help="ask the real API with the key in OPENAI_API_KEY; this costs money"
    )
    parser.add_argument("--model", default="gpt-5-mini", help="default: gpt-5-mini")
    parser.add_argument("--airflow", action="store_true", help="start a full Airflow with its UI, until Ctrl-C")
    parser.add_argument("--port", type=int, default=8080, help="of Airflow's UI, with --airflow (default: 8080)")
    parser.add_argument("--server-port", type=int, default=0, help="of the local batch server (default: a free one)")


def run(arguments: argparse.Namespace) -> int:
    """Do it; the process's exit code."""
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
                "A batch that was sent goes on and is billed; the log names it, and the provider can cancel it."
            )
        return 130


def _demo(console: Console, arguments: argparse.Namespace) -> int:
    home = Home(arguments.home.absolute())
    live: bool = arguments.live
    story = Story(console)
    key = os.environ.get("OPENAI_API_KEY", "")
    if live and not key:
        raise DemoError("The live demo asks the real API. Set OPENAI_API_KEY, or leave LIVE=1 (--live) away.")
    home.prepare()
    story.step(f"Airflow {version('apache-airflow')}; everything is kept in {home.path}")
    with _provider(home, story, key=key if live else "", port=arguments.server_port) as provider:
        environment = home.environment(provider)
        home.migrate(environment)
        story.step("Airflow's own database is ready")
        _seed(home, story, live=live)
        if arguments.airflow:
            return standalone.serve(story, home, environment, port=arguments.port)
        story.step("[bold]airflow dags test label_tickets[/]: submit, wait, land")
        run_id = story.run(
            "label_tickets",
            {"model": arguments.model},
            environment=environment,
            log=home.log,
            look_every=_LOOK_LIVE if live else _LOOK_LOCAL,
        )
    rows = report.landed(home.warehouse, run_id)
    story.step(f"{len(rows)} answers landed in the table ticket_labels, one for each ticket asked about\n")
    report.show(console, rows, model=arguments.model, live=live)
    _where(console, home, live=live)
    return 0


@contextlib.contextmanager
def _provider(home: Home, story: Story, *, key: str, port: int) -> Iterator[Provider]:
    if key:
        base_url = os.environ.get("OPENAI_BASE_URL") or None
        story.step(f"asks the real API{f' at {base_url}' if base_url else ''}: this costs money, and may take hours")
        yield Provider(base_url, key)
        return
    try:
        server = LocalServer(
            home.server, port=port, validating=VALIDATING, in_progress=IN_PROGRESS, finalizing=FINALIZING
        ).start()
    except ServerStartError as error:
        raise DemoError(f"The local batch server did not start. Does another demo use {home.path}?\n{error}") from error
    try:
        story.step(f"local batch server at {server.base_url}: it asks no model, its answers are made up offline")
        yield Provider(server.base_url, "local", local=True)
    finally:
        server.stop()


def _seed(home: Home, story: Story, *, live: bool) -> None:
    planted = [] if live else tickets.planted(datetime.now())
    count = tickets.seed(home.warehouse, [*tickets.load(), *planted])
    for other in (companies, documents, eval_cases):
        other.seed(home.warehouse)
    beside = f", {len(planted)} of them planted to go wrong" if planted else ""
    story.step(f"SQLite warehouse seeded: {count} support tickets with gold labels{beside}; and the other DAGs' tables")


def _where(console: Console, home: Home, *, live: bool) -> None:
    def show(path: Path) -> str:
        return os.path.relpath(path) if path.is_relative_to(Path.cwd()) else str(path)

    query = "SELECT outcome, category, count(*) FROM ticket_labels GROUP BY 1, 2"
    lines = [
        ("warehouse", show(home.warehouse)),
        ("  look into it", _look(show(home.warehouse), query)),
        ("sealed input, ledger, answers", show(home.staging)),
        ("Airflow's log of this run", show(home.log)),
        ("the DAG", show(dags_folder() / "label_tickets.py")),
        ("next: the same in Airflow's UI", "make airflow"),
    ]
    if not live:
        lines.append(("next: the real API", "OPENAI_API_KEY=… make demo LIVE=1"))
    console.print()
    width = max(len(name) for name, _ in lines)
    for name, value in lines:
        console.print(f"{name:<{width}}  {value}", markup=False, highlight=False, soft_wrap=True)


def _look(warehouse: str, query: str) -> str:
    if shutil.which("sqlite3"):
        return f'sqlite3 {warehouse} "{query}"'
    python = os.path.relpath(sys.executable)
    return f"""{python} -c "import sqlite3; print(*sqlite3.connect('{warehouse}').execute('{query}'), sep='\\n')\""""
