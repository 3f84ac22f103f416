"""The preview of a job as Markdown: its cost and size, two answers, the SQL, and the first requests in full.

The buttons of an approval are below the text, so a person who approves reads it without the requests in full.

A person reads it before approving the job. Prompts, rows and answers are untrusted text, and a browser renders the
Markdown. They are therefore fenced by more backticks than they contain, and characters that could change how a line
reads (control characters, direction marks) are shown as escapes.
"""

from __future__ import annotations

import re
import textwrap
import unicodedata
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import yaml

from airflow_provider_batch.core.formatting import format_count, format_usd, format_usd_range
from airflow_provider_batch.core.ledger.job import Estimate, Manifest
from airflow_provider_batch.core.schema.author_schema import schema_changes

#: maximum number of characters shown of one text, and of one request
MAX_TEXT_CHARACTERS = 2_000
MAX_REQUEST_CHARACTERS = 8_000
#: maximum number of characters of an answer that is shown for the decision
MAX_SHORT_CHARACTERS = 400
#: maximum number of lines of SQL that are shown for the decision, and of models
MAX_SQL_LINES = 12
MAX_MODELS = 10
#: maximum number of items shown of one list
MAX_ITEMS = 50
#: characters per line; longer lines are wrapped, because a code block does not wrap them
LINE_WIDTH = 80


def render_preview(
    manifest: Manifest,
    sample: Sequence[Mapping[str, Any]],
    estimate: Estimate | None = None,
    *,
    sql: str | None = None,
    tables: Sequence[str] = (),
    canary_outcomes: Mapping[str, int] = MappingProxyType({}),
    canary_cost_usd: float | None = None,
    has_sent_others: bool = False,
    in_full: bool = True,
) -> str:
    """Return the preview of a job as Markdown: first what a decision needs, then the requests in full.

    Airflow's pages drop HTML, so nothing can be folded.

    :param sample: a few requests, as `{"custom_id": …, "body": …}`, with an `answer` if the canary sent them.
    :param estimate: as measured by the canary. Default: the one of the manifest.
    :param sql: the query, if the rows come from one.
    :param tables: tables in which the answers land, as far as they are known.
    :param canary_outcomes: number of all requests of the canary by outcome; empty if none was sent.
    :param canary_cost_usd: what these cost, or None if that is unknown.
    :param has_sent_others: whether other requests were sent as well, because a person cleared a job that had sent them.
    :param in_full: whether the requests follow in full, with the whole SQL and the changes in the schema.
    """
    lines = _describe_job(manifest, estimate or manifest.estimate, tables)
    if canary_outcomes and estimate is not None:
        lines.insert(1, _describe_correction(manifest.estimate, sum(canary_outcomes.values())))
    if canary_outcomes:
        lines.append(_describe_canary(canary_outcomes, canary_cost_usd, len(sample)))
    if has_sent_others:
        lines.append("- Other requests of this job were sent before it was cleared")
    elif canary_outcomes:
        lines.append("- Nothing else has been sent")
    for request in _two_answers(sample):
        lines += _describe_short_answer(request)
    details = _describe_requests(sample)
    if sql:
        start = "\n".join(sql.strip().split("\n")[:MAX_SQL_LINES])[:MAX_TEXT_CHARACTERS]
        lines += ["", "SQL:", "", to_code_block(_cut(sql.strip(), len(start)), "sql")]
        if start != sql.strip():
            details += ["", "The whole SQL:", "", to_code_block(_cut(sql.strip(), MAX_REQUEST_CHARACTERS), "sql")]
    details += _describe_changes(manifest)
    if in_full and details:
        lines += ["", "---", "", "**The requests in full**", *details]
    return "\n".join(lines) + "\n"


