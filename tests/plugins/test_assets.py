"""The files of the page, in the app of the plugin."""

from __future__ import annotations

import re
from importlib import resources

import pytest
from fastapi.testclient import TestClient

from airflow_provider_batch.plugins.app import app

FOLDER = resources.files("airflow_provider_batch.plugins").joinpath("ui")
MODULES = sorted(file.name for file in FOLDER.iterdir() if file.name.endswith(".js"))


@pytest.fixture(scope="module")
def client() -> TestClient:
    return TestClient(app)


@pytest.mark.parametrize("name", MODULES)
def test_a_module_and_everything_that_it_imports_is_served_as_javascript(client: TestClient, name: str) -> None:
    response = client.get(f"/ui/{name}")
    assert response.headers["Content-Type"] == "application/javascript"
    assert response.content == FOLDER.joinpath(name).read_bytes()
    assert set(re.findall(r'from "\./([^"]+)"', response.text)) <= set(MODULES)


def test_a_browser_that_has_the_newest_file_gets_it_only_once(client: TestClient) -> None:
    response = client.get("/ui/main.js")
    assert response.headers["Cache-Control"] == "no-cache"
    again = client.get("/ui/main.js", headers={"If-None-Match": response.headers["ETag"]})
    assert (again.status_code, again.content) == (304, b"")


@pytest.mark.parametrize("name", ["..%2Fapp.py", "__init__.py", "missing.js", "..%2F..%2Fexceptions.py"])
def test_nothing_else_is_served(client: TestClient, name: str) -> None:
    assert client.get(f"/ui/{name}").status_code == 404


@pytest.mark.parametrize("name", MODULES)
def test_the_page_renders_text_only_and_loads_nothing_from_elsewhere(name: str) -> None:
    source = FOLDER.joinpath(name).read_text("utf-8")
    assert not re.search("dangerouslySetInnerHTML|innerHTML|insertAdjacentHTML|document\\.write|eval\\(", source)
    assert set(re.findall(r"https?://[^\s\"`]+", source)) <= {"https://platform.openai.com/batches"}
