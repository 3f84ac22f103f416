"""The public names of the package, and the page outside the reference that explains each of them."""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Iterable
from functools import cache
from pathlib import Path

from airflow_provider_batch.core.landing.columns import FIXED_COLUMNS
from airflow_provider_batch.get_provider_info import get_provider_info
from airflow_provider_batch.task_groups import JOB_ARGUMENTS

DOCS = Path(__file__).parents[1]
#: the public modules whose names take arguments of an author, besides `batch_job`
MODULES = (
    "airflow_provider_batch.operators.batch",
    "airflow_provider_batch.sensors.batch",
    "airflow_provider_batch.hooks.batch",
    "airflow_provider_batch.notifications",
    "airflow_provider_batch.presets",
    "airflow_provider_batch.operators.evals",
)
#: arguments that stand for those of other functions
UNNAMED = frozenset({"self", "args", "kwargs", "unknown"})
#: minimum number of words, without code, of a text that explains a name
MIN_WORDS = 5


def names() -> dict[str, list[str]]:
    """Return the names of arguments, options and columns, each with what it belongs to."""
    owners: dict[str, list[str]] = {}
    for module in map(importlib.import_module, MODULES):
        for owner in module.__all__:
            for name in inspect.signature(getattr(module, owner)).parameters:
                if name not in UNNAMED:
                    owners.setdefault(name, []).append(f"`{owner}`")
    for name in JOB_ARGUMENTS:
        owners.setdefault(name, []).append("`batch_job`")
    for name in get_provider_info()["config"]["openai_batch"]["options"]:
        owners.setdefault(name, []).append("the configuration")
    for column in FIXED_COLUMNS:
        owners.setdefault(column.name, []).append("the results table")
    return dict(sorted(owners.items()))


@cache
def _texts() -> dict[str, list[str]]:
    """Return the paragraphs, items and table rows of each page outside the reference, without code blocks."""
    texts = {}
    for page in sorted(DOCS.glob("*/*.md")):
        if page.parent.name != "reference":
            prose = re.sub(r"^( *)```.*?^\1```$", "", page.read_text("utf-8"), flags=re.DOTALL | re.MULTILINE)
            texts[f"{page.parent.name}/{page.stem}"] = re.split(r"\n\s*\n|\n(?=\s*[*|] ?)", prose)
    return texts


def explains(page: str, name: str) -> bool:
    """Return whether a page says something about a name."""
    code = re.compile(rf"`[^`\n]*(?<![\w.-]){re.escape(name)}(?!\w)[^`\n]*`")
    return any(
        code.search(text) and len(re.findall(r"[A-Za-z]{2,}", re.sub(r"`[^`]*`", "", text))) >= MIN_WORDS
        for text in _texts().get(page, [])
    )


def explaining_pages(lines: Iterable[str]) -> dict[str, str]:
    """Return the page that explains each name.

    :param lines: `page: name name …`, as the index has them.
    :raises ValueError: if a name is missing, listed twice or unknown, or if its page does not explain it.
    """
    pages: dict[str, str] = {}
    problems = []
    for line in filter(str.strip, lines):
        page, _, listed = line.partition(":")
        for name in listed.split():
            if name in pages:
                problems.append(f"{name} is listed twice")
            pages[name] = page.strip()
            if not explains(pages[name], name):
                problems.append(f"{pages[name]} does not explain {name}")
    problems += [f"no page is listed for {name}" for name in sorted(names().keys() - pages.keys())]
    problems += [f"{name} is not a public name" for name in sorted(pages.keys() - names().keys())]
    if problems:
        raise ValueError(f"The index of names: {'; '.join(problems)}.")
    return pages


def page_title(page: str) -> str:
    """Return the title of a page."""
    return (DOCS / f"{page}.md").read_text("utf-8").partition("\n")[0].removeprefix("# ")
