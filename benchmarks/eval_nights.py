"""How often an eval's gate finds a planted regression, and how often it cries wolf.

    python -m benchmarks.eval_nights [--nights 100] [--flips 0.02 0.05 0.1] [--repeats 1 3] [--baselines 1 10]

A simulated model answers 400 cases, night after night. Most cases it always gets right or always wrong; some are
unsteady, each with a difficulty of its own, and are drawn anew in every night and every repeat. There are so many of
those that from one quiet night to the next the stated share of all cases flips (of single answers).

Its answers are written as BatchResultsOperator writes them, into a SQLite database, and `EvalGradeOperator`,
`gate_sql` and `EvalAcceptOperator` do the rest. Each quiet night is held against the last accepted one alone, or
against it and up to nine before it (`--baselines`). After each of them comes a night of the same model with 20 of the
400 cases broken (5 points): once all of one tag, once of any. Broken is what the model can do, and it stays wrong.

Told are, over all nights: in how many quiet ones the gate stopped (cried wolf); in how many of the others it did
(found); and of the cases that it named then, how many were broken (precision) and how many of the broken ones were
named (recall): of all that it named, of the first 20, and of those that were right in every run that the night was
held against.
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

from benchmarks.airflow_home import airflow_home

CASES, BROKEN = 400, 20
TAGS = ("negation", "dates", "units", "arithmetic", "extraction", "long", "unicode", "ambiguous")
#: of the steady cases, those that the model gets right
ABLE = 0.9
MODEL = "simulated"
START = datetime(2026, 1, 1, 2, tzinfo=UTC)


@dataclass(frozen=True)
class Model:
    """How likely each case is to be answered right; by case_id."""

    chances: dict[str, float]

    @classmethod
    def with_flips(cls, flips: float, rng: random.Random) -> Model:
        """One of which so many answers, as a share, differ between two nights."""
        names = [f"case-{number:03}" for number in range(CASES)]
        chances = {name: float(rng.random() < ABLE) for name in names}
        expected = 0.0
        for name in rng.sample(names, CASES):
            if expected >= flips * CASES:
                break
            chances[name] = rng.uniform(0.1, 0.95)
            expected += 2 * chances[name] * (1 - chances[name])
        return cls(chances)

    def broken(self, cases: Sequence[str]) -> Model:
        """The same model, with these cases always wrong."""
        return Model(self.chances | dict.fromkeys(cases, 0.0))

    def answers(self, repeats: int, rng: random.Random) -> Iterator[tuple[str, int, str]]:
        """case_id, repeat and answer of one night."""
        for name, chance in self.chances.items():
            for repeat in range(1, repeats + 1):
                yield name, repeat, "right" if rng.random() < chance else "wrong"


@dataclass
class Named:
    """Cases that were named on nights with broken ones, and how right that was."""

    named: int = 0
    hits: int = 0
    broken: int = 0

    def add(self, named: Sequence[str], broken: Sequence[str]) -> None:
        """One night."""
        self.named += len(named)
        self.hits += len(set(named) & set(broken))
        self.broken += len(broken)

    @property
    def told(self) -> str:
        """Precision / recall, as text."""
        return f"{self.hits / max(self.named, 1):4.0%} /{self.hits / max(self.broken, 1):5.0%}"


@dataclass
class Nights:
    """What became of all nights of one kind."""

    nights: int = 0
    stopped: int = 0
    every: Named = field(default_factory=Named)
    first: Named = field(default_factory=Named)
    steady: Named = field(default_factory=Named)


@dataclass(frozen=True)
class Outcome:
    """One simulation."""

    flips: float
    repeats: int
    baselines: int
    quiet: Nights
    one_tag: Nights
    spread: Nights
    #: the share of single answers that differed between two quiet nights
    flipped: float


def tag_of(case_id: str) -> str:
    """50 cases each."""
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

    def cases(self) -> None:
        """Make the table of cases."""
        names = [f"case-{number:03}" for number in range(CASES)]
        with closing(sqlite3.connect(self.path)) as connection, connection:
            connection.execute(
                "CREATE TABLE eval_cases (case_id TEXT, input TEXT, expected TEXT, grader TEXT, tags TEXT)"
            )
            rows = [(name, f"What is {name}?", "right", "exact", tag_of(name)) for name in names]
            connection.executemany("INSERT INTO eval_cases VALUES (?, ?, ?, ?, ?)", rows)

    def night(self, run: str, model: Model, repeats: int, rng: random.Random, baselines: int) -> bool:
        """Land a night's answers, grade them, ask the gate. Whether it passes."""
        from airflow_provider_batch.evals.tables import gate_sql
        from airflow_provider_batch.operators.evals import EvalGradeOperator

        self._runs += 1
        sealed = START + timedelta(hours=self._runs)
        self._sink.write(
            (run, MODEL, f"{name}~{repeat}", "succeeded", answer, name, repeat, 0, 0, None, sealed)
            for name, repeat, answer in model.answers(repeats, rng)
        )
        grade = EvalGradeOperator(task_id="grade", run=run, baseline_runs=baselines, warehouse_conn_id="eval_nights")
        grade.execute({})
        return all(self.query(gate_sql(run))[0])

    def accept(self, run: str) -> None:
        """As the task behind the gate does."""
        from airflow_provider_batch.operators.evals import EvalAcceptOperator

        EvalAcceptOperator(task_id="accept", run=run, warehouse_conn_id="eval_nights").execute({})

    def named(self, run: str) -> tuple[list[str], list[str]]:
        """The regressions of a run, the least likely to be chance first; and those of them that were always right."""
        rows = self.query(
            "SELECT case_id, right_before = runs_before FROM eval_changes WHERE run = ? "
            "AND change = 'worse' ORDER BY 1.0 * right_before / runs_before DESC, score_now - score_before, case_id",
            run,
        )
        return [name for name, _ in rows], [name for name, steady in rows if steady]

    def query(self, sql: str, *parameters: str) -> list[tuple[Any, ...]]:
        """The rows of a query."""
        with closing(sqlite3.connect(self.path)) as connection:
            return connection.execute(sql, parameters).fetchall()


