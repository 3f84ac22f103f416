"""`airflow-batch demo` as a person runs it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from airflow_provider_batch.cli import main
from airflow_provider_batch.local.process import LocalServer

KEY = "sk-not-a-real-key-0123456789"


def demo(*arguments: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run it in an environment without anything but a path and a home."""
    return subprocess.run(
        [sys.executable, "-m", "airflow_provider_batch.cli", "demo", *arguments],
        cwd=cwd,
        env={"PATH": os.environ["PATH"], "HOME": str(cwd), **environment},
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )


def test_it_runs_again_and_again_and_shows_everything(tmp_path: Path) -> None:
    for _ in range(2):
        done = demo(cwd=tmp_path)
        assert done.returncode == 0, done.stdout + done.stderr
        for expected in (
            r"submit succeeded",
            r"canary: 2 requests asked at once, the estimate is now \$0\.\d+ to \$0\.\d+",
            r"wait deferred",
            r"in_progress, \d+ of 340 requests done",
            r"batch …\S+ completed, 1 of 1 requests done",
            r"land succeeded",
            r"342 answers landed",
            r"succeeded +│ +339",
            r"refused +│ +1 ",
            r"incomplete +│ +1 ",
            r"failed +│ +1 ",
            r"saved +│ +\$0\.0\d+ +\(50%\)",
            r"Nothing was billed",
            r"│ feature_request +│ +48",
            r"Ten of the rows",
            r"warehouse\.sqlite",
        ):
            assert re.search(expected, done.stdout), f"{expected}\n{done.stdout}"
        assert done.stderr == ""
    assert sorted(path.name for path in tmp_path.iterdir()) == [".demo"]


def test_live_asks_the_api_with_the_key_and_leaves_the_key_nowhere(tmp_path: Path) -> None:
    with LocalServer(tmp_path / "api", api_key=KEY) as api:
        (tmp_path / "cwd").mkdir()
        done = demo("--live", cwd=tmp_path / "cwd", OPENAI_API_KEY=KEY, OPENAI_BASE_URL=api.base_url)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "338 answers landed" in done.stdout
    assert "planted" not in done.stdout.lower()
    assert KEY not in done.stdout + done.stderr
    kept = [path for path in (tmp_path / "cwd").rglob("*") if path.is_file()]
    assert kept
    assert [path for path in kept if KEY.encode() in path.read_bytes()] == []


def test_live_without_a_key_says_what_to_set(tmp_path: Path) -> None:
    done = demo("--live", cwd=tmp_path)
    assert done.returncode == 1
    assert "Set OPENAI_API_KEY" in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_a_run_that_fails_ends_with_its_log_and_an_exit_code(tmp_path: Path) -> None:
    with LocalServer(tmp_path / "api", api_key="another key") as api:
        done = demo("--live", "--home", "home", cwd=tmp_path, OPENAI_API_KEY=KEY, OPENAI_BASE_URL=api.base_url)
    assert done.returncode == 1
    assert "did not succeed" in done.stdout
    assert str(tmp_path / "home" / "airflow.log") in done.stdout.replace("\n", "")
    assert KEY not in done.stdout + done.stderr


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main.main(["--help"])
    assert ended.value.code == 0
    assert set(main.COMMANDS) <= set(capsys.readouterr().out.split())


@pytest.mark.parametrize("command", main.COMMANDS)
def test_every_command_explains_itself(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main.main([command, "--help"])
    assert ended.value.code == 0
    assert f"airflow-batch {command}" in capsys.readouterr().out


@pytest.mark.parametrize("given", [[], ["nonsense"]])
def test_a_wrong_command_exits_with_2(given: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main.main(given)
    assert ended.value.code == 2
