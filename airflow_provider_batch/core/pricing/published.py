"""Published prices of models: which price list applies, and what a model costs in each lane.

Most prices come from the installed genai-prices package. The tables below hold what it does not list, each with its
source. `docs/reference/prices.md` is rendered from this module.

genai-prices also accepts names that only begin like, or contain, the name of a model. That would be a guess here: a
name counts as a model's only if it is the name that the provider uses, with or without the date of a version.

genai-prices takes long to import, so `prices` imports this module when it needs the first published price.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import genai_prices
import msgspec
from genai_prices.types import (
    ClauseEquals,
    ClauseOr,
    ClauseRegex,
    ClauseStartsWith,
    ModelInfo,
    ModelPrice,
    PriceCalculation,
    PriceVariant,
    TieredPrices,
)

from airflow_provider_batch.core.pricing.price_list import FINE_TUNED_NAME, PriceList
from airflow_provider_batch.core.pricing.rate import Rate, Rates, flat_rate, half_price
from airflow_provider_batch.core.provider.lane import Lane

#: what selects the price of a lane in genai-prices
_CONTEXTS: dict[Lane, dict[str, str] | None] = {
    Lane.BATCH: {"processing": "batch"},
    Lane.FLEX: {"service_tier": "flex"},
    Lane.STANDARD: None,
}

GENAI_PRICES = f"genai-prices {genai_prices.__version__}"
LITELLM = "LiteLLM 1.110.2 (model_prices_and_context_window.json)"
OPENAI_BATCH_TABLE = "OpenAI's batch price table of 2025"

#: models whose batch price genai-prices does not list -> who lists half of the standard price for them
_HALF_PRICE_IN_BATCHES = {
    "text-embedding-3-small": LITELLM,
    "text-embedding-3-large": LITELLM,
    "text-embedding-ada-002": LITELLM,
    "davinci-002": LITELLM,
    "babbage-002": LITELLM,
    "gpt-4o-search-preview": LITELLM,
    "o3-deep-research": OPENAI_BATCH_TABLE,
    "o4-mini-deep-research": OPENAI_BATCH_TABLE,
    "computer-use": OPENAI_BATCH_TABLE,
    "o1-mini": OPENAI_BATCH_TABLE,
}

#: the date of a version, at the end of a name
_VERSION = re.compile(r"-?\d{4}-\d{2}-\d{2}|-\d{4}")

#: prices of fine-tuned models by base model, standard and in a batch: input, cached input, output
_FINE_TUNED = {
    "gpt-4.1-2025-04-14": (("3", "0.75", "12"), ("1.5", "0.5", "6")),
    "gpt-4.1-mini-2025-04-14": (("0.8", "0.2", "3.2"), ("0.4", "0.1", "1.6")),
    "gpt-4.1-nano-2025-04-14": (("0.2", "0.05", "0.8"), ("0.1", "0.025", "0.4")),
    # OpenAI's price page has the same batch price, although it is more than half
    "gpt-4o-2024-08-06": (("3.75", "1.875", "15"), ("2.225", "0.9", "12.5")),
    "o4-mini-2025-04-16": (("4", "1", "16"), ("2", "0.5", "8")),
    "davinci-002": (("12", "12", "12"), ("6", "6", "6")),
    "babbage-002": (("1.6", "1.6", "1.6"), ("0.8", "0.8", "0.9")),
}

#: Names of base models without a version, as OpenAI's reference writes them (`ft:gpt-4o-mini:…`) -> the version whose
#: fine-tuning is priced. Of `gpt-4o`, it is the one that OpenAI's price page lists.
_TUNED_VERSIONS = {
    _VERSION.sub("", version): version for version in (*_FINE_TUNED, "gpt-4o-mini-2024-07-18", "gpt-4-0613")
}

#: Models that bill audio or images at prices of their own. Answers do not say how many tokens were which.
_SEVERAL_MODALITIES = re.compile(r"audio|realtime|transcribe|tts|image|live|whisper")
#: Open models on OpenAI's list in genai-prices. OpenAI does not serve them, and every host has its own price.
_OPEN_MODELS = re.compile(r"gpt-oss")
#: names of models that genai-prices describes only by what they contain or begin with
_OTHER_NAMES = re.compile(
    r"(omni|text)-moderation-(latest|stable|\d{3}|\d{4}-\d{2}-\d{2})|computer-use-preview(-\d{4}-\d{2}-\d{2})?"
)


def published_rates(model: str, price_list: PriceList = PriceList.OPENAI) -> Rates | None:
    """Return the published prices of a model by lane, or None if there are none.

    If no batch price is published, the price of the batch lane is the standard price, and its own lane says so.
    """
    name = model.lower()
    if price_list is PriceList.NONE:
        return None
    if price_list is PriceList.OPENAI:
        name = name.removeprefix("openai/")
        fine_tuned = FINE_TUNED_NAME.fullmatch(name)
        if fine_tuned is not None:
            base = fine_tuned["openai"] or fine_tuned["azure"]
            version = _TUNED_VERSIONS.get(base, base)
            return _fine_tuned_rates(name.replace(base, version, 1), version)
        if _SEVERAL_MODALITIES.search(name) or _OPEN_MODELS.search(name):
            return None
    model_info = _find(name, price_list)
    return None if model_info is None else _listed_rates(name, model_info, price_list)


def _fine_tuned_rates(name: str, base: str) -> Rates | None:
    if base in _FINE_TUNED:
        source = f"{LITELLM}: ft:{base}"
        standard, batch = (
            flat_rate(Decimal(input), Decimal(output), cached=Decimal(cached), lane=lane, source=source)
            for lane, (input, cached, output) in zip((Lane.STANDARD, Lane.BATCH), _FINE_TUNED[base], strict=True)
        )
        return {Lane.STANDARD: standard, Lane.BATCH: batch}
    if _find(base, PriceList.OPENAI) is None:
        return None
    try:
        model_info = _look_up(name, PriceList.OPENAI, None).model
    except LookupError:
        return None
    return _listed_rates(name, model_info, PriceList.OPENAI)


def _find(name: str, price_list: PriceList) -> ModelInfo | None:
    """Return the model with this name, or None if there is none."""
    try:
        model_info = _look_up(name, price_list, None).model
    except LookupError:
        return None
    return model_info if _is_name_of(model_info.match, name) or _OTHER_NAMES.fullmatch(name) else None


def _is_name_of(clause: Any, name: str) -> bool:
    if isinstance(clause, ClauseOr):
        return any(_is_name_of(part, name) for part in clause.or_)
    if isinstance(clause, ClauseEquals | ClauseRegex):
        return clause.is_match(name)
    if isinstance(clause, ClauseStartsWith):
        prefix = clause.starts_with.rstrip("-")
        return name == prefix or (name.startswith(prefix) and _VERSION.fullmatch(name[len(prefix) :]) is not None)
    return False


def _listed_rates(name: str, model_info: ModelInfo, price_list: PriceList) -> Rates | None:
    rates = {
        lane: rate
        for lane in Lane
        if (lane is Lane.STANDARD or _variant(model_info, lane)) and (rate := _rate(name, price_list, lane)) is not None
    }
    standard = rates.get(Lane.STANDARD)
    if standard is None:
        return None
    rates = {lane: _with_large_requests(rate, standard) for lane, rate in rates.items()}
    batch_variant = _variant(model_info, Lane.BATCH)
    if Lane.BATCH in rates and batch_variant is not None and batch_variant.prices.cache_read_mtok is None:
        rates[Lane.BATCH] = _with_uncertain_cache(rates[Lane.BATCH], standard)
    return {Lane.BATCH: _unlisted_batch_rate(standard, model_info.id, price_list), **rates}


def _unlisted_batch_rate(standard: Rate, model_id: str, price_list: PriceList) -> Rate:
    if not (standard.input or standard.output):
        return half_price(standard, standard.source)
    if price_list is PriceList.GROQ:
        half = half_price(standard, f"half of {standard.source}, as https://console.groq.com/docs/batch says")
        return msgspec.structs.replace(half, lowest_cached=None)
    if model_id in _HALF_PRICE_IN_BATCHES:
        return half_price(standard, f"half of {standard.source}, as {_HALF_PRICE_IN_BATCHES[model_id]} lists it")
    return standard


def _with_large_requests(rate: Rate, standard: Rate) -> Rate:
    """Return a reduced price with the surcharge for large requests that only the standard price lists."""
    if rate.large is not None or standard.large is None:
        return rate
    large = msgspec.structs.replace(half_price(standard.large, standard.source), lane=rate.lane)
    return msgspec.structs.replace(
        rate,
        source=f"{rate.source}; large requests: half of the standard price",
        max_input_tokens=standard.max_input_tokens,
        large=large,
    )


def _with_uncertain_cache(rate: Rate, standard: Rate) -> Rate:
    """Return a batch price in which cached input costs as much as other input.

    genai-prices carries the standard price of cached input over to a batch, where OpenAI's price table has a dash.
    """
    large = rate.large
    return msgspec.structs.replace(
        rate,
        cached=rate.input,
        lowest_cached=None if standard.cached == standard.input else standard.cached / 2,
        large=large and _with_uncertain_cache(large, standard.large or standard),
    )


def _variant(model: ModelInfo, lane: Lane) -> PriceVariant | None:
    """Return what genai-prices lists for a lane if it is in force, or None if it has no price of its own."""
    now = datetime.now(UTC)
    return next(
        (
            variant
            for variant in model.price_variants or ()
            if variant.when == _CONTEXTS[lane] and (variant.constraint is None or variant.constraint.active(now))
        ),
        None,
    )


def _look_up(name: str, price_list: PriceList, context: dict[str, str] | None) -> PriceCalculation:
    return genai_prices.calc_price(genai_prices.Usage(), name, provider_id=price_list.value, price_context=context)


def _rate(name: str, price_list: PriceList, lane: Lane) -> Rate | None:
    calculation = _look_up(name, price_list, _CONTEXTS[lane])
    source = f"{GENAI_PRICES}: {calculation.model.id}"
    price = calculation.model_price
    if all(value is None for value in vars(price).values()):
        # a model that is listed without any price is free, such as OpenAI's moderation models
        return flat_rate(Decimal(0), Decimal(0), lane=lane, source=source)
    return None if price.input_mtok is None else _sized_rate(price, lane, source)


def _sized_rate(price: ModelPrice, lane: Lane, source: str) -> Rate | None:
    prices = (price.input_mtok, price.cache_read_mtok, price.cache_write_mtok, price.output_mtok)
    starts = sorted({tier.start for entry in prices if isinstance(entry, TieredPrices) for tier in entry.tiers})
    rate: Rate | None = None
    for start, next_start in reversed(list(zip([-1, *starts], [*starts, None], strict=True))):
        input, cached, cache_write, output = (_price_above(entry, start) for entry in prices)
        assert input is not None
        rate = Rate(
            input=input,
            cached=input if cached is None else cached,
            cache_write=input if cache_write is None else cache_write,
            # embedding models have no output and therefore no price for it
            output=output or Decimal(0),
            lane=lane,
            source=source,
            max_input_tokens=next_start,
            large=rate,
        )
    return rate


def _price_above(price: Decimal | TieredPrices | None, input_tokens: int) -> Decimal | None:
    """Return the price for requests with more than this many input tokens."""
    if not isinstance(price, TieredPrices):
        return price
    return next((tier.price for tier in reversed(price.tiers) if tier.start <= input_tokens), price.base)
