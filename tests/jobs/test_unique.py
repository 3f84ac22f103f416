"""The proof that custom_ids are unique."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_batch.jobs.unique import UniqueIds, digest_of


def suspects_of(*custom_ids: str) -> set[int]:
    ids = UniqueIds()
    for custom_id in custom_ids:
        ids.add(custom_id)
    return ids.suspects()


def test_no_ids_and_one_id_are_unique():
    assert suspects_of() == set()
    assert suspects_of("a") == set()


def test_an_id_given_twice_is_a_suspect():
    assert suspects_of("a", "b", "a") == {digest_of("a")}


def test_ids_that_differ_only_in_case_space_or_form_are_different_ids():
    assert suspects_of("a", "A", "a ", " a", "ä", "a\u0308", "1", "01", "1.0", "") == set()


def test_a_digest_is_the_same_on_every_machine_and_has_eight_bytes():
    assert digest_of("row-1") == 0xDBE44DB078306E5C
    assert all(0 <= digest_of(str(number)) < 2**64 for number in range(100))


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=4)))
def test_exactly_the_ids_given_more_than_once_are_suspects(custom_ids):
    repeated = {custom_id for custom_id, count in Counter(custom_ids).items() if count > 1}
    assert suspects_of(*custom_ids) == {digest_of(custom_id) for custom_id in repeated}


def test_a_hundred_thousand_different_ids_are_proven_different():
    assert suspects_of(*(f"row-{number}" for number in range(100_000))) == set()
