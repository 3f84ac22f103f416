"""python -m tests.chaos [--rounds 500] [--first 0]: play rounds of chaos, count; exit code 1 if one count is not 0."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from tests.chaos.rounds import play


def main() -> None:
    """Play and judge."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=500)
    parser.add_argument("--first", type=int, default=0, help="number of the first round")
    parser.add_argument("--keep", type=Path, help="a new folder for what the rounds leave behind")
    args = parser.parse_args()
    rounds = range(args.first, args.first + args.rounds)
    with tempfile.TemporaryDirectory() as folder:
        total = play(rounds, args.keep or Path(folder))
    if total.bad:
        raise SystemExit(f"Rows were lost, doubled or paid twice: {total.bad}")


if __name__ == "__main__":
    main()
