"""What it takes to prove the custom_ids of a job unique.

    python -m benchmarks.unique_ids [--runs 5] [--json FILE] [--ids 10000000]

10 million custom_ids of 12 letters through `UniqueIds`, to the end of the proof: seconds, and the most memory that the
process ever had, the interpreter included. Anchor: a process that puts a tenth of them into a plain set of strings.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

from benchmarks.measure import MB, Figure, report

#: each way in a process of its own, which ends by saying its seconds and its peak memory in bytes
START = """
import sys, time, os
from benchmarks.measure import memory
ids = (f"row-{number:08d}" for number in range(int(sys.argv[1])))
began = time.perf_counter()
"""
END = """
print(time.perf_counter() - began, memory(os.getpid())[1])
"""
PROOF = """
from airflow_provider_batch.core.sealing.unique import UniqueIds
unique = UniqueIds()
for custom_id in ids:
    unique.add(custom_id)
assert unique.find_repeated(lambda: []) is None
"""
SET = """
seen = set()
for custom_id in ids:
    assert custom_id not in seen
    seen.add(custom_id)
"""


def run(code: str, count: int) -> tuple[float, float]:
    """Seconds and MB that one way takes for so many custom_ids."""
    command = [sys.executable, "-c", START + code + END, str(count)]
    seconds, peak = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    return float(seconds), int(peak) / MB


def proving(runs: int, count: int) -> list[Figure]:
    """The proof beside the set."""
    few = count // 10
    took = Figure(f"{count:,} custom_ids proven unique", "s", anchor=f"a set of {few:,} strings")
    peak = Figure("  most memory of the process", "MB", anchor=f"a set of {few:,} strings")
    for _ in range(runs):
        seconds, megabytes = run(PROOF, count)
        set_seconds, set_megabytes = run(SET, few)
        took.add(seconds, set_seconds)
        peak.add(megabytes, set_megabytes)
    return [took, peak]


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--json", type=Path, help="write the figures here too")
    parser.add_argument("--ids", type=int, default=10_000_000)
    args = parser.parse_args()
    report("Unique custom_ids", proving(args.runs, args.ids), args.json)


if __name__ == "__main__":
    main()
