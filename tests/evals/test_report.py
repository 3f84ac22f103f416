"""The report of a run is read from the tables, has plots, and is safe to open no matter what a model answered."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import sqlite3
from collections.abc import Callable
from contextlib import closing
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_batch.evals import plots
from airflow_provider_batch.evals.report import MAX_BETTER, MAX_CASES, MAX_TEXT, Report, render
from airflow_provider_batch.exceptions import InputError
from tests.evals.nights import CASES_SQL, TAGS, Model, recovering, regressing, steady, write_nights

HOSTILE = (
    "</pre></details><script>alert(1)</script><img src=x onerror=alert(2)>"
    "<style>*{display:none}</style>{{ 7 * 7 }}{% raw %}&lt;\"'"
)


@pytest.fixture
def read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Report]:
    """Return a function that writes nights and reads the report of one of them, by default the last."""
    from airflow_provider_batch.evals.read_report import ReportTables
    from airflow_provider_batch.warehouse.connect import sql_hook

    path = tmp_path / "warehouse.sqlite"
    monkeypatch.setenv("AIRFLOW_CONN_WAREHOUSE", json.dumps({"conn_type": "sqlite", "host": str(path)}))

    def write_and_read(
        models: dict[str, Model],
        *,
        night: int = -1,
        landings: Any = (),
        edit: str = "",
        judgements: str | None = None,
        preferences: str | None = None,
        **nights: Any,
    ) -> Report:
        runs = write_nights(path, models, **nights)
        with closing(sqlite3.connect(path)) as connection:
            connection.executescript(edit)
        tables = ReportTables(
            sql_hook("warehouse"),
            cases_sql=CASES_SQL,
            answers="eval_answers",
            judgements=judgements,
            preferences=preferences,
            prefix="eval_",
        )
        tables.record_costs(runs[night], landings)
        return tables.read(runs[night], "nightly_eval")

    return write_and_read


class _Tags(HTMLParser):
    """The tags of a page with their attributes."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def count(self, tag: str) -> int:
        return sum(name == tag for name, _ in self.tags)


def test_a_report_shows_the_verdict_and_the_baseline_of_each_model(read: Callable[..., Report]) -> None:
    report = read({"model-a": regressing(0.9, since=1, loss=0.9), "model-b": steady(0.7)}, cases=100)

    worse, steady_variant = report.variants
    assert (worse.name, worse.verdict, steady_variant.name, steady_variant.verdict) == (
        "model-a",
        "regressed",
        "model-b",
        "same",
    )
    assert worse.comparison is not None
    assert worse.comparison.baseline_run == "scheduled__2026-11-01T02:00:00+00:00"
    assert worse.comparison.worse == worse.worse.total == len(worse.worse.cases) > 10
    page = render(report)
    assert page.count('<section class="card bad">') == 1
    assert page.count("Compared with the accepted run <code>scheduled__2026-11-01T02:00:00+00:00</code>") == 2


def test_a_case_that_got_worse_is_shown_with_prompt_expected_value_answer_and_reason(
    read: Callable[..., Report],
) -> None:
    report = read({"model-a": regressing(1, since=1, loss=1)}, cases=40)

    case = next(case for case in report.variants[0].worse.cases if case.case_id == "c005")
    assert (case.prompt, case.expected, case.score_before, case.score_now) == (
        "Question 5: what is 5 plus 37?",
        "42",
        1,
        0,
    )
    (answer,) = case.answers
    assert (answer.text, answer.reason) == ("I cannot work that out.", "the answer is not '42'")
    assert case.earlier_answer == "42"
    assert next(iter(report.variants[0].worse.by_tag)) == TAGS[0]


def test_cases_that_were_right_most_often_come_first(read: Callable[..., Report]) -> None:
    right_counts = (
        "UPDATE eval_changes SET runs_before = 10, right_before = CASE case_id WHEN 'c030' THEN 10 "
        "WHEN 'c015' THEN 9 ELSE 4 END"
    )
    report = read({"model-a": regressing(1, since=1, loss=1)}, cases=40, edit=right_counts)

    assert [case.case_id for case in report.variants[0].worse.cases][:4] == ["c030", "c015", "c000", "c005"]
    assert "right in 10 of the last 10 accepted runs" in render(report)


