"""A headless Chromium that is logged in to a full Airflow with the example DAGs.

The tests are skipped if Chromium or its driver is missing (`make browser` installs the driver). If BATCH_SCREENSHOTS is
set, a screenshot of each step is saved in that folder.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.airflow.demo_airflow import DemoAirflow, demo_airflow

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Locator, Page

#: names of the executable on various systems; BATCH_CHROMIUM names another one
CHROMIUM = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
#: how long a step on a page may take on a busy machine, in milliseconds
TIMEOUT_MS = 60_000


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Headless Chromium. Skips the test if Chromium is not installed."""
    path = os.environ.get("BATCH_CHROMIUM") or next(filter(None, map(shutil.which, CHROMIUM)), None)
    if path is None:
        pytest.skip(f"Found no Chromium: none of {', '.join(CHROMIUM)} is on the PATH, and BATCH_CHROMIUM is not set.")
    playwright = pytest.importorskip(
        "playwright.sync_api", reason="Chromium has no driver. `make browser` installs playwright and runs these tests."
    )
    with playwright.sync_playwright() as driver:
        # Chromium's sandbox does not work in containers or for root. These tests only open pages on this machine.
        yield driver.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu"])


@pytest.fixture(scope="module")
def demo(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[DemoAirflow]:
    """A running Airflow. It depends on `browser`, so it does not start if the tests are skipped."""
    with demo_airflow(tmp_path_factory.mktemp("browser"), "batch_on_demand") as demo:
        yield demo


@pytest.fixture
def ui(browser: Browser, demo: DemoAirflow, request: pytest.FixtureRequest) -> Iterator[Ui]:
    """Airflow's UI, logged in as `admin`."""
    with browser.new_context(viewport={"width": 1300, "height": 1100}) as context:
        context.set_default_timeout(TIMEOUT_MS)
        page = context.new_page()
        ui = Ui(page, demo, request.node.name)
        ui.log_in()
        yield ui


class Ui:
    """What a person does in Airflow's UI."""

    def __init__(self, page: Page, demo: DemoAirflow, name: str) -> None:
        self.page = page
        self.demo = demo
        self._name = name
        self._screenshots = 0

    def log_in(self) -> None:
        """Log in as `admin`."""
        self.page.goto(f"{self._url}/")
        self.page.fill("input[name=username]", "admin")
        self.page.fill("input[name=password]", self.demo.airflow.password)
        self.page.click("button[type=submit]")
        self.page.get_by_role("link", name="Dags").first.wait_for()

    def open_form(self, dag_id: str) -> Locator:
        """Press *Trigger* on the page of a DAG and return the form."""
        self.page.goto(f"{self._url}/dags/{dag_id}")
        self.page.get_by_role("button", name="Trigger").first.click()
        form = self.page.get_by_role("dialog").filter(has_text="Trigger Dag")
        form.wait_for()
        return form

    def open_section(self, title: str) -> None:
        """Open a section of the form. This closes the previous one."""
        self.page.get_by_role("button", name=title, exact=True).click()

    def field(self, name: str) -> Locator:
        """Return the input element of a field."""
        return self.page.locator(f"input[name=element_{name}], textarea[name=element_{name}]")

    def press_trigger(self, form: Locator) -> None:
        """Press the form's *Trigger* button."""
        form.get_by_role("button", name="Trigger").last.click()

    def wait_for_run_id(self) -> str:
        """Wait for the page of a run and return the run's id."""
        self.page.wait_for_url(re.compile("/runs/manual__"))
        url: str = self.page.url
        return url.split("/runs/")[1].split("/")[0].split("?")[0].replace("%3A", ":").replace("%2B", "+")

    def open_task(self, dag_id: str, run_id: str, task_id: str, tab: str = "") -> None:
        """Open the page of a task instance."""
        self.page.goto(f"{self._url}/dags/{dag_id}/runs/{run_id}/tasks/{task_id}{tab}")

    def screenshot(self, step: str) -> None:
        """Save a screenshot of the page if BATCH_SCREENSHOTS is set."""
        folder = os.environ.get("BATCH_SCREENSHOTS")
        if folder:
            self._screenshots += 1
            # wait for animations to end
            self.page.wait_for_timeout(700)
            self.page.screenshot(path=Path(folder) / f"{self._name}-{self._screenshots}-{step}.png")

    @property
    def _url(self) -> str:
        return str(self.demo.airflow.client.base_url).rstrip("/")
