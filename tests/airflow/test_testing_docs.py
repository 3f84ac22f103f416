"""Run the code of docs/how-to/testing.md as a separate project."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from airflow_provider_batch import testing

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "how-to" / "testing.md").read_text(encoding="utf-8")
INSTALL, COMMANDS = re.findall(r"^```console\n(.*?)^```$", PAGE, flags=re.DOTALL | re.MULTILINE)
DAG, CONFTEST, TEST, OVERRIDE, FAILURE = re.findall(r"^```python\n(.*?)^```$", PAGE, flags=re.DOTALL | re.MULTILINE)


@pytest.fixture
def project(tmp_path: Path, airflow_home: Path) -> Path:
    """Write the files of the page, with a metadata database that is already migrated, which saves time."""
    files = {
        "dags/label_reviews.py": DAG,
        "tests/conftest.py": CONFTEST,
        "tests/test_label_reviews.py": TEST,
        "tests/test_failures.py": FAILURE,
    }
    for name, text in files.items():
        assert f"`{name}`" in PAGE
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
    (tmp_path / ".airflow").mkdir()
    shutil.copy(airflow_home / "airflow.db", tmp_path / ".airflow")
    return tmp_path


def run_commands(project: Path) -> str:
    """Run the commands of the page, and return their output."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("AIRFLOW", "PYTEST"))}
    environment |= {
        "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTEST_ADDOPTS": "-p tests.airflow.in_process_api",
        "PYTHONPATH": str(ROOT),
    }
    process = subprocess.run(
        ["bash", "-ec", COMMANDS],
        cwd=project,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    return process.stdout + process.stderr


def test_the_example_passes_unchanged(project: Path) -> None:
    assert "2 passed" in run_commands(project)


def test_an_overridden_fixture_changes_the_options_of_the_server(project: Path) -> None:
    options = OVERRIDE.replace("gpt-5-mini", "gpt-5-nano")
    assert options != OVERRIDE
    (project / "tests" / "conftest.py").write_text(CONFTEST + options, encoding="utf-8")
    (project / "tests" / "test_failures.py").unlink()

    output = run_commands(project)

    assert "1 failed" in output
    assert "The provided model 'gpt-5-mini' is not supported by the Batch API." in output


def test_the_page_installs_only_extras_that_exist() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    (extras,) = re.findall(rf"{project['name']}\[([\w,]+)\]", INSTALL)
    assert set(extras.split(",")) <= set(project["optional-dependencies"])


def test_the_page_describes_every_fixture() -> None:
    documented_fixtures = set(re.findall(r"^\| `(\w+)` \| (?:test|session) \|", PAGE, flags=re.MULTILINE))
    fixtures = {name for name in testing.__all__ if name.islower()}
    assert documented_fixtures == fixtures
