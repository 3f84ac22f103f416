"""Counting with tiktoken: only where its vocabulary is available, never over the network."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_batch.core.pricing.estimate import Estimator
from airflow_provider_batch.core.pricing.prices import Prices
from airflow_provider_batch.core.tokens import tiktoken_counter
from airflow_provider_batch.core.tokens.estimate import Encoding, estimate_request
from airflow_provider_batch.core.tokens.tiktoken_counter import (
    COUNT_EVERY,
    COUNT_FIRST,
    MAX_COUNTED_CHARACTERS,
    TokenCounter,
    tokenizer,
)

#: the vocabulary cache of the person who runs the tests
CACHE = os.environ.get("TIKTOKEN_CACHE_DIR")
TRUE_COUNTS = json.loads(Path(__file__).with_name("token_counts.json").read_text(encoding="utf-8"))


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise AssertionError("a connection was opened")

    monkeypatch.setattr(socket.socket, "connect", refuse)


@pytest.mark.parametrize("encoding", Encoding)
@pytest.mark.usefixtures("no_network")
def test_without_a_cached_vocabulary_there_is_no_tokenizer_and_no_download(
    encoding: Encoding, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder in (str(tmp_path), str(tmp_path / "missing"), ""):
        monkeypatch.setenv("TIKTOKEN_CACHE_DIR", folder)
        assert tokenizer(encoding) is None


@pytest.mark.parametrize("encoding", Encoding)
@pytest.mark.usefixtures("no_network")
def test_a_file_with_other_content_is_neither_used_nor_changed(
    encoding: Encoding, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(tmp_path))
    file = tmp_path / tiktoken_counter._FILES[encoding][0]
    file.write_bytes(b"half a vocabulary")

    assert tokenizer(encoding) is None
    assert file.read_bytes() == b"half a vocabulary"


@pytest.mark.parametrize("encoding", Encoding)
@pytest.mark.usefixtures("no_network")
def test_with_the_vocabulary_the_counts_are_those_of_tiktoken(
    encoding: Encoding, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", CACHE or "")
    count = tokenizer(encoding)
    if count is None:
        pytest.skip("tiktoken or its vocabulary is not available")
    assert [count(text["text"]) for text in TRUE_COUNTS] == [text[encoding.value] for text in TRUE_COUNTS]


def requests(texts: list[str]) -> list[Any]:
    return [estimate_request(json.dumps({"input": text}).encode()) for text in texts]


@pytest.fixture
def counted_texts(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Use a vocabulary in which every character is a token. Return the texts that were counted."""
    texts: list[str] = []

    def count(text: str) -> int:
        texts.append(text)
        return len(text)

    monkeypatch.setattr(tiktoken_counter, "tokenizer", lambda _: count)
    return texts


def test_the_first_requests_are_counted_and_the_other_estimates_are_corrected(counted_texts: list[str]) -> None:
    text = "The pump in hall 7 lost pressure again overnight."
    counter = TokenCounter("gpt-5-mini")
    tokens = [counter.count(request) for request in requests([text] * (COUNT_FIRST + 2 * COUNT_EVERY))]

    assert set(tokens) == {len(text)}
    assert counter.counted_requests == len(counted_texts) == COUNT_FIRST + 2


def test_a_very_long_text_is_not_counted(counted_texts: list[str]) -> None:
    counter = TokenCounter("gpt-5-mini")
    (request,) = requests(["word " * (MAX_COUNTED_CHARACTERS // 5 + 1)])
    assert counter.count(request) == request.input_tokens
    assert (counter.counted_requests, counted_texts) == (0, [])


def test_tokens_outside_of_texts_stay_estimated(counted_texts: list[str]) -> None:
    body = json.dumps({"messages": [{"role": "user", "content": "eleven char"}]}).encode()
    assert TokenCounter("gpt-5-mini").count(estimate_request(body)) == 11 + 7


def test_the_estimate_reports_the_number_of_counted_requests(counted_texts: list[str]) -> None:
    estimator = Estimator(Prices(), "/v1/embeddings")
    for _ in range(3):
        estimator.add("text-embedding-3-small", b'{"input": "eleven char"}', 1)
    assert (estimator.finish().input_tokens, estimator.finish().counted_requests) == (33, 3)


def test_without_a_tokenizer_the_estimate_reports_no_counted_requests() -> None:
    estimator = Estimator(Prices(), "/v1/embeddings")
    estimator.add("text-embedding-3-small", b'{"input": "eleven char"}', 1)
    assert estimator.finish().counted_requests == 0
