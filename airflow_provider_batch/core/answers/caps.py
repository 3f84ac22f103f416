"""Raises the output cap of a request whose answer was cut off there."""

from __future__ import annotations

from typing import Any

import msgspec

from airflow_provider_batch.core.answers.outcome import AT_CAP, Answer, Outcome

#: factor by which the output cap grows when a cut-off answer is retried
CAP_RAISE_FACTOR = 2

#: the keys of a request body that cap the output, for all endpoints
_KEYS = ("max_completion_tokens", "max_output_tokens", "max_tokens")


class _Line(msgspec.Struct):
    custom_id: msgspec.Raw
    method: msgspec.Raw
    url: msgspec.Raw
    body: dict[str, msgspec.Raw]


_decoder = msgspec.json.Decoder(_Line)


def is_cut_off(answer: Answer) -> bool:
    """Return whether the answer ended at the output cap, so that a higher cap may complete it."""
    return answer.outcome is Outcome.INCOMPLETE and answer.error_code in AT_CAP


def raise_cap(line: bytes) -> bytes | None:
    """Return a line of an input file with its output cap raised, or None if its request states no cap.

    Without a cap, the answer ended at the model's own limit, and a retry would end there too.
    """
    request = _decoder.decode(line)
    caps = {key: _cap_value(request.body[key]) for key in _KEYS if key in request.body}
    if not any(caps.values()):
        return None
    for key, cap in caps.items():
        if cap:
            request.body[key] = msgspec.Raw(b"%d" % (cap * CAP_RAISE_FACTOR))
    return msgspec.json.encode(request) + b"\n"


def _cap_value(value: msgspec.Raw) -> int | None:
    cap: Any = msgspec.json.decode(value)
    return cap if isinstance(cap, int) and not isinstance(cap, bool) and cap > 0 else None
