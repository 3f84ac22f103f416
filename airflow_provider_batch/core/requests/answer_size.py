"""The expected size of an answer in the result file, in bytes.

A batch has a single result file, which is one download, so its size is limited like that of the input file: 50,000
embeddings of 1,536 dimensions take 1.04 GB of JSON as decimal numbers and 0.42 GB in base64. The estimates err on the
safe side. A longer answer does no harm, because files are streamed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from airflow_provider_batch.core.requests import endpoints

#: dimensions by model, for requests that do not set `dimensions` (from the providers' model pages)
DIMENSIONS = {
    "text-embedding-3-small": 1_536,
    "text-embedding-3-large": 3_072,
    "text-embedding-ada-002": 1_536,
    "text-embedding-v1": 1_536,
    "text-embedding-v2": 1_536,
    "text-embedding-v3": 1_024,
    "text-embedding-v4": 1_024,
}
#: dimensions of any other model: the maximum among widely used open models (Qwen3-Embedding-8B, e5-mistral-7b)
UNKNOWN_DIMENSIONS = 4_096
#: bytes of a decimal number with its comma, such as -0.0069292834
NUMBER_BYTES = 14
#: expected tokens of an answer whose request has no cap
UNCAPPED_TOKENS = 1_000
#: expected tokens never exceed this: a larger cap is a guard against runaway answers and does not predict their length
MAX_EXPECTED_TOKENS = 8_000
TOKEN_BYTES = 4
#: bytes of a token in a list of log-probabilities, including its `bytes` as numbers
LOGPROB_BYTES = 80
#: bytes around an answer: ids, model, usage, finish reason
ENVELOPE_BYTES = 1_000
#: bytes around an embedding
EMBEDDING_ENVELOPE_BYTES = 200
#: bytes of a moderation result: categories, scores and applied input types
MODERATION_BYTES = 2_500


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


class _ModerationBody(msgspec.Struct):
    input: Any = None


class _ModerationLine(msgspec.Struct):
    body: _ModerationBody = msgspec.field(default_factory=_ModerationBody)


_line_decoder = msgspec.json.Decoder(_Line)
_moderation_line_decoder = msgspec.json.Decoder(_ModerationLine)


def dimensions_of(bodies: Iterable[Mapping[str, Any]]) -> int | None:
    """Return the number of elements of the embeddings for these requests, or None if it differs or is unknown."""
    dimensions = {body.get("dimensions") or DIMENSIONS.get(str(body.get("model"))) for body in bodies}
    number = dimensions.pop() if len(dimensions) == 1 else None
    return number if isinstance(number, int) else None


def keys_read(endpoint: str) -> frozenset[str]:
    """Return the keys of a body that `expected_bytes` reads."""
    return frozenset((_ModerationBody if endpoint == endpoints.MODERATIONS else _Body).__struct_fields__)


def expected_bytes(endpoint: str, line: bytes, inputs: int) -> int:
    """Return the expected size, in bytes, of the answer to a line of an input file.

    `inputs` is the number of embedding inputs in the request.
    """
    if endpoint == endpoints.MODERATIONS:
        results = _count_results(_moderation_line_decoder.decode(line).body.input)
        return ENVELOPE_BYTES + MODERATION_BYTES * results
    body = _line_decoder.decode(line).body
    if endpoint == endpoints.EMBEDDINGS:
        return ENVELOPE_BYTES + inputs * (EMBEDDING_ENVELOPE_BYTES + _embedding_bytes(body))
    choices = _positive_int(body.n, 1)
    expected = ENVELOPE_BYTES + choices * _output_tokens(body) * (TOKEN_BYTES + _logprob_bytes(body))
    if endpoint == endpoints.RESPONSES:
        # a response repeats these parts of its request
        expected += ENVELOPE_BYTES + len(bytes(body.instructions)) + len(bytes(body.tools)) + len(bytes(body.text))
    return expected


def _embedding_bytes(body: _Body) -> int:
    default = DIMENSIONS.get(body.model, UNKNOWN_DIMENSIONS) if isinstance(body.model, str) else UNKNOWN_DIMENSIONS
    dimensions = _positive_int(body.dimensions, default)
    # a number has 4 bytes, and base64 writes 4 characters for every 3 bytes
    return -(-dimensions * 4 // 3) * 4 if body.encoding_format == "base64" else dimensions * NUMBER_BYTES


def _output_tokens(body: _Body) -> int:
    for cap in (body.max_completion_tokens, body.max_output_tokens, body.max_tokens):
        if cap is not None:
            return min(_positive_int(cap, UNCAPPED_TOKENS), MAX_EXPECTED_TOKENS)
    return UNCAPPED_TOKENS


def _logprob_bytes(body: _Body) -> int:
    """Return the bytes of log-probabilities per token.

    Chat has a switch and a number of alternatives, completions only a number.
    """
    alternatives = _positive_int(body.top_logprobs, 0) or _positive_int(body.logprobs, 0)
    return LOGPROB_BYTES * (1 + alternatives) if body.logprobs or alternatives else 0


def _count_results(value: Any) -> int:
    """Return the number of moderation results: one per text of a list of texts, one for a list of content parts."""
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return len(value)
    return 1


def _positive_int(value: Any, default: int) -> int:
    """Return the value if it is a positive int, as the provider requires, else the default."""
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else default