def simulate(folder: Path, *, nights: int, flips: float, repeats: int, baselines: int, seed: int) -> Outcome:
    """So many quiet nights, and after each of them two with broken cases."""
    rng = random.Random(f"{seed} {flips} {repeats}")
    warehouse = Warehouse(folder / f"nights-{flips}-{repeats}-{baselines}.sqlite")
    warehouse.cases()
    model = Model.with_flips(flips, rng)
    able = [name for name, chance in model.chances.items() if chance > 0.5]
    quiet, one_tag, spread = Nights(), Nights(), Nights()
    warehouse.night("first", model, repeats, rng, baselines)
    warehouse.accept("first")
    for number in range(nights):
        run = f"quiet-{number:03}"
        passed = warehouse.night(run, model, repeats, rng, baselines)
        quiet.nights += 1
        quiet.stopped += not passed
        if passed:
            warehouse.accept(run)
        tag = TAGS[number % len(TAGS)]
        for kind, among in ((one_tag, [name for name in able if tag_of(name) == tag]), (spread, able)):
            broken = rng.sample(among, BROKEN)
            run = f"broken-{number:03}-{len(among)}"
            passed = warehouse.night(run, model.broken(broken), repeats, rng, baselines)
            kind.nights += 1
            kind.stopped += not passed
            if not passed:
                every, steady = warehouse.named(run)
                kind.every.add(every, broken)
                kind.first.add(every[:BROKEN], broken)
                kind.steady.add(steady, broken)
    return Outcome(flips, repeats, baselines, quiet, one_tag, spread, _flipped(warehouse))


def _flipped(warehouse: Warehouse) -> float:
    ((share,),) = warehouse.query(
        "SELECT AVG(n.output <> b.output) FROM eval_comparisons c "
        "JOIN eval_answers n ON n.run = c.run JOIN eval_answers b ON b.run = c.baseline_run "
        "AND b.custom_id = n.custom_id WHERE c.run LIKE 'quiet-%'"
    )
    return float(share)


def show(outcomes: Sequence[Outcome]) -> None:
    """A table for people."""
    print(f"{CASES} cases, {BROKEN} of them broken on the nights that are not quiet. Named: precision / recall.")
    columns = (
        "flips",
        "repeats",
        "runs",
        "cried wolf",
        "broken",
        "found",
        "all named",
        f"first {BROKEN}",
        "always right",
    )
    print("{:>6} {:>8} {:>5} {:>11}  {:<8} {:>9} {:>12} {:>12} {:>13}".format(*columns))
    for one in outcomes:
        for place, kind in (("one tag", one.one_tag), ("spread", one.spread)):
            print(
                f"{one.flipped:6.1%} {one.repeats:8} {one.baselines:5} {one.quiet.stopped:4} of {one.quiet.nights:3}  "
                f"{place:<8} {kind.stopped:2} of {kind.nights:3} {kind.every.told:>12} {kind.first.told:>12} "
                f"{kind.steady.told:>13}"
            )


def main() -> None:
    """Simulate and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nights", type=int, default=100)
    parser.add_argument("--flips", type=float, nargs="+", default=[0.02, 0.05, 0.1])
    parser.add_argument("--repeats", type=int, nargs="+", default=[1, 3])
    parser.add_argument("--baselines", type=int, nargs="+", default=[1, 10], help="accepted runs to be held against")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--json", type=Path, help="write the figures here too")
    args = parser.parse_args()
    with airflow_home(), tempfile.TemporaryDirectory(prefix="eval-nights-") as folder:
        os.environ["AIRFLOW__LOGGING__LOGGING_LEVEL"] = "ERROR"
        outcomes = [
            simulate(
                Path(folder), nights=args.nights, flips=flips, repeats=repeats, baselines=baselines, seed=args.seed
            )
            for flips in args.flips
            for repeats in args.repeats
            for baselines in args.baselines
        ]
    show(outcomes)
    if args.json:
        import dataclasses

        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps([dataclasses.asdict(one) for one in outcomes], indent=2))


if __name__ == "__main__":
    main()
