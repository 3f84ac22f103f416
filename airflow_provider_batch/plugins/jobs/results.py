"""What the list needs of the values that the tasks of a job returned.

The values are XComs, and a person may have edited them. So each field is read on its own, and a field that cannot be
read is unknown.
"""

from __future__ import annotations

from typing import Annotated, Any, TypeVar

import msgspec
from msgspec import Meta

from airflow_provider_batch.plugins.lookup import decode_xcom

#: JavaScript has no larger integers
_Count = Annotated[int, Meta(ge=0, le=2**53)]
_Usd = Annotated[float, Meta(ge=0, le=1e15)]


class EstimateResult(msgspec.Struct, frozen=True):
    """The part of `Estimate` that the list shows."""

    low_usd: _Usd | None = None
    high_usd: _Usd | None = None


class SubmitResult(msgspec.Struct, frozen=True):
    """The part of `Reference` that the list shows."""

    requests: _Count | None = None
    models: list[str] = []
    estimate: EstimateResult = EstimateResult()


class WaitedResult(msgspec.Struct, frozen=True):
    """The part of `WaitResult` that the list shows."""

    outcomes: dict[str, _Count] | None = None
    retry_rounds: _Count | None = None


class LandedResult(msgspec.Struct, frozen=True):
    """The part of `LandingResult` that the list shows."""

    requests: _Count | None = None
    outcomes: dict[str, _Count] | None = None
    cost_usd: _Usd | None = None
    standard_cost_usd: _Usd | None = None


_Result = TypeVar("_Result", SubmitResult, WaitedResult, LandedResult)

_decoders: dict[type, msgspec.json.Decoder[Any]] = {
    result_type: msgspec.json.Decoder(result_type, strict=False)
    for result_type in (SubmitResult, WaitedResult, LandedResult)
}


def read_result(text: str | None, result_type: type[_Result]) -> _Result:
    """Return the result of a task from the JSON of its XCom."""
    if text is None:
        return result_type()
    try:
        result: _Result = _decoders[result_type].decode(text)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        result = _read_fields(text, result_type)
    return result


def _read_fields(text: str, result_type: type[_Result]) -> _Result:
    value = decode_xcom(decode_xcom(text))
    if not isinstance(value, dict):
        return result_type()
    fields = {}
    for field in msgspec.structs.fields(result_type):
        try:
            fields[field.name] = msgspec.convert(value[field.name], field.type, strict=False)
        except (KeyError, msgspec.MsgspecError, ValueError, RecursionError):
            continue
    return result_type(**fields)


def read_address(text: str) -> str | None:
    """Return the address that a task pushed, from the JSON of its XCom."""
    try:
        address = _address_decoder.decode(text)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None
    if address[:1] == '"':  # Airflow's UI stores the JSON text of a value
        address = decode_xcom(address)
    return address if isinstance(address, str) else None


_address_decoder = msgspec.json.Decoder(str)
