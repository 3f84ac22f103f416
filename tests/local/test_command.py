"""`airflow-batch serve`: its output, the arguments that it rejects, and how it stops."""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from openai import OpenAI

from airflow_provider_batch.local import command
from airflow_provider_batch.local.process import LocalServer, ServerStartError
from airflow_provider_batch.local.storage.store import ADDRESS_FILE
from tests.local import driving


def run(*arguments: str) -> int:
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    return command.run(parser.parse_args(arguments))


@contextmanager
def serving(state: Path, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [sys.executable, "-m", "airflow_provider_batch.local", "--state", str(state), *arguments],
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def read_greeting(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    lines: list[str] = []
    while not lines or not lines[-1].startswith("Press Ctrl-C"):
        line = process.stdout.readline()
        assert line, f"the server ended after {lines}"
        lines.append(line)
    return "".join(lines)


@pytest.mark.parametrize("signal_number", [signal.SIGINT, signal.SIGTERM])
def test_it_prints_its_address_and_purpose_and_stops_cleanly(tmp_path: Path, signal_number: signal.Signals) -> None:
    with serving(tmp_path, "--port", "0") as process:
        output = read_greeting(process)
        assert str(tmp_path) in output
        assert "Not for production" in output
        assert "offline responder" in output
        match = re.search(r"AIRFLOW_CONN_OPENAI_DEFAULT='(.*)'", output)
        assert match is not None
        connection = json.loads(match[1])
        assert connection["conn_type"] == "openai"
        with OpenAI(base_url=connection["host"], api_key=connection["password"]) as client:
            assert client.models.list().data

        os.kill(process.pid, signal_number)
        assert process.wait(timeout=30) == 0
    assert not (tmp_path / ADDRESS_FILE).exists()


def test_it_listens_only_on_loopback_without_a_key(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--host", "0.0.0.0", "--port", "0", "--state", str(tmp_path)) == 2
    assert "--api-key" in capsys.readouterr().err


def test_it_listens_on_any_address_with_a_key(tmp_path: Path) -> None:
    with serving(tmp_path, "--host", "0.0.0.0", "--port", "0", "--api-key", "secret") as process:
        output = read_greeting(process)
        assert "secret" not in output
        port = re.search(r":(\d+)/v1", output)
        assert port is not None
        with OpenAI(base_url=f"http://127.0.0.1:{port[1]}/v1", api_key="secret") as client:
            assert client.models.list().data


def test_a_port_in_use_is_reported(server: LocalServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    port = server.base_url.removesuffix("/v1").rpartition(":")[2]

    assert run("--port", port, "--state", str(tmp_path)) == 2
    assert f"127.0.0.1:{port}" in capsys.readouterr().err


def test_speed_shortens_all_states(tmp_path: Path) -> None:
    slow = ("--validating", "6000", "--in-progress", "6000", "--finalizing", "6000")
    with serving(tmp_path, "--port", "0", *slow, "--speed", "100000") as process:
        port = re.search(r":(\d+)/v1", read_greeting(process))
        assert port is not None
        with OpenAI(base_url=f"http://127.0.0.1:{port[1]}/v1", api_key="x") as client:
            assert driving.run(client, driving.chats(3)).status == "completed"


@pytest.mark.parametrize(
    "arguments",
    [
        ("--validating", "-1"),
        ("--speed", "0"),
        ("--in-progress", "nan"),
        ("--finalizing", "x"),
        ("--concurrency", "0"),
    ],
)
def test_invalid_numbers_are_rejected(arguments: tuple[str, str]) -> None:
    with pytest.raises(SystemExit):
        run(*arguments)


def test_a_skill_that_the_model_does_not_have_cannot_be_forgotten(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        run("--forget", "gpt-5-nano:moves")
    assert "gpt-5-nano has dates, words" in capsys.readouterr().err


def test_the_greeting_states_a_planted_regression(tmp_path: Path) -> None:
    with serving(tmp_path, "--port", "0", "--forget", "gpt-5-mini:moves") as process:
        assert "A planted regression is on" in read_greeting(process)


def test_a_server_that_cannot_start_reports_why(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "files").write_text("in the way")

    with pytest.raises(ServerStartError, match="files"):
        LocalServer(tmp_path / "state").start()


def test_a_server_cannot_be_started_twice_and_has_a_pid_only_while_it_runs(server: LocalServer, tmp_path: Path) -> None:
    os.kill(server.pid, 0)
    with pytest.raises(RuntimeError, match="already running"):
        server.start()
    with pytest.raises(RuntimeError, match="not running"):
        _ = LocalServer(tmp_path).pid
