"""Prices of models, the cost of answers, and the estimated cost of a job."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import genai_prices
import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_batch.core.ledger.samples import InputSample, OutputSample
from airflow_provider_batch.core.pricing.estimate import HIGH_OUTPUT, LOW_OUTPUT, Estimator
from airflow_provider_batch.core.pricing.prices import UNKNOWN_USAGE, Prices, Usage
from airflow_provider_batch.core.pricing.published import GENAI_PRICES
from airflow_provider_batch.core.pricing.spread import input_range, output_range
from airflow_provider_batch.core.provider.lane import Lane
from airflow_provider_batch.core.requests.request import Request
from airflow_provider_batch.core.tokens.request import estimate_request
from airflow_provider_batch.exceptions import InputError
from tests.core.pricing.render_docs import PAGE, priced, render, unpriced

MILLION = 1_000_000


@pytest.mark.parametrize(
    ("model", "input", "cached", "output"),
    [
        ("gpt-5-mini", "0.125", "0.0125", "1"),
        ("gpt-5-mini-2025-08-07", "0.125", "0.0125", "1"),
        ("gpt-5.4", "1.25", "0.13", "7.5"),
        ("gpt-6-luna", "0.05", "0.005", "0.25"),
        ("gpt-4o-mini", "0.075", "0.075", "0.3"),
        ("gpt-5-pro", "7.5", "7.5", "60"),
        ("ft:gpt-4o-mini-2024-07-18:org::id", "0.15", "0.15", "0.6"),
    ],
)
def test_the_rate_is_the_published_batch_price(model: str, input: str, cached: str, output: str) -> None:
    rate = Prices().rate(model)
    assert rate is not None
    assert (rate.input, rate.cached, rate.output) == (Decimal(input), Decimal(cached), Decimal(output))
    assert rate.lane is Lane.BATCH
    assert "genai-prices" in rate.source


def test_a_standard_price_used_for_lack_of_a_batch_price_is_marked() -> None:
    rate = Prices().rate("gpt-5.3-codex")
    assert rate is not None
    assert (rate.input, rate.output, rate.lane) == (Decimal("1.75"), Decimal(14), Lane.STANDARD)


@pytest.mark.parametrize(
    ("model", "standard", "batch"),
    [
        ("text-embedding-3-small", "0.02", "0.01"),
        ("text-embedding-3-large", "0.13", "0.065"),
        ("text-embedding-ada-002", "0.1", "0.05"),
        ("davinci-002", "4", "2"),
        ("babbage-002", "0.8", "0.4"),
        ("o3-deep-research", "50", "25"),
        ("o4-mini-deep-research-2025-06-26", "10", "5"),
        ("computer-use-preview-2025-03-11", "15", "7.5"),
    ],
)
def test_a_batch_price_that_genai_prices_does_not_list_is_half_and_names_the_second_source(
    model: str, standard: str, batch: str
) -> None:
    prices, usage = Prices(), Usage(input_tokens=MILLION, output_tokens=MILLION)
    rate = prices.rate(model)
    assert rate is not None
    assert rate.lane is Lane.BATCH
    assert rate.source.startswith("half of genai-prices")
    assert "lists it" in rate.source
    assert (prices.cost(model, usage), prices.standard_cost(model, usage)) == (Decimal(batch), Decimal(standard))


@pytest.mark.parametrize(
    ("model", "standard", "batch"),
    [
        ("ft:gpt-4.1-2025-04-14:org::id", "15", "7.5"),
        ("ft:gpt-4.1-mini-2025-04-14:org:name:id:ckpt-step-90", "4", "2"),
        ("gpt-4.1-nano-2025-04-14.ft-0123", "1", "0.5"),
        ("ft:gpt-4o-2024-08-06:org::id", "18.75", "14.725"),
        ("ft:gpt-4o-mini-2024-07-18:org:my-audio:id", "1.5", "0.75"),
        ("ft:o4-mini-2025-04-16:org::id", "20", "10"),
        ("ft:gpt-3.5-turbo-0125:org::id", "9", "4.5"),
        ("ft:davinci-002:org::id", "24", "12"),
        ("ft:gpt-4o:org::id", "18.75", "14.725"),
        ("ft:gpt-4o-mini:org:name:id", "1.5", "0.75"),
        ("ft:gpt-4.1:org::id", "15", "7.5"),
        ("ft:gpt-4.1-mini:org::id", "4", "2"),
        ("gpt-4.1-nano.ft-0123", "1", "0.5"),
        ("ft:gpt-4:org::id", "90", "45"),
    ],
)
def test_a_fine_tuned_model_has_the_price_of_its_base(model: str, standard: str, batch: str) -> None:
    prices, usage = Prices(), Usage(input_tokens=MILLION, output_tokens=MILLION)
    assert (prices.cost(model, usage), prices.standard_cost(model, usage)) == (Decimal(batch), Decimal(standard))
    assert prices.cost(model, usage, answered_by=model.split(":")[0]) == Decimal(batch)


def test_a_fine_tuned_model_costs_its_own_price_even_if_the_answer_names_the_base() -> None:
    usage = Usage(input_tokens=MILLION)
    model = "ft:gpt-4o-mini-2024-07-18:org::id"
    assert Prices().cost(model, usage, answered_by="gpt-4o-mini-2024-07-18") == Decimal("0.15")
    assert Prices().cost("ft:gpt-9:org::id", usage, answered_by="gpt-4o-mini-2024-07-18") == Decimal("0.075")


@pytest.mark.parametrize(
    "model",
    [
        "gpt-5-nano-custom",
        "gpt-5-nano-20250807x",
        "gpt-5.3-foo",
        "gpt-4o-mini-2099-01-01",
        "my-moderation",
        "llama-moderation-latest",
        "ft:gpt-4o-2024-99-99:org::id",
        "ft:gpt-3.5-turbo-instructed:org::id",
        "ft:gpt-5-mini-2025-08-07:org::id",
        "ft:",
        "azure/gpt-4o-mini",
        "gpt-4o ",
        "gpt-4.5-preview-custom",
        "computer-use-custom",
        "gpt-oss-120b",
        "openai/gpt-oss-20b",
    ],
)
def test_a_name_that_only_resembles_a_model_has_no_price(model: str) -> None:
    assert [Prices().rate(model, lane) for lane in Lane] == [None, None, None]


@pytest.mark.parametrize(
    ("prices", "model", "base"),
    [
        ({"gpt-4o": "gpt-4o", "dev": "gpt-4o"}, "dev", "gpt-4o"),
        ({"gpt-4o": "gpt-4o"}, "gpt-4o", "gpt-4o"),
        ({"staging": "production", "production": "gpt-4o-mini"}, "staging", "gpt-4o-mini"),
        ({"gpt-4o": "gpt-4o-mini", "gpt-4o-mini": "gpt-4o"}, "gpt-4o", "gpt-4o-mini"),
    ],
)
def test_a_deployment_may_be_named_like_a_model_or_cost_the_same_as_another_deployment(
    prices: dict[str, str], model: str, base: str
) -> None:
    assert Prices(prices).rate(model) == Prices().rate(base)
    assert Prices(prices).served_model(model) == base


def test_the_tokens_of_a_deployment_are_those_of_the_model_that_it_serves() -> None:
    image = {"type": "image_url", "image_url": {"url": "https://example.com/a.png", "detail": "low"}}
    body = json.dumps({"messages": [{"role": "user", "content": [image]}]}).encode()
    for served_model in ("gpt-4o", "gpt-4o-mini", "gpt-5.1"):
        estimator = Estimator(Prices({"deployment": served_model}), "/v1/chat/completions")
        expected = add(Estimator(Prices(), "/v1/chat/completions"), served_model, body, 1)
        assert add(estimator, "deployment", body, 1) == expected


@pytest.mark.parametrize("prices", [{"a": "b", "b": "a"}, {"a": "a"}, {"a": "b", "b": "c"}])
def test_names_that_only_name_each_other_have_no_price(prices: dict[str, str]) -> None:
    with pytest.raises(InputError, match=r"but the price of .[abc]. is unknown"):
        Prices(prices)


@pytest.mark.parametrize("model", ["openai/gpt-4o-mini", "GPT-4o-mini", "gpt-4o-mini-2024-07-18"])
def test_other_spellings_of_a_name_have_its_price(model: str) -> None:
    assert Prices().rate(model) == Prices().rate("gpt-4o-mini")


@pytest.mark.parametrize("model", ["gpt-audio", "gpt-4o-audio-preview", "gpt-realtime", "gpt-image-1", "tts-1"])
def test_a_model_with_several_prices_per_kind_of_token_is_unknown(model: str) -> None:
    assert Prices().rate(model) is None


@pytest.mark.parametrize(
    ("model", "input", "lowest"), [("gpt-4.1", "1", "0.25"), ("o3", "1", "0.25"), ("o4-mini", "0.55", "0.1375")]
)
def test_cached_input_without_a_published_batch_price_counts_in_full_and_the_lowest_cost_is_known(
    model: str, input: str, lowest: str
) -> None:
    prices, usage = Prices(), Usage(input_tokens=MILLION, cached_tokens=MILLION)
    assert prices.cost(model, usage) == Decimal(input)
    assert prices.lowest_cost(model, usage) == Decimal(lowest)
    assert prices.lowest_cost(model, Usage(input_tokens=MILLION)) == Decimal(input)
    assert prices.lowest_cost("gpt-5", usage) == prices.cost("gpt-5", usage)
    assert prices.lowest_cost("unknown", usage) is None


def test_input_that_is_written_to_the_cache_costs_more() -> None:
    usage = Usage(input_tokens=MILLION, cached_tokens=0, cache_write_tokens=MILLION // 2)
    prices = Prices()
    assert prices.cost("gpt-6-sol", usage) == Decimal("2.25")  # large request: 2 and 2.5 per million
    small = Usage(input_tokens=1000, cached_tokens=200, cache_write_tokens=800)
    assert prices.cost("gpt-6-sol", small) == Decimal("0.00102")
    assert prices.cost("gpt-4o", small) == prices.cost("gpt-4o", Usage(input_tokens=1000))
    assert prices.cost("gpt-6-sol", Usage(input_tokens=1000, cache_write_tokens=None)) is None
    too_many = Usage(input_tokens=1000, cached_tokens=900, cache_write_tokens=900)
    assert prices.cost("gpt-6-sol", too_many) == Decimal("0.000215")


def test_a_large_request_costs_more_in_a_batch_if_only_the_standard_price_says_so() -> None:
    usage = Usage(input_tokens=300_000, output_tokens=1000)
    assert Prices().cost("gpt-5.5-pro", usage) == (Decimal(30) * 300_000 + Decimal(135) * 1000) / MILLION


def test_groq_has_its_own_prices() -> None:
    prices = Prices(price_list="groq")
    rate = prices.rate("openai/gpt-oss-120b")
    assert rate is not None
    assert (rate.input, rate.output) == (Decimal("0.075"), Decimal("0.3"))
    half = prices.rate("llama-3.3-70b-versatile")
    assert half is not None
    assert (half.input, half.output, half.lane) == (Decimal("0.295"), Decimal("0.395"), Lane.BATCH)
    assert prices.rate("gpt-4o-mini") is None


def test_a_provider_without_a_price_list_has_no_prices_but_those_that_people_set() -> None:
    prices = Prices({"mine": {"input": 1, "output": 2}}, price_list="")
    assert prices.rate("gpt-4o-mini") is None
    assert prices.rate("mine") is not None


def test_a_model_whose_published_batch_price_equals_the_standard_price_is_not_marked() -> None:
    rate = Prices().rate("gpt-3.5-turbo-1106")
    assert rate is not None
    assert (rate.input, rate.output, rate.lane) == (Decimal(1), Decimal(2), Lane.BATCH)


def test_moderation_is_free_and_a_model_without_a_price_per_token_is_unknown() -> None:
    rate = Prices().rate("omni-moderation-latest")
    assert rate is not None
    assert (rate.input, rate.output, rate.lane) == (Decimal(0), Decimal(0), Lane.BATCH)
    assert Prices().rate("whisper-1") is None


@pytest.mark.parametrize("model", ["", "my-deployment", "llama3.1:8b", "gpt-5-mini-turbo-max"])
def test_an_unknown_price_is_none_rather_than_zero(model: str) -> None:
    prices = Prices()
    usage = Usage(input_tokens=1000, output_tokens=1000)
    assert prices.rate(model) is None
    assert prices.cost(model, usage) is None
    assert prices.standard_cost(model, usage) is None


def test_a_flex_price_exists_where_it_is_published() -> None:
    prices, usage = Prices(), Usage(input_tokens=MILLION, output_tokens=MILLION)
    assert (prices.has_flex("gpt-5-mini"), prices.has_flex("gpt-5-mini-2025-08-07")) == (True, True)
    assert prices.cost("gpt-5-mini", usage, lane=Lane.FLEX) == prices.cost("gpt-5-mini", usage)
    for model in ("gpt-4.1", "text-embedding-3-small", "gpt-5.3-codex", "my-deployment"):
        assert not prices.has_flex(model)
        assert prices.cost(model, usage, lane=Lane.FLEX) is None
    assert prices.cost("gpt-4.1", usage, lane=Lane.STANDARD) == 10


def test_a_custom_price_applies_in_every_lane_that_the_model_has() -> None:
    price = {"input": 1, "output": 2}
    prices = Prices({"gpt-5-mini": price, "gpt-4.1": price, "my-deployment": price, "alias": "gpt-5-nano"})
    usage = Usage(input_tokens=MILLION, output_tokens=MILLION)
    assert [prices.cost("gpt-5-mini", usage, lane=lane) for lane in Lane] == [3, 3, 3]
    for model in ("gpt-4.1", "my-deployment"):
        assert [prices.cost(model, usage, lane=lane) for lane in Lane] == [3, None, 3]
    assert [prices.cost("alias", usage, lane=lane) for lane in Lane] == [
        prices.cost("gpt-5-nano", usage, lane=lane) for lane in Lane
    ]


def test_cached_input_is_charged_at_its_own_rate() -> None:
    usage = Usage(input_tokens=MILLION, cached_tokens=400_000, reasoning_tokens=1, output_tokens=MILLION)
    assert Prices().cost("gpt-5-mini", usage) == Decimal("0.075") + Decimal("0.005") + 1
    assert Prices().standard_cost("gpt-5-mini", usage) == 2 * Decimal("1.08")


def test_impossible_token_counts_are_bounded() -> None:
    usage = Usage(input_tokens=1000, cached_tokens=5000, output_tokens=-7)
    assert Prices().cost("gpt-5-mini", usage) == Decimal("0.0000125")


input_tokens = st.integers(0, 10_000) | st.sampled_from([272_000, 272_001]) | st.integers(272_001, 400_000)


@pytest.mark.parametrize(
    ("usage", "prices", "cost"),
    [
        (UNKNOWN_USAGE, None, None),
        (Usage(1000, 0, 0, None), None, None),
        (Usage(None, 0, 0, 1000), None, None),
        (Usage(1000, None, 0, 1000), None, None),
        (Usage(1000, 0, None, 1000), None, Decimal("0.001125")),
        (UNKNOWN_USAGE, {"gpt-5-mini": {"input": 0, "output": 0}}, 0),
        (Usage(1000, None, 0, 0), {"gpt-5-mini": {"input": 1, "output": 2}}, Decimal("0.001")),
        (Usage(1000, 0, 0, None), {"gpt-5-mini": {"input": 1, "output": 0}}, Decimal("0.001")),
        (Usage(None, 0, 0, 1000), {"gpt-5-mini": {"input": 0, "output": 1}}, Decimal("0.001")),
    ],
)
def test_a_cost_that_depends_on_an_unknown_number_of_tokens_is_unknown(
    usage: Usage, prices: dict[str, Any] | None, cost: Decimal | None
) -> None:
    assert Prices(prices).cost("gpt-5-mini", usage) == cost


def test_a_moderation_is_free_although_it_reports_no_usage() -> None:
    assert Prices().cost("omni-moderation-latest", UNKNOWN_USAGE) == 0


usages = input_tokens.flatmap(
    lambda count: st.builds(
        Usage,
        input_tokens=st.just(count),
        cached_tokens=st.integers(0, count // 2),
        cache_write_tokens=st.integers(0, count // 2),
        output_tokens=st.integers(0, 200_000),
    )
)


@given(model=st.sampled_from(["gpt-5-mini", "gpt-5.4", "gpt-5.5", "gpt-6.1-sol", "gpt-5.6-luna"]), usage=usages)
def test_the_cost_equals_that_of_genai_prices_even_for_large_requests(model: str, usage: Usage) -> None:
    prices = Prices()
    for context, ours in (
        ({"processing": "batch"}, prices.cost(model, usage)),
        ({"service_tier": "flex"}, prices.cost(model, usage, lane=Lane.FLEX)),
        (None, prices.cost(model, usage, lane=Lane.STANDARD)),
        (None, prices.standard_cost(model, usage)),
    ):
        if context == {"service_tier": "flex"} and not prices.has_flex(model):
            assert ours is None
            continue
        theirs = genai_prices.calc_price(
            genai_prices.Usage(
                input_tokens=usage.input_tokens,
                cache_read_tokens=usage.cached_tokens,
                cache_write_tokens=usage.cache_write_tokens,
                output_tokens=usage.output_tokens,
            ),
            model,
            provider_id="openai",
            price_context=context,
        )
        assert ours == theirs.total_price


def test_the_model_that_answered_sets_the_price_if_it_is_known() -> None:
    usage = Usage(input_tokens=MILLION)
    prices = Prices()
    assert prices.cost("gpt-5", usage, answered_by="gpt-5-mini-2025-08-07") == Decimal("0.125")
    assert prices.cost("gpt-5", usage, answered_by="something-else") == Decimal("0.625")
    assert prices.cost("my-deployment", usage, answered_by="gpt-5-2025-08-07") == Decimal("0.625")
    assert prices.cost("my-deployment", usage, answered_by="") is None


def test_a_custom_price_applies_to_any_model_that_answers() -> None:
    prices = Prices({"mine": {"input": 0.1, "output": "0.4", "cached": 0.05}, "mini": "gpt-5-mini"})
    usage = Usage(input_tokens=2 * MILLION, cached_tokens=MILLION, output_tokens=MILLION)
    assert prices.cost("mine", usage, answered_by="gpt-5-2025-08-07") == Decimal("0.55")
    assert prices.standard_cost("mine", usage) is None
    assert prices.cost("mini", usage) == prices.cost("gpt-5-mini", usage)
    assert prices.standard_cost("mini", usage) == prices.standard_cost("gpt-5-mini", usage)
    assert prices.cost("gpt-5-mini", usage) == Decimal("1.1375")
    rate = prices.rate("mine")
    assert rate is not None
    assert rate.lane is Lane.BATCH
    assert Prices({"a": {"input": 1, "output": 2}}).cost("a", Usage(input_tokens=9, cached_tokens=9)) == Decimal(
        "0.000009"
    )
    assert Prices({"a": "b", "b": {"input": 1, "output": 2}}).rate("a") is not None


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ({"m": 3}, ["'m'", "3"]),
        ({"m": {"input": 1}}, ["'m'", "output"]),
        ({"m": {"input": 1, "output": 1, "ouput": 1}}, ["ouput"]),
        ({"m": {"input": -1, "output": 1}}, ["'input' of 'm'", "-1"]),
        ({"m": {"input": "nan", "output": 1}}, ["'input' of 'm'", "nan"]),
        ({"m": {"input": 1, "output": True}}, ["'output' of 'm'", "True"]),
        ({"m": {"input": None, "output": 1}}, ["'input' of 'm'", "None"]),
        ({"m": "gpt-5-minni"}, ["'m'", "the price of 'gpt-5-minni' is unknown"]),
        ({"m": "m"}, ["the price of 'm' is unknown"]),
        ({"m": "n", "n": "m"}, ["the price of", "is unknown"]),
    ],
    ids=str,
)
def test_an_invalid_price_is_an_error_that_names_the_model(overrides: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(InputError) as error_info:
        Prices(overrides)
    for word in [*words, "million tokens"]:
        assert word in str(error_info.value)


def test_the_error_names_where_an_invalid_price_stands() -> None:
    with pytest.raises(InputError, match=r"^in the extra: 'm' should cost the same as 'x'"):
        Prices({"m": "x"}, source="in the extra")
    with pytest.raises(InputError, match=r"^in the extra: Prices must be an object such as .*, not list"):
        Prices(["m"], source="in the extra")  # type: ignore[arg-type]


def test_the_page_of_prices_is_rendered_from_the_price_lists() -> None:
    page = PAGE.read_text(encoding="utf-8")
    if f"The tables are those of {GENAI_PRICES}." not in page:
        pytest.skip("another version of genai-prices is installed than the one that the page is about")
    assert page == render(page), (
        "docs/reference/prices.md differs from core/pricing/published.py. Run `python -m "
        "tests.core.pricing.render_docs` in the repository's root, and commit the page."
    )


def test_the_page_lists_the_source_of_the_prices_of_50_models() -> None:
    rates = dict(priced())
    assert len(rates) > 50
    assert all(rate.source for lanes in rates.values() for rate in lanes.values())
    assert not rates.keys() & set(unpriced())


def body(**extra: Any) -> bytes:
    return json.dumps({"messages": [{"role": "user", "content": "Is this a bug? " * 50}], **extra}).encode()


def add(estimator: Estimator, model: str, body: bytes, inputs: int) -> int:
    """Add a single request to an estimator, and return its input tokens."""
    (tokens,) = estimator.add([Request("row-1", model, body, inputs)], [0])
    return tokens


CHAT = "/v1/chat/completions"


def test_a_deployment_counts_images_like_the_model_that_it_serves() -> None:
    image = [{"type": "image_url", "image_url": {"url": "https://example.com/1.png", "detail": "low"}}]
    request = body(messages=[{"role": "user", "content": image}])
    estimator = Estimator(Prices({"vision": "gpt-4o-mini", "other": {"input": 1, "output": 1}}), CHAT)
    assert add(estimator, "vision", request, 1) == add(estimator, "gpt-4o-mini", request, 1) > 2_833
    assert add(estimator, "other", request, 1) == estimate_request(request, "other").input_tokens


def test_the_estimate_knows_which_models_get_images_sounds_or_files() -> None:
    estimator = Estimator(Prices(), CHAT)
    image = [{"type": "image_url", "image_url": {"url": "https://example.com/1.png"}}]
    add(estimator, "gpt-5-mini", body(), 1)
    add(estimator, "gpt-4o-mini", body(), 1)
    add(estimator, "gpt-4o-mini", body(messages=[{"role": "user", "content": image}]), 1)
    assert estimator.media_models() == ["gpt-4o-mini"]


def test_the_estimate_is_a_range_from_a_short_answer_to_the_cap() -> None:
    estimator = Estimator(Prices(), CHAT)
    tokens = estimate_request(body()).input_tokens
    for _ in range(1000):
        assert add(estimator, "gpt-5-mini", body(max_completion_tokens=200), 1) == tokens
    estimate = estimator.finish()
    assert estimate.input_tokens == 1000 * tokens
    assert estimate.output_tokens_low == 1000 * LOW_OUTPUT
    assert estimate.output_tokens_high == 200_000
    low_input, high_input = input_range(InputSample(), 1000)
    assert estimate.low_usd == pytest.approx(0.000125 * tokens * low_input + 0.001 * LOW_OUTPUT, rel=1e-3)
    assert estimate.high_usd == pytest.approx(0.000125 * tokens * high_input + 0.2, rel=1e-3)
    assert (estimate.unknown_models, estimate.standard_price_models) == ([], [])


def test_without_a_cap_the_high_end_is_a_default_that_grows_with_the_input() -> None:
    estimator = Estimator(Prices(), CHAT)
    add(estimator, "gpt-5-mini", body(), 1)
    assert estimator.finish().output_tokens_high == HIGH_OUTPUT
    long = json.dumps({"input": "word " * 50_000}).encode()
    estimator = Estimator(Prices(), "/v1/responses")
    tokens = add(estimator, "gpt-5-mini", long, 1)
    assert tokens > HIGH_OUTPUT
    assert estimator.finish().output_tokens_high == tokens


def test_small_caps_and_several_choices_are_respected() -> None:
    estimator = Estimator(Prices(), CHAT)
    add(estimator, "gpt-5-mini", body(max_tokens=1, n=4), 1)
    estimate = estimator.finish()
    assert (estimate.output_tokens_low, estimate.output_tokens_high) == (4, 4)


def test_earlier_answers_replace_the_default_only_for_their_model() -> None:
    estimator = Estimator(Prices(), CHAT)
    for _ in range(10):
        add(estimator, "gpt-5-mini", body(), 1)
    add(estimator, "gpt-5-nano", body(), 1)
    sample = OutputSample.of([90, 110] * 10)
    earlier = estimator.finish({"gpt-5-mini": sample})
    low, high = output_range(sample, 10)
    assert earlier.output_tokens_low == round(10 * low) + LOW_OUTPUT
    assert earlier.output_tokens_high == round(10 * high) + HIGH_OUTPUT
    assert earlier.earlier_answers == 20
    assert earlier.likely_usd is None
    default = estimator.finish()
    assert default.earlier_answers == 0
    assert default.high_usd
    assert default.low_usd
    assert earlier.high_usd
    assert earlier.low_usd
    # at batch prices of 1 and 0.2 dollars per million
    assert default.high_usd - earlier.high_usd == pytest.approx((10 * HIGH_OUTPUT - round(10 * high)) / 1e6)
    assert earlier.low_usd - default.low_usd == pytest.approx((round(10 * low) - 10 * LOW_OUTPUT) / 1e6)


def test_earlier_answers_of_every_model_give_a_most_likely_cost() -> None:
    estimator = Estimator(Prices(), CHAT)
    tokens = sum(add(estimator, "gpt-5-mini", body(), 1) for _ in range(10))
    estimate = estimator.finish({"gpt-5-mini": OutputSample.of([100] * 20)})
    assert estimate.likely_usd == pytest.approx((0.125 * tokens + 10 * 100) / 1e6)


def test_long_earlier_answers_exceed_the_default_of_requests_without_a_cap() -> None:
    estimator = Estimator(Prices(), CHAT)
    add(estimator, "gpt-5-mini", body(), 1)
    assert estimator.finish({"gpt-5-mini": OutputSample.of([20_000] * 20)}).output_tokens_high > 20_000


def test_earlier_answers_never_raise_the_estimate_above_the_cap_of_the_requests() -> None:
    estimator = Estimator(Prices(), CHAT)
    add(estimator, "gpt-5-mini", body(max_completion_tokens=50), 1)
    estimate = estimator.finish({"gpt-5-mini": OutputSample.of([20_000] * 20)})
    assert estimate.output_tokens_high == 50


def test_embeddings_and_moderations_have_no_output() -> None:
    for endpoint, model in (
        ("/v1/embeddings", "text-embedding-3-small"),
        ("/v1/moderations", "omni-moderation-latest"),
    ):
        estimator = Estimator(Prices(), endpoint)
        assert add(estimator, model, json.dumps({"input": ["a", "b", "", ""]}).encode(), 4) == 4
        estimate = estimator.finish()
        assert (estimate.output_tokens_low, estimate.output_tokens_high) == (0, 0)
        assert estimate.low_usd is not None
        assert estimate.likely_usd is not None
        assert estimate.high_usd is not None
        assert estimate.low_usd <= estimate.likely_usd <= estimate.high_usd
        assert estimate.standard_price_models == []


def test_a_single_unknown_model_makes_the_cost_unknown_and_is_named() -> None:
    estimator = Estimator(Prices(), CHAT)
    add(estimator, "gpt-5-mini", body(), 1)
    add(estimator, "llama", body(), 1)
    estimate = estimator.finish()
    assert (estimate.low_usd, estimate.high_usd) == (None, None)
    assert estimate.unknown_models == ["llama"]
    assert estimate.input_tokens == 2 * estimate_request(body()).input_tokens


def test_a_job_without_requests_costs_nothing() -> None:
    estimate = Estimator(Prices(), CHAT).finish()
    assert (estimate.low_usd, estimate.high_usd, estimate.input_tokens) == (0.0, 0.0, 0)


def test_large_requests_are_estimated_at_the_higher_price() -> None:
    prices, estimator = Prices(), Estimator(Prices(), "/v1/responses")
    large = json.dumps({"input": "word " * 400_000, "max_output_tokens": 1000}).encode()
    small = json.dumps({"input": "word " * 1_000, "max_output_tokens": 1000}).encode()
    usages = [
        Usage(input_tokens=add(estimator, "gpt-6-luna", request, 1), output_tokens=1000)
        for request in (large, small, large)
    ]
    assert (usages[0].input_tokens or 0) > 272_000
    costs = [prices.cost("gpt-6-luna", usage) for usage in usages]
    total = float(sum(cost for cost in costs if cost is not None))
    high = estimator.finish().high_usd
    assert high is not None
    assert total < high < total * input_range(InputSample(), 3)[1]
