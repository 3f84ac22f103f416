"""The proof that custom_ids are unique."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from textwrap import dedent

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_batch.core.sealing.unique import PORTION, ROWS, RepeatedIds, UniqueIds, digest_of


def find_repeated(custom_ids: Iterable[str], ids: UniqueIds | None = None) -> RepeatedIds | None:
    ids = ids or UniqueIds()
    added_ids = list(custom_ids)
    ids.add_all(added_ids)
    return ids.find_repeated(lambda: ((custom_id, number) for number, custom_id in enumerate(added_ids, start=1)))


def test_an_empty_set_and_a_single_id_are_unique() -> None:
    assert find_repeated([]) is None
    assert find_repeated(["a"]) is None


def test_a_repeated_id_is_reported_with_its_rows() -> None:
    assert find_repeated(["a", "b", "a"]) == RepeatedIds({"a": [1, 3]}, complete=True)


def test_only_the_first_rows_of_an_id_are_reported() -> None:
    assert find_repeated(["a"] * 1000) == RepeatedIds({"a": list(range(1, ROWS + 1))}, complete=True)


def test_ids_that_differ_in_case_spaces_or_unicode_form_are_different() -> None:
    assert find_repeated(["a", "A", "a ", " a", "ä", "a\u0308", "1", "01", "1.0", ""]) is None


def test_a_digest_has_eight_bytes() -> None:
    digests = [digest_of(str(number)) for number in range(100)]
    assert all(0 <= digest < 2**64 for digest in digests)
    assert max(digests) > 2**56


def test_a_hundred_thousand_different_ids_are_unique() -> None:
    assert find_repeated(f"row-{number}" for number in range(100_000)) is None


def test_the_ids_are_read_again_only_if_digests_are_equal() -> None:
    ids = UniqueIds()
    ids.add_all(f"row-{number}" for number in range(1000))

    def read_ids() -> Iterator[tuple[str, int]]:
        yield pytest.fail("The ids were read again although all digests differ.")

    assert ids.find_repeated(read_ids) is None


def test_only_the_first_portion_of_many_repeated_ids_is_reported() -> None:
    result = find_repeated(f"row-{number}" for _ in range(2) for number in range(PORTION + 1))
    assert result is not None
    assert len(result.rows) == PORTION
    assert not result.complete


IDS = st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=4))


def expected_rows(custom_ids: list[str]) -> dict[str, list[int]]:
    """Return the repeated ids with their rows, found by comparing all ids."""
    counts = Counter(custom_ids)
    return {
        repeated_id: [number for number, custom_id in enumerate(custom_ids, start=1) if custom_id == repeated_id][:ROWS]
        for repeated_id, count in counts.items()
        if count > 1
    }


@given(IDS)
def test_exactly_the_ids_that_were_added_more_than_once_are_reported(custom_ids: list[str]) -> None:
    result = find_repeated(custom_ids)
    assert (result.rows if result else {}) == expected_rows(custom_ids)


@given(IDS, st.integers(1, 5), st.sampled_from([1, 256, 2**56]))
def test_equal_digests_of_different_ids_neither_add_nor_hide_repeated_ids(
    custom_ids: list[str], digests: int, step: int
) -> None:
    """With so few different digests, they collide all the time, within a bucket and across buckets."""
    result = find_repeated(custom_ids, UniqueIds(lambda custom_id: len(custom_id) % digests * step))
    assert (result.rows if result else {}) == expected_rows(custom_ids)


@given(st.lists(st.integers(0, 9)), st.integers(1, 3))
def test_portions_of_any_size_find_repeated_ids_exactly_if_there_are_any(numbers: list[int], portion: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("airflow_provider_batch.core.sealing.unique.PORTION", portion)
        custom_ids = [str(number) for number in numbers]
        result = find_repeated(custom_ids, UniqueIds(lambda custom_id: int(custom_id) // 2))
    expected = expected_rows(custom_ids)
    assert (result is None) == (not expected)
    if result is not None:
        assert result.rows.items() <= expected.items()
        assert not result.complete or result.rows == expected


def test_a_million_ids_are_proven_unique_in_twenty_megabytes() -> None:
    """Run in a separate process, because memory is not returned once taken. A set of the strings would take 100 MB."""
    code = """
        import os
        from benchmarks.measure import read_memory
        from airflow_provider_batch.core.sealing.unique import UniqueIds
        ids = UniqueIds()
        before = read_memory(os.getpid())[0]
        ids.add_all(f"row-{number}" for number in range(1_000_000))
        assert ids.find_repeated(lambda: []) is None
        print(read_memory(os.getpid())[1] - before)
    """
    process = subprocess.run(
        [sys.executable, "-c", dedent(code)], capture_output=True, text=True, timeout=120, check=False
    )
    assert process.returncode == 0, process.stderr
    assert int(process.stdout) < 20_000_000
