"""The tickets of the demo, and their seeding."""

from __future__ import annotations

import re
import sqlite3
from collections import Counter
from contextlib import closing
from datetime import datetime
from pathlib import Path

import pytest

from airflow_provider_batch.demo import tickets
from airflow_provider_batch.local.answers.examples import read_examples

EXAMPLES = Path(tickets.__file__).with_name("ticket_examples.jsonl")
TICKETS = tickets.load()


def test_there_are_enough_tickets_and_all_differ() -> None:
    assert len(TICKETS) >= 320
    assert len({ticket.id for ticket in TICKETS}) == len(TICKETS)
    assert len({(ticket.title, ticket.body) for ticket in TICKETS}) == len(TICKETS)


def test_every_ticket_with_text_has_both_gold_labels() -> None:
    for ticket in TICKETS:
        has_labels = ticket.category is not None and ticket.urgency is not None
        assert has_labels == bool((ticket.title + ticket.body).strip()), ticket.id


def test_no_category_is_rare() -> None:
    categories = Counter(ticket.category for ticket in TICKETS if ticket.category)
    assert len(categories) == 7
    assert min(categories.values()) > 0.8 * max(categories.values())
    assert set(Counter(ticket.urgency for ticket in TICKETS if ticket.urgency)) == {"low", "normal", "high"}


@pytest.mark.parametrize(
    "fragment",
    [
        "\u2028",
        "\u2029",
        "\u0085",
        "\r\n",
        "\t",
        '"',
        "\\",
        "'); DROP TABLE",
        "{{",
        "{%",
        "<script>",
        "💧",
        "\u0001",
        "\u202e",
    ],
    ids=ascii,
)
def test_some_ticket_contains_what_breaks_careless_software(fragment: str) -> None:
    assert any(fragment in ticket.title + ticket.body for ticket in TICKETS)


def test_there_is_a_ticket_of_12_kb_and_one_without_a_body() -> None:
    assert max(len(ticket.body.encode()) for ticket in TICKETS) > 12_000
    assert any(ticket.title and not ticket.body for ticket in TICKETS)


def test_no_ticket_contains_nul_which_postgresql_cannot_store() -> None:
    assert not any("\0" in ticket.title + ticket.body for ticket in TICKETS)


def words(text: str) -> str:
    """Return the words of a text in lower case."""
    return " ".join(re.findall(r"\w+", text.lower()))


def test_no_title_and_no_body_of_a_ticket_is_among_the_labelled_examples() -> None:
    examples = [example.text for example in read_examples(EXAMPLES)]
    texts = {words(part) for ticket in TICKETS for part in (ticket.title, ticket.body)} - {""}

    assert len(examples) == len(set(examples)) == 98
    assert {words(part) for text in examples for part in text.split("\n\n")} & texts == set()


def test_every_label_of_the_tickets_has_examples() -> None:
    counts = Counter(example.labels["category"] for example in read_examples(EXAMPLES))
    assert counts == {ticket.category: 14 for ticket in TICKETS if ticket.category}
    urgencies = Counter(example.labels["urgency"] for example in read_examples(EXAMPLES))
    assert urgencies == {"normal": 53, "low": 35, "high": 10}


def test_seeding_keeps_every_character(tmp_path: Path) -> None:
    warehouse = tmp_path / "warehouse.sqlite"
    assert tickets.seed(warehouse, TICKETS) == len(TICKETS)
    with closing(sqlite3.connect(warehouse)) as connection:
        rows = connection.execute("SELECT * FROM tickets ORDER BY id").fetchall()
    assert [tickets.Ticket(*row) for row in rows] == TICKETS


def test_seeding_twice_replaces_the_tickets_and_leaves_other_tables_alone(tmp_path: Path) -> None:
    warehouse = tmp_path / "warehouse.sqlite"
    tickets.seed(warehouse, [*TICKETS, *tickets.failing_tickets(datetime(2026, 11, 8))])
    with closing(sqlite3.connect(warehouse)) as connection, connection:
        connection.execute("CREATE TABLE ticket_labels (custom_id TEXT)")
        connection.execute("INSERT INTO ticket_labels VALUES ('kept')")
    tickets.seed(warehouse, TICKETS)
    with closing(sqlite3.connect(warehouse)) as connection:
        assert connection.execute("SELECT count(*) FROM tickets").fetchone() == (len(TICKETS),)
        assert connection.execute("SELECT custom_id FROM ticket_labels").fetchall() == [("kept",)]


def test_only_failing_tickets_contain_markers() -> None:
    assert not any("[[" in ticket.title + ticket.body for ticket in TICKETS)
    assert all("[[" in ticket.body for ticket in tickets.failing_tickets(datetime(2026, 11, 8)))
