"""How fast `EvalGradeOperator` grades a run, and how much memory that takes.

    python -m benchmarks.grading [--answers 10000 100000] [--runs 3] [--json FILE]

Each run grades answers to 2,000 cases by 8 models, with repeats, from SQLite into SQLite, in a process of its own. The
cases have the graders that people use most: text, numbers, JSON, and lists of several graders. An answer has about 600
characters. Extra memory is the peak of that process minus what it had before it read anything, so imports do not count.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from benchmarks.airflow_home import temporary_airflow_home
from benchmarks.measure import MB, Figure, read_memory, report

CASES = 2_000
MODELS = tuple(f"model-{number}" for number in range(8))
GRADERS = (
    "normalised",
    "numeric:0.01",
    "contains",
    '["contains-json",{"grader":"not-contains","expected":"sorry"},{"grader":"token-f1:0.1","weight":2},'
    '{"threshold":0.5}]',
)
TEXT = "The quick brown fox jumps over the lazy dog, and then it thinks about 7 more things. " * 7
CONNECTION = "AIRFLOW_CONN_WAREHOUSE"


def fill(path: Path, answers: int) -> None:
    """Write the cases, and one run with this many answers."""
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TABLE eval_cases (case_id, input, expected, grader, tags)")
        connection.execute(
            "CREATE TABLE eval_answers (run, variant, case_id, repeat, outcome, output, cost_usd, input_tokens, "
            "output_tokens, sealed_at)"
        )
        connection.executemany("INSERT INTO eval_cases VALUES (?, ?, ?, ?, ?)", _cases())
        connection.executemany(f"INSERT INTO eval_answers VALUES ({', '.join('?' * 10)})", _answers(answers))


def _cases() -> Iterator[tuple[str, str, str, str, str]]:
    for number in range(CASES):
        yield f"c{number:05}", f"Question {number}?", str(number), GRADERS[number % len(GRADERS)], f"tag-{number % 10}"


def _answers(count: int) -> Iterator[tuple[object, ...]]:
    rng = random.Random(7)
    for number in range(count):
        case = number // len(MODELS) % CASES
        is_right = rng.random() < 0.8
        text = f'{TEXT} {{"a": 1}} The answer is {case if is_right else "unknown"}.'
        repeat = number // (len(MODELS) * CASES) + 1
        yield (
            *("night", MODELS[number % len(MODELS)], f"c{case:05}", repeat, "succeeded", text),
            *("0.0001", 90, 150, "2026-11-30T02:00:00+00:00"),
        )


def grade() -> None:
    """Grade the run in this process, and print its CPU seconds and its extra memory in bytes."""
    from airflow_provider_batch.operators.evals import EvalGradeOperator

    operator = EvalGradeOperator(task_id="grade", run="night")
    before, _ = read_memory(os.getpid())
    start = time.process_time()
    operator.execute({})
    seconds = time.process_time() - start
    _, peak = read_memory(os.getpid())
    print(json.dumps({"seconds": seconds, "memory": peak - before}))


def measure(folder: Path, answers: int, runs: int) -> list[Figure]:
    """Grade runs of one size, each in a new database."""
    rate = Figure(f"answers graded per CPU second, {answers:,} answers", "/s")
    memory = Figure(f"extra memory, {answers:,} answers", "MB", is_cost=True)
    for number in range(runs):
        path = folder / f"{answers}-{number}.sqlite"
        fill(path, answers)
        environment = {**os.environ, CONNECTION: json.dumps({"conn_type": "sqlite", "host": str(path)})}
        environment["AIRFLOW__LOGGING__LOGGING_LEVEL"] = "ERROR"
        command = [sys.executable, "-c", "from benchmarks.grading import grade; grade()"]
        process = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
        result = json.loads(process.stdout.strip().splitlines()[-1])
        rate.add(answers / result["seconds"])
        memory.add(result["memory"] / MB)
        path.unlink()
    return [rate, memory]


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--answers", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, temporary_airflow_home():
        figures = [figure for answers in args.answers for figure in measure(Path(folder), answers, args.runs)]
    report("Grading a run", figures, args.json)


if __name__ == "__main__":
    main()
