"""What one input file may hold, and what is read of a row's size before it is paid for.

The figures are OpenAI's: 50,000 requests and 200 MB a file, 50,000 embedding inputs over all lines of a file
(https://platform.openai.com/docs/guides/batch). A working client counts 200,000,000 bytes, not MiB.
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
    #: embedding inputs over all requests of the shard
    inputs: int = 50_000


def read_limits(overrides: Mapping[str, Any] | None) -> Limits:
    """OpenAI's limits, with the author's own in their place where given.

    :raises InputError: for an unknown name or a number that is no positive integer.
    """
    for name, value in (overrides or {}).items():
        if name not in Limits.__struct_fields__:
            raise InputError(f"limits: unknown limit {name!r}; there are {', '.join(Limits.__struct_fields__)}.")
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise InputError(f"limits: {name} must be a whole number of at least 1, not {value!r}.")
    return Limits(**(overrides or {}))
