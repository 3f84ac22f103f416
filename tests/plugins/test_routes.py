"""What Airflow's own API app makes of the plugin."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from airflow.api_fastapi.app import create_app, get_auth_manager
from airflow.api_fastapi.auth.managers.simple.user import SimpleAuthManagerUser
from fastapi.routing import APIRoute
from fastapi.testclient import TestClient

from airflow_provider_batch.plugins.app import app


@pytest.fixture(scope="module")
def airflow(airflow_home: Path) -> Iterator[TestClient]:
    """Airflow's own API app, with the plugin that Airflow discovered through the entry point."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS", "False")
        yield TestClient(create_app("core"))


def login(role: str | None) -> dict[str, str]:
    token = get_auth_manager().generate_jwt(SimpleAuthManagerUser(username="somebody", role=role))
    return {"Cookie": f"_token={token}"}


def test_every_route_of_the_plugin_requires_a_login(airflow: TestClient) -> None:
    for route in app.routes:
        assert isinstance(route, APIRoute)
        if route.path == "/ui/{name}":
            continue  # the files of the page, which contain no data
        path = route.path.format(dag_id="d", task_id="t", map_index="-1", name="cancel")
        for method in route.methods:
            assert airflow.request(method, f"/batch{path}", params={"run_id": "r"}).status_code == 401, path
    for path in ("/docs", "/openapi.json", "/redoc"):
        assert airflow.get(f"/batch{path}").status_code == 404


def test_airflow_shows_the_page_in_the_left_bar_and_as_a_tab_of_a_run(airflow: TestClient) -> None:
    plugins = airflow.get("/api/v2/plugins", params={"limit": 100}, headers=login("admin")).json()["plugins"]
    (plugin,) = [plugin for plugin in plugins if plugin["name"] == "batch"]
    assert plugin["external_views"] == []
    assert {(page["destination"], page["url_route"]) for page in plugin["react_apps"]} >= {
        ("nav", "llm-batch"),
        ("dag_run", "llm-batch-run"),
    }
    for page in plugin["react_apps"]:
        # Airflow before 3.4 ignores `applies_to`, and would show the tab on every task of every DAG.
        assert page["destination"] != "task_instance" or "applies_to" in page
        assert airflow.get(page["bundle_url"]).headers["Content-Type"].startswith("application/javascript")


def test_loading_the_plugin_does_not_import_the_api_server() -> None:
    code = (
        "import sys, airflow_provider_batch.plugins.batch; "
        "print([name for name in ('fastapi', 'airflow.api_fastapi') if name in sys.modules])"
    )
    completed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert completed.stdout.splitlines()[-1] == "[]"
