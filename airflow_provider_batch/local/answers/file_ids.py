"""Rejects requests that refer to files that the server does not have, with the same 400 as OpenAI."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from airflow_provider_batch.local.answers.responder import ModelRequest, Reply, Responder
from airflow_provider_batch.local.api.errors import ApiError


class FileIdResponder:
    """Passes requests to another responder, except those with an id of an unknown file.

    A file that was uploaded to be read as an image or a document is not read here.
    """

    def __init__(self, responder: Responder, purpose_of: Callable[[str], str | None]) -> None:
        """:param purpose_of: returns the purpose of an uploaded file, or None if there is no such file."""
        self._responder = responder
        self._purpose_of = purpose_of

    def model_name(self, model: str) -> str:
        """Return the name that the wrapped responder reports."""
        return self._responder.model_name(model)

    async def answer(self, request: ModelRequest) -> Reply:
        """Answer one request, unless it refers to an unknown file. See `Responder.answer`."""
        for file_id in _file_ids(request.body.get("messages", request.body.get("input"))):
            purpose = self._purpose_of(file_id)
            if purpose is None:
                return Reply(400, ApiError(400, f"No such File object: {file_id}", param="input").body())
            if purpose not in ("user_data", "vision", "assistants"):
                message = f"The purpose of file {file_id} is {purpose!r}, so it cannot be part of a request."
                return Reply(400, ApiError(400, message, param="input").body())
        return await self._responder.answer(request)


def _file_ids(value: Any) -> Iterator[str]:
    """Yield the ids of the files in the content of messages."""
    for message in value if isinstance(value, list) else ():
        content = message.get("content") if isinstance(message, Mapping) else None
        for part in content if isinstance(content, list) else ():
            if isinstance(part, Mapping):
                file = part.get("file")
                file_id = file.get("file_id") if isinstance(file, Mapping) else part.get("file_id")
                if isinstance(file_id, str):
                    yield file_id
