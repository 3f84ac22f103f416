"""Run jobs on several machines while parts of the cluster die, and exit with 1 if anything was lost or paid for twice.

python -m tests.cluster [--only triggerer] [--jobs 200]   # --only none plays no death, --jobs 0 starts no mapped jobs
"""

from __future__ import annotations

import argparse
import signal
import tempfile
import time
from pathlib import Path

from tests.cluster.cluster import Cluster
from tests.cluster.deaths import DEATHS, create_tickets, play
from tests.cluster.fan_out import fan_out
from tests.cluster.refusal import check_refusal


def main() -> None:
    """Play the deaths of the command line and report the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="play only the deaths whose label contains this text")
    parser.add_argument("--jobs", type=int, default=200, help="number of mapped jobs that share a pool of 20")
    parser.add_argument("--keep", type=Path, help="new folder in which the files of all machines are kept")
    args = parser.parse_args()
    for number in (signal.SIGINT, signal.SIGTERM):
        # The machines have sessions of their own, so only leaving the block of the cluster ends them.
        signal.signal(number, signal.default_int_handler)
    with tempfile.TemporaryDirectory() as folder:
        if args.keep:
            args.keep.mkdir(parents=True)
        run(args.keep or Path(folder), args.only, args.jobs)


def run(folder: Path, only: str, jobs: int) -> None:
    """Start the cluster, play the deaths and stop it.

    :raises SystemExit: if an account does not hold.
    """
    began = time.monotonic()
    with Cluster(folder, jobs) as cluster:
        print(f"The cluster runs after {time.monotonic() - began:.0f} s.", flush=True)
        create_tickets(cluster)
        labels = ["nothing", *(label for label in DEATHS if label != "nothing" and only in label)]
        accounts = {label: play(cluster, number, label) for number, label in enumerate(labels)}
        check_refusal(cluster)
        if jobs:
            accounts["fan-out"] = fan_out(cluster, jobs)
    print(f"Everything was stopped after {time.monotonic() - began:.0f} s.", flush=True)
    broken = [label for label, account in accounts.items() if not account.holds]
    if broken:
        raise SystemExit(f"Rows were lost, or paid for twice: {', '.join(broken)}")


if __name__ == "__main__":
    main()
