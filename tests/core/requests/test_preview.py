"""What a person reads of a preview: everything that a decision needs, and nothing of a row that could change it."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_batch.core.ledger.job import Estimate, JobKey, Manifest, Shard
from airflow_provider_batch.core.provider.limits import Limits
from airflow_provider_batch.core.requests.preview import LINE, MOST_OF_A_REQUEST, fenced, render_preview


def manifest(**changes: Any) -> Manifest:
    made = Manifest(
        job_uid="0" * 32,
        key=JobKey("dag", "preview", "run", -1),
        sealed_at=datetime(2026, 11, 2, tzinfo=UTC),
        endpoint="/v1/chat/completions",
        openai_conn_id="openai_default",
        requests=1_200,
        shards=[Shard("s0001", "gpt-5-mini", "s.jsonl", "s.rows", 1_200, 600_000, "0" * 64)],
        carry=[],
        estimate=Estimate(90_000, 12_000, 1_200_000, 0.0234, 2.5),
        limits=Limits(),
        max_cost_usd=5,
    )
    return msgspec.structs.replace(made, **changes)


def chat(custom_id: str, text: str) -> dict[str, Any]:
    messages = [{"content": "Label it.", "role": "system"}, {"content": text, "role": "user"}]
    return {"custom_id": custom_id, "body": {"messages": messages, "model": "gpt-5-mini", "temperature": 0}}


def test_it_tells_how_many_requests_there_are_what_they_may_cost_and_where_that_ends() -> None:
    told = render_preview(manifest(), [], has_more_rows=True)

    assert "**1,200 requests**" in told
    assert "**between 0.0234 and 2.50 US dollars**, ceiling 5.00 US dollars" in told
    assert "about 90,000 input tokens and 12,000 to 1,200,000 output tokens" in told
    assert "the query has more rows, which are not asked" in told


def test_a_price_that_is_not_known_is_said_to_be_unknown() -> None:
    told = render_preview(manifest(estimate=Estimate(unknown_models=["house-1"]), max_cost_usd=None), [])

    assert "cost unknown: no price is known for ` house-1 `" in told
    assert "without a ceiling" in told


def test_what_all_requests_say_is_shown_once() -> None:
    told = render_preview(manifest(), [chat("a", "first text"), chat("b", "second text")])

    assert told.index("first text") < told.index("second text") < told.index("In each of them")
    assert told.count("temperature: 0") == 1


def test_a_prompt_is_shown_with_its_lines_after_who_says_it() -> None:
    told = render_preview(manifest(), [chat("a", "Title\n\nThe body.")])

    assert "- role: user\n  content: |-\n    Title\n\n    The body.\n" in told


def test_a_long_prompt_is_cut_and_its_lines_are_broken() -> None:
    told = render_preview(manifest(), [chat("a", "word " * 100_000)])

    assert "… cut: 500,000 characters" in told
    assert len(told) < 2 * MOST_OF_A_REQUEST
    assert all(len(line) < LINE + 20 for line in told.splitlines() if "word" in line)


def test_a_custom_id_or_a_model_cannot_begin_markup_of_its_own() -> None:
    told = render_preview(
        manifest(endpoint="x`\n# Approved ![](http://evil)"), [chat("`\n\n# Free of charge\n", "text")]
    )

    assert "`` x` # Approved ![](http://evil) ``" in told
    assert not re.search("^#", told, re.MULTILINE)


def test_what_would_change_how_a_line_reads_is_spelled_out() -> None:
    shown = fenced("cost\u202e0\x1b[2K\u2028")

    assert "\\u202e" in shown
    assert "\\u001b" in shown
    assert "\\u2028" in shown


@given(st.lists(st.sampled_from(["`", "```", "`````", "~~~", "\n", "\n", "\r\n", " ", "#", "<", "a"])).map("".join))
def test_no_text_ends_the_block_that_it_stands_in(text: str) -> None:
    first, *inner, last = fenced(text).split("\n")

    fence = first.removesuffix("text")
    assert set(fence) == {"`"}
    assert last == fence
    # A line closes a block if it begins with at least as many backticks as the fence has.
    assert not any(re.match(rf" *`{{{len(fence)},}}", line) for line in inner)


@given(st.text(max_size=80), st.text(max_size=80))
def test_any_text_is_shown_within_blocks(custom_id: str, text: str) -> None:
    told = render_preview(manifest(), [chat(custom_id, text)])

    opened: str | None = None
    for line in told.split("\n"):
        found = re.match("`{3,}", line)
        if opened is None and found:
            opened = found[0]
        elif opened is not None and line == opened:
            opened = None
        elif opened is None:
            assert re.match(r"$|\*\*1,200 requests|- |Request 1, `", line), line
    assert opened is None
