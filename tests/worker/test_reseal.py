"""Sealing rows again: only from files that are the ones that were sealed."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import pytest

from airflow_provider_batch.core.ledger.ledger import Ledger, seal
from airflow_provider_batch.core.ledger.records import Created
from airflow_provider_batch.core.lifecycle.steps import FinalPass, Policy, Retry
from airflow_provider_batch.core.sealing.final_pass import seal_final_pass
from airflow_provider_batch.exceptions import StagingError
from airflow_provider_batch.staging.local import LocalFolder
from airflow_provider_batch.worker.reseal import Resealer
from tests.core.building import NOW, chat_line, manifest_of, request, seal_all, settle


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    """Provide a job with one settled shard, in which the second of two rows has failed."""
    folder = LocalFolder(tmp_path / "job")
    (shard,) = seal_all(folder, [request("a"), request("b")])
    ledger = seal(folder, manifest_of([shard]))
    ledger.add(Created(shard.name, 1, "batch_1", NOW))
    ledger.add(settle(folder, shard, [chat_line("a"), chat_line("b", status=500)]))
    return ledger


def change(ledger: Ledger, name: str) -> None:
    """Change one byte of a staged file."""
    (path,) = Path(ledger.folder.uri.removeprefix("file://")).rglob(name)
    data = path.read_bytes()
    path.write_bytes(data[:20] + bytes([data[20] ^ 1]) + data[21:])


def retry(ledger: Ledger) -> None:
    """Seal the rows to retry."""
    source = next((shard, settled) for shard, _, settled in ledger.state().settled_submissions())
    resealer = Resealer(ledger, Policy(), None, logging.getLogger(), lambda: NOW, lambda *_: True)
    resealer.retry(Retry([source]))


def send_final_pass(ledger: Ledger) -> None:
    """Seal the rows of the final pass."""
    source = next((shard, settled) for shard, _, settled in ledger.state().settled_submissions())
    seal_final_pass(ledger, FinalPass(1, [source], [], 0), Policy(at_deadline_rows=9), None, lambda *_: True, NOW)


@pytest.mark.parametrize("name", ["s0001.jsonl", "s0001.rows.jsonl"])
@pytest.mark.parametrize("reseal", [retry, send_final_pass])
def test_rows_of_a_changed_file_are_not_sealed_again(
    ledger: Ledger, reseal: Callable[[Ledger], None], name: str
) -> None:
    change(ledger, name)
    with pytest.raises(StagingError, match=f"{name} is not the file that was sealed"):
        reseal(ledger)
    assert not ledger.state().retry_rounds


@pytest.mark.parametrize("reseal", [retry, send_final_pass])
def test_rows_of_an_unchanged_file_are_sealed_again(ledger: Ledger, reseal: Callable[[Ledger], None]) -> None:
    reseal(ledger)
    (retry_round,) = ledger.state().retry_rounds
    assert [shard.requests for shard in retry_round.shards] == [1]
