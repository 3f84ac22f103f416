"""Properties of the offline embeddings."""

from __future__ import annotations

import base64
import math
import struct

from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_batch.local.answers.embedding import dimensions_of, embed, encode


def _cosine(left: str, right: str) -> float:
    return sum(a * b for a, b in zip(embed(left, 1536), embed(right, 1536), strict=True))


@given(st.text(min_size=1) | st.lists(st.integers(0, 100_000), min_size=1), st.integers(1, 64))
def test_every_vector_is_a_unit_vector_of_the_requested_length(text: str | list[int], dimensions: int) -> None:
    vector = embed(text, dimensions)

    assert len(vector) == dimensions
    assert math.isclose(math.sqrt(sum(value * value for value in vector)), 1.0, rel_tol=1e-5)
    assert embed(text, dimensions) == vector


def test_texts_that_share_words_are_closer_than_texts_that_do_not() -> None:
    similar = _cosine("the red pump leaks water", "water leaks from the red pump")
    different = _cosine("the red pump leaks water", "invoice for last month")

    assert similar > 0.7 > 0.3 > different


@given(st.text(min_size=1))
def test_base64_encodes_the_same_numbers(text: str) -> None:
    vector = embed(text, 16)
    base64_text = encode(vector, "base64")

    assert isinstance(base64_text, str)
    assert list(struct.unpack("<16f", base64.b64decode(base64_text))) == encode(vector, "float")


def test_the_dimensions_depend_on_the_model() -> None:
    assert dimensions_of("text-embedding-3-small") == 1536
    assert dimensions_of("text-embedding-3-large") == 3072
    assert dimensions_of("anything") == 1536
