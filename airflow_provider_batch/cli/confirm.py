"""Asks a person to confirm what a command is about to do."""

from __future__ import annotations

import argparse
import sys


def confirm(question: str, arguments: argparse.Namespace) -> bool:
    """Return whether the person agrees, on the terminal or with the option `--yes`."""
    if arguments.yes:
        return True
    if not sys.stdin.isatty():
        print("Nothing was done. Pass --yes to confirm without a terminal.", file=sys.stderr)
        return False
    if input(f"{question} [y/N] ").strip().lower() in ("y", "yes"):
        return True
    print("Nothing was done.")
    return False
