"""Estimates the tokens of the requests to a model: of a sample by their texts, of the others by their length.

To estimate the tokens of a text takes about as long as everything else that sealing does with a row. So of the requests
whose rows only insert texts into the prompt, one in `ONE_IN` is *weighed*: its tokens are estimated by its text. The
others get the tokens per byte of those weighed before. These are kept by kind of text, that is by its length and by the
bytes that a character takes. What a row inserts elsewhere, such as metadata, counts as part of its text. The averages
follow the rows: a request counts less the more were weighed after it. A few long texts therefore do not change the
averages of the short ones.

The sample is drawn by the lots that draw the canary, not by the position of a row, so that no pattern in the order of
the rows can bias it. It depends on the rows and their order alone. Always weighed are

* the first requests to a model and the first of each kind, so that there is something to go by,
* requests with media, and those for which text is not all that differs,
* requests so long that they might exceed a limit on their own. If they are not drawn, they do not enter the averages.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence

import msgspec

from airflow_provider_batch.core.requests.outline import Common, Outline
from airflow_provider_batch.core.requests.request import Request
from airflow_provider_batch.core.tokens.counter import TokenCounter
from airflow_provider_batch.core.tokens.request import RequestTokens, estimate_request

#: one in this many requests is weighed
ONE_IN = 8
#: lots below this are drawn; there are 2**32
_DRAWN = 2**32 // ONE_IN
#: number of requests to a model, and of each kind of text, that are all weighed
FIRST_REQUESTS, FIRST_OF_KIND = 1_000, 32
#: how much less the earlier requests of a kind count with each that is weighed
_FADING = 0.9
#: more tokens than a byte of text can have
_MAX_TOKENS_PER_BYTE = 3


class _Kind:
    """Averages of the requests with one kind of text. Each is a sum in which earlier requests count less."""

    def __init__(self) -> None:
        self.weighed = 0
        self._bytes = self._tokens = 0.0

    def add(self, size: int, tokens: int) -> None:
        """Add a weighed request with `size` bytes and `tokens` tokens of text."""
        self.weighed += 1
        self._bytes = self._bytes * _FADING + size
        self._tokens = self._tokens * _FADING + tokens

    def scale(self, size: int) -> int:
        """Return the tokens of a text of `size` bytes."""
        return round(size * self._tokens / self._bytes)


class RequestWeigher:
    """Estimates the tokens of the requests to one model, in their order."""

    def __init__(self, model: str, max_tokens: int | None = None) -> None:
        """`max_tokens` is the lowest number of tokens that makes a difference for a single request."""
        self.counter = TokenCounter(model)
        self._model = model
        self._max_size = sys.maxsize if max_tokens is None else max_tokens // _MAX_TOKENS_PER_BYTE
        self._requests = 0
        self._kinds: dict[tuple[int, int], _Kind] = {}

    def weigh(self, requests: Sequence[Request], lots: Sequence[int]) -> Iterator[RequestTokens]:
        """Yield the estimated tokens of each of the next requests."""
        outline: Outline | None = None
        common: Common | None = None
        for request, lot in zip(requests, lots, strict=True):
            self._requests += 1
            if request.outline is not outline:
                outline = request.outline
                common = None if outline is None else outline.common(self._model)
            characters = 0 if common is None else common.count_characters(request.leaf_values)
            if common is None or not characters:
                yield self._measure(request, lot)
                continue
            body_size = len(request.body)
            size = body_size - common.body_bytes
            # the texts of a kind are at most four times as long as each other
            key = 4 * size // characters, size.bit_length() // 2
            kind = self._kinds.get(key)
            if kind is None:
                kind = self._kinds[key] = _Kind()
            if lot < _DRAWN or self._requests <= FIRST_REQUESTS or kind.weighed < FIRST_OF_KIND:
                tokens = self._measure(request, lot)
                kind.add(size, tokens.input_tokens - common.request.input_tokens)
                yield tokens
            elif body_size > self._max_size:
                yield self._measure(request, lot)
            else:
                yield common.with_text_tokens(kind.scale(size))

    def _measure(self, request: Request, lot: int) -> RequestTokens:
        tokens = None if request.outline is None else request.outline.estimate(request.leaf_values, self._model)
        if tokens is None:
            tokens = estimate_request(request.body, self._model)
        return msgspec.structs.replace(tokens, input_tokens=self.counter.count(tokens, lot))
