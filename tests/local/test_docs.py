"""The code and the tables in docs/how-to/local-server.md match the server."""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest

from airflow_provider_batch.local.command import add_arguments
from airflow_provider_batch.local.dialects import DIALECTS, SWITCHES
from airflow_provider_batch.local.faults import Call, Fault, Kind, read_faults

PAGE = (Path(__file__).parents[2] / "docs" / "how-to" / "local-server.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    """Return the code blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, flags=re.DOTALL | re.MULTILINE)


def test_the_python_code_of_the_page_runs() -> None:
    (source,) = blocks("python")

    result = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, timeout=120, check=False)

    assert result.returncode == 0, result.stderr
    assert "offline-responder/gpt-5-mini" in result.stdout


def test_the_faults_of_the_page_are_valid() -> None:
    (plan,) = blocks("json")

    assert len(read_faults(plan.encode())) == 5


@pytest.mark.parametrize(
    "names",
    [Kind, Call, Fault.__struct_fields__, DIALECTS, SWITCHES],
    ids=["kinds", "calls", "fields", "dialects", "switches"],
)
def test_the_page_lists_every_fault_call_dialect_and_switch(names: Iterable[object]) -> None:
    expected = {str(name) for name in names} - {"openai", "kind"}
    assert {name for name in expected if f"`{name}`" not in PAGE} == set()


def test_the_commands_of_the_page_use_existing_options() -> None:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    options = {flag for action in parser._actions for flag in action.option_strings}

    assert set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", PAGE)) - options == set()
    for block in blocks("console"):
        for command in block.splitlines():
            words = command.split()
            if words[:2] == ["airflow-batch", "serve"]:
                parser.parse_args(words[2:])


def test_the_links_of_the_page_lead_to_headings() -> None:
    headings = {
        re.sub(r"[^\w -]", "", line[3:]).lower().replace(" ", "-")
        for line in PAGE.split(os.linesep)
        if line.startswith("## ")
    }

    assert set(re.findall(r"\]\(#([^)]+)\)", PAGE)) <= headings
