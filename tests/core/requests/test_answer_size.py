"""The expected size of an answer."""

from __future__ import annotations

import base64
import struct
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_batch.core.requests.answer_size import (
    EMBEDDING_ENVELOPE_BYTES,
    ENVELOPE_BYTES,
    LOGPROB_BYTES,
    MAX_EXPECTED_TOKENS,
    MODERATION_BYTES,
    TOKEN_BYTES,
    UNCAPPED_TOKENS,
    UNKNOWN_DIMENSIONS,
    expected_bytes,
)
from tests.core.building import CHAT, EMBEDDINGS, MODERATIONS, RESPONSES, request_line

COMPLETIONS = "/v1/completions"


def expected(endpoint: str, body: dict[str, Any], inputs: int = 1) -> int:
    return expected_bytes(endpoint, request_line("a", endpoint, msgspec.json.encode(body)), inputs)


def vector_bytes(model: str, **body: Any) -> int:
    """Return the expected bytes of an embedding without its envelope."""
    return expected(EMBEDDINGS, {"model": model, "input": "x", **body}) - ENVELOPE_BYTES - EMBEDDING_ENVELOPE_BYTES


# Embeddings


@pytest.mark.parametrize(
    ("model", "body", "dimensions"),
    [
        ("text-embedding-3-small", {}, 1_536),
        ("text-embedding-3-large", {}, 3_072),
        ("text-embedding-ada-002", {}, 1_536),
        ("text-embedding-v4", {}, 1_024),
        ("text-embedding-3-large", {"dimensions": 256}, 256),
        ("a-deployment-of-ours", {}, UNKNOWN_DIMENSIONS),
        ("a-deployment-of-ours", {"dimensions": 512}, 512),
        ("text-embedding-3-small", {"dimensions": "many"}, 1_536),
    ],
)
def test_the_size_of_a_base64_embedding_follows_from_the_dimensions_of_the_model(
    model: str, body: dict[str, int | str], dimensions: int
) -> None:
    vector = base64.b64encode(struct.pack(f"<{dimensions}f", *[0.5] * dimensions))
    assert vector_bytes(model, encoding_format="base64", **body) == len(vector)


def test_the_expected_size_of_50_000_embeddings_is_close_to_the_real_size() -> None:
    base = {"model": "text-embedding-3-small", "input": "x"}
    assert 50_000 * expected(EMBEDDINGS, base) == pytest.approx(1.04e9, rel=0.1)
    assert 50_000 * expected(EMBEDDINGS, base | {"encoding_format": "base64"}) == pytest.approx(0.42e9, rel=0.15)


@given(st.integers(1, 2048))
def test_every_input_of_an_embeddings_request_adds_a_vector(inputs: int) -> None:
    body = {"model": "text-embedding-3-small", "input": "x", "encoding_format": "base64"}
    vector = expected(EMBEDDINGS, body) - ENVELOPE_BYTES
    assert expected(EMBEDDINGS, body, inputs) - ENVELOPE_BYTES == inputs * vector


# Text


@pytest.mark.parametrize(
    ("endpoint", "key"),
    [(CHAT, "max_completion_tokens"), (CHAT, "max_tokens"), (COMPLETIONS, "max_tokens")],
)
def test_an_answer_is_expected_to_be_as_long_as_its_cap(endpoint: str, key: str) -> None:
    assert expected(endpoint, {key: 50}) == ENVELOPE_BYTES + 50 * TOKEN_BYTES


def test_a_response_is_as_long_as_its_cap_plus_the_parts_of_the_request_that_it_repeats() -> None:
    repeated_parts = {
        "instructions": "x" * 100,
        "tools": [{"type": "y" * 100}],
        "text": {"format": {"type": "z" * 100}},
    }
    base = expected(RESPONSES, {"max_output_tokens": 50})
    assert base == 2 * ENVELOPE_BYTES + 50 * TOKEN_BYTES
    repeated_bytes = sum(len(msgspec.json.encode(part)) for part in repeated_parts.values())
    assert expected(RESPONSES, {"max_output_tokens": 50, **repeated_parts}) == base + repeated_bytes


def test_an_answer_without_a_cap_is_expected_to_have_a_thousand_tokens() -> None:
    assert expected(CHAT, {}) == ENVELOPE_BYTES + UNCAPPED_TOKENS * TOKEN_BYTES


def test_a_very_large_cap_is_not_taken_as_the_expected_length() -> None:
    assert expected(CHAT, {"max_completion_tokens": 128_000}) == ENVELOPE_BYTES + MAX_EXPECTED_TOKENS * TOKEN_BYTES


def test_every_choice_adds_an_answer() -> None:
    assert expected(CHAT, {"max_tokens": 10, "n": 3}) == ENVELOPE_BYTES + 3 * 10 * TOKEN_BYTES


@pytest.mark.parametrize(
    ("endpoint", "body", "lists"),
    [
        (CHAT, {"logprobs": True}, 1),
        (CHAT, {"logprobs": True, "top_logprobs": 5}, 6),
        (CHAT, {"logprobs": False}, 0),
        (RESPONSES, {"top_logprobs": 5}, 6),
        (COMPLETIONS, {"logprobs": 5}, 6),
    ],
)
def test_log_probabilities_are_counted_for_each_token_and_alternative(
    endpoint: str, body: dict[str, int], lists: int
) -> None:
    assert expected(endpoint, {"max_tokens": 10, **body}) - expected(endpoint, {"max_tokens": 10}) == (
        10 * LOGPROB_BYTES * lists
    )


# Moderations


@pytest.mark.parametrize(
    ("moderated", "results"),
    [("text", 1), (["one", "two", "three"], 3), ([{"type": "text", "text": "a"}, {"type": "image_url"}], 1)],
)
def test_each_text_of_a_list_has_a_moderation_result_and_a_list_of_content_parts_has_one(
    moderated: str | list[str | dict[str, str]], results: int
) -> None:
    assert expected(MODERATIONS, {"input": moderated}) == ENVELOPE_BYTES + results * MODERATION_BYTES


# Arbitrary bodies

JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
KEYS = [
    "model", "n", "input", "max_completion_tokens", "max_output_tokens", "max_tokens", "logprobs", "top_logprobs",
    "dimensions", "encoding_format", "instructions", "tools", "text",
]  # fmt: skip


@given(
    st.sampled_from([CHAT, RESPONSES, COMPLETIONS, EMBEDDINGS, MODERATIONS]),
    st.dictionaries(st.sampled_from(KEYS), JSON_VALUES),
    st.integers(1, 9),
)
def test_the_expected_size_of_any_body_is_positive(endpoint: str, body: dict[str, Any], inputs: int) -> None:
    assert expected(endpoint, body, inputs) > 0
