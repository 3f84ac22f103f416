"""What the server asks: whoever implements `Responder` answers one request at a time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol


@dataclass(frozen=True)
class ModelRequest:
    """One request: synchronous (without custom_id) or a line of a batch."""

    endpoint: str
    body: Mapping[str, Any]
    custom_id: str | None = None


@dataclass(frozen=True)
class Reply:
    """An HTTP status and the JSON body that goes with it."""

    status: int
    body: dict[str, Any]
    #: `code` and `message` of a request that was given up before a model answered: in a batch its line has this
    #: error and no response; a synchronous caller gets status and body
    error: dict[str, str] | None = None


class Responder(Protocol):
    """Whoever answers requests."""

    def model_name(self, asked: str) -> str:
        """The name under which a batch and its answers report the model that was asked for."""
        ...

    async def answer(self, ask: ModelRequest) -> Reply:
        """The answer to one request; a refused request is a Reply too, no exception."""
        ...
