"""The page of one job in a real browser: its bar, its errors, its answers and its buttons."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING

import httpx
import pytest

from airflow_provider_batch.links.batch import job_page, plugin_url
from airflow_provider_batch.local.faults import Call, Fault, Kind
from airflow_provider_batch.local.process import LocalServer
from tests.airflow.standalone import Run, wait_until
from tests.browser.conftest import BATCH_SECONDS, start
from tests.browser.dags.watched_jobs import HOSTILE_TEXTS

if TYPE_CHECKING:
    from tests.browser.conftest import Ui

pytestmark = [pytest.mark.browser, pytest.mark.standalone]

OpenUi = Callable[..., "Ui"]


def end_batches(slow_provider: LocalServer, run: Run) -> str:
    """Let every batch of a run end, and return the state in which the run ends."""
    slow_provider.advance(BATCH_SECONDS)
    return run.await_end()


def test_the_bar_of_a_running_job_moves_and_its_first_answers_appear_before_they_land(
    open_ui: OpenUi, slow_provider: LocalServer
) -> None:
    ui = open_ui()
    run = start(ui.demo, "watched_job")
    ui.open_jobs()
    ui.page.get_by_role("link", name="watched_job").first.click()
    ui.page.get_by_text("What happens next").wait_for()
    ui.page.get_by_role("article").first.wait_for()
    assert ui.page.get_by_role("article").count() == 2  # the answers of the canary
    assert ui.progress("watched_job") == 5
    slow_provider.advance(BATCH_SECONDS * 0.5)
    wait_until("the bar has moved", lambda: ui.progress("watched_job") >= 50)
    ui.screenshot("running")
    assert run.task("land")["state"] is None

    assert end_batches(slow_provider, run) == "success"
    ui.page.get_by_text("40 succeeded").wait_for()
    assert ui.progress("watched_job") == 100
    ui.page.get_by_text(re.compile("saved")).first.wait_for()
    ui.screenshot("landed")


def test_a_failed_job_groups_its_errors_and_a_retry_lands_the_rows(ui: Ui, slow_provider: LocalServer) -> None:
    run = start(ui.demo, "failing_job")
    assert end_batches(slow_provider, run) == "failed"
    ui.open_job(run)
    rows = ui.page.get_by_role("region", name=re.compile("Rows without a usable answer")).get_by_role("row")
    assert rows.filter(has_text="fails-").get_by_role("cell").first.inner_text() == "3"
    assert rows.filter(has_text="refused").get_by_role("cell").first.inner_text() == "1"
    ui.screenshot("errors")
    with ui.page.expect_download() as download:
        ui.page.get_by_role("link", name="Download these rows").click()
    content = download.value.path().read_text("utf-8")
    assert {key in content for key in ("fails-0", "fails-1", "fails-2", "refused")} == {True}
    assert "ok-0" not in content

    ui.page.get_by_role("button", name=re.compile("Retry")).click()
    dialog = ui.page.get_by_role("alertdialog")
    dialog.get_by_text(re.compile(r"\$")).wait_for()  # what it costs
    ui.screenshot("retry")
    batches_before, worker_ends = slow_provider.calls()[Call.CREATE], run.count_worker_ends("wait")
    dialog.get_by_role("button", name=re.compile("Retry")).click()
    dialog.get_by_text("Done", exact=True).wait_for()
    ui.screenshot("retried")
    dialog.get_by_role("button", name="Close").first.click()
    wait_until("the rows are sent again", lambda: slow_provider.calls()[Call.CREATE] > batches_before)
    run.await_worker_end("wait", worker_ends + 1)
    end_batches(slow_provider, run)
    ui.page.get_by_text("7 succeeded").wait_for()


def test_a_person_cancels_a_job_and_a_viewer_or_another_site_cannot(
    open_ui: OpenUi, slow_provider: LocalServer
) -> None:
    viewer = open_ui("viewer")
    run = start(viewer.demo, "cancelled_job")
    cancels_before = slow_provider.calls().get(Call.CANCEL, 0)
    viewer.open_job(run)
    button = viewer.page.get_by_role("button", name=re.compile("Cancel"))
    button.wait_for()
    assert button.is_disabled()
    viewer.page.get_by_text("need the right to edit").wait_for()
    viewer.screenshot("viewer")
    action = f"{viewer.url}{plugin_url('/api/actions/cancel')}"
    identity = {"dag_id": run.dag_id, "run_id": run.run_id, "task_id": "submit", "map_index": "-1"}
    url = str(httpx.URL(action, params=identity))
    send = "([url, headers]) => fetch(url, {method: 'POST', headers}).then((response) => response.status)"
    assert viewer.page.evaluate(send, [url, {"X-Requested-With": "llm-batch"}]) == 403

    ui = open_ui()
    ui.open_job(run)
    assert ui.page.evaluate(send, [url, {}]) == 403  # without the header, which no other site can send
    other_site = ui.page.context.new_page()
    other_site.goto(slow_provider.base_url)
    with other_site.expect_response(lambda response: "actions/cancel" in response.url) as response:
        other_site.evaluate("(url) => fetch(url, {method: 'POST', mode: 'no-cors', credentials: 'include'})", url)
    assert response.value.status in (401, 403)
    assert slow_provider.calls().get(Call.CANCEL, 0) == cancels_before

    ui.page.get_by_role("button", name=re.compile("Cancel")).click()
    dialog = ui.page.get_by_role("alertdialog")
    dialog.get_by_text("still be running").wait_for()  # what it does
    ui.screenshot("cancel")
    dialog.get_by_role("button", name=re.compile("Cancel")).click()
    dialog.get_by_text("Done", exact=True).wait_for()
    ui.screenshot("cancelled")
    assert slow_provider.calls()[Call.CANCEL] == cancels_before + 1


def test_hostile_texts_are_shown_as_text(ui: Ui, slow_provider: LocalServer) -> None:
    keys = [f"{number} {text}" for number, text in enumerate(HOSTILE_TEXTS)]
    path = "response.body.choices.0.message.content"
    slow_provider.set_faults(
        *(
            Fault(kind=Kind.LINE_FIELD, custom_ids=frozenset({key}), path=path, json=f'"{"<b>" * 350_000}"')
            for key in keys[-1:]
        ),
        Fault(kind=Kind.ERROR, status=400, custom_ids=frozenset(keys[:1]), message=HOSTILE_TEXTS[1]),
    )
    run = start(ui.demo, "hostile_job")
    end_batches(slow_provider, run)
    slow_provider.set_faults()
    ui.open_job(run)
    for text in HOSTILE_TEXTS[:3]:
        ui.page.get_by_text(text).first.wait_for()
    # the characters that would reverse the text are shown
    ui.page.get_by_text("invoice-⟨U+202E⟩gnp.exe").first.wait_for()
    ui.screenshot("job")
    page = ui.page.locator("#llm-batch")
    assert page.locator("script, svg circle, img, textarea, a[href^=javascript]").count() == 0
    assert page.get_by_role("heading", name="Heading").count() == 0
    assert ui.page.title() != "broken out"
    assert len(page.inner_text()) < 200_000  # 1 MB is cut


@pytest.mark.parametrize(("size", "colours"), [("desktop", "light"), ("desktop", "dark"), ("phone", "light")])
def test_the_page_is_accessible_and_fits(open_ui: OpenUi, running: Run, axe: str, size: str, colours: str) -> None:
    ui = open_ui(size=size, colours=colours)
    ui.open_job(running)
    ui.page.get_by_role("article").first.wait_for()
    ui.page.get_by_role("button", name=re.compile(r"\d shard")).last.click()
    ui.screenshot(f"{size}-{colours}")
    assert ui.violations(axe) == []
    assert ui.fits()

    ui.page.get_by_role("button", name=re.compile("Cancel")).press("Enter")
    ui.page.get_by_role("alertdialog").wait_for()
    ui.screenshot(f"dialog-{size}-{colours}")
    assert ui.violations(axe, "[role=alertdialog]") == []
    ui.page.keyboard.press("Escape")
    ui.page.get_by_role("alertdialog").wait_for(state="hidden")


def test_the_links_of_the_tasks_lead_to_the_job_and_back(ui: Ui, running: Run) -> None:
    for task_id in ("submit", "wait"):
        ui.page.goto(f"{ui.url}{running.links(task_id)['LLM batch']}")
        ui.page.get_by_text("What happens next").wait_for()
    ui.page.locator("#llm-batch").get_by_role("link", name="wait", exact=True).click()
    ui.page.wait_for_url(re.compile("/tasks/wait"))


def test_a_job_that_does_not_exist_is_explained(ui: Ui) -> None:
    ui.page.goto(f"{ui.url}{job_page('watched_job', 'no such run', 'submit')}")
    ui.page.get_by_role("alert").get_by_text("Nothing was found here").wait_for()
    ui.screenshot("missing")
