"""The HTML of the page of a job."""

from __future__ import annotations

import base64
import hashlib
import re
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from typing import Any

import msgspec

from airflow_provider_batch.core.ledger.job import Estimate
from airflow_provider_batch.core.ledger.records import Landed, Reason
from airflow_provider_batch.core.lifecycle.status import JobPhase
from airflow_provider_batch.core.lifecycle.summary import JobSummary, ShardSummary, SubmissionSummary
from airflow_provider_batch.plugins.page import HEADERS, render, render_message

SEALED_AT = datetime(2026, 11, 20, 10, 0, 5, tzinfo=UTC)
NOW = SEALED_AT + timedelta(hours=3, minutes=5)
FAILED = Reason("failed", "invalid_request", "Too long", 500)


def shard(name: str, phase: str, *submissions: SubmissionSummary) -> ShardSummary:
    return ShardSummary(
        name=name, model="gpt-5-mini", requests=50_000, attempt=1, phase=phase, file=name, submissions=list(submissions)
    )


LANDED = Landed(
    number=1,
    table="labels",
    outcomes={"succeeded": 119_500, "failed": 500},
    cost_usd="0.1234",
    standard_cost_usd="0.2468",
    reasons=[FAILED],
    time=SEALED_AT,
    retried=1_200,
    retried_cost_usd="0.0021",
)
JOB = JobSummary(
    dag_id="label_tickets",
    run_id="manual__2026-11-20T10:00:00+00:00",
    task_id="submit",
    map_index=-1,
    job_uid="0123456789abcdef",
    generation=1,
    folder="s3://bucket/batch/label_tickets",
    phase=JobPhase.LANDED,
    state="landed in labels",
    next="nothing.",
    endpoint="/v1/chat/completions",
    connection="openai_default",
    sealed_at=SEALED_AT,
    last_at=SEALED_AT,
    settled_at=None,
    deadline=None,
    retention_days=None,
    requests=120_000,
    sent=120_000,
    duplicates=0,
    reused=0,
    reuse_from="",
    sealed_shards=2,
    batches=1,
    live=0,
    outcomes=LANDED.outcomes,
    progress=LANDED.outcomes,
    estimate=Estimate(low_usd=3.5, high_usd=61.25, likely_usd=12.5),
    running_estimate=None,
    cost_usd=LANDED.cost_usd,
    paid_twice=0,
    held_batches=[],
    landed=LANDED,
    shards=[
        shard("s0001", "settled", SubmissionSummary(number=1, status="completed", settled=True, batch_id="batch_a")),
        shard("s0002", "uploaded"),
    ],
    retry_rounds=[],
    final_pass=None,
)


def page(job: JobSummary = JOB, task_id: str = "submit", **fields: Any) -> str:
    """Return the page of JOB with these fields changed."""
    return render(msgspec.structs.replace(job, **fields), task_id, -1, NOW)


class Page(HTMLParser):
    """The tags and the text of a page, as a browser parses them."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, list[tuple[str, str | None]]]] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, attrs))

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_page_shows_counts_batches_money_times_and_reasons() -> None:
    text = re.sub(r"\s+", " ", Page(page()).text)
    for expected in (
        "label_tickets · submit · manual__2026-11-20T10:00:00+00:00",
        "Rows120,000: 120,000 sent",
        "Endpoint/v1/chat/completions",
        "Sealed2026-11-20 10:00:05 UTC (3 h ago)",
        "Deadline–",
        "Estimate$3.50 to $61.25, most likely $12.50",
        "Cost so far$0.1234 ($0.2468 at the standard price)",
        "Retried1,200 requests, $0.0021 of the cost",
        "succeeded119,500",
        "500failedinvalid_requestToo long",
        "s0001completedbatch_agpt-5-mini50,0001",
        "s0002uploaded–gpt-5-mini",
    ):
        assert expected in re.sub(r" ?\n ?", "", text), expected


def rows_of(**counts: Any) -> str:
    """Return the line about rows on the page of JOB with these counts."""
    text = re.sub(r"\s+", " ", Page(page(**counts)).text)
    return text.partition("Rows")[2].partition("Endpoint")[0].strip()


def test_the_page_counts_the_rows_that_are_sent_duplicates_or_reused() -> None:
    assert rows_of() == "120,000: 120,000 sent"
    assert rows_of(sent=119_999, duplicates=1) == "120,000: 119,999 sent, 1 duplicate"
    assert rows_of(sent=100_000, duplicates=20_000) == "120,000: 100,000 sent, 20,000 duplicates"
    assert (
        rows_of(sent=1_000, duplicates=20_000, reused=99_000, reuse_from="analytics.labels")
        == "120,000: 1,000 sent, 20,000 duplicates, 99,000 reused from analytics.labels"
    )
    assert rows_of(reuse_from="labels") == "120,000: 120,000 sent, 0 reused from labels"


def test_an_unknown_cost_is_shown_as_unknown() -> None:
    text = Page(page(cost_usd=None, landed=None, estimate=Estimate(low_usd=3.5), outcomes={})).text
    assert "Cost so far" in text
    assert "Estimateunknown" in text
    assert "at the standard price" not in text
    assert "No answers yet." in text


HOSTILE = """</pre><script>alert(1)</script><img src=x onerror=alert(1)>"' {{ 7*7 }} {% raw %} &lt; \x00\u202e"""


def test_markup_in_any_field_is_escaped() -> None:
    harmless = Page(page()).tags
    submission = SubmissionSummary(number=1, status=HOSTILE, settled=True, batch_id=HOSTILE)
    hostile = page(
        task_id=HOSTILE,
        dag_id=HOSTILE,
        run_id=HOSTILE,
        job_uid=HOSTILE,
        folder=HOSTILE,
        endpoint=HOSTILE,
        reuse_from=HOSTILE,
        outcomes={HOSTILE: 1, "failed": 2},
        landed=msgspec.structs.replace(LANDED, reasons=[Reason(HOSTILE, HOSTILE, HOSTILE, 1)]),
        shards=[msgspec.structs.replace(shard(HOSTILE, "settled", submission), model=HOSTILE), JOB.shards[1]],
    )
    parsed = Page(hostile)
    assert parsed.tags == harmless
    assert parsed.text.count("<script>alert(1)</script>") == 15
    assert parsed.text.count("{{ 7*7 }}") == 15
    assert Page(render_message(HOSTILE)).text.count("<script>") == 1


def test_the_content_security_policy_allows_nothing_but_the_style_sheet_of_the_page() -> None:
    policy = HEADERS["Content-Security-Policy"]
    style = re.search(r"<style>(.*)</style>", page(), re.DOTALL)
    assert style is not None
    digest = base64.b64encode(hashlib.sha256(style[1].encode()).digest()).decode()
    assert policy.split("; ")[:2] == ["default-src 'none'", f"style-src 'sha256-{digest}'"]
    assert not re.search(r"(src|href|action|on\w+)\s*=", page())


def test_the_page_says_how_many_entries_of_a_long_list_are_left_out() -> None:
    landed = msgspec.structs.replace(LANDED, reasons=[FAILED] * 70)
    text = Page(page(shards=JOB.shards * 400, landed=landed)).text
    assert "300 more shards are not shown." in text
    assert "20 less frequent messages are not shown." in text
    assert text.count("s0001") == 250
