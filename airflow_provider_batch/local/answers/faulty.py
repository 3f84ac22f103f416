"""Faults of answers, whoever answers: an error in place of the answer, or an answer that is spoilt."""

from __future__ import annotations

from hashlib import blake2b

import msgspec

from airflow_provider_batch.local.answers.corrupt import instead, spoilt
from airflow_provider_batch.local.answers.responder import ModelRequest, Reply, Responder
from airflow_provider_batch.local.faults import Faults, Target


class FaultyResponder:
    """Answers as another responder does, but for the rows that a fault hits.

    A synchronous request is no row; it is drawn by its body, so that a rate holds for these too.
    """

    def __init__(self, responder: Responder, faults: Faults) -> None:
        self._responder = responder
        self._faults = faults

    def model_name(self, asked: str) -> str:
        """As the other responder has it."""
        return self._responder.model_name(asked)

    async def answer(self, ask: ModelRequest) -> Reply:
        """See `Responder.answer`."""
        fault = self._faults.draw_row_fault(Target.ANSWER, _row(ask)) if self._faults.plan else None
        if fault is None:
            return await self._responder.answer(ask)
        reply = instead(fault, ask)
        return spoilt(fault.kind, ask, await self._responder.answer(ask)) if reply is None else reply


def _row(ask: ModelRequest) -> str:
    if ask.custom_id is not None:
        return ask.custom_id
    return blake2b(msgspec.json.encode([ask.endpoint, ask.body]), digest_size=16).hexdigest()
