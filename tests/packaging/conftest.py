"""The built distributions, and the wheel in an environment where nothing else of the checkout can be found."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

#: runs a command of the clean environment, such as `airflow("providers", "list")`, and returns its standard output
Command = Callable[..., str]


@pytest.fixture(scope="session")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the sdist and the wheel; the wheel is built from the unpacked sdist."""
    folder = tmp_path_factory.mktemp("dist")
    run([sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(ROOT)])
    return folder


@pytest.fixture(scope="session")
def wheel(dist: Path) -> Path:
    (path,) = dist.glob("*.whl")
    return path


@pytest.fixture(scope="session")
def clean(tmp_path_factory: pytest.TempPathFactory, wheel: Path) -> Path:
    """A virtual environment with the wheel and what it needs, pinned, without any extra."""
    home = tmp_path_factory.mktemp("clean")
    environment = home / "venv"
    # The pip at hand installs into it: one less thing to fetch, and to compile.
    run([sys.executable, "-m", "venv", "--without-pip", str(environment)])
    pip = [sys.executable, "-m", "pip", "--python", str(environment / "bin" / "python"), "--disable-pip-version-check"]
    constraints = ROOT / "constraints.txt"
    run([*pip, "install", "--quiet", "--no-compile", "--constraint", str(constraints), str(wheel)], cwd=home)
    run([*pip, "check"], cwd=home)
    return environment


@pytest.fixture(scope="session")
def command(clean: Path) -> Command:
    """Runs a command of the clean environment: `command("airflow", "version")` is what it prints."""

    def start(name: str, *arguments: str) -> str:
        return run([str(clean / "bin" / name), *arguments], cwd=clean.parent)

    return start


def run(command: list[str], *, cwd: Path | None = None) -> str:
    """Standard output of a command that succeeds; nothing set for another Airflow or Python reaches it."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("AIRFLOW", "PYTHON"))}
    if cwd is not None:
        environment["AIRFLOW_HOME"] = str(cwd / "airflow")
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=500, check=False)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}\n{done.stderr}"
    return done.stdout
