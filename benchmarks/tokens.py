"""Speed and accuracy of the token estimate, compared with tiktoken.

    python -m benchmarks.tokens [--runs 5] [--json FILE]

* Speed of the estimate for texts of 1,000 characters (a row) and of 100,000 characters. Anchor: tiktoken counting the
  same texts.
* Ratio of estimated to true tokens of the same texts.

The texts are the descriptions of the installed packages, Python's standard library and the demo's tickets. The
comparison needs tiktoken with its vocabulary in its cache (`TIKTOKEN_CACHE_DIR`), because the benchmark downloads
nothing. Without it the benchmark shows only the speed of the estimate.
"""

from __future__ import annotations

import argparse
import json as jsonlib
import sysconfig
from collections.abc import Callable
from functools import partial
from importlib.resources import files
from pathlib import Path

from airflow_provider_batch.core.tokens.counter import tokenizer
from airflow_provider_batch.core.tokens.estimate import Encoding, estimate_tokens
from benchmarks.measure import MB, Figure, measure_time, report


def read_text(kind: str) -> str:
    """Return about 1 MB of real text, or all text of this kind if there is less."""
    if kind == "tickets":
        lines = files("airflow_provider_batch.demo").joinpath("tickets.jsonl").read_text(encoding="utf-8").splitlines()
        tickets = [jsonlib.loads(line) for line in lines]
        return "\n".join(f"{ticket['title']}\n{ticket['body']}" for ticket in tickets)
    if kind == "Python":
        paths = sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))
    else:
        paths = sorted(Path(sysconfig.get_path("purelib")).glob("*.dist-info/METADATA"))
    texts: dict[str, None] = {}
    for path in paths:
        texts.setdefault(path.read_text(encoding="utf-8", errors="replace"))
        if sum(map(len, texts)) > MB:
            break
    return "\n".join(texts)


def split(text: str, size: int) -> list[str]:
    """Split a text into pieces of `size` characters. The last piece may be shorter."""
    return [text[start : start + size] for start in range(0, len(text), size)]


def time_count(count: Callable[[str], int], texts: list[str]) -> tuple[float, int]:
    """Count the tokens of all texts. Return the seconds that it takes and the number of tokens."""
    with measure_time() as timer:
        tokens = sum(map(count, texts))
    return timer.seconds, tokens


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    args = parser.parse_args()
    figures = []
    for kind in ("descriptions", "Python", "tickets"):
        text = read_text(kind)
        for encoding in Encoding:
            count_tokens = tokenizer(encoding)
            for size in (1_000, 100_000):
                texts = split(text, size)
                megabytes = sum(len(piece.encode()) for piece in texts) / MB
                speed = Figure(
                    f"{kind}, pieces of {size:,}, {encoding}", "MB/s", anchor="tiktoken" if count_tokens else ""
                )
                accuracy = Figure("  estimated tokens", "", anchor="true tokens")
                for _ in range(args.runs):
                    seconds, estimated_tokens = time_count(partial(estimate_tokens, encoding=encoding), texts)
                    if count_tokens is None:
                        speed.add(megabytes / seconds)
                        continue
                    anchor_seconds, true_tokens = time_count(count_tokens, texts)
                    speed.add(megabytes / seconds, megabytes / anchor_seconds)
                    accuracy.add(estimated_tokens, true_tokens)
                figures += [speed, accuracy] if accuracy.values else [speed]
    report("The token estimate compared with tiktoken", figures, args.json)


if __name__ == "__main__":
    main()
