"""What landed: outcomes, tokens, cost, accuracy against the gold labels, and a few of the rows."""

from __future__ import annotations

import sqlite3
from collections import Counter, defaultdict
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

from genai_prices import Usage, calc_price
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from airflow_provider_batch.demo.home import DemoError

#: tickets that the DAG's query asks for; the one without any text is left out by it
ASKED = "SELECT count(*) FROM tickets WHERE trim(title || body) <> ''"
_LANDED = """
SELECT l.custom_id, t.title, l.outcome, l.category, l.urgency, l.gold_category, l.gold_urgency, l.model,
       l.input_tokens, l.cached_tokens, l.output_tokens, l.cost_usd, l.error_code
FROM ticket_labels AS l LEFT JOIN tickets AS t ON t.id = l.custom_id
WHERE l.run_id = ?
ORDER BY l.custom_id
"""


@dataclass(frozen=True)
class Landed:
    """One row of the table `ticket_labels`, with the ticket's title."""

    custom_id: str
    title: str | None
    outcome: str
    category: str | None
    urgency: str | None
    gold_category: str | None
    gold_urgency: str | None
    model: str | None
    input_tokens: int | None
    cached_tokens: int | None
    output_tokens: int | None
    cost_usd: float | None
    error_code: str | None


def landed(warehouse: Path, run_id: str) -> list[Landed]:
    """The rows of one run.

    :raises DemoError: if they are not exactly as many as tickets were asked about.
    """
    with closing(sqlite3.connect(warehouse)) as connection:
        (asked,) = connection.execute(ASKED).fetchone()
        rows = [Landed(*row) for row in connection.execute(_LANDED, (run_id,))]
    if len(rows) != asked:
        raise DemoError(f"{asked} tickets were asked about, but {len(rows)} rows of run {run_id} lie in ticket_labels.")
    return rows


def standard_price(rows: Sequence[Landed], model: str) -> Decimal | None:
    """What the same tokens cost outside of a batch, in US dollars, by the list prices of `genai-prices`."""
    usage = Usage(
        input_tokens=sum(row.input_tokens or 0 for row in rows),
        cache_read_tokens=sum(row.cached_tokens or 0 for row in rows),
        output_tokens=sum(row.output_tokens or 0 for row in rows),
    )
    try:
        return calc_price(usage, model, provider_id="openai").total_price
    except LookupError:
        return None


def show(console: Console, rows: Sequence[Landed], *, model: str, live: bool) -> None:
    """Print all of it."""
    _outcomes(console, rows)
    _money(console, rows, model=model, live=live)
    _accuracy(console, rows, live=live)
    _examples(console, rows)


def _outcomes(console: Console, rows: Sequence[Landed]) -> None:
    table = Table(title="Outcomes", title_justify="left")
    table.add_column("outcome")
    table.add_column("rows", justify="right")
    table.add_column("error codes")
    for outcome, count in Counter(row.outcome for row in rows).most_common():
        codes = sorted({row.error_code for row in rows if row.outcome == outcome and row.error_code})
        table.add_row(outcome, f"{count:,}", ", ".join(codes))
    table.add_section()
    table.add_row("all", f"{len(rows):,}", "")
    console.print(table)


def _money(console: Console, rows: Sequence[Landed], *, model: str, live: bool) -> None:
    cost = sum((Decimal(str(row.cost_usd)) for row in rows if row.cost_usd is not None), Decimal())
    standard = standard_price(rows, model)
    table = Table("", "", title="Tokens and cost", title_justify="left", show_header=False)
    answered = Counter(row.model for row in rows if row.outcome == "succeeded")
    table.add_row("answered by", ", ".join(str(name) for name, _ in answered.most_common()))
    table.add_row("input tokens", f"{sum(row.input_tokens or 0 for row in rows):,}")
    table.add_row("output tokens", f"{sum(row.output_tokens or 0 for row in rows):,}")
    if unpriced := sum(row.cost_usd is None and bool(row.input_tokens) for row in rows):
        table.add_row("rows of unknown price", f"{unpriced:,}")
    table.add_row("cost", f"${cost:.4f}")
    if standard:
        table.add_row("the same without batch", f"${standard:.4f}")
        table.add_row("saved", f"${standard - cost:.4f}  ({(standard - cost) / standard:.0%})")
    console.print(table)
    if live:
        console.print("List prices of the package genai-prices; your invoice counts.", style="dim")
    else:
        console.print(
            f"Nothing was billed: no model was asked. The figures are list prices of {model} for estimated tokens.",
            style="dim",
        )


def _accuracy(console: Console, rows: Sequence[Landed], *, live: bool) -> None:
    judged = [row for row in rows if row.outcome == "succeeded" and row.gold_category]
    if not judged:
        console.print("No answer can be compared with a gold label.")
        return
    taken_for: dict[str, Counter[str]] = defaultdict(Counter)
    for row in judged:
        taken_for[str(row.gold_category)][str(row.category)] += 1
    table = Table(title="Accuracy against the gold labels", title_justify="left")
    table.add_column("category")
    table.add_column("tickets", justify="right")
    table.add_column("right", justify="right")
    table.add_column("accuracy", justify="right")
    table.add_column("else mostly taken for")
    for category in sorted(taken_for):
        given = taken_for[category]
        wrong = [f"{name} ({count})" for name, count in given.most_common() if name != category]
        tickets, right = given.total(), given[category]
        table.add_row(category, f"{tickets}", f"{right}", f"{right / tickets:.0%}", ", ".join(wrong[:2]))
    table.add_section()
    right = sum(row.category == row.gold_category for row in judged)
    table.add_row("category", f"{len(judged)}", f"{right}", f"{right / len(judged):.0%}", "")
    right = sum(row.urgency == row.gold_urgency for row in judged)
    table.add_row("urgency", f"{len(judged)}", f"{right}", f"{right / len(judged):.0%}", "")
    console.print(table)
    if not live:
        console.print(
            "Offline, a counter of common words answers: it understands nothing, so expect about half to be wrong.",
            style="dim",
        )


def _examples(console: Console, rows: Sequence[Landed]) -> None:
    table = Table(title="Ten of the rows in ticket_labels", title_justify="left")
    for name in ("custom_id", "title", "outcome", "category", "gold", "urgency", "gold"):
        table.add_column(name, no_wrap=True, max_width=28 if name == "title" else None, overflow="ellipsis")
    for row in examples(rows, 10):
        table.add_row(
            row.custom_id,
            escape(" ".join(_printable(row.title or "").split())),
            row.outcome,
            *(value or "–" for value in (row.category, row.gold_category, row.urgency, row.gold_urgency)),
        )
    console.print(table)


def examples(rows: Sequence[Landed], count: int) -> list[Landed]:
    """Some rows: the first of each outcome, then succeeded ones from all over the table."""
    first = {row.outcome: row for row in reversed(rows)}
    chosen = [row for row in first.values() if row.outcome != "succeeded"][:count]
    others = [row for row in rows if row.outcome == "succeeded"]
    wanted = min(count - len(chosen), len(others))
    chosen += [others[number * len(others) // wanted] for number in range(wanted)]
    return sorted(chosen, key=lambda row: row.custom_id)


def _printable(text: str) -> str:
    return "".join(letter if letter.isprintable() else " " for letter in text)
