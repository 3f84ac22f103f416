"""What one input file may hold.

The defaults are OpenAI's: 50,000 requests and 200 MB a file, 50,000 embedding inputs over all lines of a file
(https://platform.openai.com/docs/guides/batch). A working client counts 200,000,000 bytes, not MiB. Other providers'
are in `core.provider.catalogue`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from airflow_provider_batch.exceptions import InputError


class Limits(msgspec.Struct, frozen=True):
    """The most that one shard may hold."""

    requests: int = 50_000
    bytes: int = 200_000_000
    #: embedding inputs over all requests of the shard; requests to other endpoints have none
    inputs: int = 50_000
    #: estimated input tokens. None: no limit, as a provider's queue limit depends on account and model
    tokens: int | None = None
    #: expected bytes of the result file, which is one download. Ours, not the provider's: `core.requests.answer_size`
    output_bytes: int = 512_000_000


class Size(msgspec.Struct, frozen=True):
    """What one request, or all requests of a shard, take of each limit."""

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
        """The name of the first limit that this is over; None if it is within all of them."""
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
    """The limits of `base` (default: OpenAI's), with the overrides applied.

    :param overrides: numbers by the name of the limit; `tokens` may be None: no limit. None: nothing is overridden.
    :param source: what the errors call the place that the overrides come from.
    :raises InputError: for an unknown name or a number that is no positive integer.
    """
    base = base or Limits()
    if overrides is None:
        return base
    if not isinstance(overrides, Mapping):
        raise InputError(f'{source}: must be an object such as {{"requests": 10000}}, not {type(overrides).__name__}.')
    for name, value in overrides.items():
        if name not in Limits.__struct_fields__:
            raise InputError(f"{source}: unknown limit {name!r}; there are {', '.join(Limits.__struct_fields__)}.")
        if name == "tokens" and value is None:
            continue
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise InputError(f"{source}: {name} must be a whole number of at least 1, not {value!r}.")
    return msgspec.structs.replace(base, **overrides)


def describe_limits(limits: Limits) -> str:
    """The limits in words, for a log."""
    tokens = "" if limits.tokens is None else f", about {limits.tokens:,} input tokens"
    return (
        f"{limits.requests:,} requests, {limits.bytes:,} bytes, {limits.inputs:,} embedding inputs{tokens}, "
        f"about {limits.output_bytes:,} bytes of answers"
    )
