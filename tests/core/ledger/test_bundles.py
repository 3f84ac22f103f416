"""Bundles of records: they save requests to a store, and no reader sees anything else because of them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_provider_batch.core.ledger.fold import fold
from airflow_provider_batch.core.ledger.ledger import Ledger, seal
from airflow_provider_batch.core.ledger.records import Record
from airflow_provider_batch.staging.local import LocalFolder
from tests.core.building import NOW, manifest_of
from tests.core.ledger.test_ledger import HISTORY, MANIFEST, created, intent, uploaded

if TYPE_CHECKING:
    import pytest

RECORDS = "g001/records"


def bundles(folder: LocalFolder) -> list[Path]:
    return sorted(Path(folder.path, RECORDS).glob("bundle.*"))


def add_submissions(ledger: Ledger, *numbers: int) -> None:
    """Add the three records of each of these submissions."""
    for number in numbers:
        for record in (uploaded(number), intent(number), created(number)):
            ledger.add(record)


@settings(max_examples=50, deadline=None)
@given(st.permutations(HISTORY), st.data())
def test_every_reader_sees_the_same_state_whatever_was_bundled_by_whom(
    tmp_path_factory: pytest.TempPathFactory, records: list[Any], data: st.DataObject
) -> None:
    folder = LocalFolder(tmp_path_factory.mktemp("ledger"))
    seal(folder, MANIFEST)
    workers = [Ledger(folder, MANIFEST) for _ in range(3)]
    for record in records:
        worker = data.draw(st.sampled_from(workers))
        worker.add(record)
        if data.draw(st.integers(0, 4)) == 0:
            worker.bundle()
    for bundle in bundles(folder):
        match data.draw(st.sampled_from(["kept", "removed", "damaged"])):
            case "removed":
                bundle.unlink()
            case "damaged":
                bundle.write_bytes(bundle.read_bytes()[: data.draw(st.integers(0, 40))])

    for reader in [Ledger(folder, MANIFEST), *workers]:
        assert reader.state() == fold(MANIFEST, HISTORY)


def test_a_reader_takes_records_from_bundles_and_reads_only_the_others(folder: LocalFolder) -> None:
    ledger = seal(folder, MANIFEST)
    add_submissions(ledger, 1, 2)
    ledger.bundle()
    ledger.add(created(3))
    expected = ledger.state()
    for path in Path(folder.path, RECORDS).glob("[uic]*.[12].json"):
        path.write_text("not read")

    assert Ledger(folder, MANIFEST).state() == expected


def test_a_damaged_record_in_a_bundle_is_read_from_its_file(folder: LocalFolder) -> None:
    ledger = seal(folder, MANIFEST)
    add_submissions(ledger, 1, 2)
    ledger.bundle()
    (bundle,) = bundles(folder)
    content = msgspec.json.decode(bundle.read_bytes()) | {"created.s0001.2.json": {"type": "created"}}
    bundle.write_bytes(msgspec.json.encode(content))

    assert Ledger(folder, MANIFEST).state() == ledger.state()


def test_a_record_that_the_folder_does_not_list_is_not_taken_from_a_bundle(folder: LocalFolder) -> None:
    ledger = seal(folder, MANIFEST)
    history: list[Record] = [uploaded(), intent(), created(), uploaded(2), intent(2), created(2), created(3)]
    for record in history:
        ledger.add(record)
    ledger.bundle()
    Path(folder.path, RECORDS, "created.s0001.3.json").unlink()

    assert Ledger(folder, MANIFEST).state() == fold(MANIFEST, history[:-1])


def test_a_few_records_are_not_worth_a_bundle_and_none_is_bundled_twice(folder: LocalFolder) -> None:
    ledger = seal(folder, MANIFEST)
    add_submissions(ledger, 1)
    ledger.bundle()
    assert bundles(folder) == []

    add_submissions(ledger, 2)
    ledger.bundle()
    ledger.bundle()
    reader = Ledger(folder, MANIFEST)
    reader.state()
    add_submissions(reader, 3, 4)
    reader.bundle()
    assert [len(msgspec.json.decode(bundle.read_bytes())) for bundle in bundles(folder)] == [6, 6]


def test_a_later_generation_reads_and_bundles_the_records_of_its_lineage(folder: LocalFolder) -> None:
    first = seal(folder, MANIFEST)
    second_manifest = manifest_of(list(MANIFEST.shards), generation=2, root=1, sealed_at=NOW)
    for record in (uploaded(), intent(), created(), uploaded(2), intent(2)):
        first.add(record)
    first.bundle()
    second = seal(folder, second_manifest)
    second.add(created(2))
    shared: list[Record] = [uploaded(), intent(), created(), uploaded(2), intent(2), created(2)]

    assert second.state() == fold(second_manifest, shared)
    assert first.state() == fold(MANIFEST, shared)
