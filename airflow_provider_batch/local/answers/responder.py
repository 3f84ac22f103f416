"""The interface of a responder, which answers requests one at a time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol


@dataclass(frozen=True)
class ModelRequest:
    """A request to a model: a line of a batch, or a synchronous call (which has no custom_id)."""

    endpoint: str
    body: Mapping[str, Any]
    custom_id: str | None = None


@dataclass(frozen=True)
class Reply:
    """The HTTP status and the JSON body of an answer."""

    status: int
    body: dict[str, Any]
    #: `code` and `message` of a request that was abandoned before a model answered. In a batch, its line has this
    #: error and no response. A synchronous caller gets `status` and `body`.
    error: dict[str, str] | None = None


class Responder(Protocol):
    """Answers requests."""

    def model_name(self, model: str) -> str:
        """Return the name that batches and answers report when `model` is requested."""
        ...

    async def answer(self, request: ModelRequest) -> Reply:
        """Answer one request. A rejected request is a Reply with an error status; nothing is raised."""
        ...
