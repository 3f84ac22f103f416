"""Embeddings without a model: hashed bags of words, as unit vectors.

Each occurrence of a word adds 1 or -1 to one dimension, so texts that share words are close to each other. The meaning
of words plays no part.
"""

from __future__ import annotations

import base64
import math
import re
from array import array
from collections import Counter
from functools import lru_cache
from hashlib import blake2b

#: vector lengths of OpenAI's models that differ from the default
_DIMENSIONS = {"text-embedding-3-large": 3072}
_DEFAULT_DIMENSIONS = 1536
_WORD = re.compile(r"\w+")


def dimensions_of(model: str) -> int:
    """Return the length of a model's vectors: 3,072 for text-embedding-3-large, 1,536 for all others."""
    return _DIMENSIONS.get(model, _DEFAULT_DIMENSIONS)


@lru_cache(maxsize=65_536)
def _slot(word: str, dimensions: int) -> tuple[int, float]:
    digest = int.from_bytes(blake2b(word.encode("utf-8", "surrogatepass"), digest_size=8).digest())
    return (digest >> 1) % dimensions, 1.0 if digest & 1 else -1.0


def embed(content: str | list[int], dimensions: int) -> array[float]:
    """Return the unit vector of a text or a list of token ids, in 32-bit floats as in OpenAI's API."""
    words = _WORD.findall(content.lower()) if isinstance(content, str) else [str(token) for token in content]
    values = [0.0] * dimensions
    for word, count in Counter(words or [str(content)]).items():
        index, sign = _slot(word, dimensions)
        values[index] += sign * count
    # words of opposite sign in the same slot can cancel each other out, and a zero vector cannot be normalized
    length = math.sqrt(sum(value * value for value in values))
    if length == 0.0:
        values[0] = length = 1.0
    return array("f", (value / length for value in values))


def encode(vector: array[float], encoding_format: str) -> list[float] | str:
    """Return a vector as the API sends it: a list of numbers, or base64 of little-endian 32-bit floats."""
    if encoding_format == "base64":
        return base64.b64encode(vector.tobytes()).decode()
    return vector.tolist()
