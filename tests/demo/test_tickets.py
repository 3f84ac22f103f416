"""The data set of the demo, and its seeding."""

from __future__ import annotations

import sqlite3
from collections import Counter
from contextlib import closing
from datetime import datetime
from pathlib import Path

import pytest

from airflow_provider_batch.demo import tickets

ALL = tickets.load()


def test_there_are_enough_tickets_and_no_two_are_equal() -> None:
    assert len(ALL) >= 320
    assert len({ticket.id for ticket in ALL}) == len(ALL)
    assert len({(ticket.title, ticket.body) for ticket in ALL}) == len(ALL)


def test_every_ticket_with_text_has_both_gold_labels() -> None:
    for ticket in ALL:
        labelled = ticket.category is not None and ticket.urgency is not None
        assert labelled == bool((ticket.title + ticket.body).strip()), ticket.id


def test_no_category_is_rare() -> None:
    categories = Counter(ticket.category for ticket in ALL if ticket.category)
    assert len(categories) == 7
    assert min(categories.values()) > 0.8 * max(categories.values())
    assert set(Counter(ticket.urgency for ticket in ALL if ticket.urgency)) == {"low", "normal", "high"}


@pytest.mark.parametrize(
    "nasty",
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
def test_what_breaks_pipelines_is_there(nasty: str) -> None:
    assert any(nasty in ticket.title + ticket.body for ticket in ALL)


def test_there_is_a_ticket_of_12_kb_and_one_without_a_body() -> None:
    assert max(len(ticket.body.encode()) for ticket in ALL) > 12_000
    assert any(ticket.title and not ticket.body for ticket in ALL)


def test_no_ticket_holds_nul_which_postgresql_cannot_store() -> None:
    assert not any("\0" in ticket.title + ticket.body for ticket in ALL)


def test_seeding_keeps_every_character(tmp_path: Path) -> None:
    warehouse = tmp_path / "warehouse.sqlite"
    assert tickets.seed(warehouse, ALL) == len(ALL)
    with closing(sqlite3.connect(warehouse)) as connection:
        rows = connection.execute("SELECT * FROM tickets ORDER BY id").fetchall()
    assert [tickets.Ticket(*row) for row in rows] == ALL


def test_seeding_again_replaces_the_tickets_and_leaves_other_tables_alone(tmp_path: Path) -> None:
    warehouse = tmp_path / "warehouse.sqlite"
    tickets.seed(warehouse, [*ALL, *tickets.planted(datetime(2026, 11, 8))])
    with closing(sqlite3.connect(warehouse)) as connection, connection:
        connection.execute("CREATE TABLE ticket_labels (custom_id TEXT)")
        connection.execute("INSERT INTO ticket_labels VALUES ('kept')")
    tickets.seed(warehouse, ALL)
    with closing(sqlite3.connect(warehouse)) as connection:
        assert connection.execute("SELECT count(*) FROM tickets").fetchone() == (len(ALL),)
        assert connection.execute("SELECT custom_id FROM ticket_labels").fetchall() == [("kept",)]


def test_only_planted_tickets_hold_markers() -> None:
    assert not any("[[" in ticket.title + ticket.body for ticket in ALL)
    assert all("[[" in ticket.body for ticket in tickets.planted(datetime(2026, 11, 8)))
