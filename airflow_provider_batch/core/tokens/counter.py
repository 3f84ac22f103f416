"""Token counts by `bpe-openai`, where it is installed (extra `tokens`). It contains the vocabularies.

A vocabulary takes up to 80 MB of memory and about a second to load.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import cache

from airflow_provider_batch.core.tokens.estimate import Encoding, encoding_of
from airflow_provider_batch.core.tokens.request import RequestTokens

#: the first `COUNT_FIRST` requests to a model are counted, and one in `COUNT_ONE_IN` after that
COUNT_FIRST, COUNT_ONE_IN = 1_000, 100
#: lots below this are drawn; there are 2**32
_DRAWN = 2**32 // COUNT_ONE_IN
#: maximum number of characters of a counted prompt; counting takes 50 to 100 ms per million
MAX_COUNTED_CHARACTERS = 100_000


@cache
def tokenizer(encoding: Encoding) -> Callable[[str], int] | None:
    """Return a function that counts the tokens of a text exactly, or None if `bpe-openai` is not installed."""
    # With Python 3.11 and 3.12, the import of version 0.1.4 warns about `importlib.resources.open_binary`.
    with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
        try:
            import bpe_openai
        except ImportError:
            return None
    encode = bpe_openai.get_encoding(encoding.value).encode_ordinary
    return lambda text: len(encode(text))


class TokenCounter:
    """Counts the input tokens of the requests to a model.

    Where `bpe-openai` is installed, it counts the prompts of the first `COUNT_FIRST` requests and of one in
    `COUNT_ONE_IN` after that, drawn by lot. The estimates of the other requests are corrected by the ratio of counted
    to estimated tokens so far. The tokens of schemas, tools and media are always estimated.
    """

    def __init__(self, model: str) -> None:
        self._tokenizer = tokenizer(encoding_of(model))
        #: number of requests, and how many of them were counted
        self.requests = self.counted_requests = 0
        self._counted_tokens = self._estimated_tokens = 0

    def count(self, request: RequestTokens, lot: int) -> int:
        """Return the input tokens of one more request. `lot` is a number below 2**32, drawn for the request."""
        self.requests += 1
        if self._tokenizer is None:
            return request.input_tokens
        other_tokens = request.input_tokens - request.text_tokens
        due = self.requests <= COUNT_FIRST or lot < _DRAWN
        if due and sum(map(len, request.texts)) <= MAX_COUNTED_CHARACTERS:
            text_tokens = sum(map(self._tokenizer, request.texts))
            self.counted_requests += 1
            self._counted_tokens += text_tokens
            self._estimated_tokens += request.text_tokens
            return other_tokens + text_tokens
        factor = self._counted_tokens / self._estimated_tokens if self._estimated_tokens else 1.0
        return other_tokens + round(request.text_tokens * factor)
