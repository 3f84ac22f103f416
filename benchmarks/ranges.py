"""How often the bill of a job lies inside its estimated range, and how wide the range is.

    python -m benchmarks.ranges [--jobs 200] [--json FILE]

Each simulated job has requests whose answers follow one of the shapes below. Its range is computed by the estimator
itself: after a canary of 2, 5, 10 or 20 requests, which are chosen as the sealer chooses them, and before the job from
20, 100 or 1,000 answers of an earlier job of the same shape. No request has an output cap, except in one shape: a cap
would bound the range, and make it look better than it is.

The table shows the share of jobs whose bill is inside, and in brackets the median of both ends, divided by the most
likely cost. The last column shows the share inside with a canary of 2 and a fixed factor of 2.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from decimal import Decimal
from functools import lru_cache
from pathlib import Path
from random import Random
from statistics import median

from airflow_provider_batch.core.ledger.job import Estimate
from airflow_provider_batch.core.ledger.samples import InputSample, OutputSample
from airflow_provider_batch.core.pricing.estimate import (
    CanaryUsage,
    Estimator,
    RemainingRequests,
    estimate_after_canary,
)
from airflow_provider_batch.core.pricing.prices import Prices, Usage
from airflow_provider_batch.core.provider.lane import Lane
from airflow_provider_batch.core.requests.request import Request
from airflow_provider_batch.core.sealing.canary_rows import CanaryRows

CANARIES, EARLIER_ANSWERS = (2, 5, 10, 20), (20, 100, 1_000)
CHAT, EMBEDDINGS = "/v1/chat/completions", "/v1/embeddings"
#: share of the jobs whose bill should be inside the range
GOAL = 0.9
PRICES = Prices()


@dataclass(frozen=True)
class Row:
    """The tokens of one request."""

    output: int
    #: reported divided by estimated input tokens
    input_factor: float = 1.0


@dataclass(frozen=True)
class Shape:
    """A kind of job."""

    name: str
    #: returns the output tokens of the request with a position from 0 to 1 in the query, and the input factor
    draw: Callable[[Random, float], Row]
    requests: int = 1_000
    endpoint: str = CHAT
    cap: int | None = None


def _lognormal(sigma: float, typical: float = 150) -> Callable[[Random, float], Row]:
    return lambda rng, _: Row(max(1, round(typical * rng.lognormvariate(0, sigma))))


def _mix(share: float, long: int, sigma: float = 0.3) -> Callable[[Random, float], Row]:
    def draw(rng: Random, _: float) -> Row:
        return Row(max(1, round((long if rng.random() < share else 100) * rng.lognormvariate(0, sigma))))

    return draw


def _languages(rng: Random, _: float) -> Row:
    """Half of the rows are in a language whose tokens the estimate counts too low."""
    if rng.random() < 0.5:
        return Row(round(120 * rng.lognormvariate(0, 0.2)), 1.0)
    return Row(round(330 * rng.lognormvariate(0, 0.2)), 1.6)


SHAPES = (
    Shape("constant", lambda rng, _: Row(5)),
    Shape("lognormal 0.5", _lognormal(0.5)),
    Shape("lognormal 0.9", _lognormal(0.9)),
    Shape("lognormal 1.3", _lognormal(1.3)),
    Shape("reasoning, 10 % long", _mix(0.1, 3_000)),
    Shape("reasoning, 5 % long", _mix(0.05, 3_000)),
    Shape("reasoning, 30 % long", _mix(0.3, 3_000)),
    Shape("10 % long, cap 4,096", _mix(0.1, 3_000), cap=4_096),
    Shape("1 % huge", _mix(0.01, 8_000)),
    Shape("two languages", _languages),
    Shape("longer with each row", lambda rng, at: Row(max(1, round(20 * 50**at * rng.lognormvariate(0, 0.4))))),
    Shape("embeddings", lambda rng, _: Row(0, rng.lognormvariate(0.15, 0.2)), endpoint=EMBEDDINGS),
    Shape("20 rows, lognormal 0.9", _lognormal(0.9), requests=20),
    Shape("20 rows, 10 % long", _mix(0.1, 3_000), requests=20),
)


@dataclass
class Result:
    """The ranges of all jobs of a shape with the same evidence."""

    shape: str
    #: "canary" or "earlier", and the number of answers
    evidence: str
    answers: int
    #: shares of the jobs whose bill is inside the range, below it and above it
    inside: float = 0.0
    below: float = 0.0
    above: float = 0.0
    #: medians of both ends, divided by the most likely cost
    low: float = 0.0
    high: float = 0.0
    #: share of the jobs whose bill is inside a fixed factor of 2
    inside_factor_2: float = 0.0


def _body(cap: int | None) -> bytes:
    more = {} if cap is None else {"max_completion_tokens": cap}
    return json.dumps({"messages": [{"role": "user", "content": "Is this a bug? " * 40}], **more}).encode()


@lru_cache
def estimator_of(shape: Shape) -> tuple[Estimator, int]:
    """Return an estimator with all requests of a job, and the estimated input tokens of one request."""
    estimator = Estimator(PRICES, shape.endpoint)
    request = Request("row", model_of(shape), _body(shape.cap), 1)
    tokens = estimator.add([request] * shape.requests, [0] * shape.requests)
    return estimator, tokens[0]


def model_of(shape: Shape) -> str:
    """Return the model of a job."""
    return "text-embedding-3-small" if shape.endpoint == EMBEDDINGS else "gpt-5-mini"


def draw_job(shape: Shape, rng: Random, requests: int) -> list[Row]:
    """Return the requests of a job in the order of the query."""
    rows = [shape.draw(rng, number / requests) for number in range(requests)]
    return [Row(min(row.output, shape.cap), row.input_factor) for row in rows] if shape.cap else rows


def cost_of(shape: Shape, rows: Iterable[Row], lane: Lane = Lane.BATCH) -> Decimal:
    """Return the bill for requests."""
    _, tokens = estimator_of(shape)
    rows = list(rows)
    usage = Usage(round(sum(tokens * row.input_factor for row in rows)), output_tokens=sum(row.output for row in rows))
    cost = PRICES.cost(model_of(shape), usage, lane=lane)
    assert cost is not None
    return cost


def estimate_by_canary(shape: Shape, rows: Sequence[Row], maximum: int, rng: Random) -> tuple[Estimate, Decimal]:
    """Return the estimate of a job after its canary, and its bill."""
    chooser: CanaryRows[int] = CanaryRows(maximum)
    for number in range(len(rows)):
        lot = rng.getrandbits(32)
        if chooser.admits(lot):
            chooser.add(lot, number)
    canary_numbers, _ = chooser.finish()
    canary = [rows[number] for number in canary_numbers]
    others = [row for number, row in enumerate(rows) if number not in set(canary_numbers)]
    _, tokens = estimator_of(shape)
    reported = [tokens * row.input_factor for row in canary]
    inputs = InputSample(
        len(canary), sum(reported), tokens * len(canary), sum(number**2 / tokens for number in reported)
    )
    usage = CanaryUsage(
        len(canary),
        round(sum(reported)),
        sum(row.output for row in canary),
        cost_of(shape, canary, Lane.STANDARD),
    )
    remaining = RemainingRequests(
        len(others),
        round(tokens * len(others) * inputs.reported / inputs.estimated),
        OutputSample.of(row.output for row in canary),
        inputs,
        None if shape.cap is None else float(shape.cap),
    )
    estimate = estimate_after_canary(
        Estimate(low_usd=0.0, high_usd=0.0), PRICES, {model_of(shape): (usage, remaining)}, shape.endpoint
    )
    return estimate, (usage.cost or Decimal(0)) + cost_of(shape, others)


def estimate_by_earlier_job(shape: Shape, rows: Sequence[Row], answers: int, rng: Random) -> tuple[Estimate, Decimal]:
    """Return the estimate of a job before it is sent, by the answers of an earlier job, and its bill."""
    estimator, _ = estimator_of(shape)
    earlier = OutputSample.of(row.output for row in draw_job(shape, rng, answers))
    return estimator.finish({model_of(shape): earlier}), cost_of(shape, rows)


def summarize(result: Result, estimates: Sequence[tuple[Estimate, Decimal]]) -> Result:
    """Return the result with the figures of its jobs."""
    lows, highs = [], []
    below = above = close = 0
    for estimate, cost in estimates:
        assert estimate.low_usd is not None
        assert estimate.high_usd is not None
        assert estimate.likely_usd is not None
        bill = float(cost)
        below += bill < estimate.low_usd
        above += bill > estimate.high_usd
        close += estimate.likely_usd / 2 <= bill <= estimate.likely_usd * 2
        lows.append(estimate.low_usd / estimate.likely_usd)
        highs.append(estimate.high_usd / estimate.likely_usd)
    jobs = len(estimates)
    result.below, result.above, result.inside_factor_2 = below / jobs, above / jobs, close / jobs
    result.inside = 1 - result.below - result.above
    result.low, result.high = median(lows), median(highs)
    return result


def simulate(shape: Shape, jobs: int, seed: int) -> list[Result]:
    """Return the results of a shape for all kinds of evidence."""
    rng = Random(f"{shape.name} {seed}")
    rows_of_jobs = [draw_job(shape, rng, shape.requests) for _ in range(jobs)]
    by_canary = [
        summarize(
            Result(shape.name, "canary", maximum),
            [estimate_by_canary(shape, rows, maximum, rng) for rows in rows_of_jobs],
        )
        for maximum in CANARIES
    ]
    by_earlier_job = [
        summarize(
            Result(shape.name, "earlier", answers),
            [estimate_by_earlier_job(shape, rows, answers, rng) for rows in rows_of_jobs],
        )
        for answers in EARLIER_ANSWERS
        if shape.endpoint != EMBEDDINGS
    ]
    return by_canary + by_earlier_job


def print_table(results: Sequence[Result]) -> None:
    """Print a line per shape."""
    columns = [("canary", maximum) for maximum in CANARIES] + [("earlier", answers) for answers in EARLIER_ANSWERS]
    headings = [f"{evidence} {answers:,}" for evidence, answers in columns]
    print(f"{'share of bills inside':<24}" + "".join(f"{heading:>20}" for heading in headings) + f"{'factor 2':>10}")
    by_key = {(result.shape, result.evidence, result.answers): result for result in results}
    for shape in dict.fromkeys(result.shape for result in results):
        cells = []
        for column in columns:
            result = by_key.get((shape, *column))
            cells.append("" if result is None else f"{result.inside:.0%} ({result.low:.2f}-{result.high:.1f})")
        factor_2 = by_key[(shape, *columns[0])].inside_factor_2
        print(f"{shape:<24}" + "".join(f"{cell:>20}" for cell in cells) + f"{factor_2:>10.0%}")
    missed = [result for result in results if result.inside < GOAL]
    print(f"Inside in at least {GOAL:.0%} of jobs: {len(results) - len(missed)} of {len(results)} cells.")


def main() -> None:
    """Simulate and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=200, help="number of simulated jobs of each shape")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    args = parser.parse_args()
    results = [result for shape in SHAPES for result in simulate(shape, args.jobs, args.seed)]
    print_table(results)
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps([asdict(result) for result in results], indent=2))


if __name__ == "__main__":
    main()
