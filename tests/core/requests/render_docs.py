"""Renders the tables in `docs/how-to/body-parameters.md`: `python -m tests.core.requests.render_docs`."""

from __future__ import annotations

import re
from pathlib import Path

from airflow_provider_batch.core.requests.body_parameters import PARAMETERS
from tests.core.lifecycle.render_docs import table

PAGE = Path(__file__).parents[3] / "docs" / "how-to" / "body-parameters.md"
BLOCK = re.compile(r"(<!-- rendered -->\n).*?(<!-- end -->)", re.DOTALL)


def tables() -> str:
    """Return a table for each endpoint."""
    parts = []
    for path, parameters in PARAMETERS.items():
        rows = [(f"`{key}`", parameter.effect) for key, parameter in parameters.items()]
        parts.append(f"## {path}\n\n{table(('parameter', 'what happens'), rows)}\n")
    return "\n".join(parts)


def render(page: str) -> str:
    """Return the page with the current tables."""
    return BLOCK.sub(lambda block: f"{block[1]}\n{tables()}\n{block[2]}", page)


if __name__ == "__main__":
    PAGE.write_text(render(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