def test_the_earlier_answer_is_one_that_was_right(read: Callable[..., Report]) -> None:
    wrong_repeats = (
        "INSERT INTO eval_answers "
        "SELECT run, variant, custom_id || '~2', case_id, 2, outcome, 'wrong too', model, job_uid "
        "FROM eval_answers WHERE run LIKE '%11-01T%';"
        "INSERT INTO eval_grades (run, variant, case_id, repeat, grader, score, answered) "
        "SELECT run, variant, case_id, 2, grader, 0, 1 FROM eval_grades WHERE run LIKE '%11-01T%'"
    )
    report = read({"model-a": regressing(1, since=1, loss=1)}, cases=40, edit=wrong_repeats)

    assert {case.earlier_answer for case in report.variants[0].worse.cases if case.tags[0] == TAGS[0]} == {"42"}


def test_cases_that_got_better_are_shown_with_the_earlier_answer(read: Callable[..., Report]) -> None:
    report = read({"a": recovering(0.9, since=1, gain=0.9)}, cases=100)
    (variant,) = report.variants
    assert variant.verdict == "improved"
    assert variant.comparison is not None
    assert variant.comparison.better == variant.better.total >= len(variant.better.cases) == MAX_BETTER
    case = variant.better.cases[0]
    assert (case.answers[0].text, case.earlier_answer) == ("42", "I cannot work that out.")
    page = render(report)
    assert "that were wrong before are right now" in page
    assert "No model got worse beyond chance. a got better." in page


@pytest.mark.parametrize(
    ("night", "headline", "css_class"),
    [(0, "No run has been accepted yet to compare with.", "unsure"), (1, "a got worse.", "bad")],
)
def test_a_report_begins_with_the_verdict_for_the_whole_run(
    read: Callable[..., Report], night: int, headline: str, css_class: str
) -> None:
    report = read({"a": regressing(0.9, since=1, loss=0.9), "b": steady(0.7)}, cases=100, night=night)
    assert (report.headline, report.css_class) == (headline, css_class)
    page = render(report)
    assert page.index(headline) < page.index('class="cards"')


def test_cases_that_are_wrong_every_time_are_listed_once_for_all_models(read: Callable[..., Report]) -> None:
    edit = "UPDATE eval_grades SET score = 0, passed = 0 WHERE case_id IN ('c001', 'c002') AND variant = 'b';"
    edit += "UPDATE eval_grades SET score = 0, passed = 0 WHERE case_id = 'c002' AND variant = 'a';"
    edit += "UPDATE eval_grades SET case_sha256 = 'changed since' WHERE case_id = 'c003' AND run LIKE '%11-01%';"
    edit += "UPDATE eval_grades SET score = 0, passed = 0 WHERE case_id = 'c003';"
    report = read({"a": steady(1), "b": steady(1)}, cases=20, nights=2, edit=edit)
    assert report.recent_runs == 2
    wrong = {row.case_id: row.results for row in report.always_wrong.rows}
    assert next(iter(wrong.items())) == ("c002", [(0, False), (0, False)])  # what most models get wrong comes first
    assert wrong["c001"] == [None, (0, False)]
    assert "c003" not in wrong  # a changed case has one run
    assert report.always_wrong.total == len(wrong)
    assert "What is wrong every time" in render(report)


def test_models_are_shown_side_by_side_where_they_differ(read: Callable[..., Report]) -> None:
    edit = "UPDATE eval_grades SET score = 1, passed = 1;"
    edit += "UPDATE eval_grades SET score = 0, passed = 0 WHERE case_id = 'c004';"
    edit += "UPDATE eval_grades SET score = 0.3 WHERE case_id = 'c005' AND variant = 'a';"
    edit += "UPDATE eval_grades SET score = 0.6, passed = 0 WHERE case_id = 'c005' AND variant = 'b';"
    edit += "UPDATE eval_grades SET answered = 0 WHERE case_id = 'c006' AND variant = 'b';"
    report = read({"a": steady(1), "b": steady(1)}, cases=20, edit=edit)
    assert (report.agreed_right, report.agreed_wrong) == (18, 1)
    (row,) = report.differing.rows
    assert (row.case_id, row.results, row.tags) == ("c005", [(0.3, True), (0.6, False)], [TAGS[0]])
    assert row.prompt is not None
    assert row.prompt.startswith("Question 5:")
    assert "Models side by side" in render(report)


def test_repeats_show_how_often_a_case_is_right_at_all_and_most_of_the_time(read: Callable[..., Report]) -> None:
    edit = "UPDATE eval_summaries SET answers = 60, pass_any = 0.9, pass_majority = 0.6"
    page = render(read({"a": steady(0.9)}, cases=20, edit=edit))
    assert "right at least once in 90.0 % of the cases, and most of the time in 60.0 %" in page


