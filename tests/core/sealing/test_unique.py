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
    given_ids = list(custom_ids)
    for custom_id in given_ids:
        ids.add(custom_id)
    return ids.find_repeated(lambda: ((custom_id, number) for number, custom_id in enumerate(given_ids, start=1)))


def test_no_ids_and_one_id_are_unique() -> None:
    assert find_repeated([]) is None
    assert find_repeated(["a"]) is None


def test_an_id_given_twice_is_named_with_its_rows() -> None:
    assert find_repeated(["a", "b", "a"]) == RepeatedIds({"a": [1, 3]}, complete=True)


def test_of_an_id_given_often_the_first_rows_are_named() -> None:
    assert find_repeated(["a"] * 1000) == RepeatedIds({"a": list(range(1, ROWS + 1))}, complete=True)


def test_ids_that_differ_only_in_case_space_or_form_are_different_ids() -> None:
    assert find_repeated(["a", "A", "a ", " a", "ä", "a\u0308", "1", "01", "1.0", ""]) is None


def test_a_digest_has_eight_bytes() -> None:
    digests = [digest_of(str(number)) for number in range(100)]
    assert all(0 <= digest < 2**64 for digest in digests)
    assert max(digests) > 2**56


def test_a_hundred_thousand_different_ids_are_proven_different() -> None:
    assert find_repeated(f"row-{number}" for number in range(100_000)) is None


def test_what_was_sealed_is_read_again_only_on_suspicion() -> None:
    ids = UniqueIds()
    for number in range(1000):
        ids.add(f"row-{number}")

    def sealed() -> Iterator[tuple[str, int]]:
        yield pytest.fail("read again without a suspicion")

    assert ids.find_repeated(sealed) is None


def test_if_nearly_all_are_shared_the_first_portion_is_told_as_at_least_so_many() -> None:
    found = find_repeated(f"row-{number}" for _ in range(2) for number in range(PORTION + 1))
    assert found is not None
    assert len(found.rows) == PORTION
    assert not found.complete


IDS = st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=4))


def repeated(custom_ids: list[str]) -> dict[str, list[int]]:
    """What is shared, found in the plain way."""
    counts = Counter(custom_ids)
    return {
        one: [number for number, other in enumerate(custom_ids, start=1) if other == one][:ROWS]
        for one, count in counts.items()
        if count > 1
    }


@given(IDS)
def test_exactly_the_ids_given_more_than_once_are_shared(custom_ids: list[str]) -> None:
    found = find_repeated(custom_ids)
    assert (found.rows if found else {}) == repeated(custom_ids)


@given(IDS, st.integers(1, 5), st.sampled_from([1, 256, 2**56]))
def test_equal_digests_of_different_ids_are_no_duplicates_and_hide_none(
    custom_ids: list[str], digests: int, step: int
) -> None:
    """Digests of so few values collide all the time, within a bucket and over all of them."""
    found = find_repeated(custom_ids, UniqueIds(lambda custom_id: len(custom_id) % digests * step))
    assert (found.rows if found else {}) == repeated(custom_ids)


@given(st.lists(st.integers(0, 9)), st.integers(1, 3))
def test_in_whatever_portions_suspicions_are_settled_something_shared_is_found_exactly_if_there_is_any(
    numbers: list[int], portion: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("airflow_provider_batch.core.sealing.unique.PORTION", portion)
        custom_ids = [str(number) for number in numbers]
        found = find_repeated(custom_ids, UniqueIds(lambda custom_id: int(custom_id) // 2))
    expected = repeated(custom_ids)
    assert (found is None) == (not expected)
    if found is not None:
        assert found.rows.items() <= expected.items()
        assert not found.complete or found.rows == expected


def test_a_million_ids_are_proven_unique_in_twenty_megabytes() -> None:
    """In a process of its own, as memory once taken is never given back; a set of the strings would take 100 MB."""
    code = """
        import os
        from benchmarks.measure import read_memory
        from airflow_provider_batch.core.sealing.unique import UniqueIds
        ids = UniqueIds()
        before = read_memory(os.getpid())[0]
        for number in range(1_000_000):
            ids.add(f"row-{number}")
        assert ids.find_repeated(lambda: []) is None
        print(read_memory(os.getpid())[1] - before)
    """
    done = subprocess.run(
        [sys.executable, "-c", dedent(code)], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 20_000_000
