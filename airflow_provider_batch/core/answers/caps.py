"""The output cap of a request: raised for an answer that was cut off at it."""

from __future__ import annotations

from typing import Any

import msgspec

from airflow_provider_batch.core.answers.outcome import AT_CAP, Answer, Outcome

#: a cut-off answer is asked again with the cap that it had times this
CAP_RAISE_FACTOR = 2

#: the keys of a body that cap the output, over all endpoints
_KEYS = ("max_completion_tokens", "max_output_tokens", "max_tokens")


class _Line(msgspec.Struct):
    custom_id: msgspec.Raw
    method: msgspec.Raw
    url: msgspec.Raw
    body: dict[str, msgspec.Raw]


_decoder = msgspec.json.Decoder(_Line)


def is_cut_off(answer: Answer) -> bool:
    """Whether the answer ended at the output cap, so that a higher one may bring it whole."""
    return answer.outcome is Outcome.INCOMPLETE and answer.error_code in AT_CAP


def raise_cap(line: bytes) -> bytes | None:
    """A line of an input file with its output cap raised; None if its request states none.

    Without a cap the answer ended at the model's own limit, and asking again would end there too.
    """
    request = _decoder.decode(line)
    caps = {key: _whole(request.body[key]) for key in _KEYS if key in request.body}
    if not any(caps.values()):
        return None
    for key, cap in caps.items():
        if cap:
            request.body[key] = msgspec.Raw(b"%d" % (cap * CAP_RAISE_FACTOR))
    return msgspec.json.encode(request) + b"\n"


def _whole(value: msgspec.Raw) -> int | None:
    found: Any = msgspec.json.decode(value)
    return found if isinstance(found, int) and not isinstance(found, bool) and found > 0 else None
