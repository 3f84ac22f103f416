"""A headless Chromium that is logged in to a full Airflow with the example DAGs and those in `dags`.

The tests are skipped if Chromium or its driver is missing (`make browser` installs the driver). If BATCH_SCREENSHOTS is
set, screenshots are saved in that folder.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pytest

from airflow_provider_batch.demo.home import Provider, dags_folder
from airflow_provider_batch.links.batch import job_page
from airflow_provider_batch.local.process import LocalServer
from tests.airflow.demo_airflow import DemoAirflow, demo_airflow
from tests.airflow.standalone import Run
from tests.evals.nights import regressing, steady, write_nights

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Locator, Page, ViewportSize

#: names of the executable on various systems; BATCH_CHROMIUM names another one
CHROMIUM = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
#: how long a step on a page may take on a busy machine, in milliseconds
TIMEOUT_MS = 60_000
#: How long a batch is in progress unless a test advances the clock of its server, in seconds: longer than any test, and
#: shorter than the completion window.
BATCH_SECONDS = 7_200.0
#: the accessibility checker, from npm
AXE = "axe-core@4.14.1"
DAGS = Path(__file__).parent / "dags"
USERS = ("admin", "viewer")
#: the name of a model that would run a script if it were not shown as text
HOSTILE_MODEL = "<img src=x onerror=\"document.title = 'broken out'\">"
#: a desktop and a phone
SIZES: dict[str, ViewportSize] = {"desktop": {"width": 1300, "height": 1100}, "phone": {"width": 390, "height": 844}}


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


@pytest.fixture(scope="session")
def slow_provider(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalServer]:
    """A batch server whose batches stay in progress until a test advances its clock."""
    with LocalServer(tmp_path_factory.mktemp("slow"), in_progress=BATCH_SECONDS, admin=True) as server:
        yield server


@pytest.fixture(scope="session")
def still_provider(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalServer]:
    """A batch server whose clock no test advances."""
    with LocalServer(tmp_path_factory.mktemp("still"), in_progress=BATCH_SECONDS) as server:
        yield server


@pytest.fixture(scope="session")
def eval_warehouse(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The SQLite file with the tables of evals."""
    return tmp_path_factory.mktemp("evals") / "warehouse.sqlite"


