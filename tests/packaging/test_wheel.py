"""What somebody gets who installs the wheel, and nothing else."""

from __future__ import annotations

import json
import subprocess
import tarfile
import zipfile
from pathlib import Path

import pytest

from airflow_provider_batch.get_provider_info import get_provider_info
from tests.packaging.conftest import ROOT, Command

pytestmark = pytest.mark.packaging

PACKAGE = "airflow_provider_batch"
#: imports every module and prints what went wrong, and which optional providers are there
IMPORT_ALL = f"""
import importlib, json, pkgutil
from importlib.util import find_spec
import {PACKAGE}
failed, seen = {{}}, []
for module in pkgutil.walk_packages({PACKAGE}.__path__, "{PACKAGE}."):
    if module.name.startswith("{PACKAGE}.dags"):
        continue
    seen.append(module.name)
    try:
        importlib.import_module(module.name)
    except Exception as error:
        failed[module.name] = repr(error)
extras = [name for name in ("airflow.providers.postgres", "airflow.providers.sqlite", "psycopg", "psycopg2")
          if find_spec(name)]
print(json.dumps({{"place": {PACKAGE}.__file__, "seen": seen, "failed": failed, "extras": extras}}))
"""


@pytest.fixture(scope="session")
def files(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def of_the_checkout(folder: str) -> set[str]:
    """Files below a folder of the checkout that a wheel should hold."""
    paths = (ROOT / folder).rglob("*")
    return {str(path.relative_to(ROOT)) for path in paths if path.is_file() and "__pycache__" not in path.parts}


def test_the_wheel_holds_the_package_with_its_data_and_the_dags(files: set[str]) -> None:
    expected = of_the_checkout(PACKAGE) | {f"{PACKAGE}/{path}" for path in of_the_checkout("dags")}
    assert {
        f"{PACKAGE}/py.typed",
        f"{PACKAGE}/demo/tickets.jsonl",
        f"{PACKAGE}/dags/label_tickets.py",
        f"{PACKAGE}/dags/sql/tickets.sql",
    } <= expected
    assert {path for path in files if path.startswith(f"{PACKAGE}/")} == expected


def test_the_wheel_holds_nothing_else_but_its_description_and_the_licence(files: set[str]) -> None:
    others = {path for path in files if not path.startswith(f"{PACKAGE}/")}
    (info,) = {path.partition("/")[0] for path in others}
    assert info.endswith(".dist-info")
    assert {path.removeprefix(f"{info}/") for path in others} == {
        "METADATA",
        "RECORD",
        "WHEEL",
        "entry_points.txt",
        "licenses/LICENSE",
        f"licenses/{PACKAGE}/demo/eval_cases.LICENSE",
    }


def test_the_sdist_holds_what_is_needed_to_build_and_test(dist: Path) -> None:
    (path,) = dist.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        files = {name.partition("/")[2] for name in archive.getnames()}
    assert {"LICENSE", "README.md", "CHANGELOG.md", "Makefile", "pyproject.toml", "constraints.txt"} <= files
    assert of_the_checkout("dags") <= files
    assert "tests/packaging/test_wheel.py" in files


def test_airflow_lists_the_provider(command: Command) -> None:
    providers = json.loads(command("airflow", "providers", "list", "--output", "json"))
    assert "airflow-provider-batch" in {provider["package_name"] for provider in providers}


def test_airflow_shows_all_that_the_provider_brings(command: Command) -> None:
    (shown,) = json.loads(
        command("airflow", "providers", "get", "airflow-provider-batch", "--full", "--output", "json")
    )
    modules = {"operators": ["batch", "evals"], "sensors": ["batch"], "hooks": ["batch"], "triggers": ["batch"]}
    for part, names in modules.items():
        told = [name for entry in shown[part] for name in entry["python-modules"]]
        assert told == [f"{PACKAGE}.{part}.{name}" for name in names]
    assert shown["extra-links"] == [f"{PACKAGE}.links.batch.BatchJobLink", f"{PACKAGE}.links.batch.EvalReportLink"]
    assert [plugin["plugin-class"] for plugin in shown["plugins"]] == [f"{PACKAGE}.plugins.batch.BatchPlugin"]
    assert shown["config"] == get_provider_info()["config"]


def test_airflow_loads_the_link_and_the_plugin(command: Command) -> None:
    links = json.loads(command("airflow", "providers", "links", "--output", "json"))
    assert f"{PACKAGE}.links.batch.BatchJobLink" in {link["extra_link_class_name"] for link in links}
    plugins = json.loads(command("airflow", "plugins", "--output", "json"))
    (ours,) = [plugin for plugin in plugins if plugin["name"] == "batch"]
    assert [app["url_prefix"] for app in ours["fastapi_apps"]] == ["/batch"]


@pytest.mark.parametrize(
    ("option", "value"), [("poll_interval", "60"), ("ask_again_after", "300"), ("allow_local_staging", "False")]
)
def test_airflow_knows_the_defaults_of_the_configuration(command: Command, option: str, value: str) -> None:
    assert command("airflow", "config", "get-value", "batch", option).strip() == value


def test_every_module_imports_without_optional_extras(command: Command, clean: Path) -> None:
    found = json.loads(command("python", "-c", IMPORT_ALL).splitlines()[-1])
    assert Path(found["place"]).is_relative_to(clean)
    assert found["extras"] == []
    assert len(found["seen"]) > 50
    assert found["failed"] == {}


@pytest.mark.parametrize("arguments", [(), ("demo",), ("serve",)])
def test_the_command_line_explains_itself(command: Command, arguments: tuple[str, ...]) -> None:
    told = command("airflow-batch", *arguments, "--help")
    assert told.startswith(f"usage: airflow-batch {' '.join(arguments)}".strip())


def test_the_ready_dags_are_found_in_the_installed_package_and_can_be_read(command: Command, clean: Path) -> None:
    read = (
        "import runpy; from airflow_provider_batch.demo.home import dags_folder;"
        "path = dags_folder() / 'label_tickets.py'; print(path, runpy.run_path(str(path))['dag'].task_ids)"
    )
    path, _, tasks = command("python", "-c", read).splitlines()[-1].partition(" ")
    assert Path(path).is_relative_to(clean)
    assert tasks == "['submit', 'wait', 'land']"


def test_an_unknown_command_says_which_there_are(clean: Path) -> None:
    done = subprocess.run(
        [str(clean / "bin" / "airflow-batch"), "sreve"], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 2
    assert "serve" in done.stderr
