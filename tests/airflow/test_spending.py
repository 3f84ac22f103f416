"""Sums over a results table are the bill: what the answers in staging cost, all attempts included."""

from __future__ import annotations

import json
from datetime import timedelta
from decimal import Decimal
from itertools import chain
from pathlib import Path
from urllib.parse import unquote

import pytest

from airflow_provider_batch.local.faults import Fault, Kind
from airflow_provider_batch.local.process import LocalServer
from tests.airflow.jobs import DagRunResult, Ticket, query, run_job

#: has no flex tier, so that its synchronous requests cost twice as much as those in a batch
MODEL = "gpt-4.1-mini"
BATCH, STANDARD = (Decimal("0.2"), Decimal("0.8")), (Decimal("0.4"), Decimal("1.6"))


@pytest.fixture
def tickets() -> list[Ticket]:
    texts = [f"Ticket {n}" for n in range(12)] + ["[[cutoff]] no cap is enough", "many words " * 30]
    rows = [(f"T-{n}", text, "The invoice is wrong", "billing") for n, text in enumerate(texts)]
    # each request four times
    return [(f"{key}-{copy}", *ticket) for copy in range(4) for key, *ticket in rows]


def bill(result: DagRunResult) -> tuple[Decimal, int, int]:
    """Return what the answers of a job cost, and their input and output tokens, counted in its result files."""
    cost, tokens = Decimal(0), [0, 0]
    seen: set[tuple[Path, str]] = set()
    root = Path(unquote(result.return_values["submit"]["ledger"]).removeprefix("file://"))
    for file in chain(root.rglob("collected/*/output.*"), root.rglob("collected/*/error.*")):
        for text in file.read_text("utf-8").splitlines():
            line = json.loads(text)
            if (file.parent, line["custom_id"]) in seen:
                continue  # a repeated line is one answer
            seen.add((file.parent, line["custom_id"]))
            usage = ((line.get("response") or {}).get("body") or {}).get("usage")
            if usage:
                used = usage["prompt_tokens"], usage["completion_tokens"]
                rates = STANDARD if line["id"].startswith("sync_") else BATCH
                cost += sum((rate * count for rate, count in zip(rates, used, strict=True)), Decimal(0)) / 1_000_000
                tokens = [tokens[0] + used[0], tokens[1] + used[1]]
    return cost, tokens[0], tokens[1]


def sums(path: Path, table: str, job_uid: str) -> tuple[Decimal, int, int]:
    """Return the sums of the cost and of the input and output tokens over the rows of a job."""
    rows = query(path, f"SELECT cost_usd, input_tokens, output_tokens FROM {table} WHERE job_uid = '{job_uid}'")
    assert all(None not in row for row in rows), [row for row in rows if None in row]
    return sum((Decimal(str(row[0])) for row in rows), Decimal(0)), sum(r[1] for r in rows), sum(r[2] for r in rows)


def check(path: Path, result: DagRunResult, table: str) -> None:
    land = result.return_values["land"]
    cost, *tokens = bill(result)
    assert cost > 0
    assert Decimal(land["cost_usd"]) == cost
    assert [land["tokens"]["input"], land["tokens"]["output"]] == tokens
    table_cost, *table_tokens = sums(path, table, land["job_uid"])
    assert abs(table_cost - cost) < Decimal("1e-12")
    assert table_tokens == tokens


def test_sums_over_the_table_are_the_bill_after_retries_duplicates_reuse_and_a_canary(
    warehouse: Path, faulty_server: LocalServer
) -> None:
    faulty_server.set_faults(
        Fault(kind=Kind.ERROR, status=500, rate=0.3, times=1),
        Fault(kind=Kind.LENGTH, rate=0.3, times=1),
        Fault(kind=Kind.DUPLICATE_LINE, rate=0.2),
    )
    wait = {"row_retry_delay": timedelta(0), "max_attempts": 3, "on_incomplete": "raise_cap"}
    result = run_job(model=MODEL, canary=2, max_output_tokens=30, ignore_canary=True, wait=wait)
    assert result.return_values["land"]["retried"] > 2
    assert {row[0] for row in query(warehouse, "SELECT attempt FROM answers")} >= {0, 1, 2, 3}
    check(warehouse, result, "answers")

    reused = run_job(
        model=MODEL,
        canary=2,
        max_output_tokens=30,
        ignore_canary=True,
        wait=wait,
        reuse_from="answers",
        land={"table": "again"},
    )
    assert reused.return_values["land"]["reused"] > 0
    check(warehouse, reused, "again")


def test_sums_over_the_table_are_the_bill_after_a_final_pass(warehouse: Path, faulty_server: LocalServer) -> None:
    faulty_server.set_faults(Fault(kind=Kind.STUCK, skip=1), Fault(kind=Kind.LENGTH, rate=0.4))
    wait = {"deadline": timedelta(seconds=6), "poke_interval": 1, "at_deadline": "sync"}
    result = run_job(model=MODEL, canary=2, limits={"requests": 5}, wait=wait, max_output_tokens=500)
    assert result.return_values["wait"]["final_pass"]["sent"] > 0
    check(warehouse, result, "answers")
