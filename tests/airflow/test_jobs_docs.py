"""Runs the commands in docs/operations/jobs.md on jobs like those that it describes, and compares the output."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from airflow_provider_batch.cli import main
from airflow_provider_batch.local.faults import Call, Fault, Kind
from airflow_provider_batch.local.process import LocalServer
from tests.airflow.clearing import ClearedJob
from tests.airflow.jobs import make_tickets

PAGE = (Path(__file__).parents[2] / "docs" / "operations" / "jobs.md").read_text(encoding="utf-8")
#: patterns of text that differs from run to run, with a placeholder for each
VARYING = {
    r"\bbatch_\w+": "BATCH",
    r"\b[0-9a-f]{32}\b": "UID",
    r"\b[0-9a-f]{8}\b": "UI",
    r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC \([^)]+\)": "TIME",
    r"file://\S+": "FOLDER",
    r"manual__\S+": "RUN",
}


def blocks() -> list[tuple[list[str], str]]:
    """Return the words of each command on the page, with the output that the page shows."""
    matches = re.findall(r"^```console\n\$ airflow-batch ([^\n]*)\n(.*?)^```$", PAGE, flags=re.DOTALL | re.MULTILINE)
    return [(command.split(), output) for command, output in matches]


def without_varying_parts(text: str) -> str:
    for pattern, word in VARYING.items():
        text = re.sub(pattern, word, text)
    return text


@pytest.fixture
def jobs_of_the_page(tmp_path: Path, connect: Callable[..., None], offline: None) -> Iterator[tuple[str, list[str]]]:
    """Run a job that lands and a job that is held at its billing limit. Yield the DAG id and both uids."""
    path = tmp_path / "warehouse.sqlite"
    tickets = [(f"T-{n}", f"Ticket {n}", f"text {n}", "bug") for n in range(1, 5)]
    make_tickets(path, [*tickets, ("T-5", "Refused", "[[refuse]]", "bug")])
    connect("warehouse", conn_type="sqlite", host=str(path))
    landed, held = ClearedJob(), ClearedJob()
    held.dag_id = f"{landed.dag_id}_too"
    limits = {"requests": 3}
    with LocalServer(tmp_path / "server", admin=True, in_progress=0) as server:
        connect("openai_default", conn_type="openai", password="local", host=server.base_url)
        first = landed.run(limits=limits)
        message = "Billing hard limit has been reached."
        server.set_faults(Fault(kind=Kind.STATUS, calls=frozenset({Call.CREATE}), status=400, message=message, skip=1))
        held.run(limits=limits)
        seal = next(iter((tmp_path / "staging" / held.dag_id / "submit").glob("*/g001/seal.json"))).read_text()
        held_uid = re.search(r'"job_uid":"(\w+)"', seal)
        assert held_uid is not None
        yield landed.dag_id, [held_uid[1], first.return_values["submit"]["job_uid"]]


def test_the_commands_on_the_page_print_the_output_that_it_shows(
    jobs_of_the_page: tuple[str, list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    dag_id, uids = jobs_of_the_page
    uids_on_page = list(dict.fromkeys(re.findall(r"^([0-9a-f]{8})  ", PAGE, flags=re.MULTILINE)))
    names = {"label_urgent": f"{dag_id}_too"} | {word: uid[:8] for word, uid in zip(uids_on_page, uids, strict=True)}
    for command, expected in blocks():
        words = [names.get(word, word) for word in command]
        capsys.readouterr()
        main.main(words)
        printed = capsys.readouterr().out.replace(f"{dag_id}_too", "label_urgent").replace(dag_id, "label_tickets")
        assert without_varying_parts(printed) == without_varying_parts(expected), " ".join(command)


def test_the_page_mentions_every_action_and_option() -> None:
    from airflow_provider_batch.cli.jobs.command import add_arguments

    parser = argparse.ArgumentParser()
    add_arguments(parser)
    (actions,) = (action for action in parser._actions if isinstance(action, argparse._SubParsersAction))
    options = {
        flag for command in actions.choices.values() for action in command._actions for flag in action.option_strings
    }

    assert {name for name in actions.choices if f"jobs {name}" not in PAGE} == set()
    assert {flag for flag in options if flag.startswith("--") and flag != "--help" and flag not in PAGE} == set()
    assert set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", PAGE)) - options == set()
