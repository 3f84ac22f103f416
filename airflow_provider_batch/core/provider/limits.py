"""Limits of one input file.

The defaults are OpenAI's: 50,000 requests, 200 MB, and 50,000 embedding inputs in total per file
(https://platform.openai.com/docs/guides/batch). A client that is used in production interprets 200 MB as 200,000,000
bytes, not as MiB. The limits of other providers are in `core.provider.catalogue`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from airflow_provider_batch.exceptions import InputError


class Limits(msgspec.Struct, frozen=True):
    """Maximum size of one shard."""

    requests: int = 50_000
    bytes: int = 200_000_000
    #: embedding inputs of all requests together; requests to other endpoints have none
    inputs: int = 50_000
    #: Estimated input tokens. None means no limit: a provider's queue limit depends on the account and the model.
    tokens: int | None = None
    #: Expected bytes of the result file, which is a single download. Our own limit, see `core.requests.answer_size`.
    output_bytes: int = 512_000_000


class Size(msgspec.Struct, frozen=True):
    """Size of a request, or of all requests of a shard, in the units of `Limits`."""

    requests: int = 0
    bytes: int = 0
    inputs: int = 0
    tokens: int = 0
    output_bytes: int = 0

    def __add__(self, other: Size) -> Size:
        return Size(
            self.requests + other.requests,
            self.bytes + other.bytes,
            self.inputs + other.inputs,
            self.tokens + other.tokens,
            self.output_bytes + other.output_bytes,
        )

    def exceeded_limit(self, limits: Limits) -> str | None:
        """Return the name of the first limit that is exceeded, or None if there is none."""
        if self.requests > limits.requests:
            return "requests"
        if self.bytes > limits.bytes:
            return "bytes"
        if self.inputs > limits.inputs:
            return "inputs"
        if limits.tokens is not None and self.tokens > limits.tokens:
            return "tokens"
        if self.output_bytes > limits.output_bytes:
            return "output_bytes"
        return None


def read_limits(overrides: Any, *, base: Limits | None = None, source: str = "limits") -> Limits:
    """Return the limits of `base` (default: OpenAI's) with the overrides applied.

    :param overrides: values by the name of the limit, or None for no overrides. A value of None for `tokens` removes
        that limit.
    :param source: where the overrides come from, for error messages.
    :raises InputError: if a name is unknown or a value is not a positive integer.
    """
    base = base or Limits()
    if overrides is None:
        return base
    if not isinstance(overrides, Mapping):
        raise InputError(f'{source}: Expected an object such as {{"requests": 10000}}, got {type(overrides).__name__}.')
    for name, value in overrides.items():
        if name not in Limits.__struct_fields__:
            raise InputError(f"{source}: Unknown limit {name!r}. Known limits: {', '.join(Limits.__struct_fields__)}.")
        if name == "tokens" and value is None:
            continue
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise InputError(f"{source}: Expected a whole number of at least 1 for {name}, got {value!r}.")
    return msgspec.structs.replace(base, **overrides)


def describe_limits(limits: Limits) -> str:
    """Return the limits as text for a log line."""
    tokens = "" if limits.tokens is None else f", about {limits.tokens:,} input tokens"
    return (
        f"{limits.requests:,} requests, {limits.bytes:,} bytes, {limits.inputs:,} embedding inputs{tokens}, "
        f"about {limits.output_bytes:,} bytes of answers"
    )
