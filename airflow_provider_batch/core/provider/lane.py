"""How the provider processes a request, on which its price depends."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any

#: endpoints that have the flex tier
FLEX_ENDPOINTS = frozenset({"/v1/chat/completions", "/v1/responses"})

#: the parameter of a request body that names its service tier
SERVICE_TIER = "service_tier"


class Lane(StrEnum):
    """How the provider processes a request: in a batch, or synchronously in one of two service tiers."""

    BATCH = "batch"
    #: synchronous with `service_tier="flex"`: slower than the standard tier, and cheaper for the models that have it
    FLEX = "flex"
    #: synchronous at the standard price
    STANDARD = "standard"

    def of_answer(self, service_tier: str | None) -> Lane:
        """Return the lane in which a request of this lane was answered.

        Only an answer that names the flex tier was processed there: a server that does not know the parameter ignores
        it, and bills the standard price. The answers of a batch name the tier "default", although they cost less.

        :param service_tier: the tier that the answer names, or None.
        """
        if self is Lane.BATCH:
            return self
        return Lane.FLEX if service_tier == "flex" else Lane.STANDARD


def asks_for_a_tier(body: Mapping[str, Any]) -> bool:
    """Return whether a request body asks for a service tier of its own. "auto" leaves the choice open."""
    return body.get(SERVICE_TIER) not in (None, "auto")
