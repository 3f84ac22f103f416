"""CPU, wall time and memory of a case for each row, beside those of other cases in the same runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from benchmarks.measure import Figure
from benchmarks.worker import Measurement


class Anchor(NamedTuple):
    """A case that another case is compared with."""

    name: str
    #: its measurement in each run
    runs: list[Measurement]
    #: target: the CPU time of the anchor divided by that of the case must be at least this
    min_ratio: float | None = None


def run_in_turns(cases: Sequence[Callable[[], Measurement]], runs: int) -> list[list[Measurement]]:
    """Run all cases `runs` times, in alternating order. Return the measurements of each case."""
    measurements: list[list[Measurement]] = [[] for _ in cases]
    for run in range(runs):
        pairs = list(zip(cases, measurements, strict=True))
        for measure, results in pairs if run % 2 == 0 else reversed(pairs):
            results.append(measure())
    return measurements


def compare(
    name: str, runs: list[Measurement], anchors: Sequence[Anchor] = (), *, max_extra_mb: float | None = None
) -> list[Figure]:
    """Return the figures of a case. The result of each measurement is the number of rows that it processed.

    :param runs: the measurement of the case in each run.
    :param anchors: the cases that it is compared with, measured in the same runs.
    :param max_extra_mb: target for the memory.
    """
    anchors = anchors or [Anchor("", [])]
    figures = _times(f"{name}: CPU", lambda run: run.cpu_seconds, runs, anchors)
    for figure, anchor in zip(figures, anchors, strict=True):
        figure.min_ratio = anchor.min_ratio
    if any(run.server_cpu_seconds for run in runs):
        figures += _times("  of this, the server", lambda run: run.server_cpu_seconds, runs, anchors[:1])
    figures += _times("  wall time", lambda run: run.seconds, runs, anchors)
    figures.append(Figure("  extra memory", "MB", [run.extra_mb for run in runs], max_median=max_extra_mb))
    for anchor in anchors:
        if anchor.runs:
            figures.append(Figure(f"    {anchor.name}", "MB", [run.extra_mb for run in anchor.runs]))
    return figures


def _times(
    name: str, seconds: Callable[[Measurement], float], runs: list[Measurement], anchors: Sequence[Anchor]
) -> list[Figure]:
    """Return one figure for each anchor, in microseconds for each row."""

    def per_row(measurements: list[Measurement]) -> list[float]:
        return [seconds(run) / run.result * 1e6 for run in measurements]

    return [
        Figure(
            name if number == 0 else "    same value",
            "µs/row",
            per_row(runs),
            anchor.name,
            per_row(anchor.runs),
            is_cost=True,
        )
        for number, anchor in enumerate(anchors)
    ]