def test_without_repeats_a_case_is_right_or_not(read: Callable[..., Report]) -> None:
    assert "at least once" not in render(read({"a": steady(0.9)}, cases=20))


PREFERENCES = """
CREATE TABLE eval_preferences (run, case_id, first_variant, second_variant, preference, outcome);
"""


def test_a_comparison_of_variants_begins_with_what_the_judge_prefers(read: Callable[..., Report]) -> None:
    edit = PREFERENCES + "".join(
        "INSERT INTO eval_preferences "
        f"SELECT MAX(run), 'c{number:03}', '{first}', '{second}', '{preference}', 'succeeded' FROM eval_grades;"
        for number in range(8)
        for first, second, preference in (("a", "b", "second"), ("b", "a", "first"))
    )
    report = read({"a": steady(0.9), "b": steady(0.5)}, cases=20, nights=1, preferences="eval_preferences", edit=edit)
    assert report.headline == "a has the highest accuracy. Of a and b, the judge prefers b."
    page = render(report)
    order = [page.index(f"<h2>{title}") for title in ("Which answer", "Models side", "Accuracy per", "What is wrong")]
    assert order == sorted(order)
    assert "accepted run to compare" not in page


def test_a_comparison_without_a_judged_pair_says_so(read: Callable[..., Report]) -> None:
    report = read({"a": steady(1), "b": steady(1)}, nights=1, preferences="eval_preferences", edit=PREFERENCES)
    assert "No two answers to a case were judged in both orders." in render(report)


JUDGE_TABLES = """
CREATE TABLE eval_judgements (run, variant, case_id, repeat, model, job_uid, outcome, verdict, score);
CREATE TABLE eval_labels (run, variant, case_id, repeat, label, note);
INSERT INTO eval_judgements VALUES
    ('r', 'a', 'c001', 1, 'strict', 'j', 'succeeded', 'incorrect', NULL),
    ('r', 'a', 'c001', 1, 'kind', 'j', 'succeeded', 'correct', NULL),
    ('r', 'a', 'c002', 1, 'strict', 'j', 'succeeded', 'incorrect', NULL),
    ('r', 'a', 'c002', 1, 'kind', 'j', 'succeeded', 'correct', NULL),
    ('r', 'a', 'c003', 1, 'strict', 'j', 'succeeded', 'incorrect', NULL),
    ('r', 'a', 'c003', 1, 'kind', 'j', 'expired', NULL, NULL),
    ('r', 'a', 'c004', 1, 'strict', 'j', 'succeeded', 'correct', 0.6),
    ('r', 'a', 'c004', 1, 'kind', 'j', 'succeeded', 'incorrect', 0.8);
INSERT INTO eval_grades (run, variant, case_id, repeat, grader) VALUES
    ('r', 'a', 'c001', 1, 'judge'), ('r', 'a', 'c002', 1, '["judge", "is-json"]'), ('r', 'a', 'c003', 1, 'judge'),
    ('r', 'a', 'c004', 1, 'llm-rubric:0.7'), ('r', 'a', 'c009', 1, 'exact');
"""


def test_the_judges_are_compared_with_the_labels_of_people(read: Callable[..., Report]) -> None:
    labels = """
    INSERT INTO eval_labels VALUES
        ('r', 'a', 'c001', 1, 'correct', NULL), ('r', 'a', 'c002', 1, 'wrong', ''),
        ('r', 'a', 'c003', 1, 'incorrect', 'rude'), ('r', 'a', 'c004', 1, 'correct', ''),
        ('r', 'a', 'c009', 1, 'correct', 'was never judged');
    """
    report = read({"a": steady(0.9)}, cases=20, judgements="eval_judgements", edit=JUDGE_TABLES + labels)
    rows = [(row.judge, row.answers, row.too_kind, row.too_strict) for row in report.agreements]
    assert rows == [("kind", 3, 1, 0), ("strict", 4, 0, 2), ("majority", 4, 0, 2)]
    page = render(report)
    assert "The judges against people" in page
    assert "majority of the judges" in page


def test_without_labels_the_report_says_how_to_check_the_judges(read: Callable[..., Report]) -> None:
    page = render(read({"a": steady(0.9)}, cases=20, judgements="eval_judgements", edit=JUDGE_TABLES))
    assert "into the table <code>eval_labels</code>" in page


