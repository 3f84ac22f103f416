"""The reference in the docs has no gaps: it shows every public name, and describes every argument."""

from __future__ import annotations

import importlib
import inspect
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_batch.core.documentation import SITE
from airflow_provider_batch.get_provider_info import get_provider_info
from tests.test_public_surface import SURFACE

DOCS = Path(__file__).parents[1] / "docs"
PAGES = sorted((DOCS / "reference").glob("*.md"))
REFERENCE = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
#: modules and objects that the reference shows, with the options of the directive
SHOWN = dict(re.findall(r"^\.\. auto\w+:: ([\w.]+)\n((?:   :.*\n)*)", REFERENCE, re.MULTILINE))

#: (module, name) of everything that a DAG or a test may import
PUBLIC_NAMES = [(module, name) for module, names in SURFACE.items() for name in names]
#: names whose arguments Airflow or pytest pass, and not an author
PASSED_BY_FRAMEWORKS = frozenset(
    {"BatchTrigger", "batch_server", "connect_batch_server", "offline_batches", "start_batch_server"}
)
#: arguments that stand for those of other functions, or that no author passes
UNNAMED = frozenset({"self", "args", "arguments", "kwargs", "options", "python_callable", "unknown"})


def argument_names(subject: Any) -> list[str]:
    """Return the names of the arguments that an author passes."""
    try:
        parameters = inspect.signature(getattr(subject, "function", subject)).parameters
    except ValueError:  # a TypedDict
        return []
    return [name for name in parameters if name not in UNNAMED]


@pytest.mark.parametrize(("module", "name"), PUBLIC_NAMES)
def test_the_reference_shows_every_public_name(module: str, name: str) -> None:
    assert f"{module}.{name}" in SHOWN or ":members:" in SHOWN.get(module, "")


@pytest.mark.parametrize(
    ("module", "name"),
    [
        (module, name)
        for module, name in PUBLIC_NAMES
        if name not in PASSED_BY_FRAMEWORKS and not module.endswith(("exceptions", "testing"))
    ],
)
def test_every_argument_is_described(module: str, name: str) -> None:
    subject = getattr(importlib.import_module(module), name)
    docstring = inspect.getdoc(getattr(subject, "function", subject)) or ""

    assert set(argument_names(subject)) - set(re.findall(r":param (\w+):", docstring)) == set()


def test_a_page_outside_the_reference_explains_every_public_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path, str(DOCS / "_extensions")])
    index = importlib.import_module("names")

    page = (DOCS / "reference" / "index-of-names.md").read_text("utf-8")
    lines = page.partition("```{names}\n")[2].partition("```")[0].splitlines()

    pages = index.explaining_pages(lines)

    assert {"prompt", "deadline", "poll_interval", "sealed_at", "max_unanswered"} <= pages.keys()
    with pytest.raises(ValueError, match="no page is listed for page_staging"):
        index.explaining_pages([line for line in lines if "page_staging" not in line])
    with pytest.raises(ValueError, match="start/install does not explain variant"):
        index.explaining_pages([*lines, "start/install: variant"])


def test_every_option_has_a_description_a_type_and_a_default() -> None:
    options = get_provider_info()["config"]["openai_batch"]["options"]

    assert "{configuration}" in REFERENCE
    for name, option in options.items():
        assert option["description"].endswith("."), name
        assert option["type"], name
        assert option["default"] is not None, name


def test_the_pages_and_the_logo_that_airflow_links_to_exist() -> None:
    (integration,) = get_provider_info()["integrations"]

    for address in (integration["logo"], *integration["how-to-guide"]):
        path = address.removeprefix(integration["external-doc-url"]).replace(".html", ".md")
        assert (DOCS / path).is_file(), address


def test_logs_and_errors_link_to_the_same_site() -> None:
    (integration,) = get_provider_info()["integrations"]

    assert integration["external-doc-url"] == SITE


def test_every_page_that_the_code_names_exists() -> None:
    sources = [path.read_text("utf-8") for path in (DOCS.parent / "airflow_provider_batch").rglob("*.py")]
    named = {
        name for text in sources for name in re.findall(r"\bdocs/([\w/-]+)\.md|docs_page\([\"']([\w/-]+)[\"']\)", text)
    }

    assert len(named) > 10
    assert {page for names in named for page in names if page and not (DOCS / f"{page}.md").is_file()} == set()


def test_every_error_code_has_a_description(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(DOCS / "_extensions"))
    codes = importlib.import_module("row_codes").row_codes()
    page = (DOCS / "reference" / "error-codes.md").read_text(encoding="utf-8")
    table = page.partition("```{row-codes}")[2].partition("```")[0]
    described = [line.split(": ", 1) for line in table.strip().splitlines()]

    assert {"empty", "file_missing", "held", "http_*", "storage", "request_timeout"} < codes
    assert {code for code, _ in described} == codes
    assert [code for code, text in described if text.count(" | ") != 2] == []
