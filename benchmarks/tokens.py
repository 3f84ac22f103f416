"""How fast and how near the estimate of tokens is, beside tiktoken.

    python -m benchmarks.tokens [--runs 5] [--json FILE]

* The estimate of texts of 1,000 characters (a row) and of 100,000. Anchor: tiktoken counting the same texts.
* Estimated over true tokens of the same texts.

The texts are the descriptions of the installed packages, Python's standard library, and the demo's tickets. Needs
tiktoken with its vocabulary in its cache (`TIKTOKEN_CACHE_DIR`); nothing is fetched. Without it only the estimate's
speed is shown.
"""

from __future__ import annotations

import argparse
import json as jsonlib
import sysconfig
from collections.abc import Callable
from functools import partial
from importlib.resources import files
from pathlib import Path

from airflow_provider_batch.core.tokens.estimate import Encoding, estimate_tokens
from airflow_provider_batch.core.tokens.tiktoken_counter import tokenizer
from benchmarks.measure import MB, Figure, report, timed


def texts_of(kind: str) -> str:
    """About 1 MB of real text, or all there is of it."""
    if kind == "tickets":
        lines = files("airflow_provider_batch.demo").joinpath("tickets.jsonl").read_text(encoding="utf-8").splitlines()
        tickets = [jsonlib.loads(line) for line in lines]
        return "\n".join(f"{ticket['title']}\n{ticket['body']}" for ticket in tickets)
    if kind == "Python":
        paths = sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))
    else:
        paths = sorted(Path(sysconfig.get_path("purelib")).glob("*.dist-info/METADATA"))
    found: dict[str, None] = {}
    for path in paths:
        found.setdefault(path.read_text(encoding="utf-8", errors="replace"))
        if sum(map(len, found)) > MB:
            break
    return "\n".join(found)


def pieces(text: str, size: int) -> list[str]:
    """The text cut into pieces of so many characters."""
    return [text[start : start + size] for start in range(0, len(text), size)]


def seconds_of(count: Callable[[str], int], texts: list[str]) -> tuple[float, int]:
    """Seconds that counting takes, and the tokens."""
    with timed() as took:
        tokens = sum(map(count, texts))
    return took.seconds, tokens


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--json", type=Path, help="write the figures here too")
    args = parser.parse_args()
    figures = []
    for kind in ("descriptions", "Python", "tickets"):
        text = texts_of(kind)
        for encoding in Encoding:
            true = tokenizer(encoding)
            for size in (1_000, 100_000):
                texts = pieces(text, size)
                megabytes = sum(len(one.encode()) for one in texts) / MB
                speed = Figure(f"{kind}, pieces of {size:,}, {encoding}", "MB/s", anchor="tiktoken" if true else "")
                near = Figure("  estimated tokens", "", anchor="true tokens")
                for _ in range(args.runs):
                    took, estimated = seconds_of(partial(estimate_tokens, encoding=encoding), texts)
                    if true is None:
                        speed.add(megabytes / took)
                        continue
                    counting, counted = seconds_of(true, texts)
                    speed.add(megabytes / took, megabytes / counting)
                    near.add(estimated, counted)
                figures += [speed, near] if near.runs else [speed]
    report("Tokens: the estimate beside tiktoken", figures, args.json)


if __name__ == "__main__":
    main()
