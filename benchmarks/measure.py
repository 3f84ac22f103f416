"""What every benchmark here does: several runs, medians, a table for people and JSON for machines."""

from __future__ import annotations

import argparse
import json
import re
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.airflow_home import airflow_home

MB = 1_000_000


@dataclass
class Figure:
    """One measured thing: its value in each run, and that of its anchor in the same run."""

    name: str
    unit: str
    runs: list[float] = field(default_factory=list)
    anchor: str = ""
    anchor_runs: list[float] = field(default_factory=list)
    #: the target: a ratio to the anchor of at least this, or a value of at most this
    least: float | None = None
    most: float | None = None

    def add(self, value: float, anchor: float | None = None) -> None:
        """One run."""
        self.runs.append(value)
        if anchor is not None:
            self.anchor_runs.append(anchor)

    @property
    def median(self) -> float:
        """The median of all runs."""
        return statistics.median(self.runs)

    @property
    def ratio(self) -> float | None:
        """The median of value / anchor, run by run."""
        if not self.anchor_runs:
            return None
        return statistics.median(mine / its for mine, its in zip(self.runs, self.anchor_runs, strict=True))

    @property
    def met(self) -> bool | None:
        """Whether the target is met; None if there is none."""
        if self.least is not None:
            return self.ratio is not None and self.ratio >= self.least
        return None if self.most is None else self.median <= self.most

    @property
    def judged(self) -> str:
        """The target and whether it is met, for the table; empty if there is none."""
        if self.met is None:
            return ""
        target = f"≥ {self.least:g}x" if self.least is not None else f"≤ {self.most:g} {self.unit}"
        return f"{target} {'met' if self.met else 'MISSED'}"


class Clock:
    """Seconds that a block took."""

    seconds = 0.0


@contextmanager
def timed() -> Iterator[Clock]:
    """Measure the wall time of a block."""
    clock = Clock()
    began = time.perf_counter()
    yield clock
    clock.seconds = time.perf_counter() - began


def memory(pid: int) -> tuple[int, int]:
    """Bytes of resident memory of a process: now, and the most it ever had. Linux only."""
    status = Path(f"/proc/{pid}/status").read_text()
    now, peak = (re.search(rf"{name}:\s+(\d+) kB", status) for name in ("VmRSS", "VmHWM"))
    assert now is not None
    assert peak is not None
    return int(now[1]) * 1024, int(peak[1]) * 1024


def report(title: str, figures: list[Figure], json_path: Path | None) -> None:
    """Print a table, and write JSON if a path is given."""
    table = Table(title=title)
    for column in ("what", "median", "lowest", "highest", "runs", "ratio", "to", "target"):
        table.add_column(column, justify="left" if column in ("what", "to", "target") else "right")
    for figure in figures:
        table.add_row(
            figure.name,
            *(
                f"{value:,.{0 if value >= 1000 else 2}f} {figure.unit}"
                for value in (figure.median, min(figure.runs), max(figure.runs))
            ),
            str(len(figure.runs)),
            "" if figure.ratio is None else f"{figure.ratio:.2f}x",
            figure.anchor,
            figure.judged,
        )
    Console(width=150).print(table)
    if json_path is not None:
        json_path.parent.mkdir(parents=True, exist_ok=True)
        rows = [
            {**asdict(figure), "median": figure.median, "ratio": figure.ratio, "met": figure.met} for figure in figures
        ]
        json_path.write_text(json.dumps({"title": title, "figures": rows}, indent=2) + "\n")


def report_sizes(
    title: str, description: str | None, option: str, choices: Sequence[str], measure: Callable[..., list[Figure]]
) -> None:
    """The command line of a benchmark that measures each choice at several numbers of rows.

    :param description: what `--help` prints.
    :param option: the name of the option that takes some of `choices`.
    :param measure: called with a choice, a number of rows, a number of runs and a temporary folder.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument(option, nargs="+", choices=choices, default=list(choices), dest="chosen")
    parser.add_argument("--json", type=Path, help="write the figures here too")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, airflow_home():
        figures = [
            figure
            for rows in args.rows
            for choice in args.chosen
            for figure in measure(choice, rows, args.runs, Path(folder))
        ]
    report(title, figures, args.json)
