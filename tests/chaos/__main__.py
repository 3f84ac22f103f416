"""Play rounds of chaos, and exit with 1 if one of them violated an invariant.

python -m tests.chaos [--rounds 500] [--first 0] [--budgets]
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from tests.chaos.budgets import play_budgets
from tests.chaos.rounds import play


def main() -> None:
    """Play the rounds of the command line and report the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=500)
    parser.add_argument("--first", type=int, default=0, help="number of the first round")
    parser.add_argument("--keep", type=Path, help="new folder in which the files of the rounds are kept")
    parser.add_argument("--budgets", action="store_true", help="play rounds in which jobs share a budget")
    args = parser.parse_args()
    rounds = range(args.first, args.first + args.rounds)
    with tempfile.TemporaryDirectory() as folder:
        kept = args.keep or Path(folder)
        total = play_budgets(rounds, kept) if args.budgets else play(rounds, kept)
    if total.violations:
        raise SystemExit(f"Invariants were violated: {total.violations}")


if __name__ == "__main__":
    main()
