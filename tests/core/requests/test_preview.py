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
from airflow_provider_batch.core.requests.preview import (
    LINE_WIDTH,
    MAX_REQUEST_CHARACTERS,
    render_preview,
    to_code_block,
)


def manifest(**changes: Any) -> Manifest:
    base = Manifest(
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
    return msgspec.structs.replace(base, **changes)


def chat(custom_id: str, text: str) -> dict[str, Any]:
    messages = [{"content": "Label it.", "role": "system"}, {"content": text, "role": "user"}]
    return {"custom_id": custom_id, "body": {"messages": messages, "model": "gpt-5-mini", "temperature": 0}}


def test_it_shows_the_number_of_requests_their_cost_and_the_ceiling() -> None:
    counted = manifest(has_more_rows=True, requests=1_205, duplicates=3, reused=2, reuse_from="labels")

    assert render_preview(counted, []).splitlines() == [
        "- **Cost: $0.0234 to $2.50**, ceiling $5.00",
        "- **Rows: 1,205** (1,200 sent, 3 duplicates, 2 reused from labels). There are more rows, which will not be "
        "sent",
        "- **Requests: 1,200** in 1 shard (input file), with about 90,000 input tokens and 12,000 to 1,200,000 output "
        "tokens",
        "- **Model:** ` gpt-5-mini `",
        "- **Endpoint:** ` /v1/chat/completions `",
    ]


def test_it_says_that_requests_beyond_the_ceiling_are_not_sent_if_the_job_may_exceed_it() -> None:
    assert "ceiling $1.00. Requests that would exceed it are not sent\n" in render_preview(manifest(max_cost_usd=1), [])


def test_the_decision_comes_before_the_requests_in_full() -> None:
    sample = [answered(name, f"Text of {name}") for name in ("a", "b", "c")]
    sample[2]["answer"] |= {"outcome": "invalid", "text": None, "message": "No such category."}

    decision, _, details = render_preview(
        manifest(), sample, sql="SELECT id\nFROM tickets", tables=["answers"], canary_outcomes={"succeeded": 2}
    ).partition("\n---\n")

    assert "- **Table:** ` answers `" in decision
    assert "SQL:\n\n```sql\nSELECT id\nFROM tickets\n```" in decision
    # two answers, which differ if possible
    assert re.findall(r"Answer to ` (\w) `: \*\*(\w+)\*\*\n\n```text\n(.*)\n", decision) == [
        ("a", "succeeded", "billing"),
        ("c", "invalid", "No such category."),
    ]
    assert "Text of" not in decision
    assert all(f"Text of {name}" in details for name in "abc")


def test_a_person_who_approves_reads_the_decision_without_the_requests_in_full() -> None:
    sample = [answered("a", "Text of a")]
    corrected = Estimate(80_000, 30_000, 90_000, 0.05, 0.21, likely_usd=0.08)

    text = render_preview(manifest(), sample, corrected, canary_outcomes={"succeeded": 5}, in_full=False)

    assert text.startswith(
        "- **Cost: $0.05 to $0.21, most likely $0.08**, ceiling $5.00\n"
        "- This range is by the usage of 5 answers. Before that, it was $0.0234 to $2.50\n"
    )
    assert "Answer to ` a `: **succeeded**" in text
    assert "Text of a" not in text


def test_long_sql_and_a_long_answer_do_not_hide_the_decision() -> None:
    sql = "SELECT id,\n" + "  title,\n" * 50 + "FROM ```tickets"
    decision, _, details = render_preview(
        manifest(), [answered("a", "One.", text="word " * 10_000)], sql=sql, canary_outcomes={"succeeded": 1}
    ).partition("\n---\n")

    assert len(decision.splitlines()) < 50
    assert f"… cut: {len(sql):,} characters" in decision
    assert "… cut: 50,000 characters" in decision
    assert "FROM ```tickets\n````" in details
    wide = render_preview(manifest(), [], sql=f"SELECT '{'x' * 100_000}'")
    assert "… cut: 100,009 characters" in wide
    assert len(wide) < 2 * MAX_REQUEST_CHARACTERS


def test_ten_models_are_named_and_the_others_are_counted() -> None:
    shards = [msgspec.structs.replace(manifest().shards[0], model=f"model-{number:02}") for number in range(12)]
    markdown = render_preview(manifest(shards=shards), [])

    assert "- **Models:** ` model-00 `, " in markdown
    assert "` model-09 ` and 2 more\n" in markdown


def test_it_shows_what_was_changed_in_the_schema() -> None:
    schema = {
        "type": "object",
        "properties": {"nickname": {"type": "string", "pattern": r"^(?!0)\d+$"}, "name": {"type": "string"}},
        "required": ["name"],
    }
    markdown = render_preview(manifest(author_schema=schema), [])

    assert (
        "Changed in the output_schema, so that the provider accepts it:\n\n"
        r"- ` nickname: optional, so it may be null; pattern ^(?!0)\d+$ is checked after the answer arrives `"
        in markdown
    )
    assert "Changed" not in render_preview(manifest(author_schema={**schema, "properties": {}, "required": []}), [])


def test_an_unknown_price_is_shown_as_unknown() -> None:
    markdown = render_preview(manifest(estimate=Estimate(unknown_models=["house-1"]), max_cost_usd=None), [])

    assert "**Cost: unknown (no price is known for ` house-1 `)**, no ceiling" in markdown


def test_what_all_requests_have_in_common_is_shown_once() -> None:
    markdown = render_preview(manifest(), [chat("a", "first text"), chat("b", "second text")])

    assert (
        markdown.index("first text") < markdown.index("second text") < markdown.index("Common to all of these requests")
    )
    assert markdown.count("temperature: 0") == 1


def test_a_prompt_is_shown_with_its_line_breaks_after_the_role() -> None:
    markdown = render_preview(manifest(), [chat("a", "Title\n\nThe body.")])

    assert "- role: user\n  content: |-\n    Title\n\n    The body.\n" in markdown


def test_a_long_prompt_is_cut_and_its_lines_are_wrapped() -> None:
    markdown = render_preview(manifest(), [chat("a", "word " * 100_000)])

    assert "… cut: 500,000 characters" in markdown
    assert len(markdown) < 2 * MAX_REQUEST_CHARACTERS
    assert all(len(line) < LINE_WIDTH + 20 for line in markdown.splitlines() if "word" in line)


def test_a_custom_id_or_an_endpoint_cannot_inject_markdown() -> None:
    markdown = render_preview(
        manifest(endpoint="x`\n# Approved ![](http://evil)"), [chat("`\n\n# Free of charge\n", "text")]
    )

    assert "`` x` # Approved ![](http://evil) ``" in markdown
    assert not re.search("^#", markdown, re.MULTILINE)


def test_characters_that_change_how_a_line_reads_are_escaped() -> None:
    text = to_code_block("cost\u202e0\x1b[2K\u2028")

    assert "\\u202e" in text
    assert "\\u001b" in text
    assert "\\u2028" in text


@given(st.lists(st.sampled_from(["`", "```", "`````", "~~~", "\n", "\n", "\r\n", " ", "#", "<", "a"])).map("".join))
def test_no_text_can_close_its_code_block(text: str) -> None:
    first, *inner, last = to_code_block(text).split("\n")

    fence = first.removesuffix("text")
    assert set(fence) == {"`"}
    assert last == fence
    # A line closes a block if it begins with at least as many backticks as the fence has.
    assert not any(re.match(rf" *`{{{len(fence)},}}", line) for line in inner)


def lines_outside_code(markdown: str) -> list[str]:
    """Return the lines that are not in code blocks, all of which must be closed."""
    fence: str | None = None
    outside = []
    for line in markdown.split("\n"):
        opening = re.match("`{3,}", line)
        if fence is None and opening:
            fence = opening[0]
        elif fence is not None and line == fence:
            fence = None
        elif fence is None:
            outside.append(line)
    assert fence is None
    return outside


@given(st.text(max_size=80), st.text(max_size=80))
def test_all_untrusted_text_is_inside_code_blocks(custom_id: str, text: str) -> None:
    markdown = render_preview(manifest(), [chat(custom_id, text)])

    for line in lines_outside_code(markdown):
        assert re.match(r"$|---$|\*\*The requests in full\*\*$|- |Request 1, `", line), line


def answered(custom_id: str, prompt: str, **answer: Any) -> dict[str, Any]:
    defaults = {
        "outcome": "succeeded",
        "text": "billing",
        "message": None,
        "input_tokens": 25_501,
        "output_tokens": 12,
        "cost_usd": 0.0019,
    }
    return {**chat(custom_id, prompt), "answer": {**defaults, **answer}}


def test_the_answers_of_the_canary_are_shown_below_their_requests_with_the_measured_estimate() -> None:
    markdown = render_preview(
        manifest(),
        [answered("a", "One."), answered("b", "Two.")],
        Estimate(low_usd=0.2, high_usd=0.22),
        canary_outcomes={"succeeded": 2},
        canary_cost_usd=0.0038,
    )

    assert "**Cost: $0.20 to $0.22**" in markdown
    assert (
        "- 2 requests were sent already, to see what comes back: 2 succeeded. That cost $0.0038, which is part"
        in markdown
    )
    assert "- Nothing else has been sent" in markdown
    assert "are shown below" not in markdown
    parts = markdown.partition("Request 2,")
    assert "Its answer: **succeeded**, 25,501 input tokens, 12 output tokens, $0.0019:" in parts[0]
    assert "```text\nbilling\n```" in parts[0]


def test_an_answer_that_failed_is_shown_with_its_message_and_unknown_figures_as_unknown() -> None:
    markdown = render_preview(
        manifest(),
        [
            answered(
                "a",
                "One.",
                outcome="failed",
                text=None,
                message="rate_limit: Slow down",
                input_tokens=None,
                cost_usd=None,
            )
        ],
        canary_outcomes={"failed": 1},
    )

    assert "1 request was sent already, to see what comes back: 1 failed. That cost an unknown amount," in markdown
    assert "Its answer: **failed**, unknown input tokens, 12 output tokens, an unknown amount:" in markdown
    assert "```text\nrate_limit: Slow down\n```" in markdown


def test_all_requests_of_the_canary_are_counted_although_only_some_are_shown() -> None:
    markdown = render_preview(
        manifest(), [answered("a", "One.")], canary_outcomes={"succeeded": 14, "refused": 1}, canary_cost_usd=0.0285
    )

    assert "- 15 requests were sent already, to see what comes back: 14 succeeded, 1 refused. That cost $0.0285, " in (
        markdown
    )
    assert "which is part of the estimate. 1 of them is shown below" in markdown


def test_the_preview_of_a_cleared_job_says_that_other_requests_were_sent() -> None:
    markdown = render_preview(
        manifest(), [answered("a", "One.")], canary_outcomes={"succeeded": 1}, has_sent_others=True
    )

    assert "- Other requests of this job were sent before it was cleared" in markdown
    assert "Nothing else" not in markdown


@given(st.text(max_size=80), st.text(max_size=80))
def test_no_answer_can_add_a_heading_a_link_or_html(text: str, message: str) -> None:
    hostile = f"{text}\n```\n# Approve\n<img src=x>[a](b)"
    markdown = render_preview(manifest(), [answered("a", "One.", text=hostile, message=f"{message}{hostile}")])

    assert not any("#" in line or "<" in line or "](" in line for line in lines_outside_code(markdown))