@pytest.mark.parametrize(("correct", "cost"), [("10", 0.042), ("0", None)])
def test_the_cost_is_also_shown_for_each_right_answer(
    read: Callable[..., Report], correct: str, cost: float | None
) -> None:
    edit = f"UPDATE eval_summaries SET cost_usd = '0.4', judge_cost_usd = '0.02', correct = {correct}"
    report = read({"a": steady(0.9)}, cases=20, edit=edit)
    assert report.variants[0].cost_per_right_usd == report.runs[0].cost_per_right_usd == pytest.approx(cost)
    assert ("for each right answer" in render(report)) is (cost is not None)


def test_the_report_of_one_model_without_a_judge_compares_neither(read: Callable[..., Report]) -> None:
    page = render(read({"a": steady(0.9)}, cases=20))
    assert "Models side by side" not in page
    assert "The judges against people" not in page


def test_a_report_links_to_all_answers_in_airflow(read: Callable[..., Report]) -> None:
    report = read({"a": steady(0.9)}, cases=20)
    page = render(report, "https://airflow.example.com/plugin/llm-batch?view=evals&tab=cases")
    assert 'href="https://airflow.example.com/plugin/llm-batch?view=evals&amp;tab=cases"' in page
    assert "<a " not in render(report)


def test_without_history_a_report_shows_the_wrong_answers(read: Callable[..., Report]) -> None:
    report = read({"model-a": steady(0.5)}, nights=1)

    (variant,) = report.variants
    assert (variant.verdict, variant.comparison, variant.worse.total) == ("no_history", None, len(variant.worse.cases))
    assert 5 < variant.worse.total < 35
    page = render(report)
    assert "nothing to compare with" in page
    assert f"The answers to {variant.worse.total} cases were wrong." in page


def test_missing_answers_are_listed_apart_from_wrong_ones(read: Callable[..., Report]) -> None:
    report = read({"model-a": lambda run, case, random: (None, False) if case < 3 else ("42", True)})

    assert report.variants[0].unanswered == {"expired": 3}
    assert "no answer: 3 expired" in render(report)


def test_the_report_of_a_run_does_not_show_later_runs(read: Callable[..., Report]) -> None:
    report = read({"model-a": steady(0.8)}, nights=5, night=2)

    assert [row.run[11:21] for row in report.runs] == ["2026-11-03", "2026-11-02", "2026-11-01"]


LANDING = {
    "job_uid": "job of model-a",
    "estimate": {"low_usd": 0.1, "high_usd": 0.625},
    "cost_usd": "0.42",
    "standard_cost_usd": "0.84",
    "requests": 40,
    "sent": 40,
    "retried": 0,
}


def test_a_report_shows_costs_beside_estimates(read: Callable[..., Report]) -> None:
    report = read({"model-a": steady(0.8)}, landings=[LANDING, LANDING | {"job_uid": "of another run"}])

    assert [row.estimate_usd for row in report.runs] == [(0.1, 0.625), None]
    assert "$0.10 to $0.63" in render(report)


def test_a_total_with_an_unknown_price_is_unknown(read: Callable[..., Report]) -> None:
    unpriced_landing = LANDING | {
        "estimate": {"low_usd": None, "high_usd": None},
        "cost_usd": None,
        "standard_cost_usd": None,
    }

    report = read(
        {"model-a": steady(0.8)}, landings=[unpriced_landing], edit="UPDATE eval_summaries SET judge_cost_usd = NULL"
    )

    assert (report.variants[0].cost_usd, report.runs[0].estimate_usd) == (None, None)
    assert "cost unknown · " in render(report)


def test_a_report_says_if_its_answers_come_from_the_stub_of_the_local_server(read: Callable[..., Report]) -> None:
    edit = "UPDATE eval_answers SET model = 'offline-responder/' || variant WHERE case_id < 'c003'"

    page = render(read({"model-a": steady(0.9)}, edit=edit))

    assert "<strong>No model was called.</strong> 3 answers of this run come from the stub" in page


def test_the_report_of_a_model_mentions_no_stub(read: Callable[..., Report], tmp_path: Path) -> None:
    assert "stub" not in render(read({"model-a": steady(0.9)}))


def test_an_ungraded_run_has_no_report(read: Callable[..., Report], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="has not been graded"):
        read({}, nights=1)


