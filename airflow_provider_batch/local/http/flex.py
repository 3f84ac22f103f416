"""The flex tier: synchronous requests with `service_tier: "flex"`.

It has a queue and a latency of its own, which take time of the server's clock. A share of its requests is refused with
429 `resource_unavailable`, and the models that do not have the tier are refused with 400. The seed decides which
requests are refused.
"""

from __future__ import annotations

import asyncio
import random

from airflow_provider_batch.local.api.errors import ApiError, invalid_value
from airflow_provider_batch.local.clock import Clock
from airflow_provider_batch.local.settings import Settings

#: beginnings of the names of the models that have the tier at OpenAI
FLEX_MODELS = ("gpt-5", "gpt-6", "o3", "o4-mini")
#: service tiers of a request
TIERS = ("auto", "default", "flex", "priority", "fast", "scale")


class FlexTier:
    """The flex tier of one server."""

    def __init__(self, settings: Settings, clock: Clock) -> None:
        self._settings, self._clock = settings, clock
        self._slots = asyncio.Semaphore(settings.flex_concurrency)
        self._random = random.Random(f"flex-{settings.seed}")

    async def process(self, model: str) -> None:
        """Wait as long as a request to this model takes on flex.

        :raises ApiError: if the model does not have the tier, or if there are no resources.
        """
        if not self._has_flex(model):
            raise ApiError(
                400,
                f"Invalid service_tier argument: the model '{model}' does not support the service tier 'flex'.",
                param="service_tier",
                code="invalid_service_tier",
            )
        if self._random.random() < self._settings.flex_unavailable:
            raise ApiError(
                429,
                "Resource unavailable. The flex tier has no resources for this request at the moment. You were not"
                " charged.",
                type="resource_unavailable",
                code="resource_unavailable",
            )
        # a median, with a tail: one request in a hundred takes six times as long
        latency = self._settings.flex_latency * self._random.lognormvariate(0, 0.8)
        async with self._slots:
            await self._clock.sleep(latency)

    def _has_flex(self, model: str) -> bool:
        if self._settings.flex_models:
            return model in self._settings.flex_models
        return model.startswith(FLEX_MODELS)


def check_tier(tier: object) -> None:
    """Raise the ApiError with which OpenAI would reject a service tier, if it would."""
    if tier is not None and tier not in TIERS:
        raise invalid_value("service_tier", tier, TIERS)
