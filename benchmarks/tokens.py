"""Speed and accuracy of the token estimate for many kinds of text.

    python -m benchmarks.tokens [--runs 5] [--json FILE]

* Share of the kinds of `benchmarks.text_kinds` whose estimate is more than 10 % off, and share of those with too few
  tokens. The list before the figures shows the ratio of each of these kinds.
* Sum of the estimates of a job in which only a sample of the rows is weighed (`core.pricing.sampling`), divided by the
  sum of the estimates of all its rows. The rows have texts of all kinds: shuffled, and sorted by kind.
* Speed of the estimate for texts of 1,000 characters. Anchor: tiktoken counting the same texts, or `bpe-openai` where
  the vocabularies of tiktoken are not in its cache (`TIKTOKEN_CACHE_DIR`), because the benchmark downloads nothing.

The estimate was fitted to these kinds, among others (`benchmarks.fit_tokens`). Fitted without the two sources of texts
in natural languages of this table, it is within 10 % for about 80 % (o200k_base) and 86 % (cl100k_base) of those.
"""

from __future__ import annotations

import argparse
import os
import random
from collections.abc import Callable
from functools import partial
from pathlib import Path

from airflow_provider_batch.core.pricing.sampling import RequestWeigher
from airflow_provider_batch.core.requests.render import RequestSpec, compile_renderer
from airflow_provider_batch.core.tokens.counter import tokenizer
from airflow_provider_batch.core.tokens.estimate import Encoding, estimate_tokens
from benchmarks.measure import MB, Figure, measure_time, report
from benchmarks.text_kinds import text_kinds

#: highest error of an estimate that counts as right
TOLERANCE = 0.1
#: number of rows of each kind in a sampled job
ROWS_OF_KIND = 100
#: kinds whose texts measure the speed
_TIMED = ("descriptions", "Python", "JSON records", "reviews", "messages, de", "messages, ru")


def time_count(count: Callable[[str], int], texts: list[str]) -> float:
    """Return the megabytes per second with which a function counts the tokens of the texts."""
    with measure_time() as timer:
        for text in texts:
            count(text)
    return sum(len(text.encode()) for text in texts) / MB / timer.seconds


def anchor_of(encoding: Encoding, exact: Callable[[str], int]) -> tuple[str, Callable[[str], int]]:
    """Return what the speed is compared with, and its name."""
    if "TIKTOKEN_CACHE_DIR" not in os.environ:
        return "bpe-openai", exact
    import tiktoken

    encode = tiktoken.get_encoding(encoding.value).encode_ordinary
    return "tiktoken", lambda text: len(encode(text))


def job_of_kinds(kinds: dict[str, list[str]], rng: random.Random) -> list[str]:
    """Return `ROWS_OF_KIND` texts of each kind, kind after kind, of very different lengths."""
    rows = []
    for texts in kinds.values():
        joined = "\n".join(texts)
        for _ in range(ROWS_OF_KIND):
            length = int(rng.lognormvariate(6.2, 0.6))
            start = rng.randrange(max(1, len(joined) - length))
            rows.append(joined[start : start + length])
    return rows


def sampling_error(texts: list[str], rng: random.Random) -> tuple[float, float]:
    """Return by how many percent the sum of a sampled job is off, and how many percent of its rows are weighed."""
    spec = RequestSpec(endpoint="/v1/embeddings", custom_id="{{ row.id }}", model="m", prompt="{{ row.text }}")
    renderer = compile_renderer(spec, ["id", "text"], {})
    weigher, sampled, exact, weighed = RequestWeigher("gpt-5-mini"), 0, 0, 0
    for number, text in enumerate(texts, start=1):
        if text.strip():
            (request,) = renderer([(number, text)], number)
            (tokens,) = weigher.weigh([request], [rng.getrandbits(32)])
            sampled += tokens.input_tokens
            weighed += bool(tokens.texts)
            exact += estimate_tokens(text)
    return 100 * abs(sampled / exact - 1), 100 * weighed / len(texts)


def measure_sampling(kinds: dict[str, list[str]], runs: int) -> list[Figure]:
    """Measure how far the sum over a sampled job is off."""
    figures = []
    for order in ("shuffled", "sorted by kind"):
        error = Figure(f"sampled job of all kinds, {order}: sum is off by", "%", max_median=2)
        share = Figure("  rows weighed", "%")
        for seed in range(runs):
            rng = random.Random(seed)
            texts = job_of_kinds(kinds, rng)
            if order == "shuffled":
                rng.shuffle(texts)
            off_by, weighed = sampling_error(texts, rng)
            error.add(off_by)
            share.add(weighed)
        figures += [error, share]
    return figures


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    args = parser.parse_args()
    kinds = text_kinds()
    figures = []
    for encoding in Encoding:
        exact = tokenizer(encoding)
        if exact is None:
            parser.error("install bpe-openai")
        ratios = {
            kind: sum(estimate_tokens(text, encoding) for text in texts) / sum(map(exact, texts))
            for kind, texts in kinds.items()
        }
        print(f"{encoding}, {len(ratios)} kinds, ratio of estimated to true tokens, if more than 10 % off:")
        for kind, ratio in sorted(ratios.items(), key=lambda item: item[1]):
            if abs(ratio - 1) > TOLERANCE:
                print(f"  {ratio:.2f}  {kind}")
        within = sum(abs(ratio - 1) <= TOLERANCE for ratio in ratios.values())
        low = sum(ratio < 1 - TOLERANCE for ratio in ratios.values())
        outside = Figure(f"{encoding}: kinds more than 10 % off", "%", max_median=15)
        outside.add(100 - 100 * within / len(ratios))
        too_low = Figure("  of these, too few tokens", "%")
        too_low.add(100 * low / len(ratios))
        name, anchor = anchor_of(encoding, exact)
        speed = Figure(f"{encoding}: speed, texts of 1,000 characters", "MB/s", anchor=name, min_ratio=10)
        texts = [text[:1_000] for kind in _TIMED for text in kinds.get(kind, ())]
        for _ in range(args.runs):
            # The estimate gets more texts, so that both take about as long.
            speed.add(time_count(partial(estimate_tokens, encoding=encoding), 20 * texts), time_count(anchor, texts))
        figures += [outside, too_low, speed]
    figures += measure_sampling(kinds, args.runs)
    report("The token estimate", figures, args.json)


if __name__ == "__main__":
    main()
