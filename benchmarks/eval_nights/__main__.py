"""How reliably an eval's gate finds a planted regression, and how many false alarms it raises.

    python -m benchmarks.eval_nights [--nights 200] [--alpha 0.04] [--only "Beta"]

Every simulated night has a model of its own: a history of accepted nights, a quiet night, and the same night with
broken cases, which are cases that the model mostly answers right. 20 of 400 cases (5 points) break unless the row says
otherwise. The nights are compared by the functions that `EvalGradeOperator` calls, without a database; the last row
sends some of them through the operators and SQLite as well. All rows have nine tags, of which one has 20 cases. In the
rows with an accepted change, one run since then can be compared, and nine older ones say how steady each case is.

* found: nights with broken cases on which the gate stops; if others are fixed, nights on which both are found
* false alarms: quiet nights on which the gate stops; false gains: quiet nights that are called improved
* first: share of the broken cases among the first that the gate names, on nights on which they are found

Intervals are 95 % (Wilson). Nothing was chosen to suit the rows that start with "unseen".
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import tempfile
import time
from pathlib import Path

from airflow_provider_batch.evals.compare import DEFAULT_ALPHA
from airflow_provider_batch.evals.statistics import interval
from benchmarks.airflow_home import temporary_airflow_home
from benchmarks.eval_nights.nights import Counts, simulate
from benchmarks.eval_nights.operators import simulate_with_operators
from benchmarks.eval_nights.scenarios import SCENARIOS, STEADY, Scenario

#: number of nights that go through the operators
OPERATOR_NIGHTS = 5


def main() -> None:
    """Simulate and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nights", type=int, default=200, help="nights per row; a tenth of it for several models")
    parser.add_argument("--alpha", type=float, default=DEFAULT_ALPHA)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--only", default="", help="part of the name of the rows to simulate")
    parser.add_argument("--without-older-runs", action="store_true", help="ignore the runs before an accepted change")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    args = parser.parse_args()
    print(f"alpha {args.alpha}, {args.nights} nights per row")
    print(f"{'':54} {'found':>18} {'goal':>4} {'false alarms':>17} {'false gains':>17} {'first':>5} {'CPU/night':>10}")
    figures = {}
    for scenario in SCENARIOS:
        if args.only in scenario.name:
            nights = args.nights if scenario.variants == 1 else max(args.nights // 10, 1)
            started = time.process_time()
            if args.without_older_runs:
                scenario = dataclasses.replace(scenario, uses_older_runs=False)
            counts = simulate(scenario, nights, args.seed, args.alpha)
            print_row(scenario, counts, (time.process_time() - started) / nights)
            figures[scenario.name] = dataclasses.asdict(counts)
    if not args.only:
        print_agreement(args.seed, args.alpha)
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps(figures, indent=2))


def print_row(scenario: Scenario, counts: Counts, seconds: float) -> None:
    """Print the figures of a scenario."""
    goal = "" if scenario.goal is None else f"{scenario.goal:.0%}"
    named = counts.named_first / max(counts.broken, 1)
    print(
        f"{scenario.name:54} {_share(counts.detections, counts.nights):>18} {goal:>4} "
        f"{_share(counts.false_alarms, counts.nights):>17} {_share(counts.false_improvements, counts.nights):>17} "
        f"{named:5.0%} {seconds:8.2f} s",
        flush=True,
    )


def print_agreement(seed: int, alpha: float) -> None:
    """Send nights through the operators, and print whether they agree with the figures above."""
    with temporary_airflow_home(), tempfile.TemporaryDirectory(prefix="eval-nights-") as folder:
        os.environ["AIRFLOW__LOGGING__LOGGING_LEVEL"] = "ERROR"
        agreement = simulate_with_operators(Path(folder), Scenario("", STEADY), OPERATOR_NIGHTS, seed, alpha)
    print(
        f"Operators and SQLite: {agreement.detections} of {OPERATOR_NIGHTS} found, {agreement.false_alarms} "
        f"false alarms; {agreement.equal} of {agreement.comparisons} comparisons are equal to those without a database."
    )


def _share(count: int, nights: int) -> str:
    low, high = interval(count / nights, nights)
    return f"{count / nights:.1%} [{100 * low:.0f}-{100 * high:.0f}]"


if __name__ == "__main__":
    main()