def test_the_answers_of_a_model_are_only_text_in_the_page(read: Callable[..., Report]) -> None:
    hostile = {"input": HOSTILE, "expected": HOSTILE, "grader": HOSTILE, "tags": f"{HOSTILE},$x^$,\x00\x1f"}

    def answer(run: int, case: int, random: Any) -> tuple[str, bool]:
        return (HOSTILE, run == 0)

    page = render(read({HOSTILE: answer}, cases=3, case=lambda number: hostile | {"case_id": f"{number}{HOSTILE}"}))

    tags = _Tags(page)
    assert (tags.count("script"), tags.count("img"), tags.count("style")) == (0, 0, 1)
    assert not [name for _, attributes in tags.tags for name in attributes if name.startswith("on")]
    assert tags.count("details") == 3
    assert "{{ 7 * 7 }}" in page
    assert "49" not in re.sub(r"<svg.*?</svg>|<style>.*?</style>", "", page, flags=re.DOTALL)


def test_the_page_loads_no_other_resources(read: Callable[..., Report]) -> None:
    page = render(read({"model-a": steady(0.8), "model-b": steady(0.6)}, nights=4))

    assert "http" not in re.sub(r'<meta http-equiv="', "", page)
    for tag, attributes in _Tags(page).tags:
        assert tag not in ("script", "link", "iframe", "object", "embed", "form", "base")
        assert "style" not in attributes
        for name in ("src", "href", "action", "clip-path"):
            assert (attributes.get(name) or "#").removeprefix("url(").startswith("#"), (tag, attributes)


def test_the_policy_of_the_page_allows_only_its_own_style(read: Callable[..., Report]) -> None:
    from airflow_provider_batch.evals.page import headers

    page = render(read({"model-a": steady(0.8)}))

    style = re.search("<style>(.*?)</style>", page, re.DOTALL)
    assert style is not None
    digest = base64.b64encode(hashlib.sha256(style[1].encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    (meta,) = [tag for name, tag in _Tags(page).tags if tag.get("http-equiv")]
    assert meta == {"http-equiv": "Content-Security-Policy", "content": policy}
    assert headers(page.encode())["Content-Security-Policy"] == f"{policy}; frame-ancestors 'self'; sandbox"
    assert "script-src" not in headers(b"<script>alert(1)</script>")["Content-Security-Policy"]


def test_the_same_tables_give_the_same_bytes(read: Callable[..., Report], tmp_path: Path) -> None:
    first = render(read({"model-a": steady(0.8), "model-b": steady(0.6)}, nights=3))
    with closing(sqlite3.connect(tmp_path / "warehouse.sqlite")) as connection, connection:
        for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
            connection.execute(f"DROP TABLE {name}")

    assert render(read({"model-a": steady(0.8), "model-b": steady(0.6)}, nights=3)) == first


def test_plots_use_the_colours_of_the_page(read: Callable[..., Report]) -> None:
    page = render(read({"model-a": steady(0.8), "model-b": steady(0.6)}, nights=3))

    plot_svgs = re.findall("<svg.*?</svg>", page, re.DOTALL)
    assert len(plot_svgs) == 3
    for svg in plot_svgs:
        assert {"s0", "s1"} <= set(re.findall(r'class="(\w+)"', svg))
        assert "#0000" not in re.sub(r'href="#\w+"|url\(#\w+\)', "", svg)


def test_without_matplotlib_the_page_names_the_missing_package_and_shows_the_rest(
    read: Callable[..., Report], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plots, "find_spec", lambda name: None)

    page = render(read({"model-a": steady(0.8)}))

    assert "<svg" not in page
    assert "airflow-provider-batch[evals]" in page
    assert '<section class="card good">' in page


def test_the_size_of_a_page_is_bounded(read: Callable[..., Report]) -> None:
    """Three models that lose every one of 300 cases, each with texts of 30,000 characters."""
    long = {"input": "i" * 30_000, "expected": "e" * 30_000, "grader": "g" * 30_000}

    def answer(run: int, case: int, random: Any) -> tuple[str, bool]:
        return ("a" * 30_000, run == 0)

    models: dict[str, Model] = dict.fromkeys(("model-a", "model-b", "model-c"), answer)
    report = read(models, cases=300, case=lambda number: long)

    assert [len(variant.worse.cases) for variant in report.variants] == [MAX_CASES] * 3
    page = render(report)
    assert len(page.encode()) < 2_000_000
    assert page.count("The tables have 250 more cases.") == 3
    assert f"(the table has {30_000 - MAX_TEXT:,} more characters)" in page
