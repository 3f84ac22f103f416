"""How the provider processes a request, on which its price depends."""

from __future__ import annotations

from enum import StrEnum


class Lane(StrEnum):
    """How the provider processes a request: in a batch, or synchronously in one of two service tiers."""

    BATCH = "batch"
    #: synchronous with `service_tier="flex"`: slower than the standard tier, and cheaper for the models that have it
    FLEX = "flex"
    #: synchronous at the standard price
    STANDARD = "standard"