def _describe_job(manifest: Manifest, estimate: Estimate, tables: Sequence[str]) -> list[str]:
    models = sorted({shard.model for shard in manifest.shards})
    shards = len(manifest.shards)
    rows = f"- **Rows: {manifest.requests:,}**"
    if manifest.requests - manifest.invalid != manifest.sent:
        rows += f" ({manifest.sources})"
    if manifest.invalid:
        rows += (
            f". {format_count(manifest.invalid, 'row')} cannot be sent, because a file that "
            f"{'it names is' if manifest.invalid == 1 else 'they name is'} missing or cannot be used"
        )
    if manifest.has_more_rows:
        rows += ". There are more rows, which will not be sent"
    lines = [
        f"- **Cost: {_describe_cost(estimate)}**, {_describe_ceiling(manifest.max_cost_usd, estimate)}",
        rows,
        f"- **Requests: {manifest.sent:,}** in {format_count(shards, 'shard')} "
        f"({'input file' if shards == 1 else 'input files'}), with about {estimate.input_tokens:,} input tokens and "
        f"{estimate.output_tokens_low:,} to {estimate.output_tokens_high:,} output tokens",
    ]
    if models:
        more = f" and {len(models) - MAX_MODELS:,} more" if len(models) > MAX_MODELS else ""
        title = "Model" if len(models) == 1 else "Models"
        lines.append(f"- **{title}:** {', '.join(map(to_inline_code, models[:MAX_MODELS]))}{more}")
    lines.append(f"- **Endpoint:** {to_inline_code(manifest.endpoint)}")
    if tables:
        lines.append(f"- **{'Table' if len(tables) == 1 else 'Tables'}:** {', '.join(map(to_inline_code, tables))}")
    return lines


def _describe_canary(outcomes: Mapping[str, int], cost_usd: float | None, sample_size: int) -> str:
    answers = sum(outcomes.values())
    below = f". {format_count(sample_size, 'of them is', 'of them are')} shown below" if sample_size < answers else ""
    return (
        f"- {format_count(answers, 'request was', 'requests were')} sent already, to see what comes back: "
        f"{', '.join(f'{count:,} {outcome}' for outcome, count in outcomes.items())}. "
        f"That cost {_describe_amount(cost_usd)}, which is part of the estimate{below}"
    )


def _describe_correction(initial: Estimate, answers: int) -> str:
    before = format_usd_range(initial.low_usd, initial.high_usd, initial.likely_usd)
    return f"- This range is by the usage of {format_count(answers, 'answer')}. Before that, it was {before}"


