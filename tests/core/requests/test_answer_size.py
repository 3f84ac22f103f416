"""How large an answer is expected to be."""

from __future__ import annotations

import base64
import struct
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_batch.core.requests.answer_size import (
    EMBEDDING_ENVELOPE,
    ENVELOPE,
    LOGPROB,
    MODERATION,
    MOST_TOKENS,
    TOKEN,
    UNCAPPED_TOKENS,
    UNKNOWN_DIMENSIONS,
    expected_bytes,
)
from airflow_provider_batch.core.requests.render import request_line
from tests.core.building import CHAT, EMBEDDINGS, MODERATIONS, RESPONSES

COMPLETIONS = "/v1/completions"


def expected(endpoint: str, body: dict[str, Any], inputs: int = 1) -> int:
    return expected_bytes(endpoint, request_line("a", endpoint, msgspec.json.encode(body)), inputs)


def vector_bytes(model: str, **body: Any) -> int:
    """Expected bytes of one embedding alone."""
    return expected(EMBEDDINGS, {"model": model, "input": "x", **body}) - ENVELOPE - EMBEDDING_ENVELOPE


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
def test_a_base64_embedding_is_as_long_as_its_models_dimensions_make_it(
    model: str, body: dict[str, int | str], dimensions: int
) -> None:
    vector = base64.b64encode(struct.pack(f"<{dimensions}f", *[0.5] * dimensions))
    assert vector_bytes(model, encoding_format="base64", **body) == len(vector)


def test_fifty_thousand_embeddings_have_the_size_that_they_really_have() -> None:
    base = {"model": "text-embedding-3-small", "input": "x"}
    assert 50_000 * expected(EMBEDDINGS, base) == pytest.approx(1.04e9, rel=0.1)
    assert 50_000 * expected(EMBEDDINGS, base | {"encoding_format": "base64"}) == pytest.approx(0.42e9, rel=0.15)


@given(st.integers(1, 2048))
def test_every_input_of_an_embeddings_request_has_a_vector_of_its_own(inputs: int) -> None:
    body = {"model": "text-embedding-3-small", "input": "x", "encoding_format": "base64"}
    one, none = expected(EMBEDDINGS, body), ENVELOPE
    assert expected(EMBEDDINGS, body, inputs) - none == inputs * (one - none)


# Text


@pytest.mark.parametrize(
    ("endpoint", "key"),
    [(CHAT, "max_completion_tokens"), (CHAT, "max_tokens"), (COMPLETIONS, "max_tokens")],
)
def test_an_answer_is_expected_to_be_as_long_as_its_cap(endpoint: str, key: str) -> None:
    assert expected(endpoint, {key: 50}) == ENVELOPE + 50 * TOKEN


def test_a_response_is_as_long_as_its_cap_and_repeats_what_it_was_told() -> None:
    told = {"instructions": "x" * 100, "tools": [{"type": "y" * 100}], "text": {"format": {"type": "z" * 100}}}
    plain = expected(RESPONSES, {"max_output_tokens": 50})
    assert plain == 2 * ENVELOPE + 50 * TOKEN
    repeated = sum(len(msgspec.json.encode(part)) for part in told.values())
    assert expected(RESPONSES, {"max_output_tokens": 50, **told}) == plain + repeated


def test_an_answer_without_a_cap_is_expected_to_have_a_thousand_tokens() -> None:
    assert expected(CHAT, {}) == ENVELOPE + UNCAPPED_TOKENS * TOKEN


def test_a_cap_that_only_guards_against_runaway_answers_is_not_taken_for_a_length() -> None:
    assert expected(CHAT, {"max_completion_tokens": 128_000}) == ENVELOPE + MOST_TOKENS * TOKEN


def test_every_choice_is_an_answer() -> None:
    assert expected(CHAT, {"max_tokens": 10, "n": 3}) == ENVELOPE + 3 * 10 * TOKEN


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
        10 * LOGPROB * lists
    )


# Moderations


@pytest.mark.parametrize(
    ("asked", "judged"),
    [("text", 1), (["one", "two", "three"], 3), ([{"type": "text", "text": "a"}, {"type": "image_url"}], 1)],
)
def test_every_text_of_a_list_is_moderated_apart_and_content_parts_together(
    asked: str | list[str | dict[str, str]], judged: int
) -> None:
    assert expected(MODERATIONS, {"input": asked}) == ENVELOPE + judged * MODERATION


# Whatever a row holds

ANYTHING = st.recursive(
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
    st.dictionaries(st.sampled_from(KEYS), ANYTHING),
    st.integers(1, 9),
)
def test_any_body_has_a_positive_expectation(endpoint: str, body: dict[str, Any], inputs: int) -> None:
    assert expected(endpoint, body, inputs) > 0
