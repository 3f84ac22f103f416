"""Counting with tiktoken: only where its vocabulary is at hand, never over the network."""

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
from airflow_provider_batch.core.tokens.estimate import Encoding, read_ask
from airflow_provider_batch.core.tokens.tiktoken_counter import (
    COUNT_EVERY,
    COUNT_FIRST,
    COUNT_UP_TO,
    TokenCounter,
    tokenizer,
)

#: where the person who runs the tests keeps vocabularies
CACHE = os.environ.get("TIKTOKEN_CACHE_DIR")
COUNTED = json.loads(Path(__file__).with_name("token_counts.json").read_text(encoding="utf-8"))


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise AssertionError("a connection was opened")

    monkeypatch.setattr(socket.socket, "connect", refuse)


@pytest.mark.parametrize("encoding", Encoding)
@pytest.mark.usefixtures("no_network")
def test_without_a_vocabulary_in_the_cache_there_is_no_tokenizer_and_nothing_is_fetched(
    encoding: Encoding, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder in (str(tmp_path), str(tmp_path / "missing"), ""):
        monkeypatch.setenv("TIKTOKEN_CACHE_DIR", folder)
        assert tokenizer(encoding) is None


@pytest.mark.parametrize("encoding", Encoding)
@pytest.mark.usefixtures("no_network")
def test_a_file_that_is_not_the_vocabulary_is_left_alone(
    encoding: Encoding, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(tmp_path))
    file = tmp_path / tiktoken_counter._FILES[encoding][0]
    file.write_bytes(b"half a vocabulary")

    assert tokenizer(encoding) is None
    assert file.read_bytes() == b"half a vocabulary"


@pytest.mark.parametrize("encoding", Encoding)
@pytest.mark.usefixtures("no_network")
def test_with_the_vocabulary_at_hand_the_counts_are_those_of_tiktoken(
    encoding: Encoding, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", CACHE or "")
    count = tokenizer(encoding)
    if count is None:
        pytest.skip("tiktoken or its vocabulary is not at hand")
    assert [count(text["text"]) for text in COUNTED] == [text[encoding.value] for text in COUNTED]


def requests(texts: list[str]) -> list[Any]:
    return [read_ask(json.dumps({"input": text}).encode()) for text in texts]


@pytest.fixture
def letters_counted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A vocabulary of which every character is a token; gives the texts that were counted."""
    counted: list[str] = []

    def count(text: str) -> int:
        counted.append(text)
        return len(text)

    monkeypatch.setattr(tiktoken_counter, "tokenizer", lambda _: count)
    return counted


def test_the_first_requests_are_counted_and_the_estimates_of_the_others_corrected(letters_counted: list[str]) -> None:
    text = "The pump in hall 7 lost pressure again overnight."
    counter = TokenCounter("gpt-5-mini")
    tokens = [counter.count(ask) for ask in requests([text] * (COUNT_FIRST + 2 * COUNT_EVERY))]

    assert set(tokens) == {len(text)}
    assert counter.counted == len(letters_counted) == COUNT_FIRST + 2


def test_a_very_long_text_is_not_counted(letters_counted: list[str]) -> None:
    counter = TokenCounter("gpt-5-mini")
    (ask,) = requests(["word " * (COUNT_UP_TO // 5 + 1)])
    assert counter.count(ask) == ask.input_tokens
    assert (counter.counted, letters_counted) == (0, [])


def test_what_is_no_text_stays_as_estimated(letters_counted: list[str]) -> None:
    body = json.dumps({"messages": [{"role": "user", "content": "eleven char"}]}).encode()
    assert TokenCounter("gpt-5-mini").count(read_ask(body)) == 11 + 7


def test_the_estimate_says_how_many_requests_were_counted(letters_counted: list[str]) -> None:
    estimator = Estimator(Prices(), "/v1/embeddings")
    for _ in range(3):
        estimator.add("text-embedding-3-small", b'{"input": "eleven char"}', 1)
    assert (estimator.finish().input_tokens, estimator.finish().counted_requests) == (33, 3)


def test_without_a_tokenizer_the_estimate_says_that_nothing_was_counted() -> None:
    estimator = Estimator(Prices(), "/v1/embeddings")
    estimator.add("text-embedding-3-small", b'{"input": "eleven char"}', 1)
    assert estimator.finish().counted_requests == 0
