"""The JSON that the routes of the page return."""

from __future__ import annotations

import json
from typing import Any

import msgspec
from fastapi import HTTPException
from fastapi.responses import Response

HEADERS = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}

#: the same for each reason, so that no one learns from it which addresses exist
_NO_JOB = (
    "No job was found for this task instance. A job appears once its submit task has sealed it. If the job passes "
    "staging= to its tasks, an administrator must also list that place in [openai_batch] page_staging."
)


def reply(content: Any) -> Response:
    """Return a response with this content as JSON: builtins, or structs of msgspec. NaN becomes null."""
    try:
        body = msgspec.json.encode(content)
    except UnicodeEncodeError:  # JSON of a model or of a person can contain half of a surrogate pair
        body = json.dumps(msgspec.to_builtins(content)).encode()
    return Response(body, media_type="application/json", headers=HEADERS)


def no_job() -> HTTPException:
    """Return the error for a task instance without a job that the page may read."""
    return HTTPException(404, _NO_JOB)
