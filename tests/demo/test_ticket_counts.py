"""README, Makefile and the pages state as many tickets as there are."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec

from airflow_provider_batch.demo.tickets import Ticket

ROOT = Path(__file__).parents[2]
DEMO = ROOT / "airflow_provider_batch" / "demo"


def test_every_page_states_the_number_of_tickets_in_the_file() -> None:
    lines = (DEMO / "tickets.jsonl").read_bytes().splitlines()
    tickets = [msgspec.json.decode(line, type=Ticket) for line in lines]
    labelled = sum(1 for ticket in tickets if ticket.category is not None)

    assert f"holds {len(tickets)} support tickets" in (DEMO / "README.md").read_text()
    assert f"So {labelled} of the {len(tickets)} tickets are labelled" in (DEMO / "README.md").read_text()
    for page in ("README.md", "Makefile"):
        assert re.findall(r"(\d+) support tickets", (ROOT / page).read_text()) == [str(labelled)], page
    for page in ("label_tickets", "classify_at_scale"):
        assert re.findall(r"^\| (\d+) tickets", (ROOT / f"docs/dags/{page}.md").read_text(), re.M)[:1] == [
            str(labelled)
        ]
