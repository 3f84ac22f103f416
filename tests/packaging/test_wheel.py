"""The wheel: its files, its metadata, and what works in an environment where only the wheel is installed."""

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
#: the dependencies without extras, which are all that a worker needs
REQUIRED = {
    "apache-airflow",
    "apache-airflow-providers-common-compat",
    "apache-airflow-providers-common-sql",
    "apache-airflow-providers-openai",
    "fsspec",
    "genai-prices",
    "httpx2",
    "jinja2",
    "jsonschema-rs",
    "msgspec",
    "openai",
    "pyyaml",
    "sqlglot",
    "tenacity",
}
#: Hides the packages that only an extra requires. Airflow installs most of them and imports some itself, so only the
#: imports in our own modules fail.
HIDE = f"""
import builtins
hidden = {{"fastapi", "starlette", "uvicorn", "python_multipart", "multipart", "psutil", "rich", "slugify"}}
real_import = builtins.__import__
def import_unless_hidden(name, globals=None, locals=None, fromlist=(), level=0):
    importer = (globals or {{}}).get("__name__") or ""
    package = name.partition(".")[0]
    if level == 0 and package in hidden and importer.partition(".")[0] == "{PACKAGE}":
        raise ModuleNotFoundError(f"No module named {{name!r}}", name=package)
    return real_import(name, globals, locals, fromlist, level)
builtins.__import__ = import_unless_hidden
"""
#: modules that need an extra; `testing` also needs pytest, which is in no extra
BEHIND_EXTRAS = ("demo", "lineage", "local", "testing")
#: The page of the plugin. It runs only in Airflow's API server, which has FastAPI installed.
PAGE = f"{PACKAGE}.plugins.routes"
#: The statistics of evals compute with numpy, which the extra `evals` installs. Only a comparison of runs imports them.
STATISTICS = f"{PACKAGE}.evals.permutation"
#: Imports every module that needs no extra. Prints the failed imports and the installed optional providers.
IMPORT_ALL = f"""
import importlib, json, pkgutil
from importlib.util import find_spec
import {PACKAGE}
failed, modules = {{}}, []
def walk(folder, prefix):
    for module in pkgutil.iter_modules([folder]):
        name = prefix + module.name
        if name in {[f"{PACKAGE}.{part}" for part in BEHIND_EXTRAS]}:
            continue
        modules.append(name)
        try:
            imported = importlib.import_module(name)
        except Exception as error:
            failed[name] = repr(error)
        else:
            if module.ispkg:
                walk(imported.__path__[0], name + ".")
walk({PACKAGE}.__path__[0], "{PACKAGE}.")
extras = [name for name in ("airflow.providers.postgres", "airflow.providers.sqlite", "psycopg", "psycopg2")
          if find_spec(name)]
print(json.dumps({{"path": {PACKAGE}.__file__, "modules": modules, "failed": failed, "extras": extras}}))
"""


@pytest.fixture(scope="session")
def files(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def checkout_files(folder: str) -> set[str]:
    """Return the files below a folder of the checkout that the wheel should contain."""
    paths = (ROOT / folder).rglob("*")
    return {str(path.relative_to(ROOT)) for path in paths if path.is_file() and "__pycache__" not in path.parts}


def test_the_wheel_contains_the_package_its_data_and_the_dags(files: set[str]) -> None:
    expected = checkout_files(PACKAGE)
    assert {
        f"{PACKAGE}/py.typed",
        f"{PACKAGE}/demo/tickets.jsonl",
        f"{PACKAGE}/example_dags/label_tickets.py",
        f"{PACKAGE}/example_dags/sql/tickets.sql",
        f"{PACKAGE}/plugins/ui/main.js",
    } <= expected
    assert {path for path in files if path.startswith(f"{PACKAGE}/")} == expected


def test_the_wheel_contains_nothing_else_except_metadata_and_licences(files: set[str]) -> None:
    other_files = {path for path in files if not path.startswith(f"{PACKAGE}/")}
    (info,) = {path.partition("/")[0] for path in other_files}
    assert info.endswith(".dist-info")
    assert {path.removeprefix(f"{info}/") for path in other_files} == {
        "METADATA",
        "RECORD",
        "WHEEL",
        "entry_points.txt",
        "licenses/LICENSE",
        f"licenses/{PACKAGE}/demo/eval_cases.LICENSE",
    }


def test_the_sdist_contains_everything_needed_to_build_and_test(dist: Path) -> None:
    (path,) = dist.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        files = {name.partition("/")[2] for name in archive.getnames()}
    assert {"LICENSE", "README.md", "CHANGELOG.md", "Makefile", "pyproject.toml", "constraints.txt"} <= files
    assert checkout_files(PACKAGE) <= files
    assert "tests/packaging/test_wheel.py" in files


def test_airflow_lists_the_provider(command: Command) -> None:
    providers = json.loads(command("airflow", "providers", "list", "--output", "json"))
    assert "airflow-provider-batch" in {provider["package_name"] for provider in providers}


def test_airflow_shows_the_modules_links_plugin_and_config_of_the_provider(command: Command) -> None:
    (provider,) = json.loads(
        command("airflow", "providers", "get", "airflow-provider-batch", "--full", "--output", "json")
    )
    modules = {"operators": ["batch", "evals"], "sensors": ["batch"], "hooks": ["batch"], "triggers": ["batch"]}
    for part, names in modules.items():
        python_modules = [name for entry in provider[part] for name in entry["python-modules"]]
        assert python_modules == [f"{PACKAGE}.{part}.{name}" for name in names]
    links = ("BatchJobLink", "ProviderBatchesLink", "EvalReportLink")
    assert provider["extra-links"] == [f"{PACKAGE}.links.batch.{link}" for link in links]
    assert [plugin["plugin-class"] for plugin in provider["plugins"]] == [f"{PACKAGE}.plugins.batch.BatchPlugin"]
    assert provider["config"] == get_provider_info()["config"]


def test_airflow_loads_the_link_and_the_plugin(command: Command) -> None:
    links = json.loads(command("airflow", "providers", "links", "--output", "json"))
    assert f"{PACKAGE}.links.batch.BatchJobLink" in {link["extra_link_class_name"] for link in links}
    plugins = json.loads(command("airflow", "plugins", "--output", "json"))
    (ours,) = [plugin for plugin in plugins if plugin["name"] == "batch"]
    assert [app["url_prefix"] for app in ours["fastapi_apps"]] == ["/batch"]


@pytest.mark.parametrize(
    ("option", "value"), [("poll_interval", "60"), ("row_retry_delay", "300"), ("allow_local_staging", "False")]
)
def test_airflow_reads_the_defaults_of_the_configuration(command: Command, option: str, value: str) -> None:
    assert command("airflow", "config", "get-value", "openai_batch", option).strip() == value


def test_the_wheel_requires_only_what_a_worker_needs(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        metadata = message_from_bytes(archive.read(name))
    requirements = [Requirement(line) for line in metadata.get_all("Requires-Dist", [])]

    without_extras = [
        requirement
        for requirement in requirements
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""})
    ]
    assert {canonicalize_name(requirement.name) for requirement in without_extras} == REQUIRED


