"""Time and memory to prove that the custom_ids of a job are unique.

    python -m benchmarks.unique_ids [--runs 5] [--json FILE] [--ids 10000000]

`UniqueIds` checks 10 million custom_ids of 12 characters. Measured are the seconds and the peak memory of the process,
including the interpreter. Anchor: a process that adds a tenth of the custom_ids to a plain set of strings.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

from benchmarks.measure import MB, Figure, report

#: each program runs in a separate process and prints its seconds and its peak memory in bytes
START = """
import sys, time, os
from benchmarks.measure import read_memory
ids = (f"row-{number:08d}" for number in range(int(sys.argv[1])))
start = time.perf_counter()
"""
END = """
print(time.perf_counter() - start, read_memory(os.getpid())[1])
"""
PROOF = """
from airflow_provider_batch.core.sealing.unique import UniqueIds
unique = UniqueIds()
unique.add_all(ids)
assert unique.find_repeated(lambda: []) is None
"""
SET = """
unique = set()
for custom_id in ids:
    assert custom_id not in unique
    unique.add(custom_id)
"""


def run(code: str, count: int) -> tuple[float, float]:
    """Run a program with `count` custom_ids. Return its seconds and its peak memory in MB."""
    command = [sys.executable, "-c", START + code + END, str(count)]
    seconds, peak = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    return float(seconds), int(peak) / MB


def measure(runs: int, count: int) -> list[Figure]:
    """Measure the proof for `count` custom_ids and the set for a tenth of them."""
    set_size = count // 10
    duration = Figure(f"{count:,} custom_ids proven unique", "s", anchor=f"a set of {set_size:,} strings")
    peak = Figure("  peak memory of the process", "MB", anchor=f"a set of {set_size:,} strings")
    for _ in range(runs):
        seconds, megabytes = run(PROOF, count)
        set_seconds, set_megabytes = run(SET, set_size)
        duration.add(seconds, set_seconds)
        peak.add(megabytes, set_megabytes)
    return [duration, peak]


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    parser.add_argument("--ids", type=int, default=10_000_000)
    args = parser.parse_args()
    report("Unique custom_ids", measure(args.runs, args.ids), args.json)


if __name__ == "__main__":
    main()
