"""How many bytes the answer to a request is expected to have in the result file.

A result file is one download, so what comes back is limited as well as what goes in: 50,000 embeddings of 1,536
dimensions are 1.04 GB of JSON as decimal numbers and 0.42 GB in base64. It is an expectation, on the safe side of
what answers usually are; a longer answer harms nothing, since files are streamed.
"""

from __future__ import annotations

from typing import Any

import msgspec

from airflow_provider_batch.core.requests import endpoints

#: dimensions by model, where `dimensions` is not in the body (the providers' own model pages)
DIMENSIONS = {
    "text-embedding-3-small": 1_536,
    "text-embedding-3-large": 3_072,
    "text-embedding-ada-002": 1_536,
    "text-embedding-v1": 1_536,
    "text-embedding-v2": 1_536,
    "text-embedding-v3": 1_024,
    "text-embedding-v4": 1_024,
}
#: for any other model: the most that widely used open models have (Qwen3-Embedding-8B, e5-mistral-7b)
UNKNOWN_DIMENSIONS = 4_096
#: bytes of one decimal number with its comma: -0.0069292834
NUMBER = 14
#: tokens of an answer whose request has no cap
UNCAPPED_TOKENS = 1_000
#: a cap above this guards against a runaway answer, and says nothing of how long answers are
MOST_TOKENS = 8_000
TOKEN = 4
#: one token in a list of log-probabilities, with its bytes as numbers
LOGPROB = 80
#: around an answer: ids, model, usage, finish reason
ENVELOPE = 1_000
#: around one embedding
EMBEDDING_ENVELOPE = 200
#: categories, scores and applied input types of one moderated input
MODERATION = 2_500


class _Body(msgspec.Struct):
    model: Any = None
    n: Any = None
    max_completion_tokens: Any = None
    max_output_tokens: Any = None
    max_tokens: Any = None
    logprobs: Any = None
    top_logprobs: Any = None
    dimensions: Any = None
    encoding_format: Any = None
    instructions: msgspec.Raw = msgspec.Raw()
    tools: msgspec.Raw = msgspec.Raw()
    text: msgspec.Raw = msgspec.Raw()


class _Line(msgspec.Struct):
    body: _Body = msgspec.field(default_factory=_Body)


class _Moderated(msgspec.Struct):
    input: Any = None


class _ModerationLine(msgspec.Struct):
    body: _Moderated = msgspec.field(default_factory=_Moderated)


_line = msgspec.json.Decoder(_Line)
_moderation_line = msgspec.json.Decoder(_ModerationLine)


def keys_read(endpoint: str) -> frozenset[str]:
    """The keys of a body that `expected_bytes` looks at."""
    return frozenset((_Moderated if endpoint == endpoints.MODERATIONS else _Body).__struct_fields__)


def expected_bytes(endpoint: str, line: bytes, inputs: int) -> int:
    """Expected bytes of the answer to one line of an input file. `inputs`: how many embedding inputs it has."""
    if endpoint == endpoints.MODERATIONS:
        return ENVELOPE + MODERATION * _moderated(_moderation_line.decode(line).body.input)
    body = _line.decode(line).body
    if endpoint == endpoints.EMBEDDINGS:
        return ENVELOPE + inputs * (EMBEDDING_ENVELOPE + _embedding(body))
    expected = ENVELOPE + _whole(body.n, 1) * _tokens(body) * (TOKEN + _logprobs(body))
    if endpoint == endpoints.RESPONSES:
        # a response repeats these parts of its request
        expected += ENVELOPE + len(bytes(body.instructions)) + len(bytes(body.tools)) + len(bytes(body.text))
    return expected


def _embedding(body: _Body) -> int:
    known = DIMENSIONS.get(body.model, UNKNOWN_DIMENSIONS) if isinstance(body.model, str) else UNKNOWN_DIMENSIONS
    dimensions = _whole(body.dimensions, known)
    # 4 bytes a number, in 4 letters for every 3 bytes
    return -(-dimensions * 4 // 3) * 4 if body.encoding_format == "base64" else dimensions * NUMBER


def _tokens(body: _Body) -> int:
    for cap in (body.max_completion_tokens, body.max_output_tokens, body.max_tokens):
        if cap is not None:
            return min(_whole(cap, UNCAPPED_TOKENS), MOST_TOKENS)
    return UNCAPPED_TOKENS


def _logprobs(body: _Body) -> int:
    """Bytes a token. Chat has a switch and a number of alternatives, completions a number only."""
    alternatives = _whole(body.top_logprobs, 0) or _whole(body.logprobs, 0)
    return LOGPROB * (1 + alternatives) if body.logprobs or alternatives else 0


def _moderated(asked: Any) -> int:
    """Each text of a list is judged apart; a list of content parts is judged as one."""
    return len(asked) if isinstance(asked, list) and all(isinstance(item, str) for item in asked) else 1


def _whole(value: Any, otherwise: int) -> int:
    """A positive whole number as the provider reads it; else what stands in for it."""
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else otherwise
