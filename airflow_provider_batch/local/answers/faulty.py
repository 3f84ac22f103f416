"""Injects faults into the answers of any responder: an error instead of the answer, or a corrupted answer."""

from __future__ import annotations

from hashlib import blake2b

import msgspec

from airflow_provider_batch.local.answers.corrupt import corrupt_reply, replacement_reply
from airflow_provider_batch.local.answers.responder import ModelRequest, Reply, Responder
from airflow_provider_batch.local.faults import Faults, Target


class FaultyResponder:
    """Passes requests to another responder, except where a fault hits a row.

    Row faults are drawn by custom_id. A synchronous request has no custom_id, so its fault is drawn by a hash of its
    body. The rate of a fault therefore holds for synchronous requests too.
    """

    def __init__(self, responder: Responder, faults: Faults) -> None:
        self._responder = responder
        self._faults = faults

    def model_name(self, model: str) -> str:
        """Return the name that the wrapped responder reports."""
        return self._responder.model_name(model)

    async def answer(self, request: ModelRequest) -> Reply:
        """Answer one request, unless a fault replaces or corrupts its answer. See `Responder.answer`."""
        fault = self._faults.draw_row_fault(Target.ANSWER, _row_key(request)) if self._faults.plan else None
        if fault is None:
            return await self._responder.answer(request)
        reply = replacement_reply(fault, request)
        if reply is None:
            reply = corrupt_reply(fault, request, await self._responder.answer(request))
        return reply


def _row_key(request: ModelRequest) -> str:
    if request.custom_id is not None:
        return request.custom_id
    return blake2b(msgspec.json.encode([request.endpoint, request.body]), digest_size=16).hexdigest()
