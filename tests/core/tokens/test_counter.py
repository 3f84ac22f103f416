"""Counting with `bpe-openai`, which contains the vocabularies."""

from __future__ import annotations

import json
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_batch.core.pricing.estimate import Estimator
from airflow_provider_batch.core.pricing.prices import Prices
from airflow_provider_batch.core.requests.request import Request
from airflow_provider_batch.core.tokens import counter
from airflow_provider_batch.core.tokens.counter import (
    COUNT_FIRST,
    COUNT_ONE_IN,
    MAX_COUNTED_CHARACTERS,
    TokenCounter,
    tokenizer,
)
from airflow_provider_batch.core.tokens.estimate import Encoding
from airflow_provider_batch.core.tokens.request import estimate_request

TRUE_COUNTS = json.loads(Path(__file__).with_name("token_counts.json").read_text(encoding="utf-8"))


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Use `bpe-openai` without a network."""

    def refuse(*_: Any) -> None:
        raise AssertionError("a connection was opened")

    monkeypatch.delitem(sys.modules, "bpe_openai")
    monkeypatch.setattr(socket.socket, "connect", refuse)
    tokenizer.cache_clear()
    yield
    tokenizer.cache_clear()


@pytest.mark.parametrize("encoding", Encoding)
def test_without_the_package_there_is_no_tokenizer(encoding: Encoding) -> None:
    tokenizer.cache_clear()
    assert tokenizer(encoding) is None


@pytest.mark.parametrize("encoding", Encoding)
@pytest.mark.usefixtures("installed")
def test_with_the_package_texts_are_counted_exactly_without_a_download(encoding: Encoding) -> None:
    count = tokenizer(encoding)
    assert count is not None
    assert [count(text["text"]) for text in TRUE_COUNTS] == [text[encoding.value] for text in TRUE_COUNTS]


@pytest.mark.parametrize(
    "text", ["", "\ud800", "a\0b", "<|endoftext|>", "🧑\u200d🚀" * 100, "a" * MAX_COUNTED_CHARACTERS]
)
@pytest.mark.usefixtures("installed")
def test_any_text_can_be_counted(text: str) -> None:
    count = tokenizer(Encoding.O200K)
    assert count is not None
    assert bool(text) <= count(text) <= 3 * len(text)


def requests(texts: list[str]) -> list[Any]:
    return [estimate_request(json.dumps({"input": text}).encode()) for text in texts]


@pytest.fixture
def counted_texts(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Use a vocabulary in which every character is a token. Return the texts that were counted."""
    texts: list[str] = []

    def count(text: str) -> int:
        texts.append(text)
        return len(text)

    monkeypatch.setattr(counter, "tokenizer", lambda _: count)
    return texts


def test_the_first_requests_are_counted_and_the_other_estimates_are_corrected(counted_texts: list[str]) -> None:
    text = "The pump in hall 7 lost pressure again overnight."
    token_counter = TokenCounter("gpt-5-mini")
    lots = [2**32 - 1] * COUNT_FIRST + [0, 2**32 // COUNT_ONE_IN, 2**32 - 1, 2**32 // COUNT_ONE_IN - 1]
    tokens = list(map(token_counter.count, requests([text] * len(lots)), lots))

    assert set(tokens) == {len(text)}
    assert token_counter.counted_requests == len(counted_texts) == COUNT_FIRST + 2


def test_a_very_long_text_is_not_counted(counted_texts: list[str]) -> None:
    token_counter = TokenCounter("gpt-5-mini")
    (request,) = requests(["word " * (MAX_COUNTED_CHARACTERS // 5 + 1)])
    assert token_counter.count(request, 0) == request.input_tokens
    assert (token_counter.counted_requests, counted_texts) == (0, [])


def test_tokens_outside_of_texts_stay_estimated(counted_texts: list[str]) -> None:
    body = json.dumps({"messages": [{"role": "user", "content": "eleven char"}]}).encode()
    assert TokenCounter("gpt-5-mini").count(estimate_request(body), 0) == 11 + 7


def test_the_estimate_reports_the_number_of_counted_requests(counted_texts: list[str]) -> None:
    estimator = Estimator(Prices(), "/v1/embeddings")
    for _ in range(3):
        estimator.add([Request("row-1", "text-embedding-3-small", b'{"input": "eleven char"}', 1)], [0])
    assert (estimator.finish().input_tokens, estimator.finish().counted_requests) == (33, 3)


def test_without_a_tokenizer_the_estimate_reports_no_counted_requests() -> None:
    estimator = Estimator(Prices(), "/v1/embeddings")
    estimator.add([Request("row-1", "text-embedding-3-small", b'{"input": "eleven char"}', 1)], [0])
    assert estimator.finish().counted_requests == 0
