"""How reliably an eval's gate detects a planted regression, and how many false alarms it raises.

    python -m benchmarks.eval_nights [--nights 100] [--flips 0.02 0.05 0.1] [--repeats 1 3] [--baselines 1 10]

A simulated model answers 400 cases every night. It answers most cases always right or always wrong. The others are
unsteady: each has its own probability of a right answer, and the answer is drawn independently for every night and
repeat. The number of unsteady cases is chosen so that, between two quiet nights, the requested share of all answers
differs (`--flips`, counting single answers).

The answers are written to a SQLite database as BatchResultsOperator writes them. `EvalGradeOperator`, `gate_sql` and
`EvalAcceptOperator` process them. Each night is compared with the last accepted night alone, or with that one and up to
nine accepted nights before it (`--baselines`). A quiet night is one without a regression. Two nights with a regression
follow each quiet night: the same model with 20 of the 400 cases broken (5 points), once all with the same tag
("one tag"), once with any tag ("spread"). A broken case is one that the model usually answers right. It is now always
answered wrong.

The table shows, over all nights:

* false alarms: the quiet nights on which the gate stopped;
* detected: the nights with broken cases on which the gate stopped;
* for the cases that the gate named on those nights, the share that was broken (precision) and the share of the broken
  cases that was named (recall). This is given for all named cases, for the first 20, and for the named cases that were
  right in every run that the night was compared with.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sqlite3
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from benchmarks.airflow_home import temporary_airflow_home

CASES, BROKEN = 400, 20
TAGS = ("negation", "dates", "units", "arithmetic", "extraction", "long", "unicode", "ambiguous")
#: share of the steady cases that the model answers right
RIGHT_SHARE = 0.9
MODEL = "simulated"
START = datetime(2026, 1, 1, 2, tzinfo=UTC)


@dataclass(frozen=True)
class Model:
    """A simulated model."""

    #: case_id -> probability of a right answer
    chances: dict[str, float]

    @classmethod
    def with_flips(cls, flips: float, rng: random.Random) -> Model:
        """Return a model whose expected share of answers that differ between two nights is `flips`."""
        names = [f"case-{number:03}" for number in range(CASES)]
        chances = {name: float(rng.random() < RIGHT_SHARE) for name in names}
        expected = 0.0
        for name in rng.sample(names, CASES):
            if expected >= flips * CASES:
                break
            chances[name] = rng.uniform(0.1, 0.95)
            expected += 2 * chances[name] * (1 - chances[name])
        return cls(chances)

    def with_broken(self, cases: Sequence[str]) -> Model:
        """Return the same model, except that it always answers these cases wrong."""
        return Model(self.chances | dict.fromkeys(cases, 0.0))

    def answers(self, repeats: int, rng: random.Random) -> Iterator[tuple[str, int, str]]:
        """Yield case_id, repeat and answer of one night."""
        for name, chance in self.chances.items():
            for repeat in range(1, repeats + 1):
                yield name, repeat, "right" if rng.random() < chance else "wrong"


@dataclass
class NamedCases:
    """Number of cases named on nights with broken cases."""

    #: cases that the gate named
    named_count: int = 0
    #: named cases that were broken
    hits: int = 0
    broken_count: int = 0

    def add(self, named_cases: Sequence[str], broken_cases: Sequence[str]) -> None:
        """Add the cases of a night."""
        self.named_count += len(named_cases)
        self.hits += len(set(named_cases) & set(broken_cases))
        self.broken_count += len(broken_cases)

    @property
    def precision_and_recall(self) -> str:
        """Precision / recall, as text."""
        return f"{self.hits / max(self.named_count, 1):4.0%} /{self.hits / max(self.broken_count, 1):5.0%}"


@dataclass
class NightCounts:
    """Counts over all nights of one kind."""

    nights: int = 0
    #: nights on which the gate stopped
    stopped: int = 0
    all_cases: NamedCases = field(default_factory=NamedCases)
    first_cases: NamedCases = field(default_factory=NamedCases)
    #: cases that were right in every run that the night was compared with
    steady_cases: NamedCases = field(default_factory=NamedCases)


@dataclass(frozen=True)
class Simulation:
    """Result of one simulation."""

    flips: float
    repeats: int
    baselines: int
    quiet: NightCounts
    one_tag: NightCounts
    spread: NightCounts
    #: measured share of single answers that differ between a quiet night and the nights it is compared with
    measured_flips: float


def tag_of(case_id: str) -> str:
    """Return the tag of a case. Each of the eight tags has 50 cases."""
    return TAGS[int(case_id[-3:]) % len(TAGS)]


class Warehouse:
    """A SQLite database with the cases, answers and grades of all nights."""

    def __init__(self, path: Path) -> None:
        from airflow_provider_batch.core.schema.columns import Column, ColumnType
        from airflow_provider_batch.warehouse.connect import sql_hook
        from airflow_provider_batch.warehouse.sinks.open import open_sink

        self.path = path
        os.environ["AIRFLOW_CONN_EVAL_NIGHTS"] = json.dumps({"conn_type": "sqlite", "host": str(path)})
        text, integer = ColumnType.TEXT, ColumnType.INTEGER
        columns = (
            *(Column(name, text, key=True) for name in ("run", "variant", "custom_id")),
            *(Column(name, text) for name in ("outcome", "output", "case_id")),
            *(Column(name, integer) for name in ("repeat", "input_tokens", "output_tokens")),
            Column("cost_usd", ColumnType.NUMERIC),
            Column("sealed_at", ColumnType.TIMESTAMP),
        )
        self._sink = open_sink(sql_hook("eval_nights"), "eval_answers", columns)
        self._sink.prepare()
        self._runs = 0

    def create_cases(self) -> None:
        """Create and fill the table of cases."""
        names = [f"case-{number:03}" for number in range(CASES)]
        with closing(sqlite3.connect(self.path)) as connection, connection:
            connection.execute(
                "CREATE TABLE eval_cases (case_id TEXT, input TEXT, expected TEXT, grader TEXT, tags TEXT)"
            )
            rows = [(name, f"What is {name}?", "right", "exact", tag_of(name)) for name in names]
            connection.executemany("INSERT INTO eval_cases VALUES (?, ?, ?, ?, ?)", rows)

    def run_night(self, run: str, model: Model, repeats: int, rng: random.Random, baselines: int) -> bool:
        """Land the answers of a night and grade them. Return whether the gate passes."""
        from airflow_provider_batch.evals.tables import gate_sql
        from airflow_provider_batch.operators.evals import EvalGradeOperator

        self._runs += 1
        sealed_at = START + timedelta(hours=self._runs)
        self._sink.write(
            (run, MODEL, f"{name}~{repeat}", "succeeded", answer, name, repeat, 0, 0, None, sealed_at)
            for name, repeat, answer in model.answers(repeats, rng)
        )
        grade = EvalGradeOperator(task_id="grade", run=run, baseline_runs=baselines, warehouse_conn_id="eval_nights")
        grade.execute({})
        return all(self.query(gate_sql(run))[0])

    def accept(self, run: str) -> None:
        """Accept a run, as the task after the gate does."""
        from airflow_provider_batch.operators.evals import EvalAcceptOperator

        EvalAcceptOperator(task_id="accept", run=run, warehouse_conn_id="eval_nights").execute({})

    def regressions(self, run: str) -> tuple[list[str], list[str]]:
        """Return the cases that got worse, least likely chance first, and those that were always right before."""
        rows = self.query(
            "SELECT case_id, right_before = runs_before FROM eval_changes WHERE run = ? "
            "AND change = 'worse' ORDER BY 1.0 * right_before / runs_before DESC, score_now - score_before, case_id",
            run,
        )
        return [name for name, _ in rows], [name for name, is_steady in rows if is_steady]

    def query(self, sql: str, *parameters: str) -> list[tuple[Any, ...]]:
        """Return the rows of a query."""
        with closing(sqlite3.connect(self.path)) as connection:
            return connection.execute(sql, parameters).fetchall()


def simulate(folder: Path, *, nights: int, flips: float, repeats: int, baselines: int, seed: int) -> Simulation:
    """Simulate `nights` quiet nights, each followed by two nights with broken cases."""
    rng = random.Random(f"{seed} {flips} {repeats}")
    warehouse = Warehouse(folder / f"nights-{flips}-{repeats}-{baselines}.sqlite")
    warehouse.create_cases()
    model = Model.with_flips(flips, rng)
    capable = [name for name, chance in model.chances.items() if chance > 0.5]
    quiet, one_tag, spread = NightCounts(), NightCounts(), NightCounts()
    warehouse.run_night("first", model, repeats, rng, baselines)
    warehouse.accept("first")
    for number in range(nights):
        run = f"quiet-{number:03}"
        gate_passes = warehouse.run_night(run, model, repeats, rng, baselines)
        quiet.nights += 1
        quiet.stopped += not gate_passes
        if gate_passes:
            warehouse.accept(run)
        tag = TAGS[number % len(TAGS)]
        for kind, candidates in ((one_tag, [name for name in capable if tag_of(name) == tag]), (spread, capable)):
            broken_cases = rng.sample(candidates, BROKEN)
            run = f"broken-{number:03}-{len(candidates)}"
            gate_passes = warehouse.run_night(run, model.with_broken(broken_cases), repeats, rng, baselines)
            kind.nights += 1
            kind.stopped += not gate_passes
            if not gate_passes:
                named_cases, steady_cases = warehouse.regressions(run)
                kind.all_cases.add(named_cases, broken_cases)
                kind.first_cases.add(named_cases[:BROKEN], broken_cases)
                kind.steady_cases.add(steady_cases, broken_cases)
    return Simulation(flips, repeats, baselines, quiet, one_tag, spread, _measure_flips(warehouse))


def _measure_flips(warehouse: Warehouse) -> float:
    ((share,),) = warehouse.query(
        "SELECT AVG(n.output <> b.output) FROM eval_comparisons c "
        "JOIN eval_answers n ON n.run = c.run JOIN eval_answers b ON b.run = c.baseline_run "
        "AND b.custom_id = n.custom_id WHERE c.run LIKE 'quiet-%'"
    )
    return float(share)


def print_table(simulations: Sequence[Simulation]) -> None:
    """Print the results as a table."""
    print(
        f"{CASES} cases. Quiet nights have no regression; {BROKEN} cases are broken on the other nights. "
        "The last three columns show precision / recall of the named cases."
    )
    columns = (
        "flips",
        "repeats",
        "baselines",
        "false alarms",
        "broken",
        "detected",
        "all named",
        f"first {BROKEN}",
        "always right",
    )
    print("{:>6} {:>8} {:>9} {:>12}  {:<8} {:>9} {:>12} {:>12} {:>13}".format(*columns))
    for simulation in simulations:
        quiet = simulation.quiet
        for label, kind in (("one tag", simulation.one_tag), ("spread", simulation.spread)):
            print(
                f"{simulation.measured_flips:6.1%} {simulation.repeats:8} {simulation.baselines:9} "
                f"{quiet.stopped:5} of {quiet.nights:3}  {label:<8} {kind.stopped:2} of {kind.nights:3} "
                f"{kind.all_cases.precision_and_recall:>12} {kind.first_cases.precision_and_recall:>12} "
                f"{kind.steady_cases.precision_and_recall:>13}"
            )


def main() -> None:
    """Simulate and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nights", type=int, default=100)
    parser.add_argument("--flips", type=float, nargs="+", default=[0.02, 0.05, 0.1])
    parser.add_argument("--repeats", type=int, nargs="+", default=[1, 3])
    parser.add_argument(
        "--baselines", type=int, nargs="+", default=[1, 10], help="number of accepted runs to compare each night with"
    )
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    args = parser.parse_args()
    with temporary_airflow_home(), tempfile.TemporaryDirectory(prefix="eval-nights-") as folder:
        os.environ["AIRFLOW__LOGGING__LOGGING_LEVEL"] = "ERROR"
        simulations = [
            simulate(
                Path(folder), nights=args.nights, flips=flips, repeats=repeats, baselines=baselines, seed=args.seed
            )
            for flips in args.flips
            for repeats in args.repeats
            for baselines in args.baselines
        ]
    print_table(simulations)
    if args.json:
        import dataclasses

        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps([dataclasses.asdict(simulation) for simulation in simulations], indent=2))


if __name__ == "__main__":
    main()