def _two_answers(sample: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return two requests with an answer, if possible with different outcomes."""
    answered = [request for request in sample if "answer" in request]
    if not answered:
        return []
    first, *others = answered
    others.sort(key=lambda request: request["answer"]["outcome"] == first["answer"]["outcome"])
    return [first, *others[:1]]


def _describe_short_answer(request: Mapping[str, Any]) -> list[str]:
    answer = request["answer"]
    text = answer["message"] or answer["text"] or ""
    lines = ["", f"Answer to {to_inline_code(str(request['custom_id']))}: **{answer['outcome']}**"]
    if text:
        lines += ["", to_code_block(_shorten(_cut(text, MAX_SHORT_CHARACTERS)))]
    return lines


def _describe_requests(sample: Sequence[Mapping[str, Any]]) -> list[str]:
    common = _common_items([request["body"] for request in sample])
    lines: list[str] = []
    for number, request in enumerate(sample, start=1):
        specific = {key: value for key, value in request["body"].items() if key not in common}
        lines += [
            "",
            f"Request {number}, {to_inline_code(str(request['custom_id']))}:",
            "",
            to_code_block(_format_body(specific)),
        ]
        if "answer" in request:
            lines += _describe_answer(request["answer"])
    if common:
        lines += ["", "Common to all of these requests:", "", to_code_block(_format_body(common))]
    return lines


def _describe_changes(manifest: Manifest) -> list[str]:
    changes = schema_changes(manifest.author_schema) if manifest.author_schema is not None else []
    if not changes:
        return []
    lines = ["", "Changed in the output_schema, so that the provider accepts it:", ""]
    lines += [f"- {to_inline_code(change)}" for change in changes[:MAX_ITEMS]]
    return [*lines, f"- … cut: {len(changes):,} changes"] if len(changes) > MAX_ITEMS else lines


def _cut(text: str, limit: int) -> str:
    return text if len(text) <= limit else f"{text[:limit]}\n… cut: {len(text):,} characters"


def _common_items(bodies: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the keys and values that all bodies share, so that a schema is shown only once."""
    if len(bodies) < 2:
        return {}
    first, *other_bodies = bodies
    absent = object()
    return {key: value for key, value in first.items() if all(body.get(key, absent) == value for body in other_bodies)}


def _describe_amount(usd: float | None) -> str:
    return "an unknown amount" if usd is None else format_usd(usd)


def _describe_answer(answer: Mapping[str, Any]) -> list[str]:
    input_tokens, output_tokens = (
        "unknown" if answer[name] is None else f"{answer[name]:,}" for name in ("input_tokens", "output_tokens")
    )
    lines = [
        "",
        f"Its answer: **{answer['outcome']}**, {input_tokens} input tokens, {output_tokens} output tokens, "
        f"{_describe_amount(answer['cost_usd'])}:",
    ]
    for text in (answer["message"], answer["text"]):
        if text:
            lines += ["", to_code_block(_shorten(text))]
    return lines


def _describe_cost(estimate: Estimate) -> str:
    if estimate.low_usd is None or estimate.high_usd is None:
        return f"unknown (no price is known for {', '.join(map(to_inline_code, estimate.unknown_models))})"
    note = " (at standard prices, because no batch price is known)" if estimate.standard_price_models else ""
    return format_usd_range(estimate.low_usd, estimate.high_usd, estimate.likely_usd) + note


def _describe_ceiling(ceiling: float | None, estimate: Estimate) -> str:
    if ceiling is None:
        return "no ceiling"
    exceeds = estimate.high_usd is not None and estimate.high_usd > ceiling
    return f"ceiling {format_usd(ceiling)}" + (". Requests that would exceed it are not sent" if exceeds else "")


def to_code_block(text: str, language: str = "text") -> str:
    """Return the text as a Markdown code block that it cannot break out of."""
    content = _escape_invisible(text)
    fence = "`" * max(3, _longest_run(content) + 1)
    # Airflow's pages show a block without a language as inline code and lose its line breaks (seen with 3.3.2)
    return f"{fence}{language}\n{content}\n{fence}"


def to_inline_code(text: str) -> str:
    """Return the text as inline Markdown code."""
    content = _escape_invisible(" ".join(text.split()))[:200]
    fence = "`" * (_longest_run(content) + 1)
    # Markdown removes one space from each end. The spaces allow the text to begin or end with a backtick.
    return f"{fence} {content} {fence}"


def _longest_run(text: str) -> int:
    return max(map(len, re.findall("`+", text)), default=0)


def _escape_invisible(text: str) -> str:
    """Return the text with all control and formatting characters except line ends as escapes."""
    return "".join(
        character
        if character == "\n" or unicodedata.category(character) not in ("Cc", "Cf", "Cs", "Zl", "Zp")
        else f"\\u{ord(character):04x}"
        for character in text.replace("\r\n", "\n")
    )


def _format_body(body: Any) -> str:
    text: str = yaml.dump(_shorten(body), Dumper=_Dumper, allow_unicode=True, sort_keys=False, width=10**6).rstrip("\n")
    return _cut(text, MAX_REQUEST_CHARACTERS)


def _shorten(value: Any) -> Any:
    if isinstance(value, str):
        cut_note = f"\n… cut: {len(value):,} characters" if len(value) > MAX_TEXT_CHARACTERS else ""
        # YAML keeps line breaks only in texts without control characters and without spaces at the end of a line
        lines = _escape_invisible(value[:MAX_TEXT_CHARACTERS].replace("\t", "    ")).split("\n")
        return "\n".join(textwrap.fill(line.rstrip(), LINE_WIDTH) for line in lines) + cut_note
    if isinstance(value, Mapping):
        # the role of a message comes first, before its content
        return {key: _shorten(value[key]) for key in sorted(value, key=lambda key: key != "role")}
    if isinstance(value, (list, tuple)):
        cut_notes = [f"… cut: {len(value):,} items"] if len(value) > MAX_ITEMS else []
        return [*map(_shorten, value[:MAX_ITEMS]), *cut_notes]
    return value


class _Dumper(yaml.SafeDumper):  # type: ignore[misc]
    """Writes texts with several lines as block literals, so that a prompt is readable."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Dumper.add_representer(str, _represent_text)