def test_every_module_outside_the_extras_can_be_imported_without_optional_providers(
    command: Command, clean_environment: Path
) -> None:
    report = json.loads(command("python", "-c", IMPORT_ALL).splitlines()[-1])

    assert Path(report["path"]).is_relative_to(clean_environment)
    assert report["extras"] == []
    assert list(report["failed"]) == [STATISTICS]
    assert "'numpy'" in report["failed"][STATISTICS]
    imported_names = {name.split(".")[1] for name in report["modules"]}
    assert imported_names == {child.stem for child in (ROOT / PACKAGE).iterdir() if child.name != "py.typed"} - {
        *BEHIND_EXTRAS,
        "__init__",
        "__pycache__",
    }
    assert PAGE in report["modules"]


def test_only_the_page_and_the_statistics_import_a_package_of_an_extra(command: Command) -> None:
    report = json.loads(command("python", "-c", HIDE + IMPORT_ALL).splitlines()[-1])

    assert PAGE in report["failed"]
    assert "'numpy'" in report["failed"].pop(STATISTICS)
    for module, error in report["failed"].items():
        assert module.startswith(f"{PACKAGE}.plugins.")
        assert "'fastapi'" in error
    assert f"{PACKAGE}.plugins.batch" not in report["failed"]  # Airflow imports it in every process


def test_jobs_list_works_without_any_extra(command: Command, tmp_path: Path) -> None:
    listing = ["jobs", "list", "--staging", tmp_path.as_uri()]
    run = f"from {PACKAGE}.cli.main import main; raise SystemExit(main({listing}))"

    assert command("python", "-c", HIDE + run).splitlines()[-1] == f"No jobs in {tmp_path.as_uri()}."


@pytest.mark.parametrize("arguments", [(), ("jobs",), ("serve",)])
def test_the_command_line_prints_its_usage(command: Command, arguments: tuple[str, ...]) -> None:
    usage = command("airflow-batch", *arguments, "--help")
    assert usage.startswith(f"usage: airflow-batch {' '.join(arguments)}".strip())


def test_the_demo_names_the_extra_that_it_needs(clean_environment: Path) -> None:
    code, error = run_failing(str(clean_environment / "bin" / "airflow-batch"), "demo")

    assert code == 1
    assert error == (
        "`airflow-batch demo` needs the package apache-airflow-providers-sqlite, which is not installed."
        " Install the extra `demo`: pip install 'airflow-provider-batch[demo]'\n"
    )


@pytest.mark.parametrize(("name", "extra", "package"), [("serve", "local", "uvicorn"), ("demo", "demo", "rich")])
def test_a_command_names_the_extra_that_installs_a_missing_package(
    clean_environment: Path, name: str, extra: str, package: str
) -> None:
    run = f"from {PACKAGE}.cli.main import main; raise SystemExit(main([{name!r}]))"

    code, error = run_failing(str(clean_environment / "bin" / "python"), "-c", HIDE + run)

    assert code == 1
    assert error == (
        f"`airflow-batch {name}` needs the package {package}, which is not installed."
        f" Install the extra `{extra}`: pip install 'airflow-provider-batch[{extra}]'\n"
    )


def test_the_example_dags_can_be_loaded_from_the_installed_package(command: Command, clean_environment: Path) -> None:
    load_dag = (
        "import runpy; from airflow_provider_batch.demo.home import dags_folder;"
        "path = dags_folder() / 'label_tickets.py'; print(path, runpy.run_path(str(path))['dag'].task_ids)"
    )
    path, _, tasks = command("python", "-c", load_dag).splitlines()[-1].partition(" ")
    assert Path(path).is_relative_to(clean_environment)
    assert tasks == "['submit', 'wait', 'land']"


def test_an_unknown_command_fails_with_a_list_of_the_commands(clean_environment: Path) -> None:
    code, error = run_failing(str(clean_environment / "bin" / "airflow-batch"), "sreve")
    assert code == 2
    assert "serve" in error


def run_failing(*command: str) -> tuple[int, str]:
    """Run a command that should fail. Return its exit code and its standard error."""
    completed = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    return completed.returncode, completed.stderr
