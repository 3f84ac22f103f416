"""Renders the tables in `docs/reference/prices.md`: `python -m tests.core.pricing.render_docs`."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path

from genai_prices.data_snapshot import get_snapshot

from airflow_provider_batch.core.pricing.price_list import PriceList
from airflow_provider_batch.core.pricing.published import _FINE_TUNED, GENAI_PRICES, published_rates
from airflow_provider_batch.core.pricing.rate import Rate, Rates
from airflow_provider_batch.core.provider.lane import Lane
from tests.core.lifecycle.render_docs import table

PAGE = Path(__file__).parents[3] / "docs" / "reference" / "prices.md"
BLOCK = re.compile(r"(<!-- rendered: ([a-z ]+) -->\n).*?(<!-- end -->)", re.DOTALL)

#: names of models that genai-prices lists under another id
_NAMES = {
    "moderation": "omni-moderation-latest",
    "computer-use": "computer-use-preview",
    "codex-mini": "codex-mini-latest",
}
#: ids in genai-prices that are not the name of a model, or of one that was shut down before the Batch API existed
_SKIPPED = re.compile(r"ada|babbage|curie|davinci|text-davinci.*|gpt-4o:extended|gpt-3\.5-0301|ft:.*|.*\.ft-")
_OTHER_FINE_TUNED = ("gpt-4o-mini-2024-07-18", "gpt-3.5-turbo-0125", "gpt-4-0613")


def openai_models() -> list[str]:
    """Return the names of OpenAI's models, those of fine-tuned models last."""
    provider = next(provider for provider in get_snapshot().providers if provider.id == "openai")
    names = [_NAMES.get(model.id, model.id) for model in provider.models if not _SKIPPED.fullmatch(model.id)]
    return sorted(names) + [f"ft:{base}:…" for base in (*_FINE_TUNED, *_OTHER_FINE_TUNED)]


def models_of(price_list: PriceList) -> list[str]:
    """Return the names of the models in a price list."""
    if price_list is PriceList.OPENAI:
        return openai_models()
    provider = next(provider for provider in get_snapshot().providers if provider.id == price_list.value)
    return sorted(model.id for model in provider.models)


def priced(price_list: PriceList = PriceList.OPENAI) -> Iterator[tuple[str, Rates]]:
    """Yield each model with a known price, and its prices."""
    for name in models_of(price_list):
        rates = published_rates(name, price_list)
        if rates is not None:
            yield name, rates


def unpriced() -> list[str]:
    """Return the names of OpenAI's models without a known price."""
    return [name for name in openai_models() if published_rates(name) is None]


def _usd(price: Decimal, large: Decimal | None) -> str:
    surcharge = "" if large is None or large == price else f" ({_usd(large, None)})"
    digits = max(2, -int(price.normalize().as_tuple().exponent))
    return f"${price:.{digits}f}{surcharge}"


def _cells(rate: Rate | None) -> list[str]:
    if rate is None:
        return ["–", "–", "–"]
    large = rate.large
    return [
        _usd(rate.input, None if large is None else large.input),
        _usd(rate.cached, None if large is None else large.cached)
        + ("" if rate.lowest_cached is None else f", perhaps {_usd(rate.lowest_cached, None)}"),
        _usd(rate.output, None if large is None else large.output),
    ]


def _source(rate: Rate, *, is_standard: bool) -> str:
    if rate.lane is Lane.BATCH:
        return f"{rate.source}. Batches cost the standard price." if is_standard else rate.source
    return f"{rate.source}. No batch price is known, so the standard price counts."


def prices_table(price_list: PriceList) -> str:
    """Return the prices of every model in a price list as a table."""
    rows = []
    for name, rates in priced(price_list):
        batch = rates[Lane.BATCH]
        is_known = batch.lane is Lane.BATCH
        rows.append(
            [
                f"`{name}`",
                *_cells(rates[Lane.STANDARD]),
                *_cells(batch if is_known else None),
                *([] if price_list is not PriceList.OPENAI else _cells(rates.get(Lane.FLEX))),
                _source(batch, is_standard=batch.output == rates[Lane.STANDARD].output > 0),
            ]
        )
    lanes = ("standard", "batch", "flex") if price_list is PriceList.OPENAI else ("standard", "batch")
    head = [f"{lane}: {kind}" for lane in lanes for kind in ("input", "cached input", "output")]
    return table(["model", *head, "source"], rows)


BLOCKS: dict[str, Callable[[], str]] = {
    "version": lambda: f"The tables are those of {GENAI_PRICES}.",
    "openai": lambda: prices_table(PriceList.OPENAI),
    "groq": lambda: prices_table(PriceList.GROQ),
    "unknown": lambda: ", ".join(f"`{name}`" for name in unpriced()) + ".",
}


def render(page: str) -> str:
    """Return the page with its tables rendered again."""
    return BLOCK.sub(lambda match: f"{match[1]}\n{BLOCKS[match[2]]()}\n\n{match[3]}", page)


if __name__ == "__main__":
    PAGE.write_text(render(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
