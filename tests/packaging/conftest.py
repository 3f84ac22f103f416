"""The built distributions, and a clean environment with the wheel installed, isolated from the checkout."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

#: runs a command of the clean environment, as in `command("airflow", "version")`, and returns its standard output
Command = Callable[..., str]


@pytest.fixture(scope="session")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with the sdist and the wheel. The wheel is built from the unpacked sdist."""
    folder = tmp_path_factory.mktemp("dist")
    run([sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(ROOT)])
    return folder


@pytest.fixture(scope="session")
def wheel(dist: Path) -> Path:
    (path,) = dist.glob("*.whl")
    return path


@pytest.fixture(scope="session")
def clean_environment(tmp_path_factory: pytest.TempPathFactory, wheel: Path) -> Path:
    """Virtual environment with the wheel and its pinned dependencies, without any extra."""
    home = tmp_path_factory.mktemp("clean")
    environment = home / "venv"
    # The pip that runs these tests installs into it, so the environment needs no pip of its own.
    run([sys.executable, "-m", "venv", "--without-pip", str(environment)])
    pip = [sys.executable, "-m", "pip", "--python", str(environment / "bin" / "python"), "--disable-pip-version-check"]
    constraints = ROOT / "constraints.txt"
    run([*pip, "install", "--quiet", "--no-compile", "--constraint", str(constraints), str(wheel)], cwd=home)
    run([*pip, "check"], cwd=home)
    return environment


@pytest.fixture(scope="session")
def command(clean_environment: Path) -> Command:
    """Function that runs a command of the clean environment: `command("airflow", "version")` returns its output."""

    def run_command(name: str, *arguments: str) -> str:
        return run([str(clean_environment / "bin" / name), *arguments], cwd=clean_environment.parent)

    return run_command


def run(command: list[str], *, cwd: Path | None = None) -> str:
    """Return the standard output of a command, which must succeed.

    It gets no variables that are set for another Airflow or Python.
    """
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("AIRFLOW", "PYTHON"))}
    if cwd is not None:
        environment["AIRFLOW_HOME"] = str(cwd / "airflow")
    completed = subprocess.run(
        command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=500, check=False
    )
    assert completed.returncode == 0, f"{' '.join(command)}\n{completed.stdout}\n{completed.stderr}"
    return completed.stdout
