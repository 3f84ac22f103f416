"""Only a sample of the requests is weighed: the sum of a job is about right, and the important rows are exact."""

from __future__ import annotations

import random
from typing import Any

import pytest

from airflow_provider_batch.core.pricing.estimate import Estimator
from airflow_provider_batch.core.pricing.prices import Prices
from airflow_provider_batch.core.pricing.sampling import FIRST_OF_KIND, FIRST_REQUESTS, ONE_IN, RequestWeigher
from airflow_provider_batch.core.requests.render import RequestSpec, compile_renderer
from airflow_provider_batch.core.requests.request import Request
from airflow_provider_batch.core.tokens import counter
from airflow_provider_batch.core.tokens.request import RequestTokens, estimate_request

CHAT = "/v1/chat/completions"
MODEL = "gpt-5-mini"
#: a lot that is not drawn
HIGH = 2**32 - 1
WORDS = {
    "English": ["the", "pump", "in", "hall", "seven", "lost", "pressure", "overnight", "again,", "please", "call"],
    "German": ["die", "Pumpe", "verlor", "über", "Nacht", "Öldruck,", "größere", "Störung", "bitte", "melden"],
    "Russian": ["насос", "в", "цехе", "потерял", "давление", "ночью,", "просим", "позвонить"],
    "Chinese": ["七号车间的水泵", "昨晚", "再次", "失去压力", "请尽快", "联系我们"],
    "numbers": ["2026-11-30", "48.1371", "11.5754", "000471", "9,81", "0x7f3a"],
    "code": ["for (int i = 0;", "i < n;", "i++) {", "sum +=", "a[i];", "}", 'printf("%d\\n");'],
}


def text_of(kind: str, rng: random.Random) -> str:
    return " ".join(rng.choices(WORDS[kind], k=int(rng.lognormvariate(4, 0.7)) + 1))


def requests_of(texts: list[str], **arguments: Any) -> list[Request]:
    spec = RequestSpec(endpoint=CHAT, custom_id="{{ row.id }}", model=MODEL, prompt="{{ row.text }}", **arguments)
    renderer = compile_renderer(spec, ["id", "text"], {})
    return renderer(list(enumerate(texts)), 1)


def exact_tokens(request: Request) -> int:
    return estimate_request(request.body, MODEL).input_tokens


@pytest.fixture(autouse=True)
def no_tokenizer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Estimate all tokens, so that the numbers do not depend on an optional package."""
    monkeypatch.setattr(counter, "tokenizer", lambda _: None)


def weigher_after(requests: list[Request], max_tokens: int | None = None) -> RequestWeigher:
    weigher = RequestWeigher(MODEL, max_tokens)
    for _ in weigher.weigh(requests, [HIGH] * len(requests)):
        pass
    return weigher


def weigh(weigher: RequestWeigher, *requests: Request) -> list[RequestTokens]:
    """Weigh requests that are not drawn."""
    return list(weigher.weigh(requests, [HIGH] * len(requests)))


def english(count: int) -> list[Request]:
    rng = random.Random(1)
    return requests_of([text_of("English", rng) for _ in range(count)])


@pytest.mark.parametrize("order", ["shuffled", "sorted by kind", "alternating"])
@pytest.mark.parametrize("seed", range(3))
def test_the_sum_of_a_job_of_mixed_texts_is_within_two_percent(order: str, seed: int) -> None:
    rng = random.Random(seed)
    texts = [text_of(kind, rng) for kind in WORDS for _ in range(1_000)]
    if order == "shuffled":
        rng.shuffle(texts)
    elif order == "alternating":  # with a period of 8, like the share of the rows that are weighed
        texts = [texts[index % 8 * 750 + index // 8] for index in range(len(texts))]
    requests = requests_of(texts)
    tokens = Estimator(Prices(), CHAT).add(requests, [rng.getrandbits(32) for _ in requests])
    assert sum(tokens) == pytest.approx(sum(map(exact_tokens, requests)), rel=0.02)


def test_a_few_long_texts_do_not_change_the_estimates_of_the_short_ones() -> None:
    rng = random.Random(5)
    kinds_and_words = [("numbers", 2_000) if number % 50 == 0 else ("English", 150) for number in range(6_000)]
    requests = requests_of([" ".join(rng.choices(WORDS[kind], k=words)) for kind, words in kinds_and_words])
    tokens = Estimator(Prices(), CHAT).add(requests, [rng.getrandbits(32) for _ in requests])
    assert sum(tokens) == pytest.approx(sum(map(exact_tokens, requests)), rel=0.005)


def test_only_the_requests_that_are_drawn_are_weighed_after_the_first() -> None:
    requests = english(FIRST_REQUESTS + 1_000)
    rng = random.Random(2)
    lots = [rng.getrandbits(32) for _ in requests]
    weigher = RequestWeigher(MODEL)
    tokens = list(weigher.weigh(requests, lots))
    weighed = [bool(request_tokens.texts) for request_tokens in tokens]
    assert all(weighed[:FIRST_REQUESTS])
    assert all(weighed[index] for index, lot in enumerate(lots) if lot < 2**32 // ONE_IN)
    assert sum(weighed[FIRST_REQUESTS:]) < 250
    for request, request_tokens, is_weighed in zip(requests, tokens, weighed, strict=True):
        assert not is_weighed or request_tokens.input_tokens == exact_tokens(request)


def test_another_kind_of_text_is_weighed() -> None:
    weigher = weigher_after(english(FIRST_REQUESTS))
    rng = random.Random(3)
    chinese = requests_of([text_of("Chinese", rng) for _ in range(FIRST_OF_KIND // 2)])
    assert [tokens.input_tokens for tokens in weigh(weigher, *chinese)] == list(map(exact_tokens, chinese))


@pytest.mark.parametrize("words", [1, 3_000])
def test_a_far_longer_or_shorter_text_is_weighed(words: int) -> None:
    weigher = weigher_after(english(FIRST_REQUESTS))
    (request,) = requests_of(["pressure " * words])
    (tokens,) = weigh(weigher, request)
    assert tokens.input_tokens == exact_tokens(request)


def test_a_text_that_might_exceed_a_limit_is_weighed() -> None:
    requests = english(FIRST_REQUESTS + 30)
    limit = max(map(exact_tokens, requests))
    weigher = weigher_after(requests[:FIRST_REQUESTS], limit)
    later_requests = requests[FIRST_REQUESTS:]
    for request, request_tokens in zip(later_requests, weigh(weigher, *later_requests), strict=True):
        tokens = request_tokens.input_tokens
        assert tokens <= limit
        assert tokens == exact_tokens(request) or len(request.body) < limit


def test_a_request_whose_rows_differ_in_more_than_texts_is_weighed() -> None:
    requests = requests_of(
        ["the pump lost pressure"] * (FIRST_REQUESTS + 1), body={"max_completion_tokens": "{{ row.id }}"}
    )
    weigher = weigher_after(requests[:-1])
    assert weigh(weigher, requests[-1])[0] == estimate_request(requests[-1].body, MODEL)


def test_a_scaled_request_keeps_the_limits_of_its_answer() -> None:
    requests = requests_of(["the pump lost pressure"] * (FIRST_REQUESTS + 1), max_output_tokens=7)
    (tokens,) = weigh(weigher_after(requests[:-1]), requests[-1])
    assert (tokens.cap, tokens.choices, tokens.texts) == (7, 1, ())
    assert tokens.input_tokens == exact_tokens(requests[-1])
