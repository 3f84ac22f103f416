"""What somebody gets who installs the wheel, and nothing else."""

from __future__ import annotations

import json
import subprocess
import tarfile
import zipfile
from email import message_from_bytes
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from airflow_provider_batch.get_provider_info import get_provider_info
from tests.packaging.conftest import ROOT, Command

pytestmark = pytest.mark.packaging

PACKAGE = "airflow_provider_batch"
#: what a worker has to install, and no more; the extras bring everything else
REQUIRED = {
    "apache-airflow",
    "apache-airflow-providers-common-compat",
    "apache-airflow-providers-common-sql",
    "apache-airflow-providers-openai",
    "fsspec",
    "genai-prices",
    "jinja2",
    "jsonschema-rs",
    "msgspec",
    "openai",
    "pyyaml",
    "tenacity",
}
#: Hides the packages that only an extra requires. Airflow happens to bring most of them and imports some for itself, so
#: only the imports in modules of our own fail.
HIDE = f"""
import builtins
hidden = {{"fastapi", "starlette", "httpx2", "uvicorn", "python_multipart", "multipart", "psutil", "rich", "slugify"}}
real_import = builtins.__import__
def refuse(name, globals=None, locals=None, fromlist=(), level=0):
    importer = (globals or {{}}).get("__name__") or ""
    package = name.partition(".")[0]
    if level == 0 and package in hidden and importer.partition(".")[0] == "{PACKAGE}":
        raise ModuleNotFoundError(f"No module named {{name!r}}", name=package)
    return real_import(name, globals, locals, fromlist, level)
builtins.__import__ = refuse
"""
#: what only an extra makes importable; `testing` needs pytest too, which no extra brings
BEHIND_EXTRAS = ("dags", "demo", "local", "testing")
#: The page of the plugin runs in Airflow's API server, which brings FastAPI. No other process imports it.
PAGE = f"{PACKAGE}.plugins.routes"
#: imports every module that needs no extra and prints what went wrong, and which optional providers are there
IMPORT_ALL = f"""
import importlib, json, pkgutil
from importlib.util import find_spec
import {PACKAGE}
failed, seen = {{}}, []
def walk(folder, prefix):
    for module in pkgutil.iter_modules([folder]):
        name = prefix + module.name
        if name in {[f"{PACKAGE}.{part}" for part in BEHIND_EXTRAS]}:
            continue
        seen.append(name)
        try:
            loaded = importlib.import_module(name)
        except Exception as error:
            failed[name] = repr(error)
        else:
            if module.ispkg:
                walk(loaded.__path__[0], name + ".")
walk({PACKAGE}.__path__[0], "{PACKAGE}.")
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
    ("option", "value"), [("poll_interval", "60"), ("row_retry_delay", "300"), ("allow_local_staging", "False")]
)
def test_airflow_knows_the_defaults_of_the_configuration(command: Command, option: str, value: str) -> None:
    assert command("airflow", "config", "get-value", "openai_batch", option).strip() == value


def test_the_wheel_requires_what_a_worker_needs_and_leaves_the_rest_to_extras(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        metadata = message_from_bytes(archive.read(name))
    requirements = [Requirement(line) for line in metadata.get_all("Requires-Dist", [])]

    without_extras = [each for each in requirements if each.marker is None or each.marker.evaluate({"extra": ""})]
    assert {canonicalize_name(each.name) for each in without_extras} == REQUIRED


def test_every_module_that_needs_no_extra_imports_without_optional_providers(command: Command, clean: Path) -> None:
    report = json.loads(command("python", "-c", IMPORT_ALL).splitlines()[-1])

    assert Path(report["place"]).is_relative_to(clean)
    assert report["extras"] == []
    assert report["failed"] == {}
    rooms = {name.split(".")[1] for name in report["seen"]}
    assert rooms == {child.stem for child in (ROOT / PACKAGE).iterdir() if child.name != "py.typed"} - {
        *BEHIND_EXTRAS,
        "__init__",
        "__pycache__",
    }
    assert PAGE in report["seen"]


def test_no_module_but_the_page_imports_a_package_of_an_extra(command: Command) -> None:
    report = json.loads(command("python", "-c", HIDE + IMPORT_ALL).splitlines()[-1])

    assert set(report["failed"]) == {PAGE}
    assert "'fastapi'" in report["failed"][PAGE]


def test_the_command_line_shows_jobs_without_an_extra(command: Command, tmp_path: Path) -> None:
    show = ["jobs", "show", "--staging", tmp_path.as_uri()]
    run = f"from {PACKAGE}.cli.main import main; raise SystemExit(main({show}))"

    assert command("python", "-c", HIDE + run).splitlines()[-1] == f"No jobs in {tmp_path.as_uri()}."


@pytest.mark.parametrize("arguments", [(), ("jobs",), ("serve",)])
def test_the_command_line_explains_itself(command: Command, arguments: tuple[str, ...]) -> None:
    told = command("airflow-batch", *arguments, "--help")
    assert told.startswith(f"usage: airflow-batch {' '.join(arguments)}".strip())


def test_the_demo_says_which_extra_it_needs(clean: Path) -> None:
    code, error = fail(str(clean / "bin" / "airflow-batch"), "demo")

    assert code == 1
    assert error == (
        "`airflow-batch demo` needs the package apache-airflow-providers-sqlite, which is not installed."
        " Install the extra `demo`: pip install 'airflow-provider-batch[demo]'\n"
    )


@pytest.mark.parametrize(("name", "extra", "package"), [("serve", "local", "uvicorn"), ("demo", "demo", "rich")])
def test_a_command_says_which_extra_brings_a_missing_package(clean: Path, name: str, extra: str, package: str) -> None:
    run = f"from {PACKAGE}.cli.main import main; raise SystemExit(main([{name!r}]))"

    code, error = fail(str(clean / "bin" / "python"), "-c", HIDE + run)

    assert code == 1
    assert error == (
        f"`airflow-batch {name}` needs the package {package}, which is not installed."
        f" Install the extra `{extra}`: pip install 'airflow-provider-batch[{extra}]'\n"
    )


def test_the_ready_dags_are_found_in_the_installed_package_and_can_be_read(command: Command, clean: Path) -> None:
    read = (
        "import runpy; from airflow_provider_batch.demo.home import dags_folder;"
        "path = dags_folder() / 'label_tickets.py'; print(path, runpy.run_path(str(path))['dag'].task_ids)"
    )
    path, _, tasks = command("python", "-c", read).splitlines()[-1].partition(" ")
    assert Path(path).is_relative_to(clean)
    assert tasks == "['submit', 'wait', 'land']"


def test_an_unknown_command_says_which_there_are(clean: Path) -> None:
    code, error = fail(str(clean / "bin" / "airflow-batch"), "sreve")
    assert code == 2
    assert "serve" in error


def fail(*command: str) -> tuple[int, str]:
    """Run a command that should fail; its exit code, and what it writes to standard error."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    return done.returncode, done.stderr
