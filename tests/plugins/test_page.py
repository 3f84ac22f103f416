from __future__ import annotations

import base64
import hashlib
import re
from datetime import UTC, datetime
from html.parser import HTMLParser

import msgspec

from airflow_provider_batch.plugins.page import HEADERS, FailureView, JobView, ShardView, render, render_message

JOB = JobView(
    dag_id="label_tickets",
    run_id="manual__2026-11-20T10:00:00+00:00",
    task_id="submit",
    map_index=-1,
    job_uid="0123456789abcdef",
    ledger="s3://bucket/batch/label_tickets",
    endpoint="/v1/chat/completions",
    requests=120_000,
    sealed_at=datetime(2026, 11, 20, 10, 0, 5, tzinfo=UTC),
    outcomes={"succeeded": 119_500, "failed": 500},
    shards=[
        ShardView(name="s0001", model="gpt-5-mini", requests=50_000, attempt=1, status="completed", batch_id="batch_a"),
        ShardView(name="s0002", model="gpt-5-mini", requests=50_000, attempt=1, status="uploading"),
    ],
    failures=[FailureView(outcome="failed", code="invalid_request", message="Too long", count=500)],
    estimate_low_usd=3.5,
    estimate_high_usd=61.25,
    cost_usd=0.1234,
    standard_cost_usd=0.2468,
    asked_again=1_200,
    asked_again_cost_usd=0.0021,
)


class Page(HTMLParser):
    """The tags and the visible text of a page, as a browser would find them."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, list[tuple[str, str | None]]]] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, attrs))

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_page_shows_counts_batches_money_times_and_reasons():
    text = re.sub(r"\s+", " ", Page(render(JOB)).text)
    for shown in (
        "label_tickets · submit · manual__2026-11-20T10:00:00+00:00",
        "Rows120,000: 120,000 asked",
        "Endpoint/v1/chat/completions",
        "Sealed2026-11-20 10:00:05 UTC",
        "Deadline–",
        "Estimate$3.50 to $61.25",
        "Cost so far$0.1234, without batch $0.2468",
        "Asked again1,200 requests, $0.0021 of the cost",
        "succeeded119,500",
        "500failedinvalid_requestToo long",
        "s0001completedbatch_agpt-5-mini50,0001",
        "s0002uploading–gpt-5-mini",
    ):
        assert shown in re.sub(r" ?\n ?", "", text), shown


def rows_of(**counts: object) -> str:
    """The line about rows on the page of JOB with these counts."""
    text = re.sub(r"\s+", " ", Page(render(msgspec.structs.replace(JOB, **counts))).text)
    return text.partition("Rows")[2].partition("Endpoint")[0].strip()


def test_the_page_tells_rows_that_are_asked_from_those_that_need_not_be():
    assert rows_of() == "120,000: 120,000 asked"
    assert rows_of(same=20_000) == "120,000: 100,000 asked, 20,000 the same as another row"
    assert (
        rows_of(same=20_000, known=99_000, reuse_from="analytics.labels")
        == "120,000: 1,000 asked, 20,000 the same as another row, 99,000 known from analytics.labels"
    )
    assert rows_of(reuse_from="labels") == "120,000: 120,000 asked, 0 known from labels"


def test_what_is_unknown_is_said_to_be_unknown():
    text = Page(render(msgspec.structs.replace(JOB, cost_usd=None, estimate_high_usd=None, outcomes={}))).text
    assert "Cost so far" in text
    assert "$3.50 to unknown" in text
    assert "without batch" not in text
    assert "Nothing has come back yet." in text


HOSTILE = """</pre><script>alert(1)</script><img src=x onerror=alert(1)>"' {{ 7*7 }} {% raw %} &lt; \x00\u202e"""


def test_hostile_text_stays_text_in_every_field():
    plain = [(tag, attrs) for tag, attrs in Page(render(JOB)).tags]
    hostile = msgspec.structs.replace(
        JOB,
        dag_id=HOSTILE,
        run_id=HOSTILE,
        task_id=HOSTILE,
        job_uid=HOSTILE,
        ledger=HOSTILE,
        endpoint=HOSTILE,
        reuse_from=HOSTILE,
        outcomes={HOSTILE: 1, "failed": 2},
        shards=[
            ShardView(name=HOSTILE, model=HOSTILE, requests=1, attempt=1, status=HOSTILE, batch_id=HOSTILE),
            JOB.shards[1],
        ],
        failures=[FailureView(outcome=HOSTILE, code=HOSTILE, message=HOSTILE, count=1)],
    )
    page = Page(render(hostile))
    assert page.tags == plain
    assert page.text.count("<script>alert(1)</script>") == 15
    assert page.text.count("{{ 7*7 }}") == 15
    assert Page(render_message(HOSTILE)).text.count("<script>") == 1


def test_the_policy_lets_the_browser_use_the_style_of_the_page_and_nothing_else():
    policy = HEADERS["Content-Security-Policy"]
    style = re.search(r"<style>(.*)</style>", render(JOB), re.DOTALL)
    assert style is not None
    digest = base64.b64encode(hashlib.sha256(style[1].encode()).digest()).decode()
    assert policy.split("; ")[:2] == ["default-src 'none'", f"style-src 'sha256-{digest}'"]
    assert not re.search(r"(src|href|action|on\w+)\s*=", render(JOB))


def test_long_lists_are_cut_and_say_so():
    long = msgspec.structs.replace(JOB, shards=JOB.shards * 400, failures=JOB.failures * 70)
    text = Page(render(long)).text
    assert "300 more shards are not shown." in text
    assert "20 rarer messages are not shown." in text
    assert text.count("s0001") == 250
