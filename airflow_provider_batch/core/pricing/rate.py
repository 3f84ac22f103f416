"""The price of a model in one lane."""

from __future__ import annotations

from decimal import Decimal

import msgspec

from airflow_provider_batch.core.provider.lane import Lane


class Rate(msgspec.Struct, frozen=True, kw_only=True):
    """The price of a model in US dollars per million tokens."""

    input: Decimal
    #: price of input tokens that the provider had in its cache
    cached: Decimal
    #: price of input tokens that the provider writes to its cache
    cache_write: Decimal
    output: Decimal
    #: lowest price that cached input may have if no source states it; None if `cached` is certain
    lowest_cached: Decimal | None = None
    #: the lane with this price: STANDARD for a batch if no batch price is known
    lane: Lane
    #: origin of the price, as shown to people
    source: str
    #: requests with more input tokens than this cost more; None if the price does not depend on the size
    max_input_tokens: int | None = None
    #: price of all tokens of such a request
    large: Rate | None = None

    def for_size(self, input_tokens: int) -> Rate:
        """Return the price of a request with this many input tokens."""
        if self.large is None or self.max_input_tokens is None or input_tokens <= self.max_input_tokens:
            return self
        return self.large.for_size(input_tokens)


#: the prices of a model by lane. A lane whose price is unknown is missing
Rates = dict[Lane, Rate]


def flat_rate(input: Decimal, output: Decimal, *, lane: Lane, source: str, cached: Decimal | None = None) -> Rate:
    """Return a price that does not depend on the size of a request. Cached input costs as much as other input."""
    return Rate(
        input=input,
        cached=input if cached is None else cached,
        cache_write=input,
        output=output,
        lane=lane,
        source=source,
    )


def half_price(rate: Rate, source: str) -> Rate:
    """Return half of a standard price, as the price of a batch. It is unknown whether cached input is discounted."""
    return Rate(
        input=rate.input / 2,
        cached=rate.input / 2,
        lowest_cached=None if rate.cached == rate.input else rate.cached / 2,
        cache_write=rate.cache_write / 2,
        output=rate.output / 2,
        lane=Lane.BATCH,
        source=source,
        max_input_tokens=rate.max_input_tokens,
        large=None if rate.large is None else half_price(rate.large, source),
    )
