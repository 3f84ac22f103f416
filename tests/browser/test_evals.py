"""The evals on the page "LLM batch", in a real browser."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from tests.browser.conftest import HOSTILE_MODEL

if TYPE_CHECKING:
    from tests.browser.conftest import Ui

pytestmark = [pytest.mark.browser, pytest.mark.standalone]


@pytest.mark.parametrize(("size", "colours"), [("desktop", "light"), ("desktop", "dark"), ("phone", "light")])
def test_each_view_of_the_evals_is_accessible_and_fits(
    open_ui: Callable[..., Ui], evals: list[str], axe: str, size: str, colours: str
) -> None:
    ui = open_ui(size=size, colours=colours)
    ui.open_evals()
    for view, text in (("Over time", "What got worse"), ("Cases and answers", "c000"), ("Two runs", "Accuracy before")):
        ui.page.get_by_role("link", name=view).click()
        ui.page.get_by_text(text).first.wait_for()
        ui.screenshot(f"{view}-{size}-{colours}")
        assert ui.violations(axe) == [], view
        assert ui.fits(), view


def test_a_regression_leads_to_the_answers_of_both_runs(ui: Ui, evals: list[str]) -> None:
    ui.open_evals()
    ui.page.get_by_text("c000").first.wait_for()
    ui.page.get_by_role("link", name="Two runs").click()
    ui.page.get_by_text("Accuracy before").wait_for()
    ui.page.get_by_text("I cannot work that out.").first.wait_for()
    ui.page.locator("#llm-batch td").get_by_text(HOSTILE_MODEL).first.wait_for()
    assert ui.page.title() != "broken out"


def test_a_search_among_all_answers_can_be_shared(ui: Ui, evals: list[str]) -> None:
    ui.open_evals()
    ui.page.get_by_role("link", name="Cases and answers").click()
    ui.page.get_by_text("c000").first.wait_for()
    ui.page.get_by_role("searchbox").press_sequentially("what is 7 plus")
    ui.page.wait_for_url(re.compile(r"text=what"))
    ui.page.get_by_text("c000").wait_for(state="detached")
    ui.page.reload()
    ui.page.get_by_text("c007").first.wait_for()
    assert ui.page.get_by_text("c008").count() == 0
