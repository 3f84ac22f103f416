"""`airflow-batch demo`, run as a user runs it."""

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
    """Run the command in an environment with only PATH, HOME and the given variables."""
    return subprocess.run(
        [sys.executable, "-m", "airflow_provider_batch.cli", "demo", *arguments],
        cwd=cwd,
        env={"PATH": os.environ["PATH"], "HOME": str(cwd), **environment},
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )


def test_the_demo_can_be_repeated_and_prints_all_results(tmp_path: Path) -> None:
    for _ in range(2):
        result = demo(cwd=tmp_path)
        assert result.returncode == 0, result.stdout + result.stderr
        for expected in (
            r"submit succeeded",
            r"canary: 5 requests sent synchronously; the estimate is now \$0\.\d+ to \$0\.\d+",
            r"wait is deferred",
            r"in_progress, \d+ of 337 requests done",
            r"batch …\S+ completed, 1 of 1 requests done",
            r"land succeeded",
            r"342 answers landed",
            r"succeeded +│ +339",
            r"refused +│ +1 ",
            r"incomplete +│ +1 ",
            r"failed +│ +1 ",
            r"saved +│ +\$0\.0\d+ +\(49%\)",
            r"Nothing was billed",
            r"│ feature_request +│ +48",
            r"Ten rows of ticket_labels",
            r"warehouse\.sqlite",
        ):
            assert re.search(expected, result.stdout), f"{expected}\n{result.stdout}"
        assert result.stderr == ""
    assert sorted(path.name for path in tmp_path.iterdir()) == [".demo"]


def test_the_live_demo_uses_the_key_and_does_not_store_it(tmp_path: Path) -> None:
    with LocalServer(tmp_path / "api", api_key=KEY) as api:
        (tmp_path / "cwd").mkdir()
        result = demo("--live", cwd=tmp_path / "cwd", OPENAI_API_KEY=KEY, OPENAI_BASE_URL=api.base_url)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "338 answers landed" in result.stdout
    assert "designed to fail" not in result.stdout.lower()
    assert KEY not in result.stdout + result.stderr
    files = [path for path in (tmp_path / "cwd").rglob("*") if path.is_file()]
    assert files
    assert [path for path in files if KEY.encode() in path.read_bytes()] == []


def test_the_live_demo_without_a_key_names_the_missing_variable(tmp_path: Path) -> None:
    result = demo("--live", cwd=tmp_path)
    assert result.returncode == 1
    assert "Set OPENAI_API_KEY" in result.stdout
    assert list(tmp_path.iterdir()) == []


def test_a_failed_run_prints_its_log_and_exits_with_1(tmp_path: Path) -> None:
    with LocalServer(tmp_path / "api", api_key="another key") as api:
        result = demo("--live", "--home", "home", cwd=tmp_path, OPENAI_API_KEY=KEY, OPENAI_BASE_URL=api.base_url)
    assert result.returncode == 1
    assert "did not succeed" in result.stdout
    assert str(tmp_path / "home" / "airflow.log") in result.stdout.replace("\n", "")
    assert KEY not in result.stdout + result.stderr


def test_the_help_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_info:
        main.main(["--help"])
    assert exit_info.value.code == 0
    assert set(main.COMMANDS) <= set(capsys.readouterr().out.split())


@pytest.mark.parametrize("command", main.COMMANDS)
def test_every_command_has_a_help_text(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_info:
        main.main([command, "--help"])
    assert exit_info.value.code == 0
    assert f"airflow-batch {command}" in capsys.readouterr().out


@pytest.mark.parametrize("arguments", [[], ["nonsense"]])
def test_an_unknown_command_exits_with_2(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as exit_info:
        main.main(arguments)
    assert exit_info.value.code == 2