@pytest.fixture(scope="session")
def demo(
    slow_provider: LocalServer,
    still_provider: LocalServer,
    eval_warehouse: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[DemoAirflow]:
    """A running Airflow. It depends on `browser`, so it does not start if the tests are skipped."""
    bundles = [
        {
            "name": name,
            "classpath": "airflow.dag_processing.bundles.local.LocalDagBundle",
            "kwargs": {"path": str(folder)},
        }
        for name, folder in (("demo", dags_folder()), ("watched", DAGS))
    ]
    environment = {
        "AIRFLOW_CONN_SLOW_PROVIDER": Provider(slow_provider.base_url, slow_provider.api_key).connection,
        "AIRFLOW_CONN_STILL_PROVIDER": Provider(still_provider.base_url, still_provider.api_key).connection,
        "AIRFLOW_CONN_EVAL_WAREHOUSE": json.dumps({"conn_type": "sqlite", "host": str(eval_warehouse)}),
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": ",".join(f"{user}:{user}" for user in USERS),
        "AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST": json.dumps(bundles),
        "AIRFLOW__CORE__PARALLELISM": "2",
        "AIRFLOW__CORE__DEFAULT_POOL_TASK_SLOT_COUNT": "2",
    }
    path = tmp_path_factory.mktemp("browser")
    with demo_airflow(path, "batch_on_demand", "watched_job", "watched_evals", pace=environment) as demo:
        yield demo


def start(demo: DemoAirflow, dag_id: str) -> Run:
    """Start a run whose batch is in progress."""
    run = demo.airflow.trigger(dag_id)
    run.await_task("submit", "success")
    run.await_task("wait", "deferred")
    # Otherwise the scheduler may take the end of this worker for that of the next one, and fail the wait.
    run.await_worker_end("wait")
    return run


@pytest.fixture(scope="session")
def running(demo: DemoAirflow) -> Run:
    """A job whose batch stays in progress, with the answers of its canary."""
    return start(demo, "running_job")


@pytest.fixture(scope="session")
def evals(demo: DemoAirflow, eval_warehouse: Path) -> list[str]:
    """Two reports: gpt-5-mini got worse in the second night, and a model has a hostile name. Return their run_ids."""
    models = {"gpt-5-mini": regressing(0.93, since=1, loss=0.9), HOSTILE_MODEL: steady(0.6)}
    nights = write_nights(eval_warehouse, models, cases=60)
    runs = [demo.airflow.trigger("watched_evals", run=night) for night in nights]
    assert [run.await_end() for run in runs] == ["success", "success"]
    return [run.run_id for run in runs]


@pytest.fixture
def open_ui(browser: Browser, demo: DemoAirflow, request: pytest.FixtureRequest) -> Iterator[Callable[..., Ui]]:
    """Return a function that opens Airflow's UI in a window of its own; see `Ui`."""
    with ExitStack() as windows:

        def open_window(user: str = "admin", size: str = "desktop", colours: Literal["light", "dark"] = "light") -> Ui:
            context = windows.enter_context(browser.new_context(viewport=SIZES[size], color_scheme=colours))
            context.set_default_timeout(TIMEOUT_MS)
            ui = Ui(context.new_page(), demo, request.node.name)
            ui.log_in(user)
            return ui

        yield open_window


@pytest.fixture
def ui(open_ui: Callable[..., Ui]) -> Ui:
    """Airflow's UI, logged in as `admin`."""
    return open_ui()


@pytest.fixture(scope="session")
def axe(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The script of the accessibility checker. Skips the test if npm cannot install it."""
    folder = tmp_path_factory.mktemp("axe")
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip("Accessibility is not checked: npm, which installs axe-core, is not on the PATH.")
    command = [npm, "install", "--prefix", str(folder), "--no-audit", "--no-fund", "--silent", AXE]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    if result.returncode:
        pytest.skip(f"Accessibility is not checked: npm cannot install {AXE}. {result.stderr.strip()[-300:]}")
    return (folder / "node_modules" / "axe-core" / "axe.min.js").read_text("utf-8")


class Ui:
    """What a person does in Airflow's UI."""

    def __init__(self, page: Page, demo: DemoAirflow, name: str) -> None:
        self.page = page
        self.demo = demo
        self._name = name
        self._screenshots = 0

    def log_in(self, user: str = "admin") -> None:
        """Log in as one of `USERS`."""
        passwords = json.loads(
            (self.demo.airflow.home.airflow / "simple_auth_manager_passwords.json.generated").read_text()
        )
        self.page.goto(f"{self.url}/")
        self.page.fill("input[name=username]", user)
        self.page.fill("input[name=password]", passwords[user])
        self.page.click("button[type=submit]")
        self.page.get_by_role("link", name="Dags").first.wait_for()

    def open_form(self, dag_id: str) -> Locator:
        """Press *Trigger* on the page of a DAG and return the form."""
        self.page.goto(f"{self.url}/dags/{dag_id}")
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
        self.page.goto(f"{self.url}/dags/{dag_id}/runs/{run_id}/tasks/{task_id}{tab}")

    def open_job(self, run: Run) -> None:
        """Open the page of the job of a run whose submit task is `submit`."""
        self.page.goto(f"{self.url}{job_page(run.dag_id, run.run_id, 'submit')}")
        self.page.get_by_text("What happens next").wait_for()

    def open_jobs(self, query: str = "") -> None:
        """Open the list of jobs, with these filters."""
        self.page.goto(f"{self.url}/plugin/llm-batch{query}")
        self.page.get_by_role("heading", name="LLM batch jobs").wait_for()

    def open_evals(self) -> None:
        """Open the evals from the list of jobs."""
        self.open_jobs()
        self.page.get_by_role("link", name="Evals").click()
        self.page.get_by_text("What got worse").wait_for()

    def progress(self, job: str) -> int:
        """Return the percentage of the progress bar of a job."""
        bar = self.page.get_by_role("progressbar", name=re.compile(f"Progress of {job}")).first
        return int(bar.get_attribute("aria-valuenow") or 0)

    def violations(self, axe: str, part: str = "#llm-batch") -> list[dict[str, Any]]:
        """Return what the accessibility checker finds serious or critical in a part of the page."""
        self.wait_for_animations()
        self.page.evaluate(axe)
        result = self.page.evaluate("(part) => axe.run(part, {resultTypes: ['violations']})", part)
        return [
            {"id": violation["id"], "help": violation["help"], "where": [node["html"] for node in violation["nodes"]]}
            for violation in result["violations"]
            if violation["impact"] in ("serious", "critical")
        ]

    def fits(self) -> bool:
        """Return whether the page is not wider than the window."""
        return bool(
            self.page.evaluate(
                "[document.documentElement, document.querySelector('#llm-batch')]"
                ".every((part) => part.scrollWidth <= part.clientWidth)"
            )
        )

    def wait_for_animations(self) -> None:
        """Wait until nothing fades in or moves any more, except for what never ends, such as a spinner."""
        self.page.wait_for_function(
            "document.getAnimations().every((animation) => "
            "animation.playState === 'finished' || animation.effect.getComputedTiming().endTime === Infinity)"
        )

    def screenshot(self, step: str) -> None:
        """Save a screenshot of the page if BATCH_SCREENSHOTS is set."""
        folder = os.environ.get("BATCH_SCREENSHOTS")
        if folder:
            self._screenshots += 1
            self.wait_for_animations()
            self.page.screenshot(path=Path(folder) / f"{self._name}-{self._screenshots}-{step}.png")

    @property
    def url(self) -> str:
        """The address of Airflow, without a slash at the end."""
        return str(self.demo.airflow.client.base_url).rstrip("/")
