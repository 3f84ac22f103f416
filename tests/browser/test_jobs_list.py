"""The list of jobs on the page "LLM batch" and in the tab of a run, in a real browser."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from tests.airflow.standalone import Run

if TYPE_CHECKING:
    from tests.browser.conftest import Ui

pytestmark = [pytest.mark.browser, pytest.mark.standalone]


@pytest.mark.parametrize(("size", "colours"), [("desktop", "light"), ("desktop", "dark"), ("phone", "light")])
def test_the_list_is_accessible_and_fits(
    open_ui: Callable[..., Ui], running: Run, axe: str, size: str, colours: str
) -> None:
    ui = open_ui(size=size, colours=colours)
    ui.open_jobs()
    ui.page.get_by_role("link", name=running.dag_id).first.wait_for()
    ui.screenshot(f"list-{size}-{colours}")
    assert ui.violations(axe) == []
    assert ui.fits()


def test_a_list_with_filters_can_be_shared_and_says_when_nothing_matches(ui: Ui, running: Run) -> None:
    ui.open_jobs()
    ui.page.get_by_label("DAG", exact=True).select_option(running.dag_id)
    ui.page.wait_for_url(re.compile(f"dag_id={running.dag_id}"))
    ui.page.get_by_label("Search").press_sequentially("no such job")
    ui.page.get_by_text("No job matches these filters").wait_for()
    assert ui.page.evaluate("document.activeElement.type") == "search"  # the focus is kept while the list changes
    assert "text=no+such+job" in ui.page.url
    ui.page.reload()
    ui.page.get_by_text("No job matches these filters").wait_for()
    ui.page.get_by_role("button", name="Clear filters").last.click()
    ui.page.get_by_role("link", name=running.dag_id).first.wait_for()
    ui.page.go_back()
    ui.page.get_by_text("No job matches these filters").wait_for()


def test_the_tab_of_a_run_shows_its_jobs(ui: Ui, running: Run) -> None:
    ui.page.goto(f"{ui.url}/dags/{running.dag_id}/runs/{running.run_id}/plugin/llm-batch-run")
    ui.page.get_by_role("heading", name="LLM batch jobs of this run").wait_for()
    ui.page.locator("#llm-batch").get_by_role("link", name=running.dag_id).wait_for()
    ui.screenshot("run")
