"""Token counts by tiktoken, where its vocabulary is available locally. Nothing is ever downloaded.

If tiktoken does not find a vocabulary in its cache, it downloads it, from a host that a worker may not be able or
allowed to reach. This module therefore calls tiktoken only if the cache contains the file with the expected content. A
vocabulary takes about 80 MB of memory and about a second to load.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path

from airflow_provider_batch.core.tokens.estimate import Encoding, RequestTokens, encoding_of

#: file name in the cache (sha1 of the URL) and sha256 of the content, from tiktoken's `load.py` and `openai_public.py`
_FILES = {
    Encoding.O200K: (
        "fb374d419588a4632f3f557e76b4b70aebbca790",
        "446a9538cb6c348e3516120d7c08b09f57c36495e2acfffe59a5bf8b0cfb1a2d",
    ),
    Encoding.CL100K: (
        "9b5ad71b2ce5302211f9c61530b329a4922fc6a4",
        "223921b76ee99bde995b7ff738513eef100fb51d18c93597a113bcffe865b2a7",
    ),
}
#: tiktoken counts the first `COUNT_FIRST` requests to a model, and one in `COUNT_EVERY` after that
COUNT_FIRST, COUNT_EVERY = 1_000, 100
#: maximum number of characters of a counted prompt; tiktoken is very slow for some long texts
MAX_COUNTED_CHARACTERS = 100_000


def tokenizer(encoding: Encoding) -> Callable[[str], int] | None:
    """Return a function that counts the tokens of a text exactly.

    Returns None if tiktoken is not installed or does not have the vocabulary in its cache. The cache is the folder that
    tiktoken uses: `TIKTOKEN_CACHE_DIR`, or `DATA_GYM_CACHE_DIR`, or `data-gym-cache` in the folder for temporary files.
    """
    for variable in ("TIKTOKEN_CACHE_DIR", "DATA_GYM_CACHE_DIR"):
        if variable in os.environ:
            return _load(encoding, os.environ[variable])
    return _load(encoding, os.path.join(tempfile.gettempdir(), "data-gym-cache"))


@cache
def _load(encoding: Encoding, folder: str) -> Callable[[str], int] | None:
    if not folder:  # with an empty name, tiktoken does not use a cache
        return None
    try:
        import tiktoken
    except ImportError:
        return None
    name, sha256 = _FILES[encoding]
    try:
        if hashlib.sha256((Path(folder) / name).read_bytes()).hexdigest() != sha256:
            return None
    except OSError:
        return None
    encode = tiktoken.get_encoding(encoding.value).encode_ordinary
    return lambda text: len(encode(text))


class TokenCounter:
    """Counts the input tokens of the requests to a model.

    Where tiktoken is available, it counts the prompts of the first `COUNT_FIRST` requests and of one in `COUNT_EVERY`
    after that. The estimates of the other requests are corrected by the ratio of counted to estimated tokens so far.
    The tokens of a schema are always estimated, because OpenAI has not published how a schema is presented to the
    model.
    """

    def __init__(self, model: str) -> None:
        self.encoding = encoding_of(model)
        self._tokenizer = tokenizer(self.encoding)
        #: number of requests, and how many of them tiktoken counted
        self.requests = self.counted_requests = 0
        self._counted_tokens = self._estimated_tokens = 0

    def count(self, request: RequestTokens) -> int:
        """Return the input tokens of one more request, which was estimated with the encoding of this counter."""
        self.requests += 1
        if self._tokenizer is None:
            return request.input_tokens
        other_tokens = request.input_tokens - request.text_tokens
        due = self.requests <= COUNT_FIRST or self.requests % COUNT_EVERY == 0
        if due and sum(map(len, request.texts)) <= MAX_COUNTED_CHARACTERS:
            text_tokens = sum(map(self._tokenizer, request.texts))
            self.counted_requests += 1
            self._counted_tokens += text_tokens
            self._estimated_tokens += request.text_tokens
            return other_tokens + text_tokens
        factor = self._counted_tokens / self._estimated_tokens if self._estimated_tokens else 1.0
        return other_tokens + round(request.text_tokens * factor)
