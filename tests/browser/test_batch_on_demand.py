"""The DAG batch_on_demand in a real browser: its form, its preview, its approval, and the rows that land."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from tests.airflow.demo_airflow import await_approval_request
from tests.airflow.jobs import query
from tests.airflow.standalone import Run

if TYPE_CHECKING:
    from tests.browser.conftest import Ui

pytestmark = [pytest.mark.browser, pytest.mark.standalone]

DAG = "batch_on_demand"
#: a title that would show a heading and run a script if it were rendered as Markdown or HTML
HOSTILE = "```\n# Free of charge\n<img src=x onerror=\"document.title='broken out'\">"
TITLE = HOSTILE.replace("'", "''")
SQL = f"SELECT id, body,\n  '{TITLE}' AS title\nFROM tickets\nWHERE body <> '' ORDER BY id"


def count_runs(ui: Ui) -> int:
    """Return how many runs the DAG has."""
    return int(ui.demo.airflow.get(f"/api/v2/dags/{DAG}/dagRuns")["total_entries"])


def test_the_form_refuses_malformed_values(ui: Ui) -> None:
    runs_before = count_runs(ui)
    form = ui.open_form(DAG)
    assert "no run costs more than $1.00" in form.inner_text()
    assert ui.field("sql").is_visible()  # the first section is open
    ui.screenshot("Run-Parameters")
    for section in ("Request", "Cost", "Answers"):
        ui.open_section(section)
        ui.screenshot(section)

    ui.field("table").fill("answers; DROP TABLE tickets")
    ui.press_trigger(form)

    refusal = form.get_by_text("Invalid input for param table")
    refusal.wait_for()
    assert "letters, digits" in re.sub(r"'\s+'", "", refusal.inner_text())
    ui.screenshot("refused-table")

    ui.field("table").fill("answers")
    ui.open_section("Request")
    ui.field("prompt").fill("")
    ui.screenshot("missing-prompt")
    assert form.get_by_role("button", name="Trigger").last.is_disabled()
    ui.field("prompt").fill("{{ row.body }}")
    assert form.get_by_role("button", name="Trigger").last.is_enabled()

    # delete the last brace of the schema
    form.locator(".monaco-editor").first.click()
    ui.page.keyboard.press("Control+End")
    ui.page.keyboard.press("Backspace")
    form.get_by_text(re.compile("SyntaxError|JSON")).first.wait_for()
    ui.screenshot("broken-schema")
    assert form.get_by_role("button", name="Trigger").last.is_disabled()
    assert count_runs(ui) == runs_before


def test_the_rows_land_after_a_person_fills_in_the_form_and_approves_the_preview(ui: Ui) -> None:
    form = ui.open_form(DAG)
    ui.field("sql").fill(SQL)
    ui.field("max_rows").fill("4")
    ui.open_section("Request")
    ui.field("prompt").fill("Title: {{ row.title }}\n\n{{ row.body }}")
    ui.open_section("Answers")
    ui.field("table").fill("approved_answers")
    ui.open_section("Cost")
    ui.field("approve_above_usd").fill("0")
    ui.screenshot("filled")
    ui.press_trigger(form)
    run_id = ui.wait_for_run_id()
    run = Run(ui.demo.airflow, DAG, run_id)

    run.await_task("batch_job.submit", "success")
    ui.open_task(DAG, run_id, "batch_job.submit")
    ui.page.get_by_text("Stopped after the canary: nothing was uploaded.").wait_for()
    ui.screenshot("canary")

    await_approval_request(run)
    ui.page.goto(ui.page.url.replace("/tasks/batch_job.submit", ""))
    ui.page.get_by_text(re.compile("Required Action")).first.wait_for()
    ui.screenshot("run-waits")
    ui.open_task(DAG, run_id, "batch_job.approve", "/required_actions")
    approve = ui.page.get_by_role("button", name="Approve", exact=True)
    approve.wait_for()
    ui.screenshot("approval")
    body = ui.page.locator("body").inner_text()
    assert "Requests: 4 in 2 shards" in body
    amount = r"(less than )?\$0\.\d{2,4}"
    assert re.search(rf"Cost: {amount} to {amount}, most likely {amount}, ceiling \$1\.00", body)
    assert "Table: approved_answers" in body
    assert "batch_on_demand: 4 rows, " in body
    assert "Send the other 3 requests?" in body
    assert body.index("Answer to ") < body.index("SQL:")
    assert "The requests in full" not in body
    assert "# Free of charge" in body
    assert ui.page.get_by_role("heading", name="Free of charge").count() == 0
    assert ui.page.locator("img[src=x]").count() == 0
    assert ui.demo.count_calls()[:2] == [0, 0]
    approve.scroll_into_view_if_needed()
    ui.screenshot("approval-buttons")
    approve.click()

    assert run.await_end() == "success"
    rows = query(ui.demo.warehouse, "SELECT outcome, run_id FROM approved_answers")
    assert rows == [("succeeded", run_id)] * 4
    ui.open_task(DAG, run_id, "report")
    ui.page.get_by_text("Landed in approved_answers: 4 succeeded.").first.wait_for()
    ui.screenshot("report")


def test_nothing_is_uploaded_if_a_person_rejects_the_answers_of_the_canary(ui: Ui) -> None:
    paid_before = ui.demo.count_calls()
    form = ui.open_form(DAG)
    ui.open_section("Answers")
    ui.field("table").fill("refused_answers")
    ui.open_section("Cost")
    ui.field("approve_above_usd").fill("0")
    ui.press_trigger(form)
    run_id = ui.wait_for_run_id()
    run = Run(ui.demo.airflow, DAG, run_id)
    await_approval_request(run)
    ui.open_task(DAG, run_id, "batch_job.approve", "/required_actions")
    ui.page.get_by_role("button", name="Reject", exact=True).click()

    assert run.await_end() == "success"
    ui.open_task(DAG, run_id, "report")
    ui.page.get_by_text("Rejected: only 5 requests were sent, to see their answers.").first.wait_for()
    ui.screenshot("report")
    ui.open_task(DAG, run_id, "batch_job.approve", "/required_actions")
    ui.page.get_by_text(re.compile("Response received at .* from admin")).wait_for()
    ui.screenshot("who-refused")
    ui.page.goto(ui.page.url.split("/tasks/")[0])
    ui.page.get_by_text("Skipped").first.wait_for()
    ui.screenshot("run")
    assert ui.demo.count_calls()[:2] == paid_before[:2]
    assert query(ui.demo.warehouse, "SELECT count(*) FROM refused_answers") == [(0,)]
