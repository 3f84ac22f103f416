"""What all benchmarks share: figures measured in several runs, a table of their medians, and the same as JSON."""

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

import psutil
from rich.console import Console
from rich.table import Table

from benchmarks.airflow_home import temporary_airflow_home

MB = 1_000_000


@dataclass
class Figure:
    """A measured quantity: its value in each run and the value of its anchor, which it is compared with."""

    name: str
    unit: str
    #: value in each run
    values: list[float] = field(default_factory=list)
    #: what the quantity is compared with; empty if with nothing
    anchor: str = ""
    #: value of the anchor in each run
    anchor_values: list[float] = field(default_factory=list)
    #: whether a smaller value is better; the ratio then says how many times the anchor's value is as large
    is_cost: bool = False
    #: target: the ratio to the anchor must be at least this
    min_ratio: float | None = None
    #: target: the median must be at most this
    max_median: float | None = None

    def add(self, value: float, anchor_value: float | None = None) -> None:
        """Add the values of a run."""
        self.values.append(value)
        if anchor_value is not None:
            self.anchor_values.append(anchor_value)

    @property
    def median(self) -> float:
        """Median of all runs."""
        return statistics.median(self.values)

    @property
    def anchor_median(self) -> float | None:
        """Median of the anchor in all runs; None without an anchor."""
        return statistics.median(self.anchor_values) if self.anchor_values else None

    @property
    def ratio(self) -> float | None:
        """Median over all runs of the value divided by the anchor's value in the same run; None without an anchor.

        For a cost it is the anchor's value divided by the value, so that a larger ratio is always better.
        """
        if not self.anchor_values:
            return None
        pairs = zip(self.values, self.anchor_values, strict=True)
        return statistics.median(
            anchor_value / value if self.is_cost else value / anchor_value for value, anchor_value in pairs
        )

    @property
    def target_met(self) -> bool | None:
        """Whether the figure reaches its target; None if it has no target."""
        if self.min_ratio is not None:
            return self.ratio is not None and self.ratio >= self.min_ratio
        return None if self.max_median is None else self.median <= self.max_median

    @property
    def verdict(self) -> str:
        """The target and whether it is met, for the table; empty if there is no target."""
        if self.target_met is None:
            return ""
        target = f"≥ {self.min_ratio:g}x" if self.min_ratio is not None else f"≤ {self.max_median:g} {self.unit}"
        return f"{target} {'met' if self.target_met else 'MISSED'}"


class Timer:
    """Wall time of a block; 0 until the block ends."""

    seconds = 0.0


@contextmanager
def measure_time() -> Iterator[Timer]:
    """Measure the wall time of a block."""
    timer = Timer()
    start = time.perf_counter()
    yield timer
    timer.seconds = time.perf_counter() - start


def read_memory(pid: int) -> tuple[int, int]:
    """Return the resident memory of a process and its peak so far, in bytes. Linux only."""
    status = Path(f"/proc/{pid}/status").read_text()
    current, peak = (re.search(rf"{name}:\s+(\d+) kB", status) for name in ("VmRSS", "VmHWM"))
    assert current is not None
    assert peak is not None
    return int(current[1]) * 1024, int(peak[1]) * 1024


def read_cpu(pid: int) -> float:
    """Return the CPU seconds that a process and all its descendants have used so far, including those that ended."""
    while True:
        try:
            descendants = psutil.Process(pid).children(recursive=True)
            return sum(sum(process.cpu_times()[:4]) for process in (psutil.Process(pid), *descendants))
        except psutil.NoSuchProcess:
            if not psutil.pid_exists(pid):
                raise
            # A descendant has just ended, so its time is now part of its parent's.


def report(title: str, figures: list[Figure], json_path: Path | None) -> None:
    """Print the figures as a table. If a path is given, also write them there as JSON."""
    table = Table(title=title)
    for column in ("measurement", "median", "min", "max", "runs", "ratio", "compared with", "its median", "target"):
        is_text = column in ("measurement", "compared with", "target")
        table.add_column(column, justify="left" if is_text else "right")
    for figure in figures:
        table.add_row(
            figure.name,
            *(_format(value, figure.unit) for value in (figure.median, min(figure.values), max(figure.values))),
            str(len(figure.values)),
            "" if figure.ratio is None else f"{figure.ratio:.2f}x",
            figure.anchor,
            _format(figure.anchor_median, figure.unit),
            figure.verdict,
        )
    Console(width=170).print(table)
    if json_path is not None:
        json_path.parent.mkdir(parents=True, exist_ok=True)
        rows = [
            {
                **asdict(figure),
                "median": figure.median,
                "anchor_median": figure.anchor_median,
                "ratio": figure.ratio,
                "target_met": figure.target_met,
            }
            for figure in figures
        ]
        json_path.write_text(json.dumps({"title": title, "figures": rows}, indent=2) + "\n")


def _format(value: float | None, unit: str) -> str:
    return "" if value is None else f"{value:,.{0 if value >= 1000 else 2}f} {unit}"


def run_for_sizes(
    title: str, description: str | None, option: str, choices: Sequence[str], measure: Callable[..., list[Figure]]
) -> None:
    """Run a benchmark from the command line, once for each choice and number of rows, and report its figures.

    :param description: text that `--help` prints.
    :param option: name of the option that selects from `choices`.
    :param measure: called with a choice, a number of rows, a number of runs and a temporary folder.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument(option, nargs="+", choices=choices, default=list(choices), dest="selection")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, temporary_airflow_home():
        figures = [
            figure
            for rows in args.rows
            for choice in args.selection
            for figure in measure(choice, rows, args.runs, Path(folder))
        ]
    report(title, figures, args.json)
