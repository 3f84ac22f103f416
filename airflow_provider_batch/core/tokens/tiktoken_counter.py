"""Token counts by tiktoken, where its vocabulary is at hand; nothing is ever fetched.

tiktoken downloads a vocabulary that it does not find in its cache, from a host that a worker may not reach and nobody
allowed. So it is only asked once the file lies there with the content that it wants. A vocabulary takes about 80 MB of
memory, and a second to load.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path

from airflow_provider_batch.core.tokens.estimate import Ask, Encoding, encoding_of

#: name in the cache (sha1 of the address) and sha256 of the content, from tiktoken's `load.py` and `openai_public.py`
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
#: requests of each model that are counted: the first so many, then one of so many
COUNT_FIRST, COUNT_EVERY = 1_000, 100
#: longer texts (characters) are never counted: tiktoken takes long for some of them
COUNT_UP_TO = 100_000


def tokenizer(encoding: Encoding) -> Callable[[str], int] | None:
    """The true number of tokens of a text; None unless tiktoken is installed and has the vocabulary in its cache.

    The cache is where tiktoken looks: `TIKTOKEN_CACHE_DIR`, else `DATA_GYM_CACHE_DIR`, else `data-gym-cache` in the
    folder for temporary files.
    """
    for variable in ("TIKTOKEN_CACHE_DIR", "DATA_GYM_CACHE_DIR"):
        if variable in os.environ:
            return _load(encoding, os.environ[variable])
    return _load(encoding, os.path.join(tempfile.gettempdir(), "data-gym-cache"))


@cache
def _load(encoding: Encoding, folder: str) -> Callable[[str], int] | None:
    if not folder:  # tiktoken keeps no cache then
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
    """Input tokens of the requests to one model.

    Where tiktoken is at hand it counts the prompts of the first `COUNT_FIRST` requests and of one in `COUNT_EVERY`
    after that; the estimates of the others are corrected by what these showed. A schema stays an estimate, as how it
    is put to the model is not published.
    """

    def __init__(self, model: str) -> None:
        self.encoding = encoding_of(model)
        self._tokenizer = tokenizer(self.encoding)
        #: requests seen, and those of them that tiktoken counted
        self.seen = self.counted = 0
        self._true = self._estimated = 0

    def count(self, ask: Ask) -> int:
        """The input tokens of one more request, which was read with this encoding."""
        self.seen += 1
        if self._tokenizer is None:
            return ask.input_tokens
        other = ask.input_tokens - ask.text_tokens
        due = self.seen <= COUNT_FIRST or self.seen % COUNT_EVERY == 0
        if due and sum(map(len, ask.texts)) <= COUNT_UP_TO:
            true = sum(map(self._tokenizer, ask.texts))
            self.counted += 1
            self._true += true
            self._estimated += ask.text_tokens
            return other + true
        factor = self._true / self._estimated if self._estimated else 1.0
        return other + round(ask.text_tokens * factor)
