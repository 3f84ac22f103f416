"""A preview as Markdown: what would be asked, what it would cost, the first requests. For a person who decides.

Prompts and rows are anybody's text, and Markdown is shown in a browser: they stand in fences that are longer than any
run of backticks in them, and what could change how a line reads (controls, marks of direction) is spelled out.
"""

from __future__ import annotations

import re
import textwrap
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from airflow_provider_batch.core.ledger.job import Estimate, Manifest

#: characters of one text, and of one request, that are shown
MOST_OF_A_TEXT = 2_000
MOST_OF_A_REQUEST = 8_000
#: items of one list that are shown
MOST_ITEMS = 50
#: characters of a line; longer ones are broken, as a code block does not do that
LINE = 80


def render_preview(manifest: Manifest, sample: Sequence[Mapping[str, Any]], *, has_more_rows: bool = False) -> str:
    """The preview of a job that was built, not sealed.

    :param sample: the first requests, as `{"custom_id": …, "body": …}`.
    :param has_more_rows: the query has more rows than were asked for.
    """
    models = sorted({shard.model for shard in manifest.shards})
    shards = len(manifest.shards)
    lines = [
        f"**{manifest.asked:,} {_plural(manifest.asked, 'request')}** in {shards:,} {_plural(shards, 'shard')} "
        f"({_plural(shards, 'input file')}) to {_code(manifest.endpoint)}"
        + (f", model {', '.join(map(_code, models[:10]))}" if models else ""),
        "",
        f"- **{told_estimate(manifest.estimate)}**, {_ceiling(manifest.max_cost_usd)}",
        f"- about {manifest.estimate.input_tokens:,} input tokens and "
        f"{manifest.estimate.output_tokens_low:,} to {manifest.estimate.output_tokens_high:,} output tokens",
    ]
    if manifest.requests != manifest.asked:
        lines.append(
            f"- {manifest.requests:,} rows: {manifest.same:,} ask the same as another row, {manifest.known:,} are known"
        )
    if has_more_rows:
        lines.append("- the query has more rows, which are not asked")
    common = _in_common([request["body"] for request in sample])
    for number, request in enumerate(sample, start=1):
        own = {key: value for key, value in request["body"].items() if key not in common}
        lines += ["", f"Request {number}, {_code(str(request['custom_id']))}:", "", fenced(_request(own))]
    if common:
        lines += ["", "In each of them:", "", fenced(_request(common))]
    return "\n".join(lines) + "\n"


def _in_common(bodies: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What several bodies all say, so that a schema is shown once."""
    if len(bodies) < 2:
        return {}
    first, *others = bodies
    absent = object()
    return {key: value for key, value in first.items() if all(body.get(key, absent) == value for body in others)}


def told_estimate(estimate: Estimate) -> str:
    """What a job is expected to cost, in words."""
    if estimate.low_usd is None or estimate.high_usd is None:
        return f"cost unknown: no price is known for {', '.join(map(_code, estimate.unknown_models))}"
    told = f"between {dollars(estimate.low_usd)} and {dollars(estimate.high_usd)} US dollars"
    return told + (" (standard prices: no batch price is known)" if estimate.standard_price_models else "")


def dollars(amount: float) -> str:
    """An amount with cents, and with as many more places as a small one needs."""
    return f"{amount:,.2f}" if amount >= 1 or amount == 0 else f"{amount:,.4f}"


def fenced(text: str) -> str:
    """Text in a Markdown code block that it cannot break out of."""
    shown = _visible(text)
    fence = "`" * max(3, _longest_run(shown) + 1)
    # Without a language Airflow's pages show a block as code within a line, and lose its lines (seen with 3.3.2).
    return f"{fence}text\n{shown}\n{fence}"


def _code(text: str) -> str:
    """Text as Markdown code within a line."""
    shown = _visible(" ".join(text.split()))[:200]
    fence = "`" * (_longest_run(shown) + 1)
    # Markdown takes one blank off each end, so that a backtick may stand there.
    return f"{fence} {shown} {fence}"


def _longest_run(text: str) -> int:
    return max(map(len, re.findall("`+", text)), default=0)


def _visible(text: str) -> str:
    """The text with every control and formatting character but line ends spelled out."""
    return "".join(
        character
        if character == "\n" or unicodedata.category(character) not in ("Cc", "Cf", "Cs", "Zl", "Zp")
        else f"\\u{ord(character):04x}"
        for character in text.replace("\r\n", "\n")
    )


def _ceiling(ceiling: float | None) -> str:
    return "without a ceiling" if ceiling is None else f"ceiling {dollars(ceiling)} US dollars"


def _plural(count: int, word: str) -> str:
    return word if count == 1 else f"{word}s"


def _request(body: Any) -> str:
    text = yaml.dump(_short(body), Dumper=_Dumper, allow_unicode=True, sort_keys=False, width=10**6).rstrip("\n")
    return text if len(text) <= MOST_OF_A_REQUEST else f"{text[:MOST_OF_A_REQUEST]}\n… cut: {len(text):,} characters"


def _short(value: Any) -> Any:
    if isinstance(value, str):
        cut = f"\n… cut: {len(value):,} characters" if len(value) > MOST_OF_A_TEXT else ""
        # YAML keeps the lines only of a text without controls and without blanks at the end of a line.
        lines = _visible(value[:MOST_OF_A_TEXT].replace("\t", "    ")).split("\n")
        return "\n".join(textwrap.fill(line.rstrip(), LINE) for line in lines) + cut
    if isinstance(value, Mapping):
        # the role says who speaks, so it comes before what is said
        return {key: _short(value[key]) for key in sorted(value, key=lambda key: key != "role")}
    if isinstance(value, (list, tuple)):
        more = [f"… cut: {len(value):,} items"] if len(value) > MOST_ITEMS else []
        return [*map(_short, value[:MOST_ITEMS]), *more]
    return value


class _Dumper(yaml.SafeDumper):  # type: ignore[misc]
    """Texts of several lines keep them, which is how a prompt is read."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Dumper.add_representer(str, _text)
