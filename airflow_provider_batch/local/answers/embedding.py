"""Embeddings without a model: hashed bags of words, as unit vectors.

Equal words give equal directions, so texts that share words are near each other. Nothing more is claimed.
"""

from __future__ import annotations

import base64
import math
import re
from array import array
from collections import Counter
from functools import lru_cache
from hashlib import blake2b

#: the dimensions of OpenAI's models; other names get the default
_DIMENSIONS = {"text-embedding-3-large": 3072}
_DEFAULT_DIMENSIONS = 1536
_WORD = re.compile(r"\w+")


def dimensions_of(model: str) -> int:
    """The length of the vectors of a model: 3,072 for text-embedding-3-large, else 1,536."""
    return _DIMENSIONS.get(model, _DEFAULT_DIMENSIONS)


@lru_cache(maxsize=65_536)
def _slot(word: str, dimensions: int) -> tuple[int, float]:
    digest = int.from_bytes(blake2b(word.encode("utf-8", "surrogatepass"), digest_size=8).digest())
    return (digest >> 1) % dimensions, 1.0 if digest & 1 else -1.0


def embed(given: str | list[int], dimensions: int) -> array[float]:
    """The unit vector of a text, or of token ids, in 32-bit floats as the API has them."""
    words = _WORD.findall(given.lower()) if isinstance(given, str) else [str(token) for token in given]
    values = [0.0] * dimensions
    for word, count in Counter(words or [str(given)]).items():
        index, sign = _slot(word, dimensions)
        values[index] += sign * count
    # Words of opposite sign can meet in one slot and cancel out; a vector of zeros has no direction.
    length = math.sqrt(sum(value * value for value in values))
    if length == 0.0:
        values[0] = length = 1.0
    return array("f", (value / length for value in values))


def encode(vector: array[float], encoding_format: str) -> list[float] | str:
    """A vector as the API sends it: a list of numbers, or base64 of little-endian 32-bit floats."""
    if encoding_format == "base64":
        return base64.b64encode(vector.tobytes()).decode()
    return vector.tolist()
