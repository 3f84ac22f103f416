"""batch_on_demand as a person meets it: its form, its preview, its approval, its rows, in a real browser."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from tests.airflow.demo_airflow import question
from tests.airflow.jobs import query
from tests.airflow.standalone import Run

if TYPE_CHECKING:
    from tests.browser.conftest import Ui

pytestmark = [pytest.mark.browser, pytest.mark.standalone]

DAG = "batch_on_demand"
#: a title that would be a heading and a picture that runs a script, were it taken for Markdown or HTML
HOSTILE = "```\n# Free of charge\n<img src=x onerror=\"document.title='broken out'\">"
TITLE = HOSTILE.replace("'", "''")
SQL = f"SELECT id, body,\n  '{TITLE}' AS title\nFROM tickets\nWHERE body <> '' ORDER BY id"


def runs(ui: Ui) -> int:
    """How many runs there are."""
    return int(ui.demo.airflow.get(f"/api/v2/dags/{DAG}/dagRuns")["total_entries"])


def test_the_form_refuses_what_is_malformed(ui: Ui) -> None:
    before = runs(ui)
    form = ui.open_form(DAG)
    for section in ("1 · Rows", "2 · Request", "4 · Cost", "3 · Answers"):
        ui.open_section(section)
        ui.picture(section.split(" · ")[1].replace(" ", "-"))

    ui.field("table").fill("answers; DROP TABLE tickets")
    ui.press_trigger(form)

    refusal = form.get_by_text("Invalid input for param table")
    refusal.wait_for()
    assert "letters, digits" in re.sub(r"'\s+'", "", refusal.inner_text())
    ui.picture("refused-table")

    ui.field("table").fill("answers")
    ui.open_section("2 · Request")
    ui.field("prompt").fill("")
    ui.picture("missing-prompt")
    assert form.get_by_role("button", name="Trigger").last.is_disabled()
    ui.field("prompt").fill("{{ row.body }}")
    assert form.get_by_role("button", name="Trigger").last.is_enabled()

    # the last brace of the schema
    form.locator(".monaco-editor").first.click()
    ui.page.keyboard.press("Control+End")
    ui.page.keyboard.press("Backspace")
    form.get_by_text(re.compile("SyntaxError|JSON")).first.wait_for()
    ui.picture("broken-schema")
    assert form.get_by_role("button", name="Trigger").last.is_disabled()
    assert runs(ui) == before


def test_a_person_fills_in_the_form_reads_the_preview_approves_it_and_the_rows_land(ui: Ui) -> None:
    form = ui.open_form(DAG)
    ui.open_section("1 · Rows")
    ui.field("sql").fill(SQL)
    ui.field("max_rows").fill("4")
    ui.open_section("2 · Request")
    ui.field("prompt").fill("Title: {{ row.title }}\n\n{{ row.body }}")
    ui.open_section("3 · Answers")
    ui.field("table").fill("approved_answers")
    ui.open_section("4 · Cost")
    ui.field("approve_above_usd").fill("0")
    ui.picture("filled")
    ui.press_trigger(form)
    run_id = ui.run_id()
    run = Run(ui.demo.airflow, DAG, run_id)

    run.await_task("preview", "success")
    ui.open_task(DAG, run_id, "preview")
    ui.page.get_by_text("Preview: nothing was sealed, nothing was uploaded, nothing is billed.").wait_for()
    ui.picture("preview")

    question(run)
    ui.page.goto(ui.page.url.replace("/tasks/preview", ""))
    ui.page.get_by_text(re.compile("Required Action")).first.wait_for()
    ui.picture("run-waits")
    ui.open_task(DAG, run_id, "approve", "/required_actions")
    approve = ui.page.get_by_role("button", name="Approve", exact=True)
    approve.wait_for()
    ui.picture("approval")
    shown = ui.page.locator("body").inner_text()
    assert "4 requests in 1 shard" in shown
    assert re.search(r"Estimated cost: (less than )?\$0\.\d{2,4} to \$0\.\d{2,4}, ceiling \$1\.00", shown)
    assert "Title: ```\n" in shown
    assert "# Free of charge" in shown
    assert ui.page.get_by_role("heading", name="Free of charge").count() == 0
    assert ui.page.locator("img[src=x]").count() == 0
    assert ui.demo.paid() == [0, 0, 0]
    approve.scroll_into_view_if_needed()
    ui.picture("approval-buttons")
    approve.click()

    assert run.await_end() == "success"
    landed = query(ui.demo.warehouse, "SELECT outcome, run_id FROM approved_answers")
    assert landed == [("succeeded", run_id)] * 4
    ui.open_task(DAG, run_id, "report")
    ui.page.get_by_text("Landed in approved_answers: 4 succeeded.").first.wait_for()
    ui.picture("report")


def test_a_person_refuses_and_nothing_is_asked(ui: Ui) -> None:
    before = ui.demo.paid()
    form = ui.open_form(DAG)
    ui.open_section("3 · Answers")
    ui.field("table").fill("refused_answers")
    ui.open_section("4 · Cost")
    ui.field("approve_above_usd").fill("0")
    ui.press_trigger(form)
    run_id = ui.run_id()
    run = Run(ui.demo.airflow, DAG, run_id)
    question(run)
    ui.open_task(DAG, run_id, "approve", "/required_actions")
    ui.page.get_by_role("button", name="Reject", exact=True).click()

    assert run.await_end() == "success"
    ui.open_task(DAG, run_id, "report")
    ui.page.get_by_text("Rejected: nothing was sent, and nothing is billed.").first.wait_for()
    ui.picture("report")
    ui.open_task(DAG, run_id, "approve", "/required_actions")
    ui.page.get_by_text(re.compile("Response received at .* from admin")).wait_for()
    ui.picture("who-refused")
    ui.page.goto(ui.page.url.split("/tasks/")[0])
    ui.page.get_by_text("Skipped").first.wait_for()
    ui.picture("run")
    assert ui.demo.paid() == before
    assert query(ui.demo.warehouse, "SELECT name FROM sqlite_master WHERE name = 'refused_answers'") == []
