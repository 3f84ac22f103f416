"""A headless Chromium, logged in to a whole Airflow with the ready DAGs.

Skipped where there is no Chromium, or no driver for it (`make browser` installs that one). With BATCH_SCREENSHOTS a
picture of each step is left in that folder.
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

#: the names under which systems install it; BATCH_CHROMIUM names another
CHROMIUM = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
#: milliseconds that a step of the page may take on a busy machine
PATIENCE = 60_000


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Chromium, if it is there."""
    path = os.environ.get("BATCH_CHROMIUM") or next(filter(None, map(shutil.which, CHROMIUM)), None)
    if path is None:
        pytest.skip(f"No Chromium: none of {', '.join(CHROMIUM)} is on the PATH, and BATCH_CHROMIUM names none.")
    playwright = pytest.importorskip(
        "playwright.sync_api", reason="No driver for Chromium: `make browser` installs playwright and runs these tests."
    )
    with playwright.sync_playwright() as driver:
        # Its sandbox needs rights that containers and root do not have; it only ever opens pages of this machine.
        yield driver.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu"])


@pytest.fixture(scope="module")
def demo(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[DemoAirflow]:
    """A whole Airflow. After `browser`, so that nothing is started where that is skipped."""
    with demo_airflow(tmp_path_factory.mktemp("browser"), "batch_on_demand") as started:
        yield started


@pytest.fixture
def ui(browser: Browser, demo: DemoAirflow, request: pytest.FixtureRequest) -> Iterator[Ui]:
    """The pages of Airflow, for `admin`."""
    with browser.new_context(viewport={"width": 1300, "height": 1100}) as context:
        context.set_default_timeout(PATIENCE)
        page = context.new_page()
        ui = Ui(page, demo, request.node.name)
        ui.log_in()
        yield ui


class Ui:
    """What a person does on Airflow's pages."""

    def __init__(self, page: Page, demo: DemoAirflow, name: str) -> None:
        self.page = page
        self.demo = demo
        self._name = name
        self._shots = 0

    def log_in(self) -> None:
        """As `admin`."""
        self.page.goto(f"{self._url}/")
        self.page.fill("input[name=username]", "admin")
        self.page.fill("input[name=password]", self.demo.airflow.password)
        self.page.click("button[type=submit]")
        self.page.get_by_role("link", name="Dags").first.wait_for()

    def open_form(self, dag_id: str) -> Locator:
        """Press *Trigger* on the page of a DAG; the form."""
        self.page.goto(f"{self._url}/dags/{dag_id}")
        self.page.get_by_role("button", name="Trigger").first.click()
        form = self.page.get_by_role("dialog").filter(has_text="Trigger Dag")
        form.wait_for()
        return form

    def open_section(self, title: str) -> None:
        """Unfold a section of the form; the one before folds up."""
        self.page.get_by_role("button", name=title).click()

    def field(self, name: str) -> Locator:
        """The input of a field."""
        return self.page.locator(f"input[name=element_{name}], textarea[name=element_{name}]")

    def press_trigger(self, form: Locator) -> None:
        """The form's own button."""
        form.get_by_role("button", name="Trigger").last.click()

    def run_id(self) -> str:
        """Of the run whose page is open, once it is."""
        self.page.wait_for_url(re.compile("/runs/manual__"))
        url: str = self.page.url
        return url.split("/runs/")[1].split("/")[0].split("?")[0].replace("%3A", ":").replace("%2B", "+")

    def open_task(self, dag_id: str, run_id: str, task_id: str, tab: str = "") -> None:
        """The page of a task instance."""
        self.page.goto(f"{self._url}/dags/{dag_id}/runs/{run_id}/tasks/{task_id}{tab}")

    def picture(self, what: str) -> None:
        """Leave a picture of the page, if pictures are wanted."""
        folder = os.environ.get("BATCH_SCREENSHOTS")
        if folder:
            self._shots += 1
            # what unfolds has to have unfolded
            self.page.wait_for_timeout(700)
            self.page.screenshot(path=Path(folder) / f"{self._name}-{self._shots}-{what}.png")

    @property
    def _url(self) -> str:
        return str(self.demo.airflow.client.base_url).rstrip("/")
