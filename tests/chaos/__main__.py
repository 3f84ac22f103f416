"""Play rounds of chaos, and exit with 1 if one of them violated an invariant.

python -m tests.chaos [--rounds 500] [--first 0]
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from tests.chaos.rounds import play


def main() -> None:
    """Play the rounds of the command line and report the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=500)
    parser.add_argument("--first", type=int, default=0, help="number of the first round")
    parser.add_argument("--keep", type=Path, help="new folder in which the files of the rounds are kept")
    args = parser.parse_args()
    rounds = range(args.first, args.first + args.rounds)
    with tempfile.TemporaryDirectory() as folder:
        total = play(rounds, args.keep or Path(folder))
    if total.violations:
        raise SystemExit(f"Invariants were violated: {total.violations}")


if __name__ == "__main__":
    main()
